"""Two versions at one store: what the one before wrote is worked off, and what the next may write is not minded."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
import yarl

from relay.core.model import BatchId, DeliveryStatus, Job, JobStatus
from tests.integration.store_harness import ACME, UMBRELLA, Snapshot, make_admission, make_spec
from tests.integration.worker_harness import Rig, eventually, write_clients
from tests.integration.worker_peers import Upstream
from tests.records import KEY, LARGE, LATER_MS, load

FILES = sorted((Path(__file__).parents[1] / "fixtures").glob("records-*.jsonl"))
#: The newest file, as a version after this one may have left it.
NEWER = "newer"
DAYS_S = 8 * 86_400
#: A batch goes after its jobs, and looks for that now and then.
PURGES = 2


def add_what_is_unknown(raw: Any) -> None:
    """Give each record, each request and each attempt a field that this version knows nothing of."""
    for key in raw.keys("relay:*"):
        match raw.type(key):
            case b"hash" if key.startswith((b"relay:job_", b"relay:batch_")):
                raw.hset(key, "zz", "of a later version")
                if (spec := raw.hget(key, "spec")) is not None:
                    raw.hset(key, "spec", _with_more(spec))
            case b"list" if key.startswith(b"relay:att:"):
                for position, entry in enumerate(raw.lrange(key, 0, -1)):
                    raw.lset(key, position, _with_more(entry))
            case _:
                continue


def _with_more(text: bytes) -> str:
    fields = json.loads(text)
    if "callback" in fields:
        fields["callback"]["later"] = {"a": [1]}
    return json.dumps(fields | {"later": ["b", None]})


@pytest.fixture(name="rig", params=[*(file.stem for file in FILES), NEWER])
async def fixture_rig(request: pytest.FixtureRequest, store_url: str, tmp_path: Path) -> AsyncIterator[Rig]:
    """A store with records of another version, true now, and who works on them."""
    clients = write_clients(tmp_path / "clients.toml", acme=None, umbrella=None)
    settings = {"clients_file": clients, "public_url": "https://relay.example"}
    async with Upstream().serving() as upstream, Rig.open(store_url, upstream.url, **settings) as rig:
        port = yarl.URL(rig.inbox_url).port
        file = next((file for file in FILES if file.stem == request.param), FILES[-1])
        with redis.Redis.from_url(store_url) as raw:
            made_ms = load(raw, file, f"127.0.0.1:{port}", f"127.0.0.2:{port}")
            if request.param == NEWER:
                add_what_is_unknown(raw)
        await rig.bench.let_pass((made_ms - rig.bench.work.now_ms()) / 1000)
        yield rig
        # Its counters began in the middle of things, where the version before had none.
        await check(rig)
        await rig.bench.raw.flushdb()


async def check(rig: Rig) -> Snapshot:
    """The store obeys its rules."""
    snapshot, settings = await rig.bench.snapshot(), rig.bench.settings
    snapshot.check(
        permits=settings.callback_concurrency,
        attempts=len(settings.callback_schedule),
        # Files before the second have batches that are in no list, and are found by their ids.
        batches_listed=any(key.startswith("batches:") for key in snapshot.sets),
    )
    return snapshot


async def jobs(rig: Rig) -> list[Job]:
    """Every job of both clients."""
    return [job for client in (ACME, UMBRELLA) for job in (await rig.store.jobs(client, limit=100)).jobs]


def called(found: Sequence[Job], prompt: str) -> Job:
    """The job with this prompt."""
    (job,) = (job for job in found if job.spec.prompt == prompt)
    return job


def all_settled(found: Sequence[Job]) -> bool:
    """Whether every delivery has ended."""
    return all(job.delivery.status.is_ended for job in found)


async def test_records_of_another_version_are_read(rig: Rig) -> None:
    """Each job, batch, destination, attempt, result and key is what it was."""
    records = await check(rig)
    found = await jobs(rig)
    assert len(found) == 28
    stated = Counter(job.spec.prompt.partition(",")[0] for job in found)
    # The one that follows another has its prompt.
    expected = stated - Counter(["pending waiting"]) + Counter(["queued waiting"])
    assert Counter(f"{job.status} {job.delivery.status}" for job in found) == expected
    large = await rig.store.job(ACME, called(found, "done delivered, large").id)
    assert large.result == LARGE
    (attempt,) = await rig.attempts(called(found, "done retrying"))
    assert attempt.http_status == 500
    ended, begun = [await rig.store.batch(ACME, BatchId(name)) for name in sorted(records.batches())]
    assert (ended.count, ended.statuses[JobStatus.DONE], ended.completed_ms is None) == (2, 2, False)
    assert (begun.count, begun.statuses[JobStatus.QUEUED], begun.completed_ms) == (2, 2, None)
    states = {one.name.split(":")[0]: one.state.value for one in await rig.store.destinations(ACME)}
    assert states == {"127.0.0.1": "failing", "127.0.0.2": "unresponsive"}
    again = await rig.store.accept(make_admission(idempotency_key=KEY), make_spec(prompt="another"))
    assert (again.replayed, again.job.id) == (True, called(found, "queued waiting, with a key").id)
    assert (await rig.bench.work.account(ACME))["submitted"] > 0


async def test_records_of_another_version_are_worked_off(rig: Rig) -> None:
    """They are submitted, polled, called back, cancelled, called back again, and deleted in the end."""
    before = await jobs(rig)
    cancelled = await rig.store.cancel(ACME, called(before, "queued waiting").id)
    again = await rig.store.redeliver(ACME, called(before, "done gone").id)
    await rig.bench.let_pass(LATER_MS / 1000)
    async with rig.working():
        after = await eventually(lambda: jobs(rig), all_settled)
        await eventually(lambda: batches_announced(rig), lambda count: count == 1)
    ends = Counter((job.status, job.delivery.status) for job in after)
    assert called(after, cancelled.spec.prompt).status is JobStatus.CANCELLED
    for prompt in ("done retrying, dead", "done pending, parked"):
        assert called(after, prompt).delivery.status is DeliveryStatus.EXHAUSTED
    assert called(after, again.spec.prompt).delivery.status is DeliveryStatus.DELIVERED
    assert ends[JobStatus.DONE, DeliveryStatus.EXHAUSTED] == 3
    assert ends[JobStatus.CANCELLED, DeliveryStatus.SKIPPED] == 2
    assert set(ends) - {(JobStatus.DONE, DeliveryStatus.SKIPPED)} == {
        (JobStatus.DONE, DeliveryStatus.DELIVERED),
        (JobStatus.DONE, DeliveryStatus.EXHAUSTED),
        (JobStatus.CANCELLED, DeliveryStatus.SKIPPED),
        (JobStatus.FAILED, DeliveryStatus.DELIVERED),
        (JobStatus.TIMED_OUT, DeliveryStatus.DELIVERED),
    }
    assert all(received.verified for received in rig.inbox.received)
    await check(rig)
    for _ in range(PURGES):
        await rig.bench.let_pass(DAYS_S)
        await rig.bench.work.purge(1_000)
    left = await check(rig)
    assert (left.jobs(), left.batches(), left.logs) == ({}, {}, {})


async def batches_announced(rig: Rig) -> int:
    """How many batches' own callbacks have come."""
    return len({received.webhook_id for received in rig.inbox.received if "batch_" in received.webhook_id})
