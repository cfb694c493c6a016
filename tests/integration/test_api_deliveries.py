"""Attempts, redelivery and the results that thin callbacks link to, over HTTP."""

from typing import Any

import pytest

from relay.core import signing
from relay.core.model import AttemptOutcome, ClientName, DeliveryStatus, JobId, JobStatus
from tests.integration.conftest import UMBRELLA_KEY, HandWorker, RelayClient


async def finished(relay: RelayClient, worker: HandWorker, **fields: Any) -> str:
    """The path of a job that is done and whose callback is due."""
    path = (await relay.submit(**fields)).headers["Location"]
    await worker.submit_all()
    await worker.finish_all()
    return path


async def test_attempts(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """The log has each attempt, with numbers that go on over redeliveries."""
    path = await finished(relay_client, hand_worker)
    assert (await relay_client.call("GET", f"{path}/attempts")).json == {"data": []}
    await hand_worker.deliver_all(DeliveryStatus.EXHAUSTED, AttemptOutcome.HTTP_ERROR)
    assert (await relay_client.call("POST", f"{path}/redeliver")).status == 202
    await hand_worker.deliver_all()
    data = (await relay_client.call("GET", f"{path}/attempts")).json["data"]
    assert [(a["number"], a["outcome"], a["http_status"]) for a in data] == [
        (1, "http_error", 500),
        (2, "delivered", 200),
    ]
    assert data[0].keys() == {
        *("number", "started_at", "duration_ms", "outcome", "http_status", "response_excerpt", "error")
    }
    job = (await relay_client.call("GET", path)).json
    assert (job["delivery"]["status"], job["delivery"]["attempts"]) == ("delivered", 2)
    assert job["delivery"]["delivered_at"] is not None


async def test_redeliver(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """Only an ended delivery can be repeated."""
    path = (await relay_client.submit()).headers["Location"]
    assert (await relay_client.call("POST", f"{path}/redeliver")).code == "not_redeliverable"
    await hand_worker.submit_all()
    await hand_worker.finish_all()
    assert (await relay_client.call("POST", f"{path}/redeliver")).code == "not_redeliverable"
    await hand_worker.deliver_all()
    again = await relay_client.call("POST", f"{path}/redeliver")
    assert (again.status, again.json["delivery"]["status"]) == (202, "pending")


async def test_redeliver_what_was_skipped(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """A callback that nobody asked for is sent when somebody does."""
    path = (await relay_client.submit(callback_events=["job.failed"])).headers["Location"]
    await hand_worker.submit_all()
    await hand_worker.finish_all(announce=False)
    assert (await relay_client.call("GET", path)).json["delivery"]["status"] == "skipped"
    assert (await relay_client.call("POST", f"{path}/redeliver")).status == 202
    assert await hand_worker.deliver_all() == 1


async def test_redeliver_many(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """By state, time and host; other clients' jobs are left alone."""
    first = await finished(relay_client, hand_worker)
    second = await finished(relay_client, hand_worker, callback_url="https://203.0.113.9:8443/hook")
    await relay_client.submit(key=UMBRELLA_KEY)
    await hand_worker.submit_all("umbrella")
    await hand_worker.finish_all()
    assert await hand_worker.deliver_all(DeliveryStatus.EXHAUSTED, AttemptOutcome.HTTP_ERROR) == 3

    async def count(**body: object) -> int:
        answer = await relay_client.call("POST", "/v1/jobs/redeliver", json=body)
        assert answer.status == 202
        return int(answer.json["count"])

    ended = (await relay_client.call("GET", first)).json["completed_at"]
    assert await count(delivery="delivered") == 0
    assert await count(until="2020-01-01T00:00:00Z") == 0
    assert await count(since="2099-01-01T00:00:00Z") == 0
    assert await count(callback_host="203.0.113.9:8443") == 0
    assert await count(until=ended) == 0
    assert await count(callback_host="203.0.113.9", since=ended) == 1
    assert (await relay_client.call("GET", second)).json["delivery"]["status"] == "pending"
    assert (await relay_client.call("POST", "/v1/jobs/redeliver")).json == {"count": 1}
    assert (await relay_client.call("GET", first)).json["delivery"]["status"] == "pending"


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ({"delivery": "pending"}, "/delivery"),
        ({"since": "yesterday"}, "/since"),
        ({"until": 5}, "/until"),
        ({"callback_host": 1}, "/callback_host"),
        ({"all": True}, "/all"),
    ],
)
async def test_redeliver_many_refused(relay_client: RelayClient, body: object, at: str) -> None:
    """Wrong filters are 422 rather than ignored."""
    answer = await relay_client.call("POST", "/v1/jobs/redeliver", json=body)
    assert (answer.status, answer.faults) == (422, [("pointer", at)])


async def test_result_by_token(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """The token alone reads the result's own bytes, while it lives."""
    path = (await relay_client.submit(callback_payload="thin")).headers["Location"]
    job_id = JobId(path.removeprefix("/v1/jobs/"))
    token = signing.result_token(relay_client.clients[ClientName("acme")].signing_secrets[0], job_id)
    await hand_worker.submit_all()
    await hand_worker.finish_all(result=b'{"n": 1.10}')
    answer = await relay_client.call("GET", f"/v1/results/{token}", key=None)
    assert (answer.status, answer.body) == (200, b'{"n": 1.10}')
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "private, no-store"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


async def test_forged_tokens(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """What we did not make is 404; one that another client made for this job reads nothing of it."""
    path = await finished(relay_client, hand_worker)
    job_id = JobId(path.removeprefix("/v1/jobs/"))
    clients = relay_client.clients
    good = signing.result_token(clients[ClientName("acme")].signing_secrets[0], job_id)
    other_job = signing.result_token(
        clients[ClientName("acme")].signing_secrets[0], JobId("job_01jgfj7p00e8a3c5x9z1v7m4kq")
    )
    bare = job_id.removeprefix("job_")
    for forged in (
        *("x", ".", "%00", "%F0%9F%98%80", "%ff", bare, f"{bare}.", good + "A", good[:-1], good.upper(), "x" * 10_000),
        f"{bare}.{other_job.partition('.')[2]}",
        signing.result_token(signing.new_secret(), job_id),
    ):
        answer = await relay_client.call("GET", f"/v1/results/{forged}", key=None)
        assert (answer.status, answer.code) == (404, "not_found")
    foreign = signing.result_token(clients[ClientName("umbrella")].signing_secrets[0], job_id)
    answer = await relay_client.call("GET", f"/v1/results/{foreign}", key=None)
    assert answer.status in (404, 410)
    assert b"Paris" not in answer.body


async def test_expired_results(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """A token of ours whose result is gone is 410."""
    path = (await relay_client.submit()).headers["Location"]
    secret = relay_client.clients[ClientName("acme")].signing_secrets[0]
    await hand_worker.submit_all()
    await hand_worker.finish_all(JobStatus.FAILED)
    for job_id in (path.removeprefix("/v1/jobs/"), "job_01jgfj7p00e8a3c5x9z1v7m4kq"):
        token = signing.result_token(secret, JobId(job_id))
        answer = await relay_client.call("GET", f"/v1/results/{token}", key=None)
        assert (answer.status, answer.code) == (410, "result_expired")
