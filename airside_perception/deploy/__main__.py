"""`engine`: from a PyTorch checkpoint to an engine that is known to be right and fast."""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Any

from airside_perception.deploy.verb import BAD_INPUT, GOOD, SAYS_NO
from airside_perception.deploy.verbs import VERBS
from airside_perception.errors import INTERRUPTED, PerceptionError, RefusalError

PACKAGES = {
    'cv2': 'opencv-python-headless', 'yaml': 'PyYAML', 'onnx_graphsurgeon': 'onnx-graphsurgeon',
}  # fmt: skip
"""{module: package of PyPI}, where they differ."""
EPILOG = """\
examples:
  engine lint models/apron_yolox.onnx --target dla --jetpack 6.2
  engine build models/apron_centerpoint.onnx --precision fp16
  engine inspect models/apron_centerpoint.fp16.gpu.engine

`engine VERB --help` says more of each verb, with examples.

exit status: 0 fine, 1 the check says no (a network or engine that does not fit, a build that
this machine cannot do), 2 bad input or usage
"""


def main(args: list[str] | None = None) -> int:
    """The command line; returns its exit status."""
    words = sys.argv[1:] if args is None else list(args)
    try:
        options = _parser(words).parse_args(words)
        answer = options.run(options)
    except ModuleNotFoundError as error:
        missing = (error.name or '').partition('.')[0]
        if missing in ('', 'airside_perception'):
            raise  # ours: a fault, not an environment
        print(
            f'engine: needs the Python package {missing}, which is not installed here: '
            f'pip install {PACKAGES.get(missing, missing)}',
            file=sys.stderr,
        )
        return SAYS_NO
    except RefusalError as error:
        print(f'engine: {error}', file=sys.stderr)
        return SAYS_NO
    except PerceptionError as error:
        print(f'engine: {error}', file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print('engine: interrupted; what was there before is still there', file=sys.stderr)
        return INTERRUPTED
    print(answer.shown(options.json))
    return GOOD if answer.good else SAYS_NO


def _parser(words: list[str]) -> argparse.ArgumentParser:
    """The parser; only the module of the verb that is asked for is imported."""
    parser = argparse.ArgumentParser(
        prog='engine',
        description='From a PyTorch checkpoint to a trusted TensorRT engine, verb by verb.',
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(title='verbs', metavar='VERB', required=True)
    asked = next((word for word in words if not word.startswith('-')), '')
    for name, help_text in VERBS.items():
        if name != asked:
            verbs.add_parser(name, help=help_text)
            continue
        module: Any = importlib.import_module(
            f'airside_perception.deploy.verbs.{name.replace("-", "_")}'
        )
        examples = ''.join(f'  {line}\n' for line in module.EXAMPLES.strip().splitlines())
        verb = verbs.add_parser(
            name,
            help=help_text,
            description=module.DESCRIPTION,
            epilog=f'examples:\n{examples}',
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.add_argument('--json', action='store_true', help='print JSON instead of text')
        module.add_options(verb)
        verb.set_defaults(run=module.run)
    return parser


if __name__ == '__main__':
    sys.exit(main())
