"""What is announced beside the plain callback: redeliveries, thin payloads, CloudEvents and batches."""

import json

from relay.core.model import (
    AttemptOutcome,
    CallbackFormat,
    DeliveryStatus,
    EventType,
    JobStatus,
    PayloadKind,
)
from relay.core.signing import job_of_token
from tests.integration.store_harness import JOB_EVENTS, make_admission
from tests.integration.worker_harness import DEFAULT, SECRET, Rig, callback_to, eventually
from tests.integration.worker_peers import emulated

PUBLIC_URL = "https://relay.example"


async def test_a_redelivery_repeats_the_callback(store_url: str) -> None:
    """The same id and bytes on a fresh schedule, and attempts that count on, whatever ended the delivery before."""
    async with emulated() as upstream, Rig.open(store_url, upstream.url) as rig, rig.working():
        job = await rig.settled(await rig.accept("[latency=0]", f"{rig.inbox_url}/fail/500/4"))
        assert job.delivery.status is DeliveryStatus.EXHAUSTED
        for attempts in (5, 6):
            await rig.store.redeliver(DEFAULT, job.id)
            job = await rig.settled(job)
            assert (job.delivery.status, job.delivery.attempts) == (DeliveryStatus.DELIVERED, attempts)
        log = await rig.attempts(job)
    received = rig.received(job)
    assert [one.attempt for one in received] == [1, 2, 3, 4, 5, 6]
    assert len({(one.webhook_id, one.raw) for one in received}) == 1
    assert all(one.verified for one in received)
    assert [attempt.number for attempt in log] == [1, 2, 3, 4, 5, 6]
    assert [attempt.outcome for attempt in log[-2:]] == [AttemptOutcome.DELIVERED] * 2


async def test_a_thin_callback_links_to_the_result(store_url: str) -> None:
    """It has a signed URL in the place of the result; what has no result has none."""
    async with emulated() as upstream, Rig.open(store_url, upstream.url, public_url=PUBLIC_URL) as rig, rig.working():
        thin = callback_to(f"{rig.inbox_url}/hook", payload=PayloadKind.THIN)
        job = await rig.settled(await rig.accept("[latency=0] fine", callback=thin))
        failed = await rig.settled(await rig.accept("[latency=0] [fail]", callback=thin))
        assert job.result is not None
    [received] = rig.received(job)
    data = received.body["data"]
    assert received.verified
    assert data["result"] is None
    base, _, token = data["result_url"].rpartition("/")
    assert base == f"{PUBLIC_URL}/v1/results"
    assert job_of_token([SECRET], token) == job.id
    assert failed.status is JobStatus.FAILED
    assert "result_url" not in rig.received(failed)[0].body["data"]


async def test_a_thin_callback_needs_a_public_url(store_url: str) -> None:
    """Where the relay's address is not known any more the result travels along: a link would lead nowhere."""
    async with emulated() as upstream, Rig.open(store_url, upstream.url) as rig, rig.working():
        thin = callback_to(f"{rig.inbox_url}/hook", payload=PayloadKind.THIN)
        job = await rig.settled(await rig.accept(callback=thin))
    data = rig.received(job)[0].body["data"]
    assert "result_url" not in data
    assert data["result"]["credits_used"] == 3


async def test_a_cloudevent_is_one(store_url: str) -> None:
    """Structured mode, with the attributes of the specification, and signed like every other."""
    async with emulated() as upstream, Rig.open(store_url, upstream.url) as rig, rig.working():
        callback = callback_to(f"{rig.inbox_url}/hook", format=CallbackFormat.CLOUDEVENTS)
        job = await rig.settled(await rig.accept(callback=callback))
    [received] = rig.received(job)
    assert received.verified
    assert received.content_type == "application/cloudevents+json"
    envelope = {name: value for name, value in received.body.items() if name not in {"data", "time"}}
    assert envelope == {
        "specversion": "1.0",
        "id": f"msg_{job.id}",
        "source": "/clients/default",
        "type": "com.scrapellm.relay.job.completed",
        "subject": job.id,
        "datacontenttype": "application/json",
    }
    assert received.body["time"] == received.body["data"]["completed_at"]
    assert job.result is not None
    assert received.body["data"]["result"] == json.loads(job.result)


async def test_a_batch_announces_its_end(store_url: str) -> None:
    """When the last job has its outcome the batch's own callback tells how they all ended, and can be repeated."""
    async with emulated() as upstream, Rig.open(store_url, upstream.url) as rig, rig.working():
        prompts = [*(f"[latency=0] {n}" for n in range(5)), "[latency=0] [fail]", "[reject]"]
        job_callback = callback_to(f"{rig.inbox_url}/jobs", events=[*JOB_EVENTS])
        specs = [rig.spec(prompt, callback=job_callback) for prompt in prompts]
        own = callback_to(f"{rig.inbox_url}/batch", events=[EventType.BATCH_COMPLETED])
        accepted = await rig.store.accept_batch(make_admission(DEFAULT), specs, own)

        async def is_delivered() -> bool:
            batch = await rig.store.batch(DEFAULT, accepted.batch_id)
            return batch.delivery is not None and batch.delivery.status is DeliveryStatus.DELIVERED

        await eventually(is_delivered, bool)
        for job_id in accepted.job_ids:
            await rig.settled(await rig.store.job(DEFAULT, job_id))
        await rig.store.redeliver_batch(DEFAULT, accepted.batch_id)
        await eventually(is_delivered, bool)
        batch = await rig.store.batch(DEFAULT, accepted.batch_id)
    first, second = [received for received in rig.inbox.received if received.event == "batch.completed"]
    assert first.path == second.path == "/batch"
    assert (first.webhook_id, first.raw, first.verified) == (second.webhook_id, second.raw, second.verified)
    assert (first.attempt, second.attempt) == (1, 2)
    data = first.body["data"]
    assert first.verified
    assert (data["id"], data["count"]) == (accepted.batch_id, len(prompts))
    assert (data["status"]["done"], data["status"]["failed"], data["status"]["queued"]) == (5, 2, 0)
    assert sum(data["delivery"].values()) == len(prompts)
    assert data["completed_at"] is not None
    assert batch.deliveries[DeliveryStatus.DELIVERED] == len(prompts)
    assert len({received.webhook_id for received in rig.inbox.received}) == len(prompts) + 1
