"""`engine bench`: latency, throughput and power of networks and engines."""

from __future__ import annotations

import argparse

from airside_perception.deploy.bench.settings import BenchSettings, InputSettings
from airside_perception.deploy.options import add_engine, add_preprocessing, add_shape
from airside_perception.deploy.shapes import read_shapes
from airside_perception.deploy.verb import Answer, progress

DESCRIPTION = """\
Times networks (ONNX Runtime on the CPU) and engines (TensorRT) as trtexec does: percentiles of
the latency, throughput, and of an engine the GPU's own time, copies and enqueueing apart. Several
take turns in one run, so that their ratio is right on a busy machine too. Power, temperatures and
clocks come from tegrastats or NVML where they are there.
Exit status 1: an engine, and no GPU or TensorRT here."""
EXAMPLES = """\
engine bench models/apron_centerpoint.onnx
engine bench pointpillars.fp16.gpu.engine --cuda-graph --no-transfers --spin-wait
engine bench yolox.fp16.gpu.engine yolox.int8.dla0.engine --duration 10 --json
engine bench yolox.onnx --shape images:4x3x384x640 --threads 2 --data frames.npz
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds arguments and options."""
    add = parser.add_argument
    plain = BenchSettings()
    add('models', nargs='+', metavar='MODEL_OR_ENGINE', help='.onnx, .engine or .plan')
    add('--warm-up', type=float, default=plain.warm_up_ms, metavar='MS',
        help='before each is timed, %(default)g')  # fmt: skip
    add('--duration', type=float, default=plain.duration_s, metavar='S',
        help='that each is timed at least, %(default)g')  # fmt: skip
    add('--iterations', type=int, default=plain.iterations, metavar='N',
        help='of each at least, %(default)s')  # fmt: skip
    add('--streams', type=int, default=plain.streams, metavar='N',
        help='inferences in flight: streams of a GPU, threads that call ONNX Runtime')  # fmt: skip
    add('--cuda-graph', action='store_true', help='run the engine as a recorded graph')
    add('--spin-wait', action='store_true',
        help='ask the GPU again and again whether it is done, instead of sleeping')  # fmt: skip
    add('--no-transfers', action='store_true', help='inputs and outputs stay on the GPU')
    add('--turn', type=float, default=plain.turn_ms, metavar='MS',
        help='how long each of several runs before the next, %(default)g')  # fmt: skip
    add_input_options(parser)


def add_input_options(parser: argparse.ArgumentParser) -> None:
    """Adds what says how a network is opened and fed."""
    add = parser.add_argument
    add_shape(
        parser, 'of an input that varies; default: what an engine was optimised for, batch 1'
    )
    add('--profile-index', type=int, metavar='N', help='optimisation profile of an engine')
    add('--data', default='random', metavar='SOURCE',
        help='random, zeros, .npz with an array for each input, or images, clouds or a recording: '
        'the first (that has all past sweeps), preprocessed as the model card says')  # fmt: skip
    add_preprocessing(parser)
    add('--threads', type=int, default=0, metavar='N', help='of ONNX Runtime, 0: all cores')
    add_engine(parser)


def input_settings(options: argparse.Namespace) -> InputSettings:
    """What `add_input_options` read."""
    return InputSettings(
        shapes=read_shapes(options.shape),
        profile_index=options.profile_index,
        data=options.data,
        card=options.card,
        topic=options.topic,
        height=options.height,
        intensity_scale=options.intensity_scale,
        fixed_frame=options.fixed_frame,
        threads=options.threads,
        dla_core=options.dla_core,
        allow_host_code=options.allow_host_code,
    )


def run(options: argparse.Namespace) -> Answer:
    """Times what the options name."""
    from airside_perception.deploy.bench.report import describe
    from airside_perception.deploy.bench.run import bench

    settings = BenchSettings(
        warm_up_ms=options.warm_up,
        duration_s=options.duration,
        iterations=options.iterations,
        streams=options.streams,
        cuda_graph=options.cuda_graph,
        spin_wait=options.spin_wait,
        transfers=not options.no_transfers,
        turn_ms=options.turn,
    )
    with progress() as bar:
        found = bench(options.models, settings, input_settings(options), bar)
    return Answer(describe(found), found.as_dict())
