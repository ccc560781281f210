"""A TensorRT for tests that has exactly the names of one version's bindings, and no more.

`FakeTensorRT(surface, cuda)` is a module. Reading or setting a name that the true bindings lack
fails as it does there. Its plans are JSON (see `plan`): every output is twice the first input.
"""

from __future__ import annotations

import enum
import json
import types
from pathlib import Path

import numpy as np

SURFACES = Path(__file__).parent / 'surfaces'
NAMES = sorted(path.stem for path in SURFACES.glob('*.json'))
MODULES = {'full': 'tensorrt', 'rtx': 'tensorrt_rtx_bindings', 'lean': 'tensorrt_lean',
           'dispatch': 'tensorrt_dispatch'}  # fmt: skip
DTYPES = {
    'FLOAT': np.float32, 'HALF': np.float16, 'INT8': np.int8, 'INT32': np.int32,
    'UINT8': np.uint8, 'BOOL': np.bool_,
}  # fmt: skip
DESCRIPTIONS = {
    'LINEAR': 'Row major linear FP32 format (kLINEAR)',
    'HWC8': 'Eight channel FP16 format (kHWC8) where C is padded to a multiple of 8',
    'CHW4': 'Four wide channel vectorized row major INT8 format (kCHW4)',
    'DLA_HWC4': 'DLA image format (kDLA_HWC4)',
}


def surface(name: str) -> dict:
    return json.loads((SURFACES / f'{name}.json').read_text())


def tensor(name: str, mode: str, shape: list, **more: object) -> dict:
    """Keys: dtype, format, profiles (for an input: [[min, opt, max], ...]), shape_io."""
    return {'name': name, 'mode': mode, 'shape': shape, 'dtype': 'FLOAT', 'format': 'LINEAR',
            'profiles': [], 'shape_io': False, **more}  # fmt: skip


def plan(*tensors: dict, **more: object) -> bytes:
    """Bytes of an engine. `more`: profiles (count), host_code, refuse (error texts), refittable,
    stripped, weights ({name: {'dtype', 'count', 'values'}}, see fake_builder)."""
    x, y = tensor('x', 'INPUT', [1, 3, 2, 4]), tensor('y', 'OUTPUT', [1, 3, 2, 4])
    text = {'tensors': list(tensors or (x, y)), 'profiles': 1, 'host_code': False, **more}
    return json.dumps(text).encode()


class Strict:
    """Takes only attributes that its class has."""

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith('_') and not hasattr(type(self), name):
            raise AttributeError(f'{type(self).__name__} has no {name}')
        object.__setattr__(self, name, value)

    def __del__(self) -> None:
        self._trt.journal.append(f'free {type(self).__name__}')


class Runtime(Strict):
    DLA_core = -1
    engine_host_code_allowed = False

    def __init__(self, logger: object) -> None:
        self._logger = logger
        if not isinstance(logger, self._trt.ILogger):
            raise TypeError('no logger')
        if self._trt.no_runtime:
            logger.log(self._trt.ILogger.ERROR, self._trt.no_runtime)

    @property
    def num_DLA_cores(self) -> int:  # noqa: N802  TensorRT's name
        return self._trt.dla_cores

    def deserialize_cuda_engine(self, data: bytes) -> object:
        self._trt.journal.append(f'deserialize core {self.DLA_core}')
        severity = self._trt.ILogger
        for text in self._trt.warnings:
            self._logger.log(severity.WARNING, text)
        self._logger.log(severity.VERBOSE, 'never kept')
        try:
            text = json.loads(data)
        except ValueError:
            self._logger.log(
                severity.ERROR,
                '1: [runtime.cpp::parsePlan::314] Error Code 1: Serialization '
                '(Serialization assertion plan->header.magicTag == rt::kPLAN_MAGIC_TAG failed.)',
            )
            return None
        if text['host_code'] and not getattr(self, 'engine_host_code_allowed', True):
            self._logger.log(severity.ERROR, 'engine_host_code_allowed is false')
            return None
        for error in self._trt.errors:
            self._logger.log(severity.ERROR, error)
        if self._trt.raises:
            raise self._trt.raises
        if self._trt.errors and not self._trt.goes_on:
            return None
        return self._trt.ICudaEngine(text)


