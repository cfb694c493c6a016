"""What can be done in the dashboard, by its forms."""

import redis

from relay.core.model import AttemptOutcome, DeliveryStatus
from tests.integration.conftest import HandWorker, RelayClient
from tests.integration.dashboard_harness import logged_in


async def test_redelivering_a_job(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """A delivery that ended is repeated, and the page says so; while it is under way the form is not there."""
    job_id = (await relay_client.submit()).json["id"]
    path = f"/dashboard/jobs/{job_id}"
    visitor = await logged_in(relay_client)
    assert "/redeliver" not in (await visitor.get(path)).source
    await hand_worker.submit_all()
    await hand_worker.finish_all()
    early = await visitor.send(f"{path}/redeliver")
    assert (early.status, "Only a delivery that has ended" in early.text) == (409, True)
    await hand_worker.deliver_all(DeliveryStatus.EXHAUSTED, AttemptOutcome.HTTP_ERROR)
    assert f'action="{path}/redeliver"' in (await visitor.get(path)).source
    done = await visitor.send(f"{path}/redeliver", of=path)
    assert (done.status, done.location) == (303, f"{path}?did=redelivered")
    assert "sent again" in (await visitor.get(done.location)).text
    assert await hand_worker.deliver_all() == 1
    job = (await relay_client.call("GET", f"/v1/jobs/{job_id}")).json
    assert (job["delivery"]["status"], job["delivery"]["attempts"]) == ("delivered", 2)


async def test_cancelling_a_job(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """A job without an outcome is cancelled, once; one with an outcome is not."""
    job_id = (await relay_client.submit()).json["id"]
    path = f"/dashboard/jobs/{job_id}"
    visitor = await logged_in(relay_client)
    done = await visitor.send(f"{path}/cancel", of=path)
    assert (done.status, done.location) == (303, f"{path}?did=cancelled")
    page = await visitor.get(done.location)
    assert "The job is cancelled." in page.text
    assert "/redeliver" not in page.source
    assert "/cancel" not in page.source
    assert (await visitor.send(f"{path}/cancel")).status == 303, "again is fine, as in the API"
    ended = (await relay_client.submit()).json["id"]
    await hand_worker.submit_all()
    await hand_worker.finish_all()
    late = await visitor.send(f"/dashboard/jobs/{ended}/cancel")
    assert (late.status, "can no longer be cancelled" in late.text) == (409, True)


async def test_a_skipped_callback_is_delivered_for_the_asking(
    relay_client: RelayClient, hand_worker: HandWorker
) -> None:
    """An event that was not asked for can be sent all the same."""
    job_id = (await relay_client.submit(callback_events=["job.failed"])).json["id"]
    await hand_worker.submit_all()
    await hand_worker.finish_all(announce=False)
    visitor = await logged_in(relay_client)
    page = await visitor.get(f"/dashboard/jobs/{job_id}")
    assert "This event was not asked for." in page.text
    assert (await visitor.send(f"/dashboard/jobs/{job_id}/redeliver")).status == 303
    assert await hand_worker.deliver_all() == 1


async def test_redelivering_a_batch(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """`batch.completed` is repeated."""
    body = {"prompts": ["a", "b"], "scrapers": ["grok"], "callback_url": "https://203.0.113.7/"}
    batch_id = (await relay_client.call("POST", "/v1/batches", json=body)).json["id"]
    path = f"/dashboard/batches/{batch_id}"
    visitor = await logged_in(relay_client)
    assert (await visitor.send(f"{path}/redeliver")).status == 409
    await hand_worker.submit_all()
    await hand_worker.finish_all()
    assert await hand_worker.deliver_all() == 3
    page = await visitor.get(path)
    assert "completed" in page.text
    done = await visitor.send(f"{path}/redeliver", of=path)
    assert (done.status, done.location) == (303, f"{path}?did=redelivered")
    assert await hand_worker.deliver_all() == 1


async def test_resuming_a_destination(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """What waits because nobody answered is sent at once."""
    await relay_client.submit()
    await hand_worker.submit_all()
    await hand_worker.finish_all()
    await hand_worker.deliver_all(DeliveryStatus.EXHAUSTED, AttemptOutcome.CONNECTION_ERROR)
    visitor = await logged_in(relay_client)
    page = await visitor.get("/dashboard/destinations")
    assert "failing" in page.text
    assert 'data-destination="203.0.113.7:443"' in page.source
    done = await visitor.send("/dashboard/destinations/203.0.113.7%3A443/resume", of="/dashboard/destinations")
    assert (done.status, done.location) == (303, "/dashboard/destinations?did=resumed")
    assert "healthy" in (await visitor.get(done.location)).text
    for name in ("203.0.113.8:443", "nonsense", "<script>"):
        assert (await visitor.send(f"/dashboard/destinations/{name}/resume")).status == 404


async def test_nothing_is_done_by_get(relay_client: RelayClient, store_url: str) -> None:
    """A link does nothing: what changes things needs a form."""
    job_id = (await relay_client.submit()).json["id"]
    visitor = await logged_in(relay_client)
    for path in (f"/dashboard/jobs/{job_id}/cancel", f"/dashboard/jobs/{job_id}/redeliver", "/dashboard/logout"):
        assert (await visitor.get(path)).status == 404
    with redis.Redis.from_url(store_url) as store:
        assert store.hget(f"relay:{job_id}", "s") == b"queued"
    assert (await visitor.get("/dashboard/jobs")).status == 200
