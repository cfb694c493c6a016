"""The step runner and the saver by themselves, on a real store: what only trouble brings to light."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
import structlog

from relay.core.errors import StoreUnavailable
from relay.core.store.work import Lease, Refused, Save, Saved, WorkStore, saved_poll
from relay.core.tracing import Tracing
from tests.faults.proxy import Command, Fate, StoreProxy, script
from tests.integration.store_harness import ACME, Bench, make_settings
from tests.processes import until
from worker.metrics import WorkerMetrics
from worker.runner import Kind, StepRunner
from worker.saver import Saver

NOBODYS = Lease("job_of_nobody", "token-of-nobody")


@pytest.fixture(name="bench")
async def fixture_bench(store_url: str) -> AsyncIterator[Bench]:
    """An empty store."""
    async with Bench.open(store_url, lease_s=3, poll_slots=1) as bench:
        yield bench


@pytest.fixture(name="runner")
async def fixture_runner(bench: Bench) -> AsyncIterator[StepRunner]:
    """A step runner, whose leases are renewed."""
    runner = StepRunner(bench.work, bench.settings, WorkerMetrics(), Tracing())
    renewing = asyncio.create_task(runner.renew_forever())
    yield runner
    renewing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await renewing
    await runner.drain(0)


@pytest.mark.parametrize(
    ("error", "level", "event"),
    [
        (ValueError("a secret that the message quotes"), "error", "step failed"),
        (StoreUnavailable("the store is unreachable"), "warning", "step given up: the store is out of reach"),
    ],
)
async def test_a_step_that_fails_frees_its_slot(runner: StepRunner, error: Exception, level: str, event: str) -> None:
    """A fault of ours costs one step and no slot, and the log says where it happened and not what it says."""

    async def failing() -> None:
        raise error

    with structlog.testing.capture_logs() as lines:
        runner.start(Kind.POLL, NOBODYS, failing())
        assert (runner.free(Kind.POLL), runner.running()) == (0, 1)
        await runner.wait_free(Kind.POLL, 10)
    assert (runner.free(Kind.POLL), runner.running()) == (1, 0)
    [line] = lines
    assert (line["log_level"], line["event"], line["kind"], line["id"]) == (level, event, "poll", "job_of_nobody")
    assert "a secret" not in str(line)
    assert level != "error" or (line["error"] == "ValueError" and "failing" in line["trace"])


async def test_slots_are_waited_for_no_longer_than_asked(runner: StepRunner) -> None:
    """Who waits for a slot is told when there is one, at the latest when its time is over."""
    loop, go_on = asyncio.get_running_loop(), asyncio.Event()

    async def waiting() -> None:
        await go_on.wait()

    runner.start(Kind.POLL, NOBODYS, waiting())
    began_s = loop.time()
    await runner.wait_free(Kind.POLL, 0.1)
    assert loop.time() - began_s >= 0.09
    assert runner.free(Kind.POLL) == 0
    loop.call_later(0.05, go_on.set)
    await runner.wait_free(Kind.POLL, 10)
    assert runner.free(Kind.POLL) == 1
    with runner.reserved(Kind.POLL):
        assert runner.free(Kind.POLL) == 0
    await runner.wait_free(Kind.POLL, 10)
    assert loop.time() - began_s < 5


async def test_leases_are_renewed_while_steps_last(bench: Bench, runner: StepRunner) -> None:
    """A step keeps its lease however long it takes, and one whose lease is lost is told of once and goes on."""
    go_on = asyncio.Event()

    async def waiting() -> None:
        await go_on.wait()

    kept = await bench.accept()
    await bench.submit_all()
    [claim] = await bench.work.begin_poll(1)
    before = (await bench.record(kept.id))["le"]
    with structlog.testing.capture_logs() as lines:
        runner.start(Kind.POLL, claim.lease, waiting())
        runner.start(Kind.DELIVER, NOBODYS, waiting())
        await until(lambda: bool(lines), 10, lambda: "nothing was said")
        assert [(line["event"], line["leases"]) for line in lines] == [("leases lost", 1)]
        async with asyncio.timeout(10):
            renewed: set[str] = set()
            while not renewed - {before}:
                renewed.add((await bench.record(kept.id))["le"])
                await asyncio.sleep(0.05)
        assert len(lines) == 1
        assert runner.running() == 2
    go_on.set()
    assert await runner.drain(10) == 0


async def test_draining_cuts_off_what_does_not_end(runner: StepRunner) -> None:
    """What ends within the grace is waited for, what does not is cancelled and counted."""
    cancelled = asyncio.Event()

    async def short() -> None:
        await asyncio.sleep(0.05)

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    runner.start(Kind.POLL, NOBODYS, short())
    assert await runner.drain(10) == 0
    runner.start(Kind.POLL, NOBODYS, short())
    runner.start(Kind.DELIVER, NOBODYS, endless())
    assert await runner.drain(0.3) == 1
    assert cancelled.is_set()
    assert runner.running() == 0


async def test_a_save_that_cannot_be_applied_costs_no_other(bench: Bench) -> None:
    """Saves share a trip; one that the store cannot apply fails for who asked, and the rest are in the store."""
    for _ in range(3):
        await bench.accept()
    await bench.submit_all()
    first, broken, last = await bench.work.begin_poll(3)
    saver = Saver(bench.work)
    running = asyncio.create_task(saver.run())
    answers = await asyncio.gather(
        saver.save(saved_poll(first.lease, 0, 60_000)),
        # Without the id of a record.
        saver.save(Save(broken.lease, {"id": None})),
        saver.save(saved_poll(NOBODYS, 0, 60_000)),
        saver.save(saved_poll(last.lease, 1, 60_000)),
        return_exceptions=True,
    )
    running.cancel()
    assert [type(answer) for answer in (answers[0], answers[2], answers[3])] == [Saved, Refused, Saved]
    assert isinstance(answers[1], Exception)
    for claim in (first, last):
        assert "tok" not in await bench.record(claim.lease.id)
    assert (await bench.record(last.lease.id))["fails"] == "1"
    assert "tok" in await bench.record(broken.lease.id)


async def test_saves_wait_for_nobody_who_has_gone(bench: Bench) -> None:
    """A step that was cancelled while its save was on the way loses nothing: the save is made all the same."""
    await bench.accept()
    await bench.submit_all()
    [claim] = await bench.work.begin_poll(1)
    saver = Saver(bench.work)
    asking = asyncio.create_task(saver.save(saved_poll(claim.lease, 0, 60_000)))
    await asyncio.sleep(0)
    asking.cancel()
    running = asyncio.create_task(saver.run())
    async with asyncio.timeout(10):
        while "tok" in await bench.record(claim.lease.id):
            await asyncio.sleep(0.02)
    running.cancel()
    assert (await bench.job(claim.lease.id)).client == ACME


async def test_releases_wait_for_the_store_and_share_a_trip(bench: Bench) -> None:
    """What is given back while the store is out of reach is given back when it is there, all in one script."""
    for _ in range(20):
        await bench.accept()
    await bench.submit_all()
    [*claims] = await bench.work.begin_poll(20)
    seen: list[int] = []

    def never(command: Command) -> Fate:
        if not script("release")(command):
            return Fate.PASS
        # What comes before each job's id, token, delay and patience.
        seen.append((len(command) - 5) // 4)
        return Fate.CUT_BEFORE

    url = urlsplit(bench.settings.redis_url)
    async with StoreProxy(url.port or 6379).running() as proxy:
        proxy.rule = never
        far = await WorkStore.connect(make_settings(url._replace(netloc=f"127.0.0.1:{proxy.port}").geturl()))
        saver = Saver(far)
        running = asyncio.create_task(saver.run())
        releases = [asyncio.create_task(saver.release(claim.lease, delay_ms=60_000)) for claim in claims]
        await until(lambda: len(seen) > 3, 10, lambda: str(seen))
        assert set(seen) == {20}, "not together"
        assert not any(release.done() for release in releases)
        proxy.heal()
        async with asyncio.timeout(10):
            await asyncio.gather(*releases)
        running.cancel()
        await far.close()
    for claim in claims:
        assert "tok" not in await bench.record(claim.lease.id)


async def test_patient_saves_go_along_with_the_next(bench: Bench) -> None:
    """A save that nobody waits for shares the trip of one that somebody does; without one it goes by itself, soon."""
    for _ in range(3):
        await bench.accept()
    await bench.submit_all()
    patient, hurried, alone = await bench.work.begin_poll(3)
    saver = Saver(bench.work)
    running = asyncio.create_task(saver.run())
    await bench.raw.config_resetstat()
    answers = await asyncio.gather(
        saver.save(saved_poll(patient.lease, 0, 60_000), patient=True),
        saver.save(saved_poll(hurried.lease, 0, 60_000)),
    )
    assert list(answers) == [Saved(), Saved()]
    assert (await bench.raw.info("commandstats"))["cmdstat_evalsha"]["calls"] == 1
    async with asyncio.timeout(10):
        assert await saver.save(saved_poll(alone.lease, 0, 60_000), patient=True) == Saved()
    running.cancel()
