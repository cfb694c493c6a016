"""Equal jobs by hand: how a group is made, and how its members go on."""

import asyncio
from collections.abc import Sequence
from typing import Any

from relay.core.model import ClientName, Job, JobError, JobStatus
from relay.core.store.records import job_ids, pack_result
from relay.core.store.work import PollClaim, Save, saved_outcome
from tests.integration.store_harness import ACME, FAILURE, RESULT, Bench

#: How far into an id its millisecond goes.
_TIME = len("job_") + 10


async def equal(bench: Bench, count: int, client: ClientName = ACME, **changes: Any) -> list[Job]:
    """So many equal jobs that share."""
    return [await bench.accept(client, coalesce=True, **changes) for _ in range(count)]


async def later(bench: Bench, job: Job, **changes: Any) -> Job:
    """One more that is equal, and comes after `job` where both are due at the same moment."""
    while job_ids(bench.store.now_ms(), 1)[0][:_TIME] <= job.id[:_TIME]:
        await asyncio.sleep(0.0005)
    return (await equal(bench, 1, **changes))[0]


async def statuses(bench: Bench, jobs: Sequence[Job]) -> list[str]:
    """The status of each job."""
    return [(await bench.state(job.id))[0].value for job in jobs]


async def take_over(bench: Bench) -> list[PollClaim]:
    """What is due of polls, claimed; those that share an outcome take it."""
    claims = await bench.work.begin_poll(1_000)
    for claim in claims:
        if claim.shared is not None:
            await bench.work.save([taken(claim)])
    return [claim for claim in claims if claim.shared is None]


def taken(claim: PollClaim, *, carry_on: bool = False) -> Save:
    """A follower's save of the outcome that it shares."""
    shared = claim.shared
    assert shared is not None
    return saved_outcome(
        claim.lease,
        shared.status,
        shared.error or (FAILURE if shared.status is JobStatus.TIMED_OUT else None),
        announce_after_ms=0,
        carry_on=carry_on,
        result_of=shared.of if shared.status is JobStatus.DONE else None,
    )


async def finish_leader(bench: Bench, status: JobStatus = JobStatus.DONE, error: JobError | None = None) -> None:
    """The one job that is polled ends."""
    [claim] = await take_over(bench)
    done = status is JobStatus.DONE
    await bench.work.save(
        [
            saved_outcome(
                claim.lease,
                status,
                error or (None if done else FAILURE),
                announce_after_ms=0,
                result=pack_result(RESULT, 0) if done else None,
                credits_used=3 if done else None,
            )
        ]
    )
