"""The worker as a whole: what it refuses to start with, how it is watched, and how it stops."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from relay.core.errors import ConfigurationError
from relay.core.model import AttemptOutcome, DeliveryStatus, JobStatus
from relay.core.settings import Settings
from tests.integration.store_harness import make_admission
from tests.integration.worker_harness import DEFAULT, FAST, Rig, eventually, write_clients
from tests.integration.worker_peers import Arrival, Receiver, Upstream, answering, emulated, pending, thanking_after
from tests.processes import until
from worker import service


async def run_with(**settings: Any) -> None:
    """Run a worker that should not come far."""
    async with asyncio.timeout(10):
        await service.run(Settings.load(_env_file=None, **{**FAST, **settings}), asyncio.Event())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"upstream_api_key": None}, "^RELAY_UPSTREAM_API_KEY is missing"),
        ({"signing_secret": None}, "^RELAY_SIGNING_SECRET is missing"),
        ({"api_key": None}, "^RELAY_API_KEY is missing"),
        ({"redis_url": "http://127.0.0.1"}, "^RELAY_REDIS_URL: is not"),
    ],
)
async def test_a_missing_setting_stops_it(store_url: str, settings: dict[str, Any], message: str) -> None:
    """It does not start without what it cannot work without, and names the setting."""
    with pytest.raises(ConfigurationError, match=message):
        await run_with(**{"redis_url": store_url} | settings)


async def test_one_client_without_a_key_stops_it(store_url: str, tmp_path: Path) -> None:
    """Without an operator's key every client needs its own."""
    path = tmp_path / "clients.toml"
    settings = {"redis_url": store_url, "upstream_api_key": None, "clients_file": path}
    write_clients(path, acme="key-of-acme", umbrella=None)
    with pytest.raises(ConfigurationError, match=r"^RELAY_UPSTREAM_API_KEY is missing"):
        await run_with(**settings)
    write_clients(path, acme="key-of-acme", umbrella="key-of-umbrella")
    stop = asyncio.Event()
    stop.set()
    await service.run(Settings.load(_env_file=None, **{**FAST, **settings}), stop)


async def test_a_port_that_is_taken_stops_it(store_url: str) -> None:
    """It does not start unwatched: a port that it cannot listen on is a wrong setting."""
    async with Receiver().serving() as other:
        port = int(other.url.rpartition(":")[2])
        with pytest.raises(ConfigurationError, match=f"^RELAY_WORKER_PORT: cannot listen on 127.0.0.1:{port}: "):
            await run_with(redis_url=store_url, worker_port=port)


async def test_it_can_be_watched(store_url: str) -> None:
    """Probes and Prometheus find what they look for, and nothing of any client's data."""
    async with (
        Upstream().serving() as upstream,
        Rig.open(store_url, upstream.url) as rig,
        rig.working(measured=True) as worker,
    ):
        await rig.settled(await rig.accept("a prompt that nobody else sees"))
        status, body = await worker.get("/healthz")
        assert (status, json.loads(body)) == (200, {"status": "ok"})
        status, body = await worker.get("/readyz")
        assert (status, json.loads(body)) == (200, {"status": "ready"})
        status, text = await worker.get("/metrics")
        assert status == 200
        assert (await worker.get("/elsewhere"))[0] == 404
        for name, labels in [
            ("submits_total", {"outcome": "submitted"}),
            ("polls_total", {"outcome": "done"}),
            ("callback_attempts_total", {"outcome": "delivered"}),
            ("job_outcomes_total", {"status": "done", "code": ""}),
            ("callback_attempt_duration_seconds_count", {}),
            ("callback_lateness_seconds_count", {}),
            ("build_info", {"service": "worker"}),
        ]:
            assert await worker.metric(name, **labels) == 1, name
        await eventually(lambda: worker.metric("due", kind="poll"), lambda due: due == 0)
        assert await rig.store.worker_seen_within(5)
    for secret in ("a prompt", "upstream-id-of", rig.inbox_url, "job_0"):
        assert secret not in text


