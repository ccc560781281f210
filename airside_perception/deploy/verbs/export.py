"""`engine export`: a PyTorch network as ONNX, compared with torch."""

from __future__ import annotations

import argparse

from airside_perception.deploy import external
from airside_perception.deploy.agreement import read_sizes
from airside_perception.deploy.export.examples import read_arrays
from airside_perception.deploy.export.export import OPSET, TOLERANCE, Order, export, write
from airside_perception.deploy.export.exporters import AUTO, EXPORTERS, call_symbolic
from airside_perception.deploy.export.factory import import_torch, load_function, make_module
from airside_perception.deploy.options import add_comparison, add_external_data
from airside_perception.deploy.shapes import read_axes, read_inputs
from airside_perception.deploy.verb import Answer, progress

DESCRIPTION = """\
Exports a PyTorch network to ONNX, sanitizes it, and compares torch with ONNX Runtime on random
and given inputs of several sizes. Needs torch, and onnxscript for its newer exporter.
Exit status 1: the outputs differ (nothing is written then, unless --keep says so), or torch is not
installed here."""
EXAMPLES = """\
engine export --factory nets:make --checkpoint best.pt --input images:1x3x384x640 --out net.onnx
engine export --factory nets:make --input x:1x3x64x96 --dynamic x:0=batch --out net.onnx
engine export --factory nets:make --inputs frame.npz --output-names boxes,scores --out net.onnx
engine export --factory nets:make --symbolic nets:symbolics --exporter torchscript --out net.onnx
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds arguments and options."""
    add = parser.add_argument
    add(
        '--factory', required=True, metavar='MODULE:FUNCTION',
        help='makes the network: an nn.Module, or (module, example inputs); modules of the '
        'current folder are found',
    )  # fmt: skip
    add('--out', required=True, metavar='ONNX', help='network to write')
    add(
        '--checkpoint', default='', metavar='FILE',
        help='handed to the factory if it takes an argument, else loaded into its module',
    )  # fmt: skip
    add('--opset', type=int, default=OPSET, metavar='N', help='%(default)s')
    add(
        '--input', action='append', default=[], metavar='NAME:SHAPE[:TYPE]',
        help='an input, as images:1x3x384x640 or labels:1x20:int64, in the order of the '
        "arguments; may be repeated; default: the factory's examples",
    )  # fmt: skip
    add(
        '--dynamic', action='append', default=[], metavar='INPUT:AXIS=NAME',
        help='an axis that varies, as images:0=batch; several by comma or repeated',
    )  # fmt: skip
    add('--output-names', default='', metavar='NAME,NAME', help="default: torch's")
    add(
        '--symbolic', default='', metavar='MODULE:FUNCTION',
        help='called before the export, with the opset if it takes an argument: registers '
        'symbolics for TorchScript, returns {operator: onnxscript function} for dynamo',
    )  # fmt: skip
    add(
        '--exporter', choices=(AUTO, *EXPORTERS), default=AUTO,
        help='auto: dynamo, and TorchScript where that fails; %(default)s',
    )  # fmt: skip
    add('--inputs', default='', metavar='NPZ', help='arrays by input, to trace and compare with')
    add_comparison(
        parser,
        'sizes at which an axis that varies is compared; default: a batch 1, 2, 3, others as in '
        'the example and twice that',
        TOLERANCE,
    )
    add_external_data(parser)
    add('--keep', action='store_true', help='write the network although its outputs differ')


def run(options: argparse.Namespace) -> Answer:
    """Exports, compares, writes."""
    order = Order(
        inputs=read_inputs(options.input),
        axes=read_axes(options.dynamic),
        arrays=read_arrays(options.inputs) if options.inputs else {},
        outputs=tuple(options.output_names.split(',')) if options.output_names else (),
        opset=options.opset,
        exporter=options.exporter,
        sizes=read_sizes(options.size),
        seed=options.seed,
        tolerance=options.tolerance,
    )
    external.data_file(options.out, options.external_data, 0)
    import_torch()
    factory = load_function('--factory', options.factory)
    module, own = make_module(factory, options.checkpoint, options.factory)
    if options.symbolic:
        hook = load_function('--symbolic', options.symbolic)
        order = order.with_table(call_symbolic(hook, order.opset, options.symbolic))
    with progress() as bar:
        made = export(module, order, own, bar)
    files = []
    if made.good or options.keep:
        files = write(made, options.out, options.external_data)
    table = {'files': [str(path) for path in files], **made.as_dict()}
    head = ', '.join(map(str, files)) or (
        f'{options.out}: not written: the outputs differ from those of torch by more than '
        f'{options.tolerance:g} of their largest value (--keep writes it all the same)'
    )
    return Answer('\n'.join([head, *made.lines()]), table, made.good)