class ICudaEngine(Strict):
    device_memory_size = 1000
    device_memory_size_v2 = 1000

    def __init__(self, text: dict) -> None:
        self._text = text
        self._tensors = {item['name']: item for item in text['tensors']}
        self._profiles = text['profiles']

    @property
    def refittable(self) -> bool:
        return bool(self._text.get('refittable'))

    def create_engine_inspector(self) -> object:
        def information(kind: object) -> str:
            if kind != self._trt.LayerInformationFormat.JSON:
                raise TypeError('not JSON')
            return json.dumps({'Layers': self._trt.layers})

        return types.SimpleNamespace(get_engine_information=information)

    def serialize(self) -> bytes:
        return json.dumps(self._text).encode()

    def create_serialization_config(self) -> object:
        flags = self._trt.SerializationFlag
        return SerializationConfig({flags.EXCLUDE_WEIGHTS} if self._text['stripped'] else set())

    def serialize_with_config(self, config: object) -> bytes:
        """Without its weights if the flag stays; from 10.16 on refittable with a flag only."""
        flags = self._trt.SerializationFlag
        text = {**self._text, 'stripped': config.get_flag(flags.EXCLUDE_WEIGHTS)}
        if 'INCLUDE_REFIT' in flags.__members__:
            text['refittable'] = config.get_flag(flags.INCLUDE_REFIT)
        return json.dumps(text).encode()

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    @property
    def num_optimization_profiles(self) -> int:
        return self._profiles

    def get_tensor_name(self, place: int) -> str:
        return list(self._tensors)[place]

    def get_tensor_mode(self, name: str) -> object:
        return self._trt.TensorIOMode[self._tensors[name]['mode']]

    def get_tensor_dtype(self, name: str) -> object:
        return self._trt.DataType[self._tensors[name]['dtype']]

    def get_tensor_shape(self, name: str) -> tuple:
        return tuple(self._tensors[name]['shape'])

    def get_tensor_format(self, name: str) -> object:
        if not hasattr(self._trt, 'TensorFormat'):
            raise TypeError('Unable to convert function return value to a Python type!')
        return self._trt.TensorFormat[self._tensors[name]['format']]

    def get_tensor_format_desc(self, name: str) -> str:
        return DESCRIPTIONS[self._tensors[name]['format']]

    def get_tensor_profile_shape(self, name: str, profile: int) -> list:
        return self._tensors[name]['profiles'][profile]

    def is_shape_inference_io(self, name: str) -> bool:
        return self._tensors[name]['shape_io']

    def create_execution_context(self) -> object:
        if self._text.get('stripped'):
            self._trt.last_logger.log(self._trt.ILogger.ERROR, 'the engine has no weights')
            return None
        if self._trt.no_context:
            self._trt.last_logger.log(
                self._trt.ILogger.ERROR,
                'IExecutionContext: Error Code 2: OutOfMemory (Requested size was 99 bytes.)',
            )
            return None
        return self._trt.IExecutionContext(self)


class SerializationConfig:
    def __init__(self, flags: set) -> None:
        self._flags = flags

    def set_flag(self, flag: object) -> bool:
        self._flags.add(flag)
        return True

    def clear_flag(self, flag: object) -> bool:
        self._flags.discard(flag)
        return True

    def get_flag(self, flag: object) -> bool:
        return flag in self._flags


