"""`/v1/batches` over HTTP."""

import asyncio
import json
import time
from typing import Any

import pytest

from tests.integration.conftest import ACME_KEY, UMBRELLA_KEY, HandWorker, RelayClient, make_client, run_relay

URL = "https://203.0.113.7/hook"
JOB = {"scraper": "chatgpt", "prompt": "Why?", "callback_url": URL}


async def submit(relay: RelayClient, body: object, **arguments: Any) -> Any:
    """`POST /v1/batches`."""
    return await relay.call("POST", "/v1/batches", json=body, **arguments)


async def test_submit_and_read(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """Every prompt to every scraper, in order; the batch is completed with its last job."""
    made = await submit(
        relay_client, {"prompts": ["a", "b"], "scrapers": ["chatgpt", "grok"], "callback_url": URL, "country": "DE"}
    )
    assert made.status == 202
    assert made.headers["Location"] == f"/v1/batches/{made.json['id']}"
    assert made.json["count"] == 4
    jobs = [(await relay_client.call("GET", f"/v1/jobs/{job_id}")).json for job_id in made.json["job_ids"]]
    assert [(job["prompt"], job["scraper"], job["country"]) for job in jobs] == [
        ("a", "chatgpt", "DE"),
        ("a", "grok", "DE"),
        ("b", "chatgpt", "DE"),
        ("b", "grok", "DE"),
    ]
    assert {job["batch_id"] for job in jobs} == {made.json["id"]}
    listed = (await relay_client.call("GET", f"/v1/jobs?batch_id={made.json['id']}&limit=200")).json["data"]
    assert {job["id"] for job in listed} == set(made.json["job_ids"])

    fresh = (await relay_client.call("GET", made.headers["Location"])).json
    assert fresh["status"] == {"queued": 4, "pending": 0, "done": 0, "failed": 0, "timed_out": 0, "cancelled": 0}
    assert fresh["delivery"]["waiting"] == 4
    assert fresh["completed_at"] is None
    await relay_client.call("POST", f"/v1/jobs/{made.json['job_ids'][0]}/cancel")
    await hand_worker.submit_all()
    await hand_worker.finish_all()
    done = (await relay_client.call("GET", made.headers["Location"])).json
    assert (done["status"]["done"], done["status"]["cancelled"]) == (3, 1)
    assert (done["delivery"]["pending"], done["delivery"]["skipped"]) == (3, 1)
    assert done["completed_at"] is not None


async def test_its_own_callback(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """A top-level address is announced `batch.completed`, which can be repeated once it was delivered."""
    made = await submit(relay_client, {"jobs": [JOB], "callback_url": URL})
    path = f"{made.headers['Location']}/redeliver"
    assert (await relay_client.call("POST", path)).code == "not_redeliverable"
    await hand_worker.submit_all()
    await hand_worker.finish_all()
    assert await hand_worker.deliver_all() == 2
    again = await relay_client.call("POST", path)
    assert (again.status, again.json["id"]) == (202, made.json["id"])
    assert await hand_worker.deliver_all() == 1


@pytest.mark.parametrize("fields", [{}, {"callback_url": URL, "callback_events": ["job.completed", "job.failed"]}])
async def test_no_callback_of_its_own(
    relay_client: RelayClient, hand_worker: HandWorker, fields: dict[str, object]
) -> None:
    """Without a top-level address, or without the event, only the jobs are announced."""
    made = await submit(relay_client, {"jobs": [JOB]} | fields)
    await hand_worker.submit_all()
    await hand_worker.finish_all()
    assert await hand_worker.deliver_all() == 1
    assert (await relay_client.call("POST", f"{made.headers['Location']}/redeliver")).code == "not_redeliverable"


async def test_only_the_batch_is_announced(relay_client: RelayClient) -> None:
    """Top-level events are the jobs' defaults too: with `batch.completed` alone the jobs stay quiet."""
    made = await submit(relay_client, {"jobs": [JOB], "callback_url": URL, "callback_events": ["batch.completed"]})
    job = (await relay_client.call("GET", f"/v1/jobs/{made.json['job_ids'][0]}")).json
    assert job["callback_events"] == ["batch.completed"]


async def test_a_full_batch(relay_client: RelayClient) -> None:
    """10,000 jobs are accepted, in order, and other requests are answered meanwhile."""
    jobs = [JOB | {"prompt": f"Question {i}", "metadata": {"n": i}} for i in range(10_000)]
    body, headers = json.dumps({"jobs": jobs}).encode(), {"Content-Type": "application/json"}
    accepting = asyncio.create_task(relay_client.call("POST", "/v1/batches", data=body, headers=headers))
    slowest_s = 0.0
    while not accepting.done():
        started_s = time.monotonic()
        assert (await relay_client.call("GET", "/healthz", key=None)).status == 200
        slowest_s = max(slowest_s, time.monotonic() - started_s)
        await asyncio.sleep(0.01)
    made = await accepting
    assert (made.status, made.json["count"], len(set(made.json["job_ids"]))) == (202, 10_000, 10_000)
    last = (await relay_client.call("GET", f"/v1/jobs/{made.json['job_ids'][-1]}")).json
    assert last["metadata"] == {"n": 9999}
    # The client that sends the body lives in this process too.
    assert slowest_s < 1.0


@pytest.mark.parametrize(
    ("body", "code", "faults"),
    [
        ({"jobs": [JOB] * 10_001}, "batch_too_large", ["/jobs"]),
        (
            {"prompts": ["a"] * 5001, "scrapers": ["grok", "copilot"], "callback_url": URL},
            "batch_too_large",
            ["/prompts"],
        ),
        ({"jobs": []}, "invalid_request", ["/jobs"]),
        ({}, "invalid_request", [""]),
        ({"jobs": [JOB] * 17 + [JOB | {"country": "XX"}]}, "invalid_request", ["/jobs/17/country"]),
        ({"jobs": [JOB, JOB | {"callback_url": "http://10.0.0.1/"}]}, "callback_url_refused", ["/jobs/1/callback_url"]),
        ({"jobs": [JOB], "callback_url": "http://localhost/"}, "callback_url_refused", ["/callback_url"]),
        (
            {"prompts": ["a", "b"], "scrapers": ["grok"], "callback_url": "http://localhost/"},
            "callback_url_refused",
            ["/callback_url"],
        ),
        (
            {"jobs": [JOB | {"callback_url": ""}] * 2},
            "callback_url_refused",
            ["/jobs/0/callback_url", "/jobs/1/callback_url"],
        ),
    ],
)
async def test_refused_whole(relay_client: RelayClient, body: object, code: str, faults: list[str]) -> None:
    """One wrong job refuses the batch, and nothing is stored."""
    answer = await submit(relay_client, body)
    assert (answer.status, answer.code, answer.faults) == (422, code, [("pointer", at) for at in faults])
    assert (await relay_client.call("GET", "/v1/jobs")).json["data"] == []


async def test_idempotent_replay(relay_client: RelayClient) -> None:
    """The same key and body name the same batch and jobs."""
    key = {"Idempotency-Key": "b"}
    body = {"prompts": ["a", "b"], "scrapers": ["grok"], "callback_url": URL}
    first = await submit(relay_client, body, headers=key)
    again = await submit(relay_client, body | {"timeout": 300, "params": {}}, headers=key)
    assert (again.status, again.headers["Idempotency-Replayed"]) == (202, "true")
    assert again.json == first.json
    other = await submit(relay_client, body | {"callback_headers": {"X": "1"}}, headers=key)
    assert other.code == "idempotency_key_reused"


async def test_racing_replays(relay_client: RelayClient) -> None:
    """Twenty identical batches at once are one."""
    body = {"prompts": [f"p{i}" for i in range(30)], "scrapers": ["grok"], "callback_url": URL}
    answers = await asyncio.gather(*(submit(relay_client, body, headers={"Idempotency-Key": "r"}) for _ in range(20)))
    assert {answer.status for answer in answers} == {202}
    assert len({json.dumps(answer.json) for answer in answers}) == 1
    assert len((await relay_client.call("GET", "/v1/jobs?limit=200")).json["data"]) == 30


async def test_quota_is_whole_or_not_at_all(store_url: str) -> None:
    """A batch that does not fit is refused whole; it is one request against the rate."""
    clients = {c.name: c for c in [make_client("acme", ACME_KEY, max_unfinished_jobs=10, jobs_per_minute=60)]}
    async with run_relay(store_url, clients=clients) as relay:
        assert (await submit(relay, {"jobs": [JOB] * 8})).status == 202
        refused = await submit(relay, {"jobs": [JOB] * 3})
        assert (refused.status, refused.code) == (429, "too_many_unfinished")
        assert "in parts" not in refused.json["detail"]
        # This one would be refused for ever, and says so.
        refused = await submit(relay, {"jobs": [JOB] * 11})
        assert (refused.status, refused.code) == (429, "too_many_unfinished")
        assert "in parts" in refused.json["detail"]
        assert (await submit(relay, {"jobs": [JOB] * 2})).status == 202


@pytest.mark.parametrize("batch_id", ["batch_01jgfj7p00e8a3c5x9z1v7m4kq", "job_01jgfj7p00e8a3c5x9z1v7m4kq", "*", "%00"])
async def test_unknown_batches(relay_client: RelayClient, batch_id: str) -> None:
    """Unknown, ill-formed and other clients' batches are the same 404."""
    for method, suffix in (("GET", ""), ("POST", "/redeliver")):
        assert (await relay_client.call(method, f"/v1/batches/{batch_id}{suffix}")).code == "not_found"
    path = (await submit(relay_client, {"jobs": [JOB]})).headers["Location"]
    assert (await relay_client.call("GET", path, key=UMBRELLA_KEY)).code == "not_found"
    assert (await relay_client.call("POST", f"{path}/redeliver", key=UMBRELLA_KEY)).code == "not_found"
