"""How an engine is to be built: checked settings, and the command line that says the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airside_perception.engine.sizes import check_pool, size_text
from airside_perception.errors import ConfigError

Shape = tuple[int, ...]
Profile = Mapping[str, tuple[Shape, Shape, Shape]]
"""{input: (smallest, usual, largest shape)}"""

PRECISIONS = ('fp32', 'fp16', 'int8')
DEVICES = ('gpu', 'dla0', 'dla1')
FORMATS = ('linear', 'hwc8', 'chw2', 'chw16')
"""Layouts of inputs and outputs; all but `linear` are for fp16."""
HARDWARE = ('none', 'ampere_plus', 'same_compute_capability')
LEVELS = range(6)
POOLS = ('dla_sram', 'dla_local_dram', 'dla_global_dram')
"""Settings that are bytes of a memory pool of a DLA core."""
KEEPING = ('timing_cache', 'layer_info')
"""Settings that name files beside the build, and change nothing in the engine."""


@dataclass(frozen=True)
class BuildSettings:
    """How an engine is to be built.

    Attributes:
        precision: fp32, fp16, or int8 (the rest of the network in fp16).
        device: gpu, dla0 or dla1.
        profiles: shapes that the engine is made for, where some vary; in each, every input whose
            shape varies.
        workspace_mb: most working memory, MiB; 0: all there is.
        opt_level: how long TensorRT tries, 0 to 5; None: its own choice.
        timing_cache: file of kernel timings kept from build to build; `auto`: one for this GPU and
            TensorRT in the cache folder; empty: none.
        version_compatible: later versions of TensorRT run it too (it then carries host code).
        hardware_compatible: none, ampere_plus, same_compute_capability.
        dla_strict: the build fails where a layer cannot run on the DLA.
        calibration: scales for int8: a JSON file {tensor: scale} or TensorRT's cache; empty where
            the network has Q/DQ nodes.
        tactic_sources: names of the only libraries that TensorRT may take kernels from; empty: its
            own choice.
        io_formats: {input or output: layout}, `linear` where it is not named.
        io_precision: of inputs and outputs in linear layout, fp32 or fp16.
        tf32: fp32 convolutions may be rounded to TF32.
        layer_precision: {node or pattern with *: fp32 or fp16} of nodes that are computed more
            finely than the rest.
        refit: other weights can be put into the engine later.
        strip: weights that can be put in later are left out; without `refit`, only the same ones
            may come back. The engine does not run until they are put in.
        sparsity: kernels for weights with two zeros in every four may be taken.
        dla_sram, dla_local_dram, dla_global_dram: bytes of these memory pools of the DLA core for
            each of its subgraphs, a power of 2, at least 4 KiB; 0: TensorRT's own.
        layer_info: file for what the engine says of its layers, JSON; empty: none.
    """

    precision: str = 'fp16'
    device: str = 'gpu'
    profiles: tuple[Profile, ...] = ()
    workspace_mb: int = 0
    opt_level: int | None = None
    timing_cache: str | Path = 'auto'
    version_compatible: bool = False
    hardware_compatible: str = 'none'
    dla_strict: bool = False
    calibration: str | Path = ''
    tactic_sources: tuple[str, ...] = ()
    io_formats: Mapping[str, str] = field(default_factory=dict)
    io_precision: str = 'fp32'
    tf32: bool = False
    layer_precision: Mapping[str, str] = field(default_factory=dict)
    refit: bool = False
    strip: bool = False
    sparsity: bool = False
    dla_sram: int = 0
    dla_local_dram: int = 0
    dla_global_dram: int = 0
    layer_info: str | Path = ''

    def __post_init__(self) -> None:
        self._choice('precision', self.precision, PRECISIONS)
        self._choice('device', self.device, DEVICES)
        self._choice('hardware_compatible', self.hardware_compatible, HARDWARE)
        self._choice('io_precision', self.io_precision, ('fp32', 'fp16'))
        for name, layout in self.io_formats.items():
            self._choice(f'io_formats of {name!r}', layout, FORMATS)
        for name, kind in self.layer_precision.items():
            finer = PRECISIONS[: PRECISIONS.index(self.precision)]
            if kind not in finer:
                raise ConfigError(
                    f'layer_precision of {name!r} = {kind!r}: with precision {self.precision} it '
                    f'can be {" or ".join(finer) or "nothing finer"}'
                )
        if self.workspace_mb < 0:
            raise ConfigError(f'workspace_mb = {self.workspace_mb}: expected MiB, 0: all')
        if self.opt_level is not None and self.opt_level not in LEVELS:
            raise ConfigError(f'opt_level = {self.opt_level}: expected 0 to {LEVELS[-1]}')
        if self.calibration and self.precision != 'int8':
            raise ConfigError(
                f'calibration {self.calibration} is for precision int8, not {self.precision}'
            )
        if self.precision == 'fp32' and self.half_io:
            raise ConfigError(
                'inputs or outputs in fp16 (io_precision, or a layout other than linear) need '
                'precision fp16 or int8'
            )
        if self.dla_core >= 0 and self.precision == 'fp32':
            raise ConfigError('a DLA core computes in fp16 or int8 only, not in fp32')
        if self.dla_strict and self.dla_core < 0:
            raise ConfigError('dla_strict is for device dla0 or dla1, not gpu')
        for name in POOLS:
            if getattr(self, name) and self.dla_core < 0:
                raise ConfigError(f'{name} is for device dla0 or dla1, not gpu')
            check_pool(name, getattr(self, name))
        for profile in self.profiles:
            for name, bounds in profile.items():
                _check_bounds(name, bounds)

    @property
    def dla_core(self) -> int:
        """0, 1 or -1: the GPU."""
        return -1 if self.device == 'gpu' else int(self.device.removeprefix('dla'))

    @property
    def half_io(self) -> bool:
        """Whether any input or output is to be fp16."""
        layouts = set(self.io_formats.values())
        return self.io_precision == 'fp16' or bool(layouts - {'linear'})

    def is_half(self, name: str) -> bool:
        """Whether this input or output, fp32 in the network, is to be fp16 in the engine."""
        return self.io_precision == 'fp16' or self.layout(name) != 'linear'

    def layout(self, name: str) -> str:
        """How an input or output lies in memory."""
        return self.io_formats.get(name, 'linear')

    def file_name(self, network: str | Path) -> str:
        """Usual name of the engine, e.g. `apron_yolox.fp16.gpu.engine`."""
        return f'{Path(network).stem}.{self.precision}.{self.device}.engine'

    def options(self) -> tuple[str, ...]:
        """The options of the build command that say the same."""
        words = ['--precision', self.precision, '--device', self.device]
        for profile in self.profiles:
            words += ['--profile', ','.join(_profile_text(*item) for item in profile.items())]
        for name, layout in self.io_formats.items():
            words += ['--io-format', f'{name}:{layout}']
        for name, kind in self.layer_precision.items():
            words += ['--layer-precision', f'{name}:{kind}']
        if not self.io_formats or self.io_precision == 'fp16':
            words += ['--io-precision', self.io_precision]  # without either, the command chooses
        plain = BuildSettings()
        for name in ('workspace_mb', 'opt_level', 'timing_cache', 'hardware_compatible',
                     'calibration', 'layer_info'):  # fmt: skip
            if getattr(self, name) != getattr(plain, name):
                words += [_option(name), str(getattr(self, name))]
        if self.tactic_sources:
            words += [_option('tactic_sources'), ','.join(self.tactic_sources)]
        for name in POOLS:
            if getattr(self, name):
                words += [_option(name), size_text(getattr(self, name))]
        words += ['--sparsity', 'enable'] if self.sparsity else []
        switches = ('version_compatible', 'dla_strict', 'tf32', 'refit', 'strip')
        return (*words, *(_option(name) for name in switches if getattr(self, name)))

    def record(self) -> dict[str, Any]:
        """Every setting, as JSON has it."""
        return {
            name: str(value) if isinstance(value, Path) else value
            for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> BuildSettings:
        """What `record` gave, back from JSON; settings of a later version are left out.

        Raises:
            ConfigError: a value that cannot be used.
        """
        known = {item.name for item in dataclasses.fields(cls)}
        values = {name: value for name, value in record.items() if name in known}
        try:
            values['profiles'] = tuple(
                {name: tuple(tuple(shape) for shape in bounds) for name, bounds in item.items()}
                for item in record.get('profiles', ())
            )
            values['tactic_sources'] = tuple(record.get('tactic_sources', ()))
            return cls(**values)
        except (AttributeError, TypeError, ValueError) as error:
            raise ConfigError(f'settings of a build: {error}') from error

    def _choice(self, name: str, value: str, choices: tuple[str, ...]) -> None:
        if value not in choices:
            raise ConfigError(f'{name} = {value!r}: not one of {", ".join(choices)}')


def read_profile(text: str) -> Profile:
    """A profile from `input:1x3x64x96:1x3x64x96:4x3x64x96`, inputs separated by commas.

    Raises:
        ConfigError: another form, or bounds that contradict one another.
    """
    profile: dict[str, tuple[Shape, Shape, Shape]] = {}
    for part in text.split(','):
        words = part.rsplit(':', 3)
        try:
            low, usual, high = (tuple(int(n) for n in word.split('x')) for word in words[1:])
        except ValueError as error:
            raise ConfigError(
                f'profile {part!r}: expected INPUT:SMALLEST:USUAL:LARGEST, shapes as 1x3x64x96'
            ) from error
        profile[words[0]] = (low, usual, high)
        _check_bounds(words[0], profile[words[0]])
    return profile


def _check_bounds(name: str, bounds: tuple[Shape, Shape, Shape]) -> None:
    low, usual, high = bounds
    ordered = len(low) == len(usual) == len(high) and all(
        1 <= a <= b <= c for a, b, c in zip(low, usual, high, strict=True)
    )
    if not ordered:
        raise ConfigError(
            f'profile of {name!r}: {_text(low)}, {_text(usual)}, {_text(high)} are not the '
            'smallest, usual and largest shape'
        )


def _profile_text(name: str, bounds: tuple[Shape, Shape, Shape]) -> str:
    return ':'.join([name, *map(_text, bounds)])


def _text(shape: Shape) -> str:
    return 'x'.join(map(str, shape))


def _option(name: str) -> str:
    return '--' + name.replace('_', '-')
