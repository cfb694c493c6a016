"""What waiting jobs cost: CPU for each poll, lateness, and memory, with 1,000, 10,000 and 100,000 of them.

The interval grows with their number, so that each size is polled as often in a second, and all sizes run side by side,
so that what disturbs one disturbs all. The jobs are put into the store as if they had been submitted.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.findings import Findings, Target, median, rank, spread
from bench.memory import accept
from bench.rig import Rig, cpu_s, resident_bytes, scratch
from relay.core.model import ClientName
from relay.core.settings import Settings
from relay.core.store import Store, WorkStore
from relay.core.store.work import saved_submission

_SIZES = (1_000, 10_000, 100_000)
_POLLS_PER_S = 300
_WINDOWS, _WINDOW_S, _SETTLE_S = 4, 8.0, 3.0
#: Long enough to say when each poll is due before the first one is.
_LEAD_S = 3.0
_SOME_DAY_MS = 3_600_000
_PROMPT_BYTES = 200
_CLIENT = ClientName("default")


@dataclass(slots=True)
class Waiting:
    """Jobs that wait, and what was measured with so many."""

    rig: Rig
    jobs: int
    store_bytes: float = 0.0
    worker_bytes: float = 0.0
    #: When each job's first poll was due, by its id, in the store's milliseconds.
    due_ms: Mapping[str, float] = field(default_factory=dict)
    #: For each window, for each poll.
    worker_ms: list[float] = field(default_factory=list)
    store_ms: list[float] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)
    polls_per_s: list[float] = field(default_factory=list)

    @property
    def interval_s(self) -> float:
        """Between two polls of one job."""
        return self.jobs / _POLLS_PER_S

    async def fill(self) -> None:
        """Put the jobs into the store; their polls are due some day."""
        settings = Settings.load(_env_file=None, redis_url=self.rig.store.url)
        store, work = await Store.connect(settings), await WorkStore.connect(settings)
        with contextlib.closing(self.rig.raw_store()) as raw:
            empty = raw.info("memory")["used_memory"]
            await accept(store, self.jobs, _CLIENT)
            while claims := await work.begin_submit(_CLIENT, 200):
                await work.save(
                    [saved_submission(c.lease, f"wait-{c.lease.id}", _SOME_DAY_MS, "chatgpt") for c in claims]
                )
            self.store_bytes = (raw.info("memory")["used_memory"] - empty) / self.jobs
        await store.close()
        await work.close()

    def begin(self, now_ms: float) -> None:
        """Spread the polls over the next interval."""
        rng = random.Random(1)
        with contextlib.closing(self.rig.raw_store()) as raw:
            due = "relay:due:poll"
            jobs = raw.zrange(due, 0, -1)
            scores = {job: int(now_ms + rng.random() * self.interval_s * 1000) for job in jobs}
            for start in range(0, len(jobs), 1000):
                raw.zadd(due, {job: scores[job] for job in jobs[start : start + 1000]}, xx=True)
        self.due_ms = {job.decode(): at for job, at in scores.items()}

    async def watch(self) -> None:
        """One window."""
        pid = self.rig.worker_pids()[0]
        began = (await self._polls(), cpu_s(pid), cpu_s(self.rig.store.pid()), time.monotonic())
        await asyncio.sleep(_WINDOW_S)
        ended = (await self._polls(), cpu_s(pid), cpu_s(self.rig.store.pid()), time.monotonic())
        polls, worker_s, store_s, wall_s = (after - before for before, after in zip(began, ended, strict=True))
        self.worker_ms.append(worker_s / polls * 1000)
        self.store_ms.append(store_s / polls * 1000)
        self.polls_per_s.append(polls / wall_s)

    async def _polls(self) -> float:
        return float((await self.rig.seen_upstream("counts"))["polls"])

    async def finish(self) -> None:
        """What is known at the end only."""
        waited = await self.rig.seen_upstream("waited")
        self.late_s = [at - self.due_ms[job.removeprefix("wait-")] / 1000 for job, at in waited.items()]
        self.worker_bytes = resident_bytes(self.rig.worker_pids()[0])


async def run(sizes: Sequence[int] = _SIZES) -> Findings:
    """All sizes side by side."""
    with scratch() as folder:
        async with contextlib.AsyncExitStack() as stack:
            waiting = [_waiting(folder, jobs) for jobs in sizes]
            for one in waiting:
                await stack.enter_async_context(one.rig.running(one.rig.upstream))
            for one in waiting:
                await one.fill()
                await stack.enter_async_context(one.rig.also_running(*one.rig.workers))
            begins_ms = time.time() * 1000 + _LEAD_S * 1000
            for one in waiting:
                one.begin(begins_ms)
            await asyncio.sleep(_LEAD_S + _SETTLE_S)
            for _ in range(_WINDOWS):
                await asyncio.gather(*(one.watch() for one in waiting))
            for one in waiting:
                await one.finish()
    return _findings(waiting)


def _waiting(folder: Path, jobs: int) -> Waiting:
    settings = {"RELAY_POLL_STRATEGY": "fixed", "RELAY_POLL_INTERVAL_S": f"{jobs / _POLLS_PER_S:.3f}"}
    return Waiting(Rig(folder / str(jobs), settings), jobs)


def _findings(waiting: Sequence[Waiting]) -> Findings:
    least, most = waiting[0], waiting[-1]
    rows, figures = [], {}
    for one in waiting:
        beyond = one.store_bytes - _PROMPT_BYTES
        ratios = [mine / base for mine, base in zip(one.worker_ms, least.worker_ms, strict=True)]
        rows.append(
            (
                *(f"{one.jobs:,}", f"{one.interval_s:.1f}", f"{median(one.polls_per_s):.0f}"),
                *(f"{median(one.worker_ms):.3f}", spread(ratios), f"{median(one.store_ms):.3f}"),
                *(f"{rank(one.late_s, 0.5) * 1000:.0f}", f"{rank(one.late_s, 0.99) * 1000:.0f}"),
                *(f"{one.worker_bytes / 2**20:.1f}", f"{beyond:.0f}"),
            )
        )
        figures[str(one.jobs)] = {
            "worker_ms_per_poll": one.worker_ms,
            "store_ms_per_poll": one.store_ms,
            "ratios": ratios,
            "polls_per_s": one.polls_per_s,
            "late_p50_s": rank(one.late_s, 0.5),
            "late_p99_s": rank(one.late_s, 0.99),
            "worker_bytes": one.worker_bytes,
            "store_bytes_per_job_beyond_prompt": beyond,
        }
    grown = (most.worker_bytes - least.worker_bytes) / (most.jobs - least.jobs)
    ratios = [mine / base for mine, base in zip(most.worker_ms, least.worker_ms, strict=True)]
    targets = [
        Target(f"CPU for a poll, {most.jobs:,} waiting to {least.jobs:,}", median(ratios), at_most=1.2),
        Target("worker's memory for a waiting job", grown, at_most=1024, unit=" B"),
        Target("store's memory beyond the prompt", most.store_bytes - _PROMPT_BYTES, at_most=3072, unit=" B"),
    ]
    return Findings(
        f"scale: jobs that wait, {_POLLS_PER_S} polls a second at each size",
        (
            *("waiting", "interval s", "polls/s", "worker ms/poll", "ratio", "store ms/poll", "late p50 ms", "p99 ms"),
            *("worker MiB", "store B/job"),
        ),
        rows,
        figures,
        targets,
        ["store B/job is beyond the prompt of 200 bytes"],
    )
