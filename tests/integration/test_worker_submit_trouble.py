"""Submits that do not go through: tried again, held back together, given up in time, and never paid for unnoticed."""

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from relay.core.model import ClientName, ErrorCode, JobStatus
from tests.integration.store_harness import ACME, UMBRELLA
from tests.integration.worker_harness import DEFAULT, Rig, Worker, failure, lived_s, write_clients
from tests.integration.worker_peers import Asked, Upstream, emulated, refusing, taking
from tests.processes import free_port, until

OTHER = ClientName("other")
RATE_LIMIT = "Rate limit exceeded. Retry after a moment."


async def test_a_rate_limit_holds_every_submit_back(store_url: str) -> None:
    """After a 429 nothing is submitted under that key for as long as `Retry-After` says; then all goes on, once."""
    limited: list[float] = []

    async def limiting(asked: Asked) -> web.Response:
        if len(limited) < 2:
            limited.append(asked.at_s)
            return refusing(429, RATE_LIMIT, Retry_After="2")()
        return await taking(asked)

    async with (
        Upstream(submit=limiting).serving() as upstream,
        Rig.open(store_url, upstream.url, submit_slots=2) as rig,
        rig.working(measured=True) as worker,
    ):
        jobs = [await rig.accept(f"number {n}") for n in range(8)]
        for job in jobs:
            assert (await rig.settled(job)).status is JobStatus.DONE
        assert await worker.metric("submits_total", outcome="rate_limited") == 2
    times = [asked.at_s for asked in upstream.submits]
    # The clocks of store and loop are compared in whole milliseconds.
    assert times[2] - times[1] >= 1.99
    assert times[-1] - times[0] < 8
    assert len(times) == 10, "submitted again what was taken"


async def test_a_real_rate_limit_is_kept_to(store_url: str) -> None:
    """More jobs than the upstream takes at a time get through in several goes, and each is taken once."""
    async with (
        emulated(rate_limit_per_s=4) as upstream,
        Rig.open(store_url, upstream.url, submit_slots=4) as rig,
        rig.working(),
    ):
        jobs = [await rig.accept(f"[latency=0] {n}") for n in range(12)]
        for job in jobs:
            assert (await rig.settled(job)).status is JobStatus.DONE
        stats = await upstream.stats()
    assert (stats["submits"], stats["repeated_submits"]) == (12, 0)
    assert stats["rate_limited"] > 0


async def test_a_pause_is_of_one_key(store_url: str, tmp_path: Path) -> None:
    """A client whose key is held back holds nobody back but those who share the key."""

    async def by_key(asked: Asked) -> web.Response:
        if asked.key == "the-limited-key":
            return refusing(429, RATE_LIMIT, Retry_After="60")()
        return await taking(asked)

    clients = write_clients(
        tmp_path / "clients.toml", acme="the-limited-key", other="the-limited-key", umbrella="another-key"
    )
    async with (
        Upstream(submit=by_key).serving() as upstream,
        Rig.open(store_url, upstream.url, clients_file=clients) as rig,
    ):
        async with rig.working():
            held = await rig.accept("first", client=ACME)
            await until(lambda: len(upstream.submits) == 1, 10, lambda: "nothing was submitted")
            sharing = await rig.accept("second", client=ACME), await rig.accept("third", client=OTHER)
            for n in range(3):
                assert (await rig.settled(await rig.accept(f"free {n}", client=UMBRELLA))).status is JobStatus.DONE
            for job in (held, *sharing):
                assert (await rig.now(job)).status is JobStatus.QUEUED
        # Another worker learns of the pause from the store.
        async with rig.working():
            assert (await rig.settled(await rig.accept("free", client=UMBRELLA))).status is JobStatus.DONE
    assert [asked.prompt for asked in upstream.submits if asked.key == "the-limited-key"] == ["first"]


async def test_credits_that_stay_used_up_fail_the_job(store_url: str) -> None:
    """What the credits are enough for is done; the rest fails when its submit window ends, and says why."""
    async with (
        emulated(credits=6) as upstream,
        Rig.open(store_url, upstream.url, submit_window_s=1, submit_slots=1) as rig,
        rig.working(),
    ):
        accepted = [await rig.accept(f"[latency=0] {n}") for n in range(3)]
        *jobs, broke = [await rig.settled(job) for job in accepted]
        assert (await upstream.stats())["submits"] == 2
    assert [job.status for job in jobs] == [JobStatus.DONE] * 2
    assert failure(broke) == (ErrorCode.UPSTREAM_CREDITS_EXHAUSTED, "the upstream's credits were used up")
    assert 0 <= lived_s(broke) - 1 < 3


async def test_credits_that_come_back_are_noticed(store_url: str) -> None:
    """A job that waits for credits goes on when there are some, before its submit window ends."""
    async with (
        emulated(credits=0) as upstream,
        Rig.open(store_url, upstream.url, submit_window_s=15) as rig,
        rig.working(measured=True) as worker,
    ):
        job = await rig.accept()
        await counted(worker, "submits_total", 1, outcome="credits_exhausted")
        await upstream.change(credits=1_000)
        done = await rig.settled(job)
        assert (await upstream.stats())["submits"] == 1
    assert done.status is JobStatus.DONE
    assert lived_s(done) < 15


