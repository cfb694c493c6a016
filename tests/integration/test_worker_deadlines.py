"""Deadlines: whatever the upstream does, a job ends within 10 s after its own, and not before it was asked for."""

import asyncio
from collections.abc import Callable

import pytest
from aiohttp import web

from relay.core.model import ErrorCode, Job, JobStatus
from tests.integration.worker_harness import DEFAULT, Rig, lived_s
from tests.integration.worker_peers import Asked, Upstream, answering, done, emulated, pending, refusing
from tests.processes import until

RATE_LIMIT = "Rate limit exceeded. Retry after a moment."
CREDITS = "Credit limit reached. Upgrade your plan or wait for your billing cycle to reset."


def assert_timed_out(rig: Rig, job: Job, deadline_s: float) -> None:
    """It ended by its deadline, in time, and its receiver was told so."""
    assert job.status is JobStatus.TIMED_OUT
    assert job.error is not None
    assert job.error.code is ErrorCode.DEADLINE_EXCEEDED
    assert 0 <= lived_s(job) - deadline_s < 10
    [received] = rig.received(job)
    assert (received.event, received.verified) == ("job.timed_out", True)
    assert received.body["data"]["status"] == "timed_out"


@pytest.mark.parametrize(
    ("trouble", "submitted"),
    [
        (refusing(503), {"first", "second"}),
        (refusing(429, RATE_LIMIT, Retry_After="300"), {"first"}),
        (refusing(429, CREDITS), {"first"}),
    ],
    ids=["unavailable", "rate limit", "credits"],
)
async def test_a_deadline_ends_what_waits_to_be_submitted(
    store_url: str, trouble: Callable[[], web.Response], submitted: set[str]
) -> None:
    """A job whose submit is held back until its deadline times out then, and is not submitted any more."""
    async with (
        Upstream(submit=answering(trouble)).serving() as upstream,
        Rig.open(store_url, upstream.url) as rig,
        rig.working(),
    ):
        first = await rig.accept("first", deadline_s=1)
        await until(lambda: len(upstream.submits) == 1, 10, lambda: "nothing was submitted")
        second = await rig.accept("second", deadline_s=1)
        for job in (first, second):
            assert_timed_out(rig, await rig.settled(job), 1)
    assert {asked.prompt for asked in upstream.submits} == submitted


async def test_what_is_overdue_at_once_is_never_submitted(store_url: str) -> None:
    """A job that no worker looked at before its deadline costs nothing."""
    async with Upstream().serving() as upstream, Rig.open(store_url, upstream.url) as rig:
        job = await rig.accept(deadline_s=5)
        await rig.bench.let_pass(6)
        async with rig.working():
            ended = await rig.settled(job)
    assert ended.status is JobStatus.TIMED_OUT
    assert (len(rig.received(job)), upstream.submits) == (1, [])


async def test_a_submit_that_hangs_does_not_outlast_the_deadline(store_url: str) -> None:
    """A submit without an answer is given up so early that the job still ends in time."""
    async with (
        emulated(faults={"submit_hang": 1.0}) as upstream,
        Rig.open(store_url, upstream.url, upstream_timeout_s=30) as rig,
        rig.working(),
    ):
        assert_timed_out(rig, await rig.settled(await rig.accept(deadline_s=1)), 1)
        assert (await upstream.stats())["submits"] == 0


async def test_a_job_that_never_ends_is_polled_once_more(store_url: str) -> None:
    """A pending job times out after exactly one poll that begins after its deadline."""
    async with (
        Upstream(poll=answering(pending)).serving() as upstream,
        Rig.open(store_url, upstream.url) as rig,
        rig.working(),
    ):
        job = await rig.settled(await rig.accept(deadline_s=1))
        assert_timed_out(rig, job, 1)
    assert len(upstream.polls) > 2
    # Store, upstream and test share one clock here.
    assert sum(asked.time_s * 1000 >= job.deadline_ms for asked in upstream.polls) == 1


async def test_an_outcome_that_the_last_poll_finds_counts(store_url: str) -> None:
    """What was paid for and is done by the time of the poll after the deadline is delivered."""
    deadlines: list[float] = []

    async def at_the_last_moment(asked: Asked) -> web.Response:
        return (done() if deadlines and asked.time_s * 1000 >= deadlines[0] else pending)()

    async with Upstream(poll=at_the_last_moment).serving() as upstream, Rig.open(store_url, upstream.url) as rig:
        async with rig.working():
            accepted = await rig.accept(deadline_s=1)
            deadlines.append(accepted.deadline_ms)
            job = await rig.settled(accepted)
        assert await rig.account() == {"submitted": 1, "credits": 3}
    assert job.status is JobStatus.DONE
    assert lived_s(job) >= 1
    assert [received.event for received in rig.received(job)] == ["job.completed"]


async def test_an_outage_at_the_deadline_is_waited_out_a_while(store_url: str) -> None:
    """A poll without an answer after the deadline is repeated, until the job must end."""
    asked_for = asyncio.Event()

    async def failing(_asked: Asked) -> web.Response:
        asked_for.set()
        return refusing(503)()

    async with Upstream(poll=failing).serving() as upstream, Rig.open(store_url, upstream.url) as rig:
        job = await rig.accept(deadline_s=100)
        await rig.bench.submit_all(DEFAULT)
        # Two seconds after its deadline there is time left, ...
        await rig.bench.let_pass(102)
        async with rig.working():
            await asyncio.wait_for(asked_for.wait(), 10)
            await until(lambda: len(upstream.polls) > 1, 10, lambda: "polled once only")
            assert (await rig.now(job)).status is JobStatus.PENDING
            # ... and six seconds later there is none.
            await rig.bench.let_pass(6)
            ended = await rig.settled(job)
    assert ended.status is JobStatus.TIMED_OUT
    assert rig.received(job)[0].event == "job.timed_out"
