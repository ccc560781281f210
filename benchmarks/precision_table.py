"""`python -m benchmarks.precision_table`: FP32, FP16, INT8 and mixed, network by network.

    python -m benchmarks.precision_table --cache build/precision --qat output/camera_int8
    python -m benchmarks.precision_table --cache build/precision --gpu

Accuracy is simulated: frames of seeds that nothing else used, aprons of held-out layouts and every
third a street, by day, in fog, in rain and at night in turn; lidar mAP by the distance of centres,
camera AP50 (`benchmarks.precision_accuracy`), in points. Beside it stands what a row has more than
fp32 on the same frames, with the standard error of that (jackknife over seeds).

Without --gpu, ONNX Runtime runs on the CPU: fp32 as it is, INT8 by its Q/DQ nodes, and fp16, also
that around INT8, by rounding every result. With it, TensorRT builds an engine for every row, and
the same frames go through the engines, which are timed, too. The columns of the Orin are
predictions from bytes and operations (`benchmarks.precision_orin`); nothing was measured there.

Frames, networks and engines stay in --cache: made on one machine, they can be used on another that
has no simulator.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime

from airside_perception.engine import Engine, open_engine
from airside_perception.errors import PerceptionError
from airside_perception.files import write_whole
from benchmarks.precision_accuracy import Answers, answers, difference
from benchmarks.precision_frames import shots
from benchmarks.precision_gpu import Plan, build_all, plan_of, times
from benchmarks.precision_networks import BUDGET, FP32, ROWS, Network, networks
from benchmarks.precision_orin import Prediction, predict

NETWORKS = ('apron_centerpoint', 'apron_pointpillars', 'apron_yolox')
ROOT = Path(__file__).resolve().parents[1]
GOAL = 0.25
"""Points that INT8 may lose."""


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        row: of ROWS; about: how the network came about.
        points: simulated mAP or AP50, 0..100.
        gain, error: points more than fp32, and the standard error of that.
        classes: {class: points}.
        gpu_ms: median of the network on the GPU at hand; NaN: not timed.
        orin: prediction.
        failed: why there are no figures; empty: there are.
    """

    row: str
    about: str
    points: float
    gain: float
    error: float
    classes: Mapping[str, float]
    gpu_ms: float
    orin: Prediction
    failed: str = ''

    @property
    def verdict(self) -> str:
        """Whether it keeps to the goal, as far as the frames can tell: within two errors.

        Empty for fp32, without figures, and where fp32 finds nothing that could be lost.
        """
        base = self.points - self.gain
        if self.row == FP32 or self.failed or not base > 0.0:
            return ''
        low, high = self.gain - 2 * self.error, self.gain + 2 * self.error
        if low >= -GOAL:
            return 'yes'
        if high < -GOAL:
            return 'no'
        return 'yes?' if self.gain >= -GOAL else 'no?'


def rows_on_cpu(found: Mapping[str, Network], paths: Sequence[Path]) -> list[Row]:
    """Accuracy by ONNX Runtime."""
    return _rows(found, paths, {row: network.open for row, network in found.items()}, {}, {})


def rows_on_gpu(
    found: Mapping[str, Network],
    paths: Sequence[Path],
    plans: Mapping[str, Plan],
    why: Mapping[Path, str],
) -> list[Row]:
    """Accuracy and times by TensorRT.

    Args:
        plans: {row: engine}.
        why: {engine that could not be built: why}.
    """
    failed = {row: why[plan.target] for row, plan in plans.items() if plan.target in why}
    engines = {row: plan.target for row, plan in plans.items() if row not in failed}
    timed = times(engines) if engines else {}
    opened = {row: partial(open_engine, path) for row, path in engines.items()}
    return _rows(found, paths, opened, timed, failed)


def _rows(
    found: Mapping[str, Network],
    paths: Sequence[Path],
    opened: Mapping[str, Callable[[], AbstractContextManager[Engine]]],
    timed: Mapping[str, float],
    failed: Mapping[str, str],
) -> list[Row]:
    base: Answers | None = None
    table = []
    for row, network in found.items():
        started = time.monotonic()
        orin = predict(network.plain, network.precision, network.int8)
        points = gain = error = math.nan
        classes: Mapping[str, float] = {}
        why = failed.get(row, '')
        if not why:
            try:
                with opened[row]() as engine:
                    own = answers(engine, network.card, paths)
                base = own if row == FP32 else base
                points, classes = own.points, own.by_class
                if base is not None:
                    gain, error = difference(own, base)
            except PerceptionError as problem:
                why = str(problem)
        milliseconds = timed.get(row, math.nan)
        table.append(
            Row(row, network.about, points, gain, error, classes, milliseconds, orin, why)
        )
        print(f'{network.path.stem} {row}: {points:.2f}, {why or _since(started)}', flush=True)
    return table


def _since(started: float) -> str:
    return f'{time.monotonic() - started:.0f} s'


