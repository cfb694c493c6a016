"""`python -m bench.isolation`: what bad receivers with a backlog cost the callbacks of fifty healthy ones.

Each row is two systems at the same time, so that what else the machine does hits both: one alone, and one with the bad
receivers, while attempts hang there and nothing is known yet, and, where nobody answers, with their gates closed.
"""

import argparse
import asyncio
import contextlib
import statistics
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.faults import receivers
from tests.faults.crowd import HEALTHY, Backlog, Crowd, side_by_side, slow, system_for
from tests.faults.receivers import Serve
from tests.processes import eventually

#: Attempts hang for as long as is measured. By default that is over after 15 s.
_SETTINGS = {"RELAY_CALLBACK_TIMEOUT_S": "60"}
_CLOSED_S = 90.0


@dataclass(frozen=True, slots=True)
class Case:
    """What is beside the healthy receivers."""

    name: str
    serve: Serve
    receivers: int
    #: Due at each.
    callbacks: int
    closes: bool = False


CASES = (
    Case("1 dead, 5,000 due", receivers.silent, 1, 5_000, closes=True),
    Case("7 dead, 700 due at each", receivers.silent, 7, 700, closes=True),
    Case("30 dead, 150 due at each", receivers.silent, 30, 150),
    Case("1 that takes about 1 s, 5,000 due", slow(0.5, 1.5), 1, 5_000),
    Case("7 that take about 1 s, 1,300 due at each", slow(0.5, 1.5), 7, 1_300),
)


@dataclass(frozen=True, slots=True)
class Load:
    """The healthy callbacks of each system."""

    rounds: int
    callbacks: int
    per_s: float


@dataclass(frozen=True, slots=True)
class Row:
    """The medians over the rounds, in ms; and of the ratios of those."""

    name: str
    p50_alone: float
    p50: float
    p99_alone: float
    p99: float
    ratio: float


async def measure(case: Case, load: Load) -> AsyncIterator[Row]:
    """The rows of one case."""
    async with contextlib.AsyncExitStack() as stack:
        folders = [stack.enter_context(tempfile.TemporaryDirectory(prefix="isolation-")) for _ in range(2)]
        systems = [system_for(Path(folder), _SETTINGS) for folder in folders]
        await asyncio.gather(*(stack.enter_async_context(system.running()) for system in systems))
        crowds = [await stack.enter_async_context(Crowd(system).serving()) for system in systems]
        await side_by_side("warming up", crowds, 2 * HEALTHY, load.per_s)
        async with Backlog.at(systems[1], case.serve, receivers=case.receivers, callbacks=case.callbacks) as backlog:
            yield await measure_rounds(case.name, crowds, load)
            assert await backlog.due() > 0, "the backlog is gone: nothing was shown"
            if case.closes:
                await eventually(backlog.is_closed, _CLOSED_S, "the gates are not closed")
                yield await measure_rounds(f"{case.name}, gates closed", crowds, load)


async def measure_rounds(name: str, crowds: Sequence[Crowd], load: Load) -> Row:
    """One row."""
    seen = [await side_by_side(f"{name} {n}", crowds, load.callbacks, load.per_s) for n in range(load.rounds)]
    return Row(
        name,
        statistics.median(alone.p50_ms for alone, _ in seen),
        statistics.median(beside.p50_ms for _, beside in seen),
        statistics.median(alone.p99_ms for alone, _ in seen),
        statistics.median(beside.p99_ms for _, beside in seen),
        statistics.median(beside.p99_ms / alone.p99_ms for alone, beside in seen),
    )


async def run(cases: Sequence[Case], load: Load, console: Console) -> None:
    """Measure, and print the table."""
    table = Table(
        *("beside", "p50 alone", "p50", "p99 alone", "p99", "p99 ratio"),
        title=f"Lateness in ms, {load.callbacks} callbacks at {load.per_s:g} a second: medians of {load.rounds} rounds",
    )
    for case in cases:
        async for row in measure(case, load):
            figures = (row.p50_alone, row.p50, row.p99_alone, row.p99)
            table.add_row(row.name, *(f"{figure:.1f}" for figure in figures), f"{row.ratio:.2f}")
    console.print(table)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.isolation", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--callbacks", type=int, default=500, help="healthy ones in each round, of each system")
    parser.add_argument("--per-s", type=float, default=50.0, help="their rate")
    parser.add_argument("--only", default="", help="the rows whose name has this in it")
    given = parser.parse_args()
    cases = [case for case in CASES if given.only in case.name]
    asyncio.run(run(cases, Load(given.rounds, given.callbacks, given.per_s), Console(width=120)))


if __name__ == "__main__":
    main()
