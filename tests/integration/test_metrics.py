"""The gauges of the whole system: exact, there at 0, and gone while they are not known."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from relay.core.model import JobStatus
from relay.core.observability import render
from relay.core.policy import Trouble
from relay.core.store.work import ClientLook, Look
from tests.integration.conftest import ACME_KEY, UMBRELLA_KEY, HandWorker, RelayClient
from tests.integration.store_harness import ACME, UMBRELLA, Bench
from tests.integration.worker_harness import Rig, eventually
from tests.processes import StoreProcess, free_port
from worker.metrics import WorkerMetrics

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def read(text: str) -> Samples:
    """Every sample of ours, by its name without our prefix, and its labels."""
    return {
        (sample.name.removeprefix("scrapellm_relay_"), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("scrapellm_relay_")
    }


def of(samples: Samples, name: str, **labels: str) -> float | None:
    """One of them; None where there is none."""
    return samples.get((name, frozenset(labels.items())))


async def scraped(relay: RelayClient) -> Samples:
    """What a relay tells, counted anew."""
    await asyncio.sleep(1.1)  # an answer is good for a second
    return read((await relay.call("GET", "/metrics", key=None)).body.decode())


async def test_jobs_are_counted(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """By client and status, as the index has them, those of a batch and every 0 included; and against the limits."""
    first = await scraped(relay_client)
    for client in ("acme", "umbrella"):
        for status in JobStatus:
            assert of(first, "jobs", client=client, status=status.value) == 0
        assert of(first, "jobs_accepted_total", client=client, call="batch") == 0
        assert of(first, "client_unfinished_jobs_limit", client=client) == 20_000
    assert of(first, "workers") == 0
    assert of(first, "unfinished_jobs") == 0
    await relay_client.submit(key=UMBRELLA_KEY)
    await relay_client.submit()
    await hand_worker.submit_all()
    await hand_worker.finish_all()
    body = {"prompts": ["a", "b"], "scrapers": ["grok"], "callback_url": "https://203.0.113.7/hook"}
    assert (await relay_client.call("POST", "/v1/batches", key=ACME_KEY, json=body)).status == 202
    await hand_worker.store.look({})
    samples = await scraped(relay_client)
    assert {status: of(samples, "jobs", client="acme", status=status.value) for status in JobStatus} == {
        **dict.fromkeys(JobStatus, 0),
        JobStatus.QUEUED: 2,
        JobStatus.DONE: 1,
    }
    assert of(samples, "jobs", client="umbrella", status="queued") == 1
    assert of(samples, "callbacks", client="acme", status="pending") == 1
    assert of(samples, "callbacks", client="acme", status="waiting") == 2
    assert of(samples, "callbacks", client="acme", status="exhausted") == 0
    assert of(samples, "unfinished_jobs") == 3
    assert of(samples, "unfinished_jobs_limit") == relay_client.settings.max_unfinished_jobs
    assert of(samples, "workers") == 1
    assert of(samples, "store_up") == 1


async def test_since_when_something_is_due(store_url: str) -> None:
    """A look tells since when the oldest of each kind is due, and the present where nothing is."""
    async with Bench.open(store_url) as bench:
        idle = await bench.work.look({ACME: "key"})
        assert {idle.clients[ACME].since_ms, idle.poll_since_ms, idle.deliver_since_ms} == {idle.now_ms}
        first = await bench.accept()
        await bench.accept()
        assert (await bench.work.look({ACME: "key"})).clients[ACME].since_ms == first.created_ms
        await bench.submit_all()
        polled = await bench.work.look({ACME: "key"})
        assert polled.clients[ACME].since_ms == polled.now_ms
        assert polled.poll_since_ms <= polled.now_ms
        await bench.raw.zadd("relay:due:poll", {first.id: polled.now_ms - 5_000})
        assert (await bench.work.look({})).poll_since_ms == polled.now_ms - 5_000
        await bench.finish_all()
        ended = await bench.work.look({})
        assert (ended.poll_since_ms, ended.deliver) == (ended.now_ms, 2)
        assert first.created_ms <= ended.deliver_since_ms <= ended.now_ms


def test_what_is_held_back_is_not_due() -> None:
    """Submits of a paused key, and of clients that have none, call for no more workers."""
    metrics = WorkerMetrics([ACME, UMBRELLA])
    assert tell(metrics.registry, "due", kind="submit") is None
    assert tell(metrics.registry, "store_up") == 0
    clients = {
        ACME: ClientLook(5, 0, 0, None, 7_000),
        UMBRELLA: ClientLook(30, 0, 20_000, Trouble.CREDITS, 1_000),
        type(ACME)("gone"): ClientLook(200, 0, 0, None, 1_000),
    }
    metrics.looked.look = Look(10_000, 0, 3, 0, 0, clients, deliver_since_ms=9_500, poll_since_ms=10_000)
    assert tell(metrics.registry, "due", kind="submit") == 5
    assert tell(metrics.registry, "due_lag_seconds", kind="submit") == 3
    assert tell(metrics.registry, "due_lag_seconds", kind="deliver") == 0.5
    assert (tell(metrics.registry, "due", kind="poll"), tell(metrics.registry, "due_lag_seconds", kind="poll")) == (
        0,
        0,
    )
    assert tell(metrics.registry, "submits_held") == 30
    assert tell(metrics.registry, "clients_paused", reason="credits") == 1
    assert tell(metrics.registry, "clients_paused", reason="rate_limited") == 0


def tell(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    """One sample of a registry."""
    return of(read(render(registry).decode()), name, **labels)


def test_counters_are_there_before_they_count() -> None:
    """The first event of a kind is an increase, and no series that appears."""
    samples = read(render(WorkerMetrics([ACME]).registry).decode())
    for name, labels in [
        ("submits_total", {"outcome": "credits_exhausted"}),
        ("polls_total", {"outcome": "lost"}),
        ("callback_attempts_total", {"outcome": "blocked_address"}),
        ("job_outcomes_total", {"status": "failed", "code": "upstream_unauthorized"}),
        ("job_outcomes_total", {"status": "timed_out", "code": "deadline_exceeded"}),
        ("refused_saves_total", {"kind": "deliver"}),
        ("upstream_credits_total", {"client": "acme"}),
        ("destination_changes_total", {"change": "paused"}),
        ("leases_lost_total", {}),
        ("internal_errors_total", {}),
        ("orphaned_submits_total", {}),
    ]:
        assert of(samples, name, **labels) == 0, name


async def test_what_is_not_known_is_not_told(tmp_path: Path) -> None:
    """While the store is away a worker says so, and tells no backlog of a time that is over."""
    store = StoreProcess(tmp_path, free_port())
    store.start()
    try:
        async with (
            Rig.open(store.url, "http://127.0.0.1:9", store_timeout_s=0.5) as rig,
            rig.working(measured=True) as worker,
        ):

            async def told() -> Samples:
                return read((await worker.get("/metrics"))[1])

            await eventually(told, lambda samples: of(samples, "due", kind="purge") == 0)
            store.stop()
            samples = await eventually(told, lambda samples: of(samples, "store_up") == 0)
            assert of(samples, "due", kind="purge") is None
            store.start()
            await eventually(told, lambda samples: of(samples, "store_up") == 1)
    finally:
        store.stop()
