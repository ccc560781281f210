"""`ros2 launch`: run a launch file of a package, or one given by its path."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from launch import LaunchContext, LaunchDescription, LaunchService
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import (
    AnyLaunchDescriptionSource,
    get_launch_description_from_any_launch_file,
)
from launch.utilities import perform_substitutions
from ros2cli.command import CommandExtension

LAUNCH_SUFFIXES = ('.launch.py', '.launch.xml', '.launch.yaml')


class LaunchCommand(CommandExtension):
    """Run a launch file."""

    def add_arguments(self, parser: argparse.ArgumentParser, cli_name: str) -> None:
        """Declare the command line."""
        parser.add_argument(
            '-s',
            '--show-args',
            '--show-arguments',
            action='store_true',
            help='print the arguments that the launch file takes, and end',
        )
        parser.add_argument(
            '-n',
            '--noninteractive',
            action='store_true',
            default=not sys.stdin.isatty(),
            help='no terminal is attached, which would interrupt the nodes too; known where the '
            'input is none',
        )
        parser.add_argument(
            '-d', '--debug', action='store_true', help='log what the launch system itself does'
        )
        parser.add_argument('target', help='a package, or the path of a launch file')
        parser.add_argument(
            'rest',
            nargs='*',
            metavar='[file] name:=value',
            help='the launch file, after a package; then values of its arguments',
        )

    def main(self, *, parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
        """Run the launch file to its end and return its exit status."""
        path, assignments = _locate(parser, args.target, args.rest)
        if args.show_args:
            print(_describe_arguments(path))
            return 0
        arguments = [_parse_assignment(parser, text) for text in assignments]
        service = LaunchService(
            argv=assignments, noninteractive=args.noninteractive, debug=args.debug
        )
        service.include_launch_description(
            LaunchDescription(
                [
                    IncludeLaunchDescription(
                        AnyLaunchDescriptionSource(str(path)), launch_arguments=arguments
                    )
                ]
            )
        )
        return int(service.run())


def _locate(
    parser: argparse.ArgumentParser, target: str, rest: list[str]
) -> tuple[Path, list[str]]:
    """Find the launch file; what follows it are assignments."""
    if Path(target).is_file():
        return Path(target), rest
    if not rest or ':=' in rest[0]:
        parser.error(f"'{target}' is not a file; after a package, name one of its launch files")
    try:
        share = Path(get_package_share_directory(target))
    except PackageNotFoundError:
        raise RuntimeError(f"no package '{target}' in AMENT_PREFIX_PATH") from None
    found = sorted(path for path in share.rglob(rest[0]) if path.is_file())
    if len(found) == 1:
        return found[0], rest[1:]
    if found:
        listing = '\n  '.join(str(path) for path in found)
        raise RuntimeError(f"'{rest[0]}' is ambiguous, give the path of one:\n  {listing}")
    names = sorted(p.name for p in share.rglob('*') if p.name.endswith(LAUNCH_SUFFIXES))
    raise RuntimeError(
        f"no launch file '{rest[0]}' in {share}; there are: {', '.join(names) or 'none'}"
    )


def _parse_assignment(parser: argparse.ArgumentParser, text: str) -> tuple[str, str]:
    name, separator, value = text.partition(':=')
    if not separator or not name:
        parser.error(f"'{text}' is not of the form name:=value")
    return name, value


def _describe_arguments(path: Path) -> str:
    arguments = get_launch_description_from_any_launch_file(str(path)).get_launch_arguments()
    if not arguments:
        return f'{path} takes no arguments'
    return '\n'.join([f'Arguments of {path} (name:=value):', *map(_describe, arguments)])


def _describe(argument: DeclareLaunchArgument) -> str:
    lines = [f"\n    '{argument.name}':", f'        {argument.description}']
    if argument.choices:
        lines.append(f'        one of: {", ".join(argument.choices)}')
    if argument.default_value is None:
        lines.append('        (required)')
    else:
        lines.append(f"        (default: '{_default(argument)}')")
    return '\n'.join(lines)


def _default(argument: DeclareLaunchArgument) -> str:
    try:
        return perform_substitutions(LaunchContext(), argument.default_value)
    except Exception:  # noqa: BLE001  any substitution may need what only a running launch has
        return ''.join(substitution.describe() for substitution in argument.default_value)
