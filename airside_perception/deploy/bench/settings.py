"""How a network is fed and timed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from airside_perception.errors import ConfigError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class InputSettings:
    """How a network is opened and what it is fed.

    Attributes:
        shapes: {input: shape}; those that are not named keep theirs, and where it varies the one
            that the engine was optimised for.
        profile_index: optimisation profile of an engine; None: the first that has the shapes.
        data: `random`, `zeros`, .npz with an array for each input, or images, clouds or a
            recording, whose first is preprocessed as the model card says.
        card: model card; empty: beside the network.
        topic, height, intensity_scale, fixed_frame: as for `deploy.feeds.open_feeds`.
        threads: of ONNX Runtime; 0: as many as there are cores.
        dla_core: core that an engine was built for, -1: none; None: as its manifest says.
        allow_host_code: an engine may bring code that runs on the host.
    """

    shapes: Mapping[str, Shape] = field(default_factory=dict)
    profile_index: int | None = None
    data: str = 'random'
    card: str = ''
    topic: str = ''
    height: float = 0.0
    intensity_scale: float = 1.0
    fixed_frame: str = 'odom'
    threads: int = 0
    dla_core: int | None = None
    allow_host_code: bool = False

    def __post_init__(self) -> None:
        for name, shape in self.shapes.items():
            if not shape or min(shape) < 1:
                raise ConfigError(f'shape of {name!r}: {list(shape)}: expected sizes of 1 or more')
        _at_least('threads', self.threads, 0)
        if self.profile_index is not None:
            _at_least('profile_index', self.profile_index, 0)
        if self.dla_core is not None:
            _at_least('dla_core', self.dla_core, -1)


@dataclass(frozen=True)
class BenchSettings:
    """How long and in which way networks are timed. The defaults are those of trtexec.

    Attributes:
        warm_up_ms: that each network runs before it is timed.
        duration_s: that each network is timed at least.
        iterations: that are timed of each network at least.
        streams: inferences in flight at a time: contexts and streams of a GPU, threads that call
            ONNX Runtime.
        cuda_graph: the network runs as a recorded graph.
        spin_wait: the host asks the GPU again and again, instead of sleeping until it is done.
        transfers: inputs are copied to the GPU and outputs back in every inference.
        turn_ms: how long each of several networks runs before the next has its turn.
    """

    warm_up_ms: float = 200.0
    duration_s: float = 3.0
    iterations: int = 10
    streams: int = 1
    cuda_graph: bool = False
    spin_wait: bool = False
    transfers: bool = True
    turn_ms: float = 100.0

    def __post_init__(self) -> None:
        _at_least('warm_up_ms', self.warm_up_ms, 0)
        _at_least('duration_s', self.duration_s, 0)
        _at_least('iterations', self.iterations, 1)
        _at_least('streams', self.streams, 1)
        _at_least('turn_ms', self.turn_ms, 0)


def _at_least(name: str, value: float, least: int) -> None:
    if not value >= least:
        raise ConfigError(f'{name} = {value}: expected {least} or more')
