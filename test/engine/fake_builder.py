"""The building side of a fake TensorRT, as strict as its bindings: for tests of what drives it.

`equip(trt)` gives a `FakeTensorRT` a builder. It has the names of its version only; what it was
told is in `trt.told`, and its plans run on the fake's runtime. Tests set on `trt`:

    deaf        {what: text}: a setting (`workspace`, `tactics`, `core`, `level`, `formats`,
                `device`) that is not taken, but only logged with this text
    build_logs  errors logged while it builds; `build_fails`: and then there is no plan
    not_on_dla  names of layers that a DLA core does not take
    layers      what the inspector says, a list for JSON
    shares      [(event, ...)] that the progress monitor is called with
    unnamed     weights that a refittable engine has by other names
    entangled   names of weights that can only be changed together

A refittable plan keeps its weights; one named `g` is what the fake network multiplies with.
"""

from __future__ import annotations

import json
import types

import onnx
from onnx import TensorProto

KINDS = {
    TensorProto.FLOAT: 'FLOAT', TensorProto.FLOAT16: 'HALF', TensorProto.INT8: 'INT8',
    TensorProto.INT64: 'INT64', TensorProto.INT32: 'INT32',
}  # fmt: skip
CACHED_BYTES = b'timings'
WEIGHTS = ('float32', 'float16', 'int32', 'int8')


class Told(dict):
    """What a build was told, by name."""

    def flags(self) -> set[str]:
        return {name for name, on in self.items() if on is True}


