"""A TensorRT builder, set up; settings are read back, since wrong ones are often only logged."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Mapping
from typing import Any

import onnx

from airside_perception.engine.build_settings import POOLS, BuildSettings
from airside_perception.engine.calibration_cache import calibration_cache
from airside_perception.engine.callbacks import cache_reader, progress_monitor
from airside_perception.engine.capabilities import TensorRT
from airside_perception.engine.sizes import size_text
from airside_perception.engine.trt_log import Messages, logger
from airside_perception.engine.typed import NetworkError, Source
from airside_perception.errors import ConfigError, EngineError

MIB = 1 << 20
LAYER = re.compile(r'_\d+$')
UNKNOWN_OPERATOR = re.compile(r'[Pp]lugin not found|[Nn]o importer|No Op registered')
POOL_TYPES = dict(
    zip(POOLS, ('DLA_MANAGED_SRAM', 'DLA_LOCAL_DRAM', 'DLA_GLOBAL_DRAM'), strict=True)
)
NO_WORK = ('CONSTANT', 'SHAPE', 'IDENTITY')
"""Kinds of layers that compute nothing at run time."""


class EngineBuilder:
    """TensorRT's builder, network and settings for one engine.

    Args:
        path: for messages.
        said: collects what TensorRT logs; an error that it only logs ends the setup.

    Raises:
        EngineError: this TensorRT lacks what is asked for, or did not take it.
        NetworkError: it cannot parse the network.
        ConfigError: settings that do not fit the network.
    """

    def __init__(
        self, tensorrt: TensorRT, path: str, source: Source, settings: BuildSettings,
        said: Messages,
    ) -> None:  # fmt: skip
        self.tensorrt, self.path, self.settings, self.said = tensorrt, path, settings, said
        self.module: Any = tensorrt.module
        self.source = source
        self._kept: list[Any] = []  # TensorRT does not hold the Python objects that it is given
        self.builder = self.module.Builder(logger(tensorrt))
        if said.errors:
            # It is an empty shell then: to use or to destroy it ends the process.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.builder))
        self._no_errors('starting')
        self._check_dla()
        self.network = self._parsed()
        self.config = self.builder.create_builder_config()
        self._ports()
        self._precision()
        self._device()
        self._limits()
        self._pools()
        self._weights()
        self._compatibility()
        self._profiles()
        self._no_errors('setting up the build')

    def build(self, progress: Callable[[float], bool]) -> Any:
        """Builds; returns the plan, or None where TensorRT cannot.

        Args:
            progress: called with the share that is done, where this TensorRT tells; returns
                whether to go on.
        """
        if self.tensorrt.can.progress_monitor:
            monitor = progress_monitor(self.module, progress)
            self._kept.append(monitor)
            self.config.progress_monitor = monitor
        return self.builder.build_serialized_network(self.network, self.config)

    @property
    def tells_progress(self) -> bool:
        return self.tensorrt.can.progress_monitor

    def ports(self) -> tuple[list[Any], list[Any]]:
        """Inputs and outputs of the network."""
        network = self.network
        return (
            [network.get_input(place) for place in range(network.num_inputs)],
            [network.get_output(place) for place in range(network.num_outputs)],
        )

    def working_layers(self) -> tuple[str, ...]:
        """Names of the layers that compute something."""
        layers = [self.network.get_layer(place) for place in range(self.network.num_layers)]
        return tuple(layer.name for layer in layers if layer.type.name not in NO_WORK)

    def not_for_dla(self) -> tuple[str, ...]:
        """Names of the layers that TensorRT would not put on a DLA core."""
        layers = [self.network.get_layer(place) for place in range(self.network.num_layers)]
        return tuple(
            layer.name
            for layer in layers
            if layer.type.name not in NO_WORK and not self.config.can_run_on_DLA(layer)
        )

    def _check_dla(self) -> None:
        core, cores = self.settings.dla_core, self.builder.num_DLA_cores
        if core >= cores and core >= 0:
            raise EngineError(
                f'{self.path}: device {self.settings.device} is asked for, and {self.tensorrt} '
                f'finds {cores or "no"} DLA core{"s" if cores > 1 else ""} on this machine'
                + ('' if cores else ' (a container needs the NVIDIA runtime to see them)')
            )

    def _parsed(self) -> Any:
        flags = self.tensorrt.creation_flags(self.source.strongly_typed)
        network = self.builder.create_network(flags)
        parser = self.module.OnnxParser(network, logger(self.tensorrt))
        if not parser.parse(self.source.data):
            reason = self._parser_error(parser) or self.said.reason() or 'it says not why'
            raise NetworkError(f'{self.path}: {self.tensorrt} cannot parse it: {reason}')
        self._no_errors('parsing')
        self._kept.append(parser)  # holds the weights
        return network

    def _parser_error(self, parser: Any) -> str:
        if not parser.num_errors:
            return ''
        first = parser.get_error(0)
        nodes = onnx.load_model_from_string(self.source.data).graph.node
        if not 0 <= first.node() < len(nodes):
            return str(first.desc())
        node = nodes[first.node()]
        said = f'node {node.name!r} ({node.op_type}): {first.desc()}'
        if UNKNOWN_OPERATOR.search(said):
            said += f'; there is no {node.op_type} here: replace it, or give TensorRT a plugin'
        return said

    def _ports(self) -> None:
        formats = self.module.TensorFormat
        inputs, outputs = self.ports()
        for tensor in (*inputs, *outputs):
            if tensor.name in self.source.half:
                tensor.dtype = self.module.DataType.HALF
                self._took(f'fp16 for {tensor.name}', self.module.DataType.HALF, tensor.dtype)
            wanted = 1 << int(getattr(formats, self.settings.layout(tensor.name).upper()))
            tensor.allowed_formats = wanted
            self._took(f'the layout of {tensor.name}', wanted, tensor.allowed_formats)

    def _precision(self) -> None:
        self._flag('TF32', self.settings.tf32)
        if self.source.strongly_typed:
            return
        if self.settings.precision != 'fp32' or self.source.half:
            self._flag('FP16', True)
        if self.settings.precision == 'int8':
            self._flag('INT8', True)
        if self.source.scales:
            cache = calibration_cache(self.source.scales, self.tensorrt.version)
            calibrator = cache_reader(self.module, cache.encode())
            self._kept.append(calibrator)
            self.config.int8_calibrator = calibrator
        if self.source.finer:
            self._finer_layers()

    def _finer_layers(self) -> None:
        """Layers that are computed in a finer precision than the rest, by constraints."""
        self._needs(self.tensorrt.can.layer_precision, 'layer_precision')
        self._flag('OBEY_PRECISION_CONSTRAINTS', True)
        kinds = {'fp32': self.module.DataType.FLOAT, 'fp16': self.module.DataType.HALF}
        missing = dict(self.source.finer)
        for place in range(self.network.num_layers):
            layer = self.network.get_layer(place)
            # a node that becomes several layers gives them its name with a number
            node = layer.name if layer.name in self.source.finer else LAYER.sub('', layer.name)
            kind = self.source.finer.get(node)
            if kind is None or layer.type.name in NO_WORK:
                continue
            missing.pop(node, None)
            layer.precision = kinds[kind]
            self._took(f'{kind} for {layer.name}', kinds[kind], layer.precision)
            for index in range(layer.num_outputs):
                layer.set_output_type(index, kinds[kind])
        if missing:
            raise EngineError(
                f'{self.path}: {self.tensorrt} has no layer for node {next(iter(missing))!r} of '
                'layer_precision'
            )

    def _device(self) -> None:
        core = self.settings.dla_core
        if core < 0:
            return
        kind = self.module.DeviceType.DLA
        self.config.default_device_type = kind
        self._took('the DLA as device', kind, self.config.default_device_type)
        self.config.DLA_core = core
        self._took(f'DLA core {core}', core, self.config.DLA_core)
        self._flag('GPU_FALLBACK', not self.settings.dla_strict)
        left = self.not_for_dla() if self.settings.dla_strict else ()
        if left:
            raise EngineError(
                f'{self.path}: {len(left)} layers cannot run on a DLA core ({", ".join(left[:5])}'
                f'{", ..." if len(left) > 5 else ""}), and dla_strict allows no other place'
            )

    def _limits(self) -> None:
        config, settings = self.config, self.settings
        if settings.workspace_mb:
            pool = self.module.MemoryPoolType.WORKSPACE
            config.set_memory_pool_limit(pool, settings.workspace_mb * MIB)
            found = config.get_memory_pool_limit(pool)
            self._took('workspace_mb', settings.workspace_mb, found // MIB)
        if settings.opt_level is not None:
            self._needs(self.tensorrt.can.optimization_level, 'opt_level')
            config.builder_optimization_level = settings.opt_level
            self._took('opt_level', settings.opt_level, config.builder_optimization_level)
        if settings.tactic_sources:
            sources = 0
            for name in settings.tactic_sources:
                known = self.tensorrt.can.tactic_sources
                if name.upper() not in known:
                    raise ConfigError(
                        f'tactic source {name!r}: {self.tensorrt} has '
                        f'{", ".join(sorted(known)).lower()}'
                    )
                sources |= 1 << int(getattr(self.module.TacticSource, name.upper()))
            config.set_tactic_sources(sources)
            self._took('tactic_sources', sources, config.get_tactic_sources())
        # names of layers for the inspector: where they are, and how long each takes
        config.profiling_verbosity = self.module.ProfilingVerbosity.DETAILED

    def _pools(self) -> None:
        """Memory of the DLA core for each of its subgraphs."""
        for name in POOLS:
            wanted = getattr(self.settings, name)
            if not wanted:
                continue
            kind = POOL_TYPES[name]
            self._needs(kind in self.tensorrt.can.memory_pools, name)
            pool = getattr(self.module.MemoryPoolType, kind)
            self.config.set_memory_pool_limit(pool, wanted)
            found = self.config.get_memory_pool_limit(pool)
            self._took(f'{name} {size_text(wanted)}', size_text(wanted), size_text(found))

    def _weights(self) -> None:
        """Whether weights can be changed or are left out, and which kernels they may have."""
        settings, can = self.settings, self.tensorrt.can
        if settings.refit:
            self._needs(can.refit, 'refit')
            self._flag('REFIT', True)
        if settings.strip:
            self._needs(can.strip_plan, 'strip')
            self._flag('STRIP_PLAN', True)
            if not settings.refit:
                self._flag('REFIT_IDENTICAL', True)
        if settings.sparsity:
            self._needs(can.sparsity, 'sparsity')
            self._flag('SPARSE_WEIGHTS', True)

    def _compatibility(self) -> None:
        settings, can = self.settings, self.tensorrt.can
        if settings.version_compatible:
            self._needs(can.version_compatible, 'version_compatible')
            self._flag('VERSION_COMPATIBLE', True)
        if settings.hardware_compatible != 'none':
            name = settings.hardware_compatible.upper()
            self._needs(name in can.hardware_levels, f'hardware_compatible {name.lower()}')
            level = getattr(self.module.HardwareCompatibilityLevel, name)
            self.config.hardware_compatibility_level = level
            self._took(name.lower(), level, self.config.hardware_compatibility_level)

    def _profiles(self) -> None:
        inputs, _ = self.ports()
        varying = {t.name: tuple(t.shape) for t in inputs if min(tuple(t.shape), default=0) < 0}
        known = {tensor.name: tuple(tensor.shape) for tensor in inputs}
        if varying and not self.settings.profiles:
            text = '; '.join(f'{name} {list(shape)}' for name, shape in varying.items())
            raise ConfigError(
                f'{self.path}: shapes vary ({text}), so the engine needs a profile: '
                'input:smallest:usual:largest'
            )
        for wanted in self.settings.profiles:
            self._check_profile(wanted, known, varying)
            profile = self.builder.create_optimization_profile()
            for name, bounds in wanted.items():
                profile.set_shape(name, *bounds)
            if self.config.add_optimization_profile(profile) < 0:
                raise EngineError(f'{self.path}: profile {dict(wanted)}: {self.said.reason()}')

    def _check_profile(
        self, profile: Mapping[str, Any], known: Mapping[str, Any], varying: Mapping[str, Any]
    ) -> None:
        for name, bounds in profile.items():
            if name not in known:
                raise ConfigError(f'{self.path}: profile for {name!r}; inputs are {list(known)}')
            shape = known[name]
            for bound in bounds:
                if len(bound) != len(shape) or any(
                    n >= 0 and n != m for n, m in zip(shape, bound, strict=True)
                ):
                    raise ConfigError(
                        f'{self.path}: profile of {name!r}: {list(bound)} does not fit '
                        f'{list(shape)} (-1 varies)'
                    )
            if self.settings.dla_core >= 0 and bounds[0] != bounds[2]:
                raise ConfigError(
                    f'{self.path}: profile of {name!r}: a DLA core has one shape only, give it as '
                    'smallest, usual and largest'
                )
        missing = [name for name in varying if name not in profile]
        if missing:
            raise ConfigError(f'{self.path}: the profile lacks input {missing[0]!r}, which varies')

    def _flag(self, name: str, on: bool) -> None:
        flag = getattr(self.module.BuilderFlag, name)
        (self.config.set_flag if on else self.config.clear_flag)(flag)
        self._took(f'flag {name}', on, bool(self.config.get_flag(flag)))

    def _needs(self, there: bool, what: str) -> None:
        if not there:
            raise EngineError(f'{what}: {self.tensorrt} does not have it')

    def _took(self, what: str, wanted: Any, found: Any) -> None:
        if wanted != found:
            reason = self.said.reason()
            raise EngineError(
                f'{self.path}: {self.tensorrt} did not take {what}: it has {found}'
                + (f' ({reason})' if reason else '')
            )

    def _no_errors(self, doing: str) -> None:
        if self.said.errors:
            raise EngineError(
                f'{self.path}: {self.tensorrt} reports while {doing}: {self.said.reason()}'
            )
