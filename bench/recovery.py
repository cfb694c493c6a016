"""`python -m bench.recovery`: how much later callbacks come when something dies, and how long no 202 comes.

One load for every fault, in one run: jobs at a steady rate, of one latency, to a receiver that takes its time, as the
upstream does, so that every fault hits steps of every kind. A callback is as late as it comes after its job was
accepted and its latency was over; what a fault adds is seen beside the same load without one. Those are looked at that
were under way when the fault came, or were asked for while it lasted.
"""

import argparse
import asyncio
import contextlib
import itertools
import math
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from rich.console import Console
from rich.table import Table

from tests.processes import System

_LATENCY_S = 4.0
#: What each request takes, to the upstream and to the receiver.
_ANSWER_S = 0.5
_CALL_S = 15.0
#: Into the load, before the fault.
_BEFORE_S = 6.0


@dataclass(frozen=True, slots=True)
class Run:
    """One load, with or without a fault in it."""

    fault: str
    jobs: int
    #: Of those under way at the fault, or asked for while it lasted.
    late_p50_s: float
    late_p99_s: float
    #: The longest time without a 202.
    quiet_s: float
    lost: int
    repeated_callbacks: int
    repeated_submits: int


@dataclass
class Load:
    """Jobs at a steady rate."""

    system: System
    name: str
    #: When each job's 202 came, by its id.
    accepted: dict[str, float] = field(default_factory=dict)

    @contextlib.asynccontextmanager
    async def coming(self, per_s: float) -> AsyncIterator[None]:
        """While this lasts."""
        async with asyncio.TaskGroup() as group:
            coming = group.create_task(self._ask(per_s, group))
            try:
                yield
            finally:
                coming.cancel()

    async def _ask(self, per_s: float, group: asyncio.TaskGroup) -> None:
        began = time.monotonic()
        for number in itertools.count():
            await asyncio.sleep(began + number / per_s - time.monotonic())
            group.create_task(self._one(number))

    async def _one(self, number: int) -> None:
        body = {
            "scraper": "chatgpt",
            "prompt": f"[latency={_LATENCY_S}] {self.name} {number}",
            "callback_url": f"{self.system.inbox_url}/slow/{_ANSWER_S}",
        }
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                async with asyncio.timeout(_CALL_S):
                    key = f"{self.name}-{number}".replace(" ", "-")
                    status, answer = await self.system.call("POST", "/v1/jobs", body, **{"Idempotency-Key": key})
                if status == 202:
                    self.accepted.setdefault(answer["id"], time.time())
                    return
            await asyncio.sleep(0.1)


async def measure(
    system: System, fault: str, strike: Callable[[], Awaitable[None]], *, per_s: float, after_s: float
) -> Run:
    """One load with a fault in the middle of it, `after_s` longer than the fault lasts."""
    load = Load(system, fault)
    before = await system.emulated()
    system.inbox.received.clear()
    async with load.coming(per_s):
        await asyncio.sleep(_BEFORE_S)
        struck = time.time()
        await strike()
        over = time.time()
        await asyncio.sleep(after_s)
    with contextlib.suppress(AssertionError):  # what is lost is counted
        await system.callbacks(len(load.accepted), 60)
    after = await system.emulated()
    first: dict[str, float] = {}
    for received in system.inbox.received:
        first.setdefault(received.webhook_id.removeprefix("msg_"), received.received_ms / 1000)
    touched = [
        first[job] - at - _LATENCY_S
        for job, at in load.accepted.items()
        if job in first and at <= over + 1 and first[job] >= struck
    ]
    moments = sorted(load.accepted.values())
    return Run(
        fault,
        len(load.accepted),
        _rank(touched, 0.5),
        _rank(touched, 0.99),
        max(later - earlier for earlier, later in itertools.pairwise(moments)),
        len(load.accepted.keys() - first.keys()),
        len(system.inbox.received) - len(first),
        after["repeated_submits"] - before["repeated_submits"],
    )


def _rank(values: Sequence[float], share: float) -> float:
    return sorted(values)[math.ceil(len(values) * share) - 1]


async def run(per_s: float, lease_s: float) -> list[Run]:
    """Every fault."""
    settings = {"RELAY_LEASE_S": str(lease_s)}
    with tempfile.TemporaryDirectory() as folder:
        upstream = {"EMULATOR_FAILURE_RATE": "0", "EMULATOR_ANSWER_DELAY_S": str(_ANSWER_S)}
        async with System(Path(folder), settings, upstream).running() as system:
            other = system.another_worker()
            await other.start()

            async def nothing() -> None:
                await asyncio.sleep(0)

            async def one_worker() -> None:
                await other.kill()

            async def both_workers() -> None:
                await other.start()
                await asyncio.gather(system.worker.kill(), other.kill())
                await asyncio.gather(system.worker.start(), other.start())

            async def relay() -> None:
                await system.relay.kill()
                await system.relay.start()

            def store(down_s: float) -> Callable[[], Awaitable[None]]:
                async def strike() -> None:
                    system.store.kill()
                    await asyncio.sleep(down_s)
                    system.store.start()

                return strike

            faults: list[tuple[str, Callable[[], Awaitable[None]], float]] = [
                ("warming up", nothing, 2),
                ("none", nothing, 10),
                ("one of two workers killed, for good", one_worker, lease_s + 5),
                ("both workers killed and started", both_workers, lease_s + 5),
                ("relay killed and started", relay, 5),
                ("store killed, down for 1 s", store(1), 15),
                ("store killed, down for 10 s", store(10), 15),
            ]
            return [await measure(system, name, strike, per_s=per_s, after_s=s) for name, strike, s in faults][1:]


def print_table(runs: Sequence[Run], lease_s: float, per_s: float) -> None:
    """The runs, and how much later than without a fault."""
    usual = runs[0]
    table = Table(title=f"{per_s:g} jobs/s of {_LATENCY_S:g} s; lease {lease_s:g} s; seconds")
    for column in ("fault", "jobs", "lost", "late p50", "p99", "p99 beyond none's", "without 202"):
        table.add_column(column, justify="left" if column == "fault" else "right")
    table.add_column("callbacks twice", justify="right")
    table.add_column("submits twice", justify="right")
    for one in runs:
        table.add_row(
            *(one.fault, str(one.jobs), str(one.lost), f"{one.late_p50_s:.2f}", f"{one.late_p99_s:.2f}"),
            *(f"{one.late_p99_s - usual.late_p99_s:.2f}", f"{one.quiet_s:.2f}"),
            *(str(one.repeated_callbacks), str(one.repeated_submits)),
        )
    Console(width=150).print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.recovery", description="What faults cost in time.")
    parser.add_argument("--per-s", type=float, default=20, help="jobs a second")
    parser.add_argument("--lease", type=float, default=15, help="RELAY_LEASE_S")
    arguments = parser.parse_args()
    print_table(asyncio.run(run(arguments.per_s, arguments.lease)), arguments.lease, arguments.per_s)


if __name__ == "__main__":
    main()