def equip(trt):
    """Adds builder, network, parser and settings to the module."""
    members = trt.surface['classes']
    trt.told, trt.deaf, trt.build_logs, trt.build_fails = Told(), {}, [], False
    trt.not_on_dla, trt.layers, trt.shares, trt.caches = set(), [], [], []
    trt.typed = trt.parse_error = None

    def log(text, severity='ERROR'):
        trt.last_logger.log(getattr(trt.ILogger, severity), text)

    def strict(kind):
        """Class decorator: no name beyond those of the true class; none may be set beyond them."""
        known = set(members[kind])

        def decorate(cls):
            for name in [n for n in vars(cls) if not n.startswith('_') and n not in known]:
                delattr(cls, name)

            def set_attribute(self, name, value):
                if not name.startswith('_') and name not in known:
                    raise AttributeError(f'{kind} has no {name}')
                object.__setattr__(self, name, value)

            cls.__setattr__ = set_attribute
            setattr(trt, kind, cls)
            return cls

        return decorate

    @strict('ITensor')
    class ITensor:
        def __init__(self, value):
            self._name = value.name
            self._kind = getattr(trt.DataType, KINDS[value.type.tensor_type.elem_type])
            dims = value.type.tensor_type.shape.dim
            self._shape = tuple(d.dim_value if d.HasField('dim_value') else -1 for d in dims)
            self._formats = 1

        @property
        def name(self):
            return self._name

        @property
        def shape(self):
            return self._shape

        @property
        def dtype(self):
            return self._kind

        @dtype.setter
        def dtype(self, kind):
            if trt.typed:
                raise AttributeError('property of ITensor has no setter')
            self._kind = kind

        @property
        def allowed_formats(self):
            return self._formats

        @allowed_formats.setter
        def allowed_formats(self, mask):
            if 'formats' in trt.deaf:
                log(trt.deaf['formats'])
            else:
                self._formats = mask

    @strict('ILayer')
    class ILayer:
        def __init__(self, node):
            self._node, self._types, self._precision = node, {}, None

        name = property(lambda self: self._node.name or self._node.output[0])
        type = property(lambda self: types.SimpleNamespace(name=self._node.op_type.upper()))
        num_outputs = property(lambda self: len(self._node.output))

        @property
        def precision(self):
            return self._precision

        @precision.setter
        def precision(self, kind):
            if 'precision' not in trt.deaf:
                self._precision = kind
                trt.told.setdefault('precisions', {})[self.name] = kind.name

        def set_output_type(self, index, kind):
            trt.told.setdefault('output types', {})[self.name, index] = kind.name

    @strict('INetworkDefinition')
    class INetworkDefinition:
        def __init__(self):
            self._inputs, self._outputs, self._layers = [], [], []

        num_inputs = property(lambda self: len(self._inputs))
        num_outputs = property(lambda self: len(self._outputs))
        num_layers = property(lambda self: len(self._layers))

        def get_input(self, place):
            return self._inputs[place]

        def get_output(self, place):
            return self._outputs[place]

        def get_layer(self, place):
            return self._layers[place]

    @strict('OnnxParser')
    class OnnxParser:
        def __init__(self, network, logger):
            self._network = network
            self._errors = []

        num_errors = property(lambda self: len(self._errors))

        def get_error(self, place):
            return types.SimpleNamespace(desc=lambda: self._errors[place], node=lambda: 1)

        def parse(self, data):
            if trt.parse_error:
                self._errors.append(trt.parse_error)
                return False
            model = trt.told['model'] = onnx.load_model_from_string(data)
            stored = {tensor.name for tensor in model.graph.initializer}
            network = self._network
            network._inputs += [ITensor(v) for v in model.graph.input if v.name not in stored]
            network._outputs += [ITensor(v) for v in model.graph.output]
            network._layers += [ILayer(node) for node in model.graph.node]
            return True

    @strict('IOptimizationProfile')
    class IOptimizationProfile:
        def __init__(self):
            self._shapes = {}

        def set_shape(self, name, low, usual, high):
            self._shapes[name] = (low, usual, high)

    @strict('ITimingCache')
    class ITimingCache:
        def __init__(self, data):
            self._data = data

        def combine(self, other, ignore_mismatch):
            trt.caches.append(('combine', other._data))
            return True

        def serialize(self):
            return CACHED_BYTES

    @strict('IBuilderConfig')
    class IBuilderConfig:
        def __init__(self):
            self._level, self._core, self._sources, self._pools = 3, -1, 31, {}
            self._kind, self._cache = trt.DeviceType.GPU, None
            self._flags = {trt.BuilderFlag.TF32}
            self.profiling_verbosity = None

        num_optimization_profiles = property(lambda self: len(trt.told.get('profiles', ())))

        def set_flag(self, flag):
            self._flags.add(flag)
            trt.told[flag.name] = True

        def clear_flag(self, flag):
            self._flags.discard(flag)
            trt.told[flag.name] = False

        def get_flag(self, flag):
            return flag in self._flags and flag.name not in trt.deaf

        def set_memory_pool_limit(self, pool, size):
            name = pool.name.lower()
            if name in trt.deaf:
                log(trt.deaf[name])
            else:
                self._pools[pool] = trt.told[name] = size

        def get_memory_pool_limit(self, pool):
            return self._pools.get(pool, 64 << 30)

        def set_tactic_sources(self, sources):
            if 'tactics' in trt.deaf:
                log(trt.deaf['tactics'])
                return False
            self._sources = trt.told['tactics'] = sources
            return True

        def get_tactic_sources(self):
            return self._sources

        @property
        def builder_optimization_level(self):
            return self._level

        @builder_optimization_level.setter
        def builder_optimization_level(self, level):
            if 'level' not in trt.deaf:
                self._level = trt.told['level'] = level

        @property
        def default_device_type(self):
            return self._kind

        @default_device_type.setter
        def default_device_type(self, kind):
            if 'device' not in trt.deaf:
                self._kind = kind
                trt.told['device'] = kind.name

        @property
        def DLA_core(self):  # noqa: N802  TensorRT's name
            return self._core

        @DLA_core.setter
        def DLA_core(self, core):  # noqa: N802  TensorRT's name
            if 'core' in trt.deaf:
                log(trt.deaf['core'])
            else:
                self._core = trt.told['core'] = core

        def can_run_on_DLA(self, layer):  # noqa: N802  TensorRT's name
            return layer.name not in trt.not_on_dla

        def add_optimization_profile(self, profile):
            trt.told.setdefault('profiles', []).append(profile._shapes)
            return len(trt.told['profiles']) - 1

        @property
        def int8_calibrator(self):
            return None

        @int8_calibrator.setter
        def int8_calibrator(self, calibrator):
            if not isinstance(calibrator, trt.IInt8EntropyCalibrator2):
                raise TypeError('no calibrator')
            trt.told['cache'] = calibrator.read_calibration_cache()
            trt.told['batch'] = (calibrator.get_batch_size(), calibrator.get_batch(['x']))

        @property
        def hardware_compatibility_level(self):
            return trt.told.get('hardware', trt.HardwareCompatibilityLevel.NONE)

        @hardware_compatibility_level.setter
        def hardware_compatibility_level(self, level):
            trt.told['hardware'] = level

        def create_timing_cache(self, data):
            trt.caches.append(('create', data))
            return ITimingCache(data)

        def set_timing_cache(self, cache, ignore_mismatch):
            if b'other GPU' in cache._data:
                return False
            self._cache = cache
            return True

        def get_timing_cache(self):
            return self._cache

        @property
        def progress_monitor(self):
            return None

        @progress_monitor.setter
        def progress_monitor(self, monitor):
            if not isinstance(monitor, trt.IProgressMonitor):
                raise TypeError('no monitor')
            self._monitor = monitor

    @strict('Builder')
    class Builder:
        def __init__(self, logger):
            if not isinstance(logger, trt.ILogger):
                raise TypeError('no logger')
            for text in trt.start_errors:
                log(text)

        num_DLA_cores = property(lambda self: trt.dla_cores)  # noqa: N815  TensorRT's name

        def create_network(self, flags=0):
            names = trt.NetworkDefinitionCreationFlag.__members__
            trt.told['creation'] = {n for n, bit in names.items() if flags >> int(bit) & 1}
            trt.typed = 'STRONGLY_TYPED' in trt.told['creation']
            return INetworkDefinition()

        def create_builder_config(self):
            return IBuilderConfig()

        def create_optimization_profile(self):
            return IOptimizationProfile()

        def build_serialized_network(self, network, config):
            for text in trt.build_logs:
                log(text)
            for event, *arguments in trt.shares:
                if getattr(config._monitor, event)(*arguments) is False:
                    log('Build was cancelled.', 'WARNING')
                    return None
            if trt.during_build:
                trt.during_build()
            return None if trt.build_fails else _plan(network)

    def _plan(network):
        formats = {1 << int(member): name for name, member in trt.TensorFormat.__members__.items()}

        def describe(tensor, mode):
            ranges = [p[tensor.name] for p in trt.told.get('profiles', []) if tensor.name in p]
            return {
                'name': tensor.name, 'mode': mode, 'shape': tensor.shape,
                'dtype': tensor.dtype.name, 'format': formats[tensor.allowed_formats],
                'profiles': ranges, 'shape_io': False,
            }  # fmt: skip

        ports = [describe(item, 'INPUT') for item in network._inputs]
        ports += [describe(item, 'OUTPUT') for item in network._outputs]
        text = {'tensors': ports, 'profiles': max(1, len(trt.told.get('profiles', []))),
                'host_code': trt.told.get('VERSION_COMPATIBLE', False)}  # fmt: skip
        stripped = 'STRIP_PLAN' in trt.told.flags()
        refittable = bool({'REFIT', 'REFIT_IDENTICAL'} & trt.told.flags())
        weights = _weights(trt.told['model']) if refittable else {}
        for name in trt.unnamed:  # the parser made another weight of it
            weights[f'{name}_folded'] = weights.pop(name)
        if stripped:
            weights = {name: {**item, 'values': None} for name, item in weights.items()}
        text.update(refittable=refittable, stripped=stripped, weights=weights)
        return json.dumps(text).encode()

    trt.Refitter = _refitter(trt, strict)
    if 'OnnxParserRefitter' in members:
        trt.OnnxParserRefitter = _parser_refitter(trt, strict)
    trt.Weights = Weights
    trt.start_errors, trt.during_build = [], None
    trt.unnamed, trt.entangled = set(), ()
    return trt