class IExecutionContext(Strict):
    def __init__(self, engine: object) -> None:
        # a weight named g is what the input is multiplied with
        self._gain = engine._text.get('weights', {}).get('g', {'values': [2.0]})['values'][0]
        self._tensors = engine._tensors
        self._shapes = {name: tuple(item['shape']) for name, item in self._tensors.items()}
        self._addresses: dict[str, int] = {}
        self._profile = 0
        self._count = engine._profiles
        self._input = next(n for n, item in self._tensors.items() if item['mode'] == 'INPUT')

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self._trt.journal.append(f'profile {profile}')
        self._profile = profile
        self._shapes = {name: tuple(item['shape']) for name, item in self._tensors.items()}
        return profile < self._count

    def set_input_shape(self, name: str, shape: tuple) -> bool:
        item = self._tensors[name]
        low, _, high = item['profiles'][self._profile]
        if not all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True)):
            return False
        self._shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple:
        item = self._tensors[name]
        if item['mode'] == 'INPUT':
            return self._shapes[name]
        known = self._shapes[self._input]
        return tuple(
            known[axis] if size == -1 else size for axis, size in enumerate(item['shape'])
        )

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def is_stream_capturable(self, stream: int) -> bool:
        return self._trt.capturable

    def execute_async_v3(self, stream_handle: int) -> bool:
        trt, cuda = self._trt, self._trt.cuda
        trt.enqueued += 1
        if trt.fails:
            trt.last_logger.log(trt.ILogger.ERROR, f'[x.cpp::enqueueV3::1] {trt.fails}')
            return False
        shapes = {name: self.get_tensor_shape(name) for name in self._tensors}
        addresses = dict(self._addresses)

        def step() -> None:
            value = self._gain * self._load(cuda, addresses, shapes, self._input)
            for name, item in self._tensors.items():
                if item['mode'] == 'OUTPUT':
                    self._store(cuda, addresses, shapes, name, value)

        trt.ran.append((self._profile, shapes[self._input]))
        if cuda.recording is not None:
            cuda.recording.append(step)
        else:
            step()
        return True

    def _places(self, name: str, shape: tuple) -> tuple[np.ndarray, int]:
        """Index in memory of every element, and the number of places in memory."""
        kind = self._tensors[name]['format']
        indices = np.indices(shape).reshape(len(shape), -1)
        if kind == 'LINEAR':
            return np.arange(indices.shape[1]), indices.shape[1]
        n, c, h, w = indices
        rows, columns = shape[2:]
        if kind == 'HWC8':
            padded = (shape[1] + 7) // 8 * 8
            return ((n * rows + h) * columns + w) * padded + c, shape[0] * rows * columns * padded
        groups = (shape[1] + 3) // 4
        places = (((n * groups + c // 4) * rows + h) * columns + w) * 4 + c % 4
        return places, shape[0] * groups * rows * columns * 4

    def _load(self, cuda: object, addresses: dict, shapes: dict, name: str) -> np.ndarray:
        places, count = self._places(name, shapes[name])
        kind = np.dtype(DTYPES[self._tensors[name]['dtype']])
        memory = cuda.at(addresses[name], count * kind.itemsize).view(kind)
        rest = np.delete(memory, places)
        if rest.any():
            raise ValueError(f'{name}: padding is {rest}')
        return memory[places].reshape(shapes[name])

    def _store(
        self, cuda: object, addresses: dict, shapes: dict, name: str, value: object
    ) -> None:
        places, count = self._places(name, shapes[name])
        kind = np.dtype(DTYPES[self._tensors[name]['dtype']])
        memory = cuda.at(addresses[name], count * kind.itemsize).view(kind)
        memory[places] = np.asarray(value).reshape(-1)


class FakeTensorRT(types.ModuleType):
    """The module.

    Attributes:
        dla_cores: that the machine has.
        warnings, errors: logged while a plan is read; `goes_on`: an engine comes all the same.
        raises: raised there instead.
        no_context: memory is short when the context is made.
        no_runtime: why its runtime does not start; fails: why the network cannot run.
        capturable: what the context says (RTX).
        ran: (profile, shape of the first input) of every run.
    """

    def __init__(self, name: str, cuda: object) -> None:
        found = surface(name)
        super().__init__(MODULES[name.split('_')[0]])
        self.__version__ = found['version']
        self.surface, self.cuda = found, cuda
        self.dla_cores, self.capturable, self.goes_on, self.no_context = 0, True, False, False
        self.warnings: list[str] = []
        self.errors: list[str] = []
        self.raises: Exception | None = None
        self.fails = self.no_runtime = ''
        self.enqueued = 0
        self.ran: list = []
        self.journal: list[str] = []
        self.last_logger: object = None
        self.layers: list = []
        self.ILogger = self._logger_class()
        for kind, members in found['classes'].items():
            if kind not in ('ILogger', 'Logger'):
                setattr(self, kind, self._class(kind, members))

    def _logger_class(self) -> type:
        trt = self
        severity = enum.IntEnum('Severity', 'INTERNAL_ERROR ERROR WARNING INFO VERBOSE', start=0)

        class ILogger:
            def __init__(self) -> None:
                trt.last_logger = self

        ILogger.Severity = severity
        for member in severity:
            setattr(ILogger, member.name, member)
        return ILogger

    def _class(self, kind: str, members: list[str]) -> type:
        mine = {'Runtime': Runtime, 'ICudaEngine': ICudaEngine,
                'IExecutionContext': IExecutionContext}.get(kind)  # fmt: skip
        if mine is None:
            upper = all(name.isupper() or name[0].isupper() for name in members)
            return (
                enum.IntEnum(kind, members, start=0)
                if upper
                else type(kind, (), dict.fromkeys(members))
            )
        private = {n: v for n, v in vars(mine).items() if n.startswith('_')}
        body = {n: vars(mine).get(n) for n in members}
        lacking = [n for n in vars(mine) if not n.startswith('_') and n not in members]
        # these differ between versions; every other name of ours must be in every one
        common = {
            'engine_host_code_allowed',
            'device_memory_size',
            'device_memory_size_v2',
            'is_stream_capturable',
            'create_serialization_config',
            'serialize_with_config',
        }
        if set(lacking) - common:
            raise AssertionError(f'{self.__version__} lacks {lacking} of {kind}')
        skip = ('__dict__', '__weakref__', '__module__', '__qualname__')
        private = {n: v for n, v in private.items() if n not in skip}
        return type(kind, (Strict,), {**body, **private, '_trt': self})