def text(name: str, table: Sequence[Row], kind: str) -> str:
    """A table. `kind`: of the points."""
    lines = [
        f'{name}: {kind}, simulated',
        f'{"":<10}{"points":>8}{"to fp32":>9}{"±":>6}{"goal":>6}{"GPU ms":>9}'
        f'{"INT8":>7}{"MB":>7}{"Orin peak":>11}{"fitted":>8}',
    ]
    for row in table:
        orin = row.orin
        end = f'  {row.failed or row.about}'.rstrip()
        lines.append(
            f'{row.row:<10}{_n(row.points, 8, 2)}{_n(row.gain, 9, 2, "+")}{_n(row.error, 6, 2)}'
            f'{row.verdict or "-":>6}{_n(row.gpu_ms, 9, 3)}{orin.int8_share:>7.0%}'
            f'{orin.weight_mb:>7.2f}{orin.peak_ms:>8.2f} ms{orin.fitted_ms:>5.2f} ms{end}'
        )
    return '\n'.join(lines)


NOTE = (
    f'goal: at most {GOAL} points below fp32; ? where two standard errors reach over the edge\n'
    'INT8: share of the operations; MB: weights\n'
    'Orin: predictions of milliseconds from bytes and operations, at the peak figures of the data '
    'sheet and at rates fitted to three published layers; nothing was measured on an Orin'
)


def _n(value: float, width: int, digits: int, sign: str = '') -> str:
    return f'{value:>{sign}{width}.{digits}f}' if math.isfinite(value) else f'{"-":>{width}}'


def as_dict(row: Row) -> dict[str, Any]:
    """For JSON, which knows no NaN."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, float):
            return round(value, 4) if math.isfinite(value) else None
        return value

    values: dict[str, Any] = plain(asdict(row))
    return values | {'within goal': row.verdict}


def _seeds(spec: str) -> range:
    first, end = map(int, spec.split(':'))
    return range(first, end)


def _where(gpu: bool) -> str:
    """Which machine and software the figures are of."""
    if not gpu:
        return f'ONNX Runtime {onnxruntime.__version__}, CPU'
    from airside_perception.cuda.runtime import use_device
    from airside_perception.engine.capabilities import load_tensorrt

    return f'{load_tensorrt(build=True)}, {use_device().name}'


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.precision_table',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--models', type=Path, default=ROOT / 'models')
    parser.add_argument('--networks', nargs='+', default=NETWORKS, metavar='NAME')
    parser.add_argument(
        '--qat', type=Path, nargs='+', default=[], help='folders that training.qat wrote'
    )
    parser.add_argument('--cache', type=Path, default=ROOT / 'build' / 'precision')
    parser.add_argument('--seeds', default='7000:7060', help='first:end; default: %(default)s')
    parser.add_argument(
        '--every-condition', action='store_true', help='each seed in all four, for smaller errors'
    )
    parser.add_argument(
        '--calibration', default='8000:8020', help='seeds of PTQ; default: %(default)s'
    )
    parser.add_argument('--rows', nargs='+', choices=ROWS, default=ROWS)
    parser.add_argument(
        '--budget', type=float, default=BUDGET, help='of the mixed network, default: %(default)s'
    )
    parser.add_argument('--prepare', action='store_true', help='frames and networks only')
    parser.add_argument('--gpu', action='store_true', help='engines of TensorRT')
    parser.add_argument('--opt-level', type=int, default=2, help='of TensorRT')
    parser.add_argument('--jobs', type=int, default=3, help='engines that are built at a time')
    parser.add_argument('--json', type=Path, help='write the figures to this file as well')
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the tables; exit status 1 where there is no network or a row failed."""
    try:
        return _run(_parser().parse_args(arguments))
    except PerceptionError as error:
        print(error, file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    cache: Path = options.cache
    sources = {name: options.models / f'{name}.onnx' for name in options.networks}
    for name, source in tuple(sources.items()):
        if not source.is_file():
            print(f'{source} is not there: left out', file=sys.stderr)
            del sources[name]
    if not sources:
        return 1
    paths = shots(cache / 'frames', _seeds(options.seeds), options.every_condition)
    calibration = cache / 'frames', _seeds(options.calibration)
    rows = tuple(dict.fromkeys((FP32, *options.rows)))
    every: dict[str, dict[str, Network]] = {}
    for name, source in sources.items():
        trained = [path for path in options.qat if (path / f'{name}_qdq.onnx').is_file()]
        every[name] = networks(
            source, cache / 'networks', calibration, next(iter(trained), None), rows,
            options.budget,
        )  # fmt: skip
    if options.prepare:
        return 0
    report: dict[str, Any] = {
        'seeds': options.seeds,
        'frames': len(paths),
        'calibration': options.calibration,
        'by': _where(options.gpu),
        'host': f'{platform.machine()}, Python {platform.python_version()}',
        'networks': {},
    }
    plans = {
        name: {row: plan_of(network, cache / 'engines') for row, network in found.items()}
        for name, found in every.items()
    }
    why = {}
    if options.gpu:
        wanted = [plan for own in plans.values() for plan in own.values()]
        why = build_all(wanted, options.opt_level, options.jobs)
    tables, failed = [], False
    for name, found in every.items():
        if options.gpu:
            table = rows_on_gpu(found, paths, plans[name], why)
        else:
            table = rows_on_cpu(found, paths)
        failed = failed or any(row.failed for row in table)
        kind = 'AP50' if name.endswith('yolox') else 'mAP (centre distance)'
        tables.append(text(name, table, kind))
        report['networks'][name] = [as_dict(row) for row in table]
        if options.json:
            write_whole(options.json, json.dumps(report, indent=1) + '\n')
    print('\n\n'.join([f'{report["by"]}; {len(paths)} frames', *tables, NOTE]))
    return int(failed)


if __name__ == '__main__':
    sys.exit(main())