class Weights:
    """What weights are to TensorRT: numbers in memory that it does not own."""

    def __init__(self, array):
        if not array.flags['C_CONTIGUOUS'] or array.dtype.name not in WEIGHTS:
            raise TypeError(f'no weights: {array.dtype}')
        self.array = array


def _weights(model):
    """{name: what a plan keeps of a weight}: floats only."""
    return {
        tensor.name: _kept(onnx.numpy_helper.to_array(tensor))
        for tensor in model.graph.initializer
        if tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16)
    }


def _kept(array):
    return {'dtype': array.dtype.name, 'count': array.size, 'values': array.ravel().tolist()}


def _refitter(trt, strict):
    @strict('Refitter')
    class Refitter:
        def __init__(self, engine, logger):
            if not engine.refittable or not isinstance(logger, trt.ILogger):
                raise TypeError('not refittable')
            self._known = engine._text['weights']
            self._stripped = engine._text['stripped']
            self._set = {}

        def get_all_weights(self):
            return list(self._known)

        def get_missing_weights(self):
            needed = set(self._known) if self._stripped else set()
            if self._set.keys() & set(trt.entangled):
                needed |= set(trt.entangled)
            return sorted(needed - self._set.keys())

        def set_named_weights(self, name, weights):
            known, new = self._known.get(name), _kept(weights.array)
            if known is None or (known['dtype'], known['count']) != (new['dtype'], new['count']):
                trt.last_logger.log(trt.ILogger.ERROR, f'no such weights: {name}')
                return False
            self._set[name] = new
            return True

        def refit_cuda_engine(self):
            if trt.refit_fails:
                trt.last_logger.log(trt.ILogger.ERROR, trt.refit_fails)
            if self.get_missing_weights() or trt.refit_fails:
                return False
            self._known.update(self._set)
            return True

    trt.refit_fails = ''
    return Refitter


def _parser_refitter(trt, strict):
    @strict('OnnxParserRefitter')
    class OnnxParserRefitter:
        def __init__(self, refitter, logger):
            if not isinstance(refitter, trt.Refitter) or not isinstance(logger, trt.ILogger):
                raise TypeError('no refitter')
            self._refitter, self._errors = refitter, []

        num_errors = property(lambda self: len(self._errors))

        def get_error(self, place):
            return types.SimpleNamespace(desc=lambda: self._errors[place], node=lambda: -1)

        def refit_from_bytes(self, data, path=None):
            """Knows what the parser made of a weight, and sets nothing in the engine itself."""
            values = {
                tensor.name: onnx.numpy_helper.to_array(tensor)
                for tensor in onnx.load_model_from_string(data).graph.initializer
            }
            done = 0
            for name in self._refitter.get_all_weights():
                value = values.get(name, values.get(name.removesuffix('_folded')))
                if value is not None and self._refitter.set_named_weights(name, Weights(value)):
                    done += 1
            if done < len(self._refitter.get_all_weights()):
                self._errors.append(f'Only successfully refitted {done} weights')
            return not self._errors

    return OnnxParserRefitter
