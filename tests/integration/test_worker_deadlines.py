"""Deadlines: whatever the upstream does, a job ends within 10 s after its own, and not before it was asked for."""

import asyncio
import math
from pathlib import Path

from aiohttp import web

from relay.core.model import ClientName, ErrorCode, Job, JobStatus
from tests.integration.worker_harness import DEFAULT, Rig, lived_s, write_clients
from tests.integration.worker_peers import Asked, Upstream, answering, done, emulated, pending, refusing, upstream_id
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


async def test_a_deadline_ends_what_waits_to_be_submitted(store_url: str, tmp_path: Path) -> None:
    """A job whose submit is held back until its deadline times out then, and is not submitted any more."""
    trouble = {
        "unavailable": refusing(503),
        "limited": refusing(429, RATE_LIMIT, Retry_After="300"),
        "broke": refusing(429, CREDITS),
    }

    async def by_key(asked: Asked) -> web.Response:
        return trouble[asked.key]()

    clients = write_clients(tmp_path / "clients.toml", **{name: name for name in trouble})
    async with (
        Upstream(submit=by_key).serving() as upstream,
        Rig.open(store_url, upstream.url, clients_file=clients) as rig,
        rig.working(),
    ):
        jobs = [await rig.accept("first", client=ClientName(name), deadline_s=1) for name in trouble]
        await until(lambda: len(upstream.submits) == len(trouble), 10, lambda: f"{upstream.submits}")
        jobs += [await rig.accept("second", client=ClientName(name), deadline_s=1) for name in trouble]
        for job in jobs:
            assert_timed_out(rig, await rig.settled(job), 1)
    # A pause holds back every submit of the key; other trouble only the job that had it.
    assert {(asked.key, asked.prompt) for asked in upstream.submits} == {
        *((name, "first") for name in trouble),
        ("unavailable", "second"),
    }


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


async def test_a_pending_job_is_polled_once_more(store_url: str) -> None:
    """A job times out after exactly one poll that begins after its deadline; what that one finds, it was paid for."""
    deadlines_ms: dict[str, int] = {}

    async def at_the_last_moment(asked: Asked) -> web.Response:
        # Store, upstream and test share one clock here.
        is_over = asked.time_s * 1000 >= deadlines_ms.get(asked.job_id, math.inf)
        return (done() if is_over else pending)()

    async with Upstream(poll=at_the_last_moment).serving() as upstream, Rig.open(store_url, upstream.url) as rig:
        async with rig.working():
            endless, late = await rig.accept("endless", deadline_s=1), await rig.accept("late", deadline_s=1)
            deadlines_ms[upstream_id("late")] = late.deadline_ms
            endless, late = await rig.settled(endless), await rig.settled(late)
        assert_timed_out(rig, endless, 1)
        assert await rig.account() == {"submitted": 2, "credits": 3}
    assert late.status is JobStatus.DONE
    assert lived_s(late) >= 1
    assert [received.event for received in rig.received(late)] == ["job.completed"]
    for job, prompt in ((endless, "endless"), (late, "late")):
        times_ms = [asked.time_s * 1000 for asked in upstream.polls if asked.job_id == upstream_id(prompt)]
        assert len(times_ms) > 2
        assert sum(time_ms >= job.deadline_ms for time_ms in times_ms) == 1


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


async def test_what_should_have_ended_long_ago_is_not_asked_for_again(store_url: str) -> None:
    """A job that was polled in vain, and whose last moment passed while no worker ran, ends at once."""
    async with Upstream(poll=answering(refusing(503))).serving() as upstream, Rig.open(store_url, upstream.url) as rig:
        async with rig.working():
            job = await rig.accept(deadline_s=100)
            await until(lambda: len(upstream.polls) > 0, 10, lambda: "nothing was polled")
        polls = len(upstream.polls)
        await rig.bench.let_pass(120)
        async with rig.working():
            ended = await rig.settled(job)
    assert ended.status is JobStatus.TIMED_OUT
    assert len(upstream.polls) == polls