async def counted(worker: Worker, metric: str, count: int, **labels: str) -> None:
    """Wait until a worker has counted something so often."""
    async with asyncio.timeout(15):
        while await worker.metric(metric, **labels) < count:
            await asyncio.sleep(0.02)


async def test_trouble_passes(store_url: str) -> None:
    """After an answer that means trouble the submit is tried again, and only then is a job taken."""
    faults = [f"submit_{kind}" for kind in ("500", "503", "504", "408", "garbage", "429")]
    async with (
        emulated(fault_sequence=faults) as upstream,
        Rig.open(store_url, upstream.url) as rig,
        rig.working(measured=True) as worker,
    ):
        jobs = [await rig.accept(f"[latency=0] {fault}") for fault in faults]
        for job in jobs:
            assert (await rig.settled(job)).status is JobStatus.DONE
        stats = await upstream.stats()
        assert stats["faults"] == dict.fromkeys(faults, 1)
        assert (stats["submits"], stats["repeated_submits"]) == (len(faults), 0)
        for said, count in (("unavailable", 4), ("ambiguous", 1), ("rate_limited", 1)):
            assert await worker.metric("submits_total", outcome=said) == count


async def test_trouble_that_lasts_fails_the_job(store_url: str) -> None:
    """A job that no submit went through for fails when its submit window ends."""
    async with (
        emulated(faults={"submit_503": 1.0}) as upstream,
        Rig.open(store_url, upstream.url, submit_window_s=2) as rig,
        rig.working(),
    ):
        failed = await rig.settled(await rig.accept())
        assert (await upstream.stats())["faults"]["submit_503"] > 1
    assert failure(failed) == (
        ErrorCode.UPSTREAM_UNREACHABLE,
        "the upstream took no job within the submit window",
    )
    assert 0 <= lived_s(failed) - 2 < 3


async def test_an_upstream_that_is_down_is_waited_for(store_url: str) -> None:
    """What was refused a connection was not sent: it is tried again, and nothing counts as ambiguous."""
    port = free_port()
    async with Rig.open(store_url, f"http://127.0.0.1:{port}") as rig, rig.working(measured=True) as worker:
        job = await rig.accept()
        await counted(worker, "submits_total", 1, outcome="unsent")
        async with emulated(port) as upstream:
            assert (await rig.settled(job)).status is JobStatus.DONE
            assert (await upstream.stats())["submits"] == 1
        assert await worker.metric("ambiguous_submits_total") == 0
        assert await rig.account() == {"submitted": 1, "credits": 3}


@pytest.mark.parametrize("choice", ["resubmit", "fail"])
async def test_a_lost_answer_is_ambiguous(store_url: str, choice: str) -> None:
    """Whether a submit whose answer was lost is made again is the operator's choice; it is counted either way."""
    async with (
        emulated(fault_sequence=("submit_lost", "submit_stall"), hang_s=5) as upstream,
        Rig.open(store_url, upstream.url, on_ambiguous_submit=choice, upstream_timeout_s=1) as rig,
        rig.working(measured=True) as worker,
    ):
        jobs = [await rig.accept(f"[latency=0] {n}") for n in range(2)]
        for job in jobs:
            ended = await rig.settled(job)
            if choice == "resubmit":
                assert ended.status is JobStatus.DONE
            else:
                code, message = failure(ended)
                assert code is ErrorCode.SUBMIT_AMBIGUOUS
                assert message.startswith("the answer to the submit was lost")
        again = len(jobs) if choice == "resubmit" else 0
        stats = await upstream.stats()
        assert stats["faults"] == {"submit_lost": 1, "submit_stall": 1}
        assert (stats["submits"], stats["repeated_submits"]) == (2 + again, again)
        # What the upstream took at first is paid for, and nobody's.
        assert stats["credits_used"] == 3 * stats["submits"]
        account = {"ambiguous": 2} | ({"submitted": 2, "credits": 6} if again else {})
        assert await rig.account() == account
        assert await worker.metric("ambiguous_submits_total") == 2


@pytest.mark.parametrize("choice", ["resubmit", "fail"])
async def test_a_submit_of_a_dead_worker_is_ambiguous(store_url: str, choice: str) -> None:
    """What another worker began to submit and never accounted for may have been sent, and is treated so."""
    async with (
        Upstream().serving() as upstream,
        Rig.open(store_url, upstream.url, on_ambiguous_submit=choice) as rig,
    ):
        job = await rig.accept()
        assert len(await rig.bench.other.begin_submit(DEFAULT, 10)) == 1
        await rig.bench.let_pass(4)
        async with rig.working(measured=True) as worker:
            ended = await rig.settled(job)
            assert await worker.metric("ambiguous_submits_total") == 1
        assert (await rig.account())["ambiguous"] == 1
    if choice == "resubmit":
        assert ended.status is JobStatus.DONE
    else:
        assert failure(ended)[0] is ErrorCode.SUBMIT_AMBIGUOUS
    assert len(upstream.submits) == (1 if choice == "resubmit" else 0)
