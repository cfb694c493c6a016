"""Polls: the result arrives unchanged, what fails says why, and trouble is waited out without hammering."""

import asyncio
import itertools
import json
from collections.abc import Callable

import pytest
from aiohttp import web

from relay.core.model import DeliveryStatus, ErrorCode, EventType, JobStatus
from tests.integration.worker_harness import DEFAULT, Rig, callback_to, failure
from tests.integration.worker_peers import Asked, Upstream, answering, done, emulated, pending, refusing
from tests.processes import until

#: What a JSON library that reads and writes it again would change.
ODD = (
    r'{"result":"caf\u00e9 \/ caf' + "\u00e9 \U0001f600" + r'","n":[1.0,1.10,1E5,-0.0,12345678901234567890123],'
    r'"credits_used":3,"deep":{"":null,"a":{},"a ":[]},  "spaced" : true}'
).encode()


async def test_a_pending_job_is_polled_until_it_is_done(store_url: str) -> None:
    """The outcome is found some polls later, and announced at once."""
    async with (
        Upstream(poll=answering(pending, pending, done())).serving() as upstream,
        Rig.open(store_url, upstream.url) as rig,
        rig.working(measured=True) as worker,
    ):
        job = await rig.settled(await rig.accept("Why?"))
        assert await worker.metric("polls_total", outcome="pending") == 2
        assert await worker.metric("polls_total", outcome="done") == 1
        assert await worker.metric("upstream_credits_total", client="default") == 3
        assert await worker.metric("polls_per_job_count") == 1
        assert await worker.metric("polls_per_job_sum") == 3
        assert await worker.metric("submit_wait_seconds_count") == 1
    assert (job.status, job.delivery.status, job.delivery.attempts) == (JobStatus.DONE, DeliveryStatus.DELIVERED, 1)
    assert job.completed_ms is not None
    [received] = rig.received(job)
    assert 0 <= received.received_ms - job.completed_ms < 2_000
    assert all(asked.key == "" for asked in upstream.polls), "the key is of no use to a poll"


@pytest.mark.parametrize("compress_above_bytes", [16_384, 10])
async def test_a_result_is_passed_on_as_it_is(store_url: str, compress_above_bytes: int) -> None:
    """Store and callback carry the very bytes that the upstream sent, compressed on the way or not."""
    async with (
        Upstream(poll=answering(done(ODD))).serving() as upstream,
        Rig.open(store_url, upstream.url, compress_above_bytes=compress_above_bytes) as rig,
    ):
        async with rig.working():
            job = await rig.settled(await rig.accept())
        assert job.result == ODD
        [received] = rig.received(job)
        assert received.verified
        assert b'"result":' + ODD + b"," in received.raw


async def test_a_large_result_is_compressed(store_url: str) -> None:
    """A megabyte takes little room in the store, and arrives whole."""
    async with emulated() as upstream, Rig.open(store_url, upstream.url) as rig:
        async with rig.working():
            job = await rig.settled(await rig.accept("[latency=0] [bytes=500000]"))
        assert job.result is not None
        assert len(job.result) > 1_000_000
        assert await rig.bench.raw.strlen(f"relay:res:{job.id}") < 100_000
        [received] = rig.received(job)
        assert received.verified
        assert received.body["data"]["result"] == json.loads(job.result)


async def test_a_result_that_is_too_large_fails(store_url: str) -> None:
    """What is larger than the operator takes is not read to its end, and the job says so."""
    async with (
        emulated() as upstream,
        Rig.open(store_url, upstream.url, upstream_max_bytes=2_048) as rig,
        rig.working(),
    ):
        failed = await rig.settled(await rig.accept("[latency=0] [bytes=5000]"))
    assert failure(failed) == (ErrorCode.UPSTREAM_FAILED, "result larger than 2048 bytes")


async def test_what_the_upstream_gives_up_fails(store_url: str) -> None:
    """A failed job carries the upstream's error, and costs nothing."""
    async with emulated() as upstream, Rig.open(store_url, upstream.url) as rig, rig.working():
        failed = await rig.settled(await rig.accept("[latency=0.1] [fail]"))
        assert failure(failed) == (ErrorCode.UPSTREAM_FAILED, "execution failed")
        assert failed.upstream_job_id is not None
        assert failed.result is None
        assert await rig.account() == {"submitted": 1}
        assert (await upstream.stats())["credits_used"] == 0
    [received] = rig.received(failed)
    assert received.event == "job.failed"
    assert received.body["data"]["error"] == {"code": "upstream_failed", "message": "execution failed"}


async def test_what_the_upstream_has_forgotten_is_lost(store_url: str) -> None:
    """A poll that is answered with 404 ends the job: nobody will ever know more."""
    async with (
        emulated(fault_sequence=("poll_404",)) as upstream,
        Rig.open(store_url, upstream.url) as rig,
        rig.working(),
    ):
        lost = await rig.settled(await rig.accept())
    assert failure(lost) == (ErrorCode.UPSTREAM_JOB_LOST, "Job not found.")


