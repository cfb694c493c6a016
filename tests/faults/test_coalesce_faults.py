"""Equal jobs that share one upstream job, while their workers are killed and their leaders cancelled."""

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.faults.account import LEASE_S, QUICK, UPSTREAM, Submits, check_callbacks, job_of, submits_of
from tests.processes import System, until

pytestmark = pytest.mark.faults

LONG = pytest.mark.skipif(not os.environ.get("FAULTS_LONG"), reason="takes minutes; FAULTS_LONG=1 asks for it")
#: A submit takes so long that each kill hits some; a job so long that all of its group join it.
ANSWER_S, LATENCY_S = 0.5, 2.0
#: Of the jobs of a group, so many come in a batch, and as many one by one.
HALF = 3
#: What follows the last kill: leases of submits, polls and callbacks, one after the other.
SETTLE_S = 3 * LEASE_S + ANSWER_S + LATENCY_S + 5
#: What a worker gets done beside that at least, on any machine.
DONE_PER_S = 30


@dataclass
class Groups:
    """Clients that ask for equal jobs, and cancel some of those that lead."""

    system: System
    chance: random.Random
    #: The jobs of each group, in the order in which they were accepted.
    asked: list[list[str]] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)

    async def one(self) -> None:
        """Ask for a group of equal jobs, and perhaps cancel its leader, at any moment of its life."""
        prompt = f"[latency={LATENCY_S}] group {len(self.asked)}"
        jobs: list[str] = []
        self.asked.append(jobs)
        callback = f"{self.system.inbox_url}/slow/0.3"
        jobs.append((await self.system.submit(prompt, coalesce=True, callback_url=callback))["id"])
        equal = {"scraper": "chatgpt", "prompt": prompt, "coalesce": True, "callback_url": callback}
        others = [self.system.submit(prompt, coalesce=True, callback_url=callback) for _ in range(HALF - 1)]
        batch = self.system.call("POST", "/v1/batches", {"jobs": [equal] * HALF})
        (status, answer), *accepted = await asyncio.gather(batch, *others)
        assert status == 202, answer
        jobs += [*(job["id"] for job in accepted), *answer["job_ids"]]
        if self.chance.random() < 0.5:
            await asyncio.sleep(self.chance.uniform(0, ANSWER_S + LATENCY_S))  # any moment is as good as another
            status, answer = await self.system.call("POST", f"/v1/jobs/{jobs[0]}/cancel")
            assert status in (200, 409), answer
            if status == 200:
                self.cancelled.add(jobs[0])

    @contextlib.asynccontextmanager
    async def coming(self, pause_s: float) -> AsyncIterator[None]:
        """While this lasts, one group follows the other; each that was begun is accepted whole at the end."""
        over = asyncio.Event()

        async def come(group: asyncio.TaskGroup) -> None:
            while not over.is_set():
                group.create_task(self.one())
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), pause_s)

        async with asyncio.TaskGroup() as group:
            group.create_task(come(group))
            try:
                yield
            finally:
                over.set()

    def announced(self) -> list[str]:
        """The jobs that are called back: all but the cancelled."""
        return [job for jobs in self.asked for job in jobs if job not in self.cancelled]

    async def ended(self) -> list[dict[str, Any]]:
        """What became of each group: its jobs have one outcome, of one upstream job, and the cancelled none."""
        ends: list[dict[str, Any]] = []
        for jobs in self.asked:
            found = [await job_of(self.system, job) for job in jobs]
            assert {job["id"] for job in found if job["status"] == "cancelled"} == self.cancelled & set(jobs)
            shared = [job for job in found if job["status"] != "cancelled"]
            for job in shared[1:]:
                for name in ("status", "error", "upstream_job_id", "submitted_at", "result"):
                    assert job[name] == shared[0][name], (name, jobs)
            ends.append(shared[0])
        return ends


def left_in_store(system: System) -> list[str]:
    """The keys of groups that are still there."""
    with redis.Redis.from_url(system.store.url, decode_responses=True) as store:
        return [key for kind in ("grp", "fol", "co") for key in store.scan_iter(f"relay:{kind}:*", count=1_000)]


async def killed(folder: Path, policy: str, kills: int) -> tuple[list[dict[str, Any]], Submits]:
    """A run in which workers are killed, and what became of its groups."""
    chance = random.Random(f"groups {policy} {kills}")
    settings = QUICK | {"RELAY_ON_AMBIGUOUS_SUBMIT": policy, "RELAY_CALLBACK_SCHEDULE": "0" + ",0.3" * 99}
    upstream = UPSTREAM | {"EMULATOR_ANSWER_DELAY_S": str(ANSWER_S)}
    async with System(folder, settings, upstream).running() as system:
        groups = Groups(system, chance)
        async with groups.coming(pause_s=0.2):
            for _ in range(kills):
                await asyncio.sleep(chance.uniform(0.3, 1.5))  # here, too
                await system.worker.kill()
                await system.worker.start()
        jobs = groups.announced()
        behind_s = (len(jobs) - len(system.webhook_ids())) / DONE_PER_S
        await system.callbacks(len(jobs), SETTLE_S + behind_s)
        assert len(groups.asked) > 5 * kills
        assert groups.cancelled
        check_callbacks(system, jobs)
        ends = await groups.ended()
        await until(lambda: not left_in_store(system), LEASE_S, lambda: str(left_in_store(system)))
        return ends, await submits_of(system)


def check_credits(ends: list[dict[str, Any]], submits: Submits) -> None:
    """Each result was charged once."""
    assert submits.credits == sum(job["result"]["credits_used"] for job in ends if job["status"] == "done")


KILLS = pytest.mark.parametrize(
    "kills", [4, pytest.param(50, marks=[LONG, pytest.mark.timeout(600)])], ids=lambda kills: f"{kills} kills"
)


@pytest.mark.slow
@KILLS
async def test_killed_and_submitted_again(tmp_path: Path, kills: int) -> None:
    """Each group has one result for all, and no more submits than itself and those that are counted as ambiguous."""
    ends, submits = await killed(tmp_path, "resubmit", kills)
    assert {job["status"] for job in ends} == {"done"}
    assert submits.taken == len(ends) + submits.repeated
    assert 0 < submits.repeated <= submits.ambiguous
    check_credits(ends, submits)


@pytest.mark.slow
@KILLS
async def test_killed_and_failed(tmp_path: Path, kills: int) -> None:
    """Where no lost submit is repeated, its whole group fails, and no group is submitted twice."""
    ends, submits = await killed(tmp_path, "fail", kills)
    failed = [job for job in ends if job["status"] != "done"]
    assert {(job["status"], job["error"]["code"]) for job in failed} == {("failed", "submit_ambiguous")}
    assert submits.repeated == 0
    assert len(ends) - len(failed) <= submits.taken <= len(ends)
    assert len(failed) <= submits.ambiguous
    check_credits(ends, submits)
