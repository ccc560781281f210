"""Writes which public names the Python bindings of a TensorRT have: the tables beside this file.

    extract.py FOLDER OUT.json

FOLDER is the unpacked package of bindings (`tensorrt_bindings`, `tensorrt_lean`, ...: the folder
with `__init__.py` and one shared library), for the Python that runs this. Neither a GPU nor
TensorRT's own libraries are needed: they are replaced by empty ones with the same symbols, as
only names are read and nothing is called. Needs gcc, nm and readelf.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CLASSES = (
    'Builder', 'IBuilderConfig', 'Runtime', 'IRuntimeConfig', 'ICudaEngine', 'IExecutionContext',
    'INetworkDefinition', 'ILayer', 'ITensor', 'IOptimizationProfile', 'OnnxParser', 'ParserError',
    'EngineInspector', 'ITimingCache', 'IHostMemory', 'ILogger', 'Logger', 'IProfiler',
    'IProgressMonitor', 'ISerializationConfig', 'IInt8EntropyCalibrator2', 'Refitter',
    'IErrorRecorder', 'OnnxParserRefitter',
    # enumerations
    'BuilderFlag', 'NetworkDefinitionCreationFlag', 'OnnxParserFlag', 'MemoryPoolType',
    'TacticSource', 'DataType', 'DeviceType', 'TensorFormat', 'TensorIOMode', 'TensorLocation',
    'ProfilingVerbosity', 'HardwareCompatibilityLevel', 'ExecutionContextAllocationStrategy',
    'QuantizationFlag', 'PreviewFeature', 'SerializationFlag', 'RuntimePlatform',
    'EngineCapability', 'LayerInformationFormat', 'ComputeCapability', 'CudaGraphStrategy',
    'DynamicShapesKernelSpecializationStrategy', 'EngineValidity', 'CalibrationAlgoType',
)  # fmt: skip
SYSTEM = ('libc.', 'libm.', 'libdl.', 'librt.', 'libpthread.', 'libgcc', 'libstdc', 'ld-linux')


def stub_libraries(extension: Path, into: Path) -> None:
    """Empty libraries for everything that `extension` needs beyond the system."""
    dynamic = subprocess.run(
        ['readelf', '-d', extension], capture_output=True, text=True, check=True
    ).stdout
    needed = [line.split('[')[1].rstrip(']') for line in dynamic.splitlines() if 'NEEDED' in line]
    needed = [name for name in needed if not name.startswith(SYSTEM)]
    undefined = subprocess.run(
        ['nm', '-D', '--undefined-only', extension], capture_output=True, text=True, check=True
    ).stdout
    names = {line.split()[-1] for line in undefined.splitlines()}
    names = {
        name for name in names if '@' not in name and not name.startswith(('Py', '_Py', '_ITM'))
    }
    names -= {'__gmon_start__'}
    source = into / 'stub.c'
    for place, name in enumerate(needed):
        # all symbols go into the first, the others are only there
        functions = sorted(names) if place == 0 else []
        source.write_text(''.join(f'int {item}(void) {{ return 0; }}\n' for item in functions))
        subprocess.run(
            ['gcc', '-w', '-fno-builtin', '-shared', '-fPIC', '-o', into / name, source,
             f'-Wl,-soname,{name}'],
            check=True,
        )  # fmt: skip


def public(thing: object) -> list[str]:
    """Its names, without Python's own and without those that every enumeration has."""
    names = [name for name in dir(thing) if not name.startswith('_')]
    if hasattr(thing, '__members__'):
        names = list(thing.__members__)
    return sorted(names)


def surface(package: Path) -> dict[str, object]:
    """What the module says of itself."""
    sys.path.insert(0, str(package.parent))
    module = __import__(package.name)
    classes = {name: public(getattr(module, name)) for name in CLASSES if hasattr(module, name)}
    return {
        'package': package.name,
        'version': module.__version__,
        'names': public(module),
        'classes': classes,
    }


def lines(table: dict[str, object]) -> str:
    """JSON with one line a list: small, and a difference is seen at once."""
    classes = table['classes']
    if not isinstance(classes, dict):
        raise TypeError(f'classes: {classes!r} is no table')
    rows = ',\n'.join(f'    {json.dumps(name)}: {json.dumps(classes[name])}' for name in classes)
    head = ''.join(
        f'  {json.dumps(key)}: {json.dumps(table[key])},\n'
        for key in ('package', 'version', 'names')
    )
    return f'{{\n{head}  "classes": {{\n{rows}\n  }}\n}}\n'


def main(folder: str, out: str) -> None:
    package = Path(folder).resolve()
    if 'EXTRACT_STUBS' in os.environ:
        Path(out).write_text(lines(surface(package)))
        return
    with tempfile.TemporaryDirectory() as stubs:
        for extension in package.glob('*.so'):
            stub_libraries(extension, Path(stubs))
        environment = {**os.environ, 'EXTRACT_STUBS': stubs, 'LD_LIBRARY_PATH': stubs}
        subprocess.run([sys.executable, __file__, folder, out], env=environment, check=True)


if __name__ == '__main__':
    main(*sys.argv[1:])