async def test_trouble_with_polls_passes(store_url: str) -> None:
    """Whatever is no answer is asked for again, later each time, and the job is done in the end."""
    kinds = ["500", "503", "504", "408", "429", "garbage", "reset", "hang"]
    faults = [f"poll_{kind}" for kind in kinds]
    async with (
        emulated(fault_sequence=faults, hang_s=5) as upstream,
        Rig.open(store_url, upstream.url, upstream_timeout_s=0.5) as rig,
        rig.working(measured=True) as worker,
    ):
        jobs = [await rig.accept(f"[latency=0] {n}") for n in range(4)]
        for job in jobs:
            assert (await rig.settled(job)).status is JobStatus.DONE
        stats = await upstream.stats()
        assert stats["faults"] == dict.fromkeys(faults, 1)
        assert (stats["submits"], stats["polls"]) == (4, 4 + len(faults))
        assert await worker.metric("polls_total", outcome="unavailable") == len(faults)


async def test_no_job_is_polled_faster_than_the_floor(store_url: str) -> None:
    """Between two polls of a job there is the least interval, also after trouble, and what `Retry-After` asks for."""
    answers = (pending, refusing(500), refusing(503, Retry_After="1"), refusing(404))
    async with (
        Upstream(poll=answering(*answers)).serving() as upstream,
        Rig.open(store_url, upstream.url, poll_min_interval_s=0.4, poll_interval_s=0.1) as rig,
        rig.working(),
    ):
        jobs = [await rig.accept(f"number {n}") for n in range(5)]
        for job in jobs:
            await rig.ended(job)
    for job_id in {asked.job_id for asked in upstream.polls}:
        times = [asked.at_s for asked in upstream.polls if asked.job_id == job_id]
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        # The clocks of store and loop are compared in whole milliseconds.
        assert len(gaps) == len(answers) - 1
        assert min(gaps) >= 0.39, gaps
        assert gaps[-1] >= 0.99, gaps


async def test_an_event_that_nobody_asked_for_is_skipped(store_url: str) -> None:
    """An outcome that is not among the events asked for is kept, and called back only on request."""
    async with emulated() as upstream, Rig.open(store_url, upstream.url) as rig, rig.working():
        callback = callback_to(f"{rig.inbox_url}/hook", events=[EventType.JOB_FAILED])
        skipped = await rig.settled(await rig.accept("[latency=0] fine", callback=callback))
        failed = await rig.settled(await rig.accept("[latency=0] [fail]", callback=callback))
        assert (skipped.status, skipped.delivery.status) == (JobStatus.DONE, DeliveryStatus.SKIPPED)
        assert (failed.status, failed.delivery.status) == (JobStatus.FAILED, DeliveryStatus.DELIVERED)
        assert [received.event for received in rig.inbox.received] == ["job.failed"]
        await rig.store.redeliver(DEFAULT, skipped.id)
        assert (await rig.settled(skipped)).delivery.status is DeliveryStatus.DELIVERED
        [received] = rig.received(skipped)
        assert (received.event, received.attempt) == ("job.completed", 1)


@pytest.mark.parametrize(
    ("answer", "account"),
    [(done(), {"submitted": 1, "credits": 3}), (pending, {"submitted": 1})],
    ids=["done", "pending"],
)
async def test_what_is_cancelled_during_a_poll_is_dropped(
    store_url: str, answer: Callable[[], web.Response], account: dict[str, float]
) -> None:
    """Whatever the poll of a cancelled job finds goes nowhere, and what it cost is counted."""
    go_on = asyncio.Event()

    async def holding(_asked: Asked) -> web.Response:
        await go_on.wait()
        return answer()

    async with Upstream(poll=holding).serving() as upstream, Rig.open(store_url, upstream.url) as rig:
        async with rig.working(measured=True) as worker:
            job = await rig.accept()
            await until(lambda: len(upstream.polls) == 1, 10, lambda: "nothing was polled")
            await rig.store.cancel(DEFAULT, job.id)
            go_on.set()
            async with asyncio.timeout(10):
                while not await worker.metric("refused_saves_total", kind="poll"):
                    await asyncio.sleep(0.02)
        cancelled = await rig.now(job)
        assert (cancelled.status, cancelled.delivery.status) == (JobStatus.CANCELLED, DeliveryStatus.SKIPPED)
        assert cancelled.result is None
        assert await rig.account() == account
    assert (len(upstream.polls), rig.received(job)) == (1, [])


async def test_what_is_cancelled_between_polls_is_not_polled_again(store_url: str) -> None:
    """A pending job that is cancelled causes nothing more, here or at the upstream."""
    async with Upstream(poll=answering(pending)).serving() as upstream, Rig.open(store_url, upstream.url) as rig:
        async with rig.working():
            job = await rig.accept("to be cancelled")
            await until(lambda: len(upstream.polls) > 1, 10, lambda: "nothing was polled")
            await rig.store.cancel(DEFAULT, job.id)
            polls = len(upstream.polls)
            # Another job is polled several times meanwhile.
            await rig.accept("another")
            await until(lambda: len(upstream.polls) > polls + 3, 10, lambda: "the other one was not polled")
        assert (await rig.now(job)).status is JobStatus.CANCELLED
    # One may have been under way.
    assert sum("cancelled" in asked.job_id for asked in upstream.polls) <= polls + 1
    assert rig.received(job) == []