async def test_stopping_finishes_what_was_begun(store_url: str) -> None:
    """A callback under way is waited for and saved; nothing new is begun, here or at the upstream."""
    go_on = asyncio.Event()

    async with (
        Upstream().serving() as upstream,
        Receiver(thanking_after(go_on)).serving() as receiver,
        Rig.open(store_url, upstream.url) as rig,
    ):
        async with rig.working(measured=True) as worker:
            job = await rig.accept("begun", f"{receiver.url}/hook")
            await until(lambda: receiver.at_once == 1, 10, lambda: "not called")
            worker.told.set()

            async def is_ready() -> int:
                return (await worker.get("/readyz"))[0]

            await eventually(is_ready, lambda status: status == 503)
            late = await rig.accept("too late")
            # Longer than a look and a task of arq's take.
            ended, _ = await asyncio.wait([worker.task], timeout=1.5)
            assert not ended
            go_on.set()
            assert await worker.stop() < 2
        assert (await rig.now(job)).delivery.status is DeliveryStatus.DELIVERED
        assert (await rig.now(late)).status is JobStatus.QUEUED
        assert "due:submit:default" in await rig.bench.places(late.id)
        # The next worker goes on as if nothing had been.
        async with rig.working():
            assert (await rig.settled(late)).status is JobStatus.DONE
    assert [asked.prompt for asked in upstream.submits] == ["begun", "too late"]
    assert len(receiver.arrivals) == 1


async def test_stopping_takes_no_longer_than_its_grace(store_url: str) -> None:
    """A callback that never ends is cut off, and is made again by whoever comes next."""
    go_on = asyncio.Event()

    async def hanging_once(arrival: Arrival) -> web.Response:
        if arrival.headers["relay-attempt"] == "1":
            await go_on.wait()
        return web.Response(status=204)

    async with (
        Upstream().serving() as upstream,
        Receiver(hanging_once).serving() as receiver,
        Rig.open(store_url, upstream.url, stop_grace_s=1) as rig,
    ):
        async with rig.working() as worker:
            job = await rig.accept("Why?", f"{receiver.url}/hook")
            await until(lambda: receiver.at_once == 1, 10, lambda: "not called")
            assert await worker.stop() < 4
        await rig.bench.let_pass(4)
        async with rig.working():
            job = await rig.settled(job)
        first, second = await rig.attempts(job)
    assert (first.outcome, first.error) == (AttemptOutcome.CONNECTION_ERROR, "worker stopped")
    assert (second.number, second.outcome) == (2, AttemptOutcome.DELIVERED)


async def test_stopping_costs_no_submit_or_poll(store_url: str) -> None:
    """A worker that is stopped in the middle of many jobs leaves every one of them to the next, and none paid twice."""
    async with emulated() as upstream, Rig.open(store_url, upstream.url, submit_slots=5) as rig:
        jobs = [await rig.accept(f"[latency=0.1] {n}") for n in range(60)]
        for begun in (5, 30):
            async with rig.working():
                await eventually(upstream.taken, begun.__le__)
        async with rig.working():
            for job in jobs:
                assert (await rig.settled(job)).delivery.status is DeliveryStatus.DELIVERED
        stats = await upstream.stats()
        assert (stats["submits"], stats["repeated_submits"]) == (60, 0)
        assert await rig.account() == {"submitted": 60, "credits": 180}
    assert len(rig.inbox.received) == 60


async def test_workers_share_the_work(store_url: str) -> None:
    """Two workers on one store submit and announce each job once."""
    async with emulated() as upstream, Rig.open(store_url, upstream.url) as rig, rig.working(), rig.working():
        specs = [rig.spec(f"[latency=0.1] {n}") for n in range(100)]
        accepted = await rig.store.accept_batch(make_admission(DEFAULT), specs, None)
        for job_id in accepted.job_ids:
            job = await rig.settled(await rig.store.job(DEFAULT, job_id))
            assert (job.status, job.delivery.attempts) == (JobStatus.DONE, 1)
        stats = await upstream.stats()
    assert (stats["submits"], stats["repeated_submits"]) == (100, 0)
    assert len(rig.inbox.received) == 100


async def test_pending_jobs_hold_no_stop_up(store_url: str) -> None:
    """A job that waits for its next poll is no step under way: the worker just goes."""
    async with Upstream(poll=answering(pending)).serving() as upstream, Rig.open(store_url, upstream.url) as rig:
        async with rig.working() as worker:
            job = await rig.until(await rig.accept(), lambda seen: seen.status is JobStatus.PENDING)
            assert await worker.stop() < 4
        assert (await rig.now(job)).status is JobStatus.PENDING
