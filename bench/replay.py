"""`python -m bench.replay [FILE]`: polls and lateness of each way to poll, on latencies from a file or made up.

FILE is a `.csv` or `.jsonl` with created_at and completed_at (or latency_s), or has a latency in seconds on each line.
The ways: `fixed`, the interval; `learned` from the first jobs, and never again; `online`, learned as it goes, as the
worker does; `oracle`, learned beforehand from the very jobs that are polled.
"""

import argparse
import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.findings import Findings
from bench.latencies import LOGNORMALS, OTHERS, InputError, Job, draw_jobs, read_jobs
from bench.polling import Replayed, learn, replay, replay_online
from relay.core.polling import ENOUGH_JOBS, Aim, Limits, Match, Schedule, learn_schedule

_FIXED = "fixed"
_DRAWN_JOBS = 2_500
_INTERVAL_S, _FLOOR_S = 3.0, 1.0
_LEARN_FROM = 500
_AIMS: Mapping[str, Aim] = {"as many polls": Match.POLLS, "as late": Match.LATENESS}


def compare(jobs: Sequence[Job], limits: Limits, aims: Mapping[str, Aim], learn_from: int) -> dict[str, Replayed]:
    """Each way to poll, on all jobs but the first `learn_from`, or half of them, which are there to learn from."""
    learn_from = _learned_from(learn_from, jobs)
    before = [job.latency_s for job in jobs[:learn_from]]
    rest = [job.latency_s for job in jobs[learn_from:]]
    found = {_FIXED: replay(rest, Schedule(limits))}
    histogram, foresight = learn(before), learn(rest, math.inf)
    for name, aim in aims.items():
        found[f"learned, {name}"] = replay(rest, learn_schedule(histogram, limits, aim))
        found[f"online, {name}"] = replay_online(jobs, limits, aim, count_from=learn_from)
        found[f"oracle, {name}"] = replay(rest, learn_schedule(foresight, limits, aim))
    return found


def _learned_from(wanted: int, jobs: Sequence[Job]) -> int:
    return min(wanted, len(jobs) // 2)


def table_of(title: str, found: Mapping[str, Replayed]) -> Table:
    """A comparison, each figure beside its ratio to the fixed interval's."""
    columns = ("polls", "ratio", "late s", "ratio", "p50 s", "p99 s")
    table = Table("way to poll", *columns, title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    fixed = found[_FIXED]
    for way, figures in found.items():
        table.add_row(
            *(way, f"{figures.polls_per_job:.2f}", f"{figures.polls_per_job / fixed.polls_per_job:.2f}"),
            *(f"{figures.mean_late_s:.2f}", _ratio(figures.mean_late_s, fixed.mean_late_s)),
            *(f"{figures.p50_late_s:.2f}", f"{figures.p99_late_s:.2f}"),
        )
    return table


def _ratio(value: float, base: float) -> str:
    return f"{value / base:.2f}" if base > 0 else "-"


def _medians(found: Sequence[Mapping[str, Replayed]]) -> Findings:
    rows, figures = [], {}
    for way in found[0]:
        polls = statistics.median(each[way].polls_per_job / each[_FIXED].polls_per_job for each in found)
        late = statistics.median(each[way].mean_late_s / each[_FIXED].mean_late_s for each in found)
        p99_s = statistics.median(each[way].p99_late_s for each in found)
        rows.append((way, f"{polls:.2f}", f"{late:.2f}", f"{p99_s:.2f}"))
        figures[way] = {"polls_ratio": polls, "lateness_ratio": late, "p99_s": p99_s}
    title = "polling: medians of the lognormals' ratios to the fixed interval"
    return Findings(title, ("way to poll", "polls", "lateness", "p99 s"), rows, figures)


async def run() -> Findings:
    """The summary, on made-up latencies: nothing is sent or waited for."""
    limits = Limits.of(floor_s=_FLOOR_S, interval_s=_INTERVAL_S)
    jobs = [draw_jobs(LOGNORMALS[name], _DRAWN_JOBS, seed=1, spacing_s=0.5) for name in LOGNORMALS]
    return _medians([compare(one, limits, _AIMS, _LEARN_FROM) for one in jobs])


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.01 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0.01 or more")
    return value


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.replay", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE")
    parser.add_argument("--fixed", type=_positive, default=_INTERVAL_S, help="the fixed interval, in seconds")
    parser.add_argument("--floor", type=_positive, default=_FLOOR_S, help="no two polls are closer, in seconds")
    parser.add_argument(
        "--lambda", dest="worth_s", type=_positive, help="seconds of lateness that one poll is worth; else both matches"
    )
    parser.add_argument(
        "--learn-from", type=_count, default=_LEARN_FROM, help="the first so many jobs are only learned from"
    )
    parser.add_argument("--spacing", type=_positive, default=0.5, help="seconds between starts that are not given")
    parser.add_argument("--seed", type=_count, default=1, help="of the made-up latencies")
    parser.add_argument("--json", action="store_true")
    return parser


def _jobs(file: Path | None, seed: int, spacing_s: float) -> dict[str, Sequence[Job]]:
    if file is not None:
        return {str(file): read_jobs(file, spacing_s)}
    return {n: draw_jobs(d, _DRAWN_JOBS, seed=seed, spacing_s=spacing_s) for n, d in (LOGNORMALS | OTHERS).items()}


def main() -> None:
    """Print tables, or JSON."""
    given = _arguments().parse_args()
    limits = Limits.of(floor_s=given.floor, interval_s=given.fixed)
    aims = _AIMS if given.worth_s is None else {f"{given.worth_s:g} s a poll": given.worth_s}
    try:
        sets = _jobs(given.file, given.seed, given.spacing)
    except InputError as error:
        sys.exit(str(error))
    found = {name: compare(jobs, limits, aims, given.learn_from) for name, jobs in sets.items()}
    if given.json:
        print(json.dumps({n: {way: asdict(r) for way, r in each.items()} for n, each in found.items()}))
        return
    console = Console()
    for name, each in found.items():
        learned_from = _learned_from(given.learn_from, sets[name])
        title = f"{name}: {len(sets[name])} jobs, the first {learned_from} to learn from"
        if learned_from < ENOUGH_JOBS:
            title += ", which are too few"
        console.print(table_of(title, each))
    if given.file is None:
        console.print(_medians([found[name] for name in LOGNORMALS]).table())


if __name__ == "__main__":
    main()
