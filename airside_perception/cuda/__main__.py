"""Compiles kernels ahead of their use: python -m airside_perception.cuda --arch sm_87 FILE..."""

from __future__ import annotations

import argparse
import os
import shlex
import sys

from airside_perception.cuda import kernels
from airside_perception.errors import DeviceError


def main(arguments: list[str] | None = None) -> int:
    """Fills the cache of compiled kernels; 0 if all compile."""
    parser = argparse.ArgumentParser(prog='python -m airside_perception.cuda', description=__doc__)
    parser.add_argument(
        'sources', nargs='+', metavar="'FILE OPTION...'", help="as in 'pillars.cu -DCHANNELS=64'"
    )
    parser.add_argument(
        '--arch', action='append', required=True, help='such as sm_87 (Orin); may be repeated'
    )
    parser.add_argument('--cache', metavar='DIR', help="instead of the user's cache folder")
    parser.add_argument('--resources', action='store_true', help='show registers and spills')
    given = parser.parse_args(arguments)
    if given.cache:
        os.environ['AIRSIDE_PERCEPTION_CACHE'] = given.cache
    for source in given.sources:
        name, *options = shlex.split(source)
        for arch in given.arch:
            try:
                size = len(kernels.compile_source(name, options, arch))
                print(f'{kernels.cached_path(name, options, arch)} ({size} bytes)')
                if given.resources:
                    print(kernels.resources(name, options, arch))
            except DeviceError as error:
                print(error, file=sys.stderr)
                return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
