"""Batches at their size limit, and by a cross of prompts and scrapers."""

import time

import pytest

from tests.processes import System, until

pytestmark = pytest.mark.acceptance


@pytest.mark.timeout(240)
async def test_ten_thousand_jobs_in_one_request(system: System) -> None:
    """10,000 jobs are accepted in one request within seconds, and all are delivered."""
    began = time.monotonic()
    status, batch = await system.call(
        "POST",
        "/v1/batches",
        {
            "callback_url": f"{system.inbox_url}/hook",
            "jobs": [{"scraper": "perplexity", "prompt": f"[latency=0.5] number {i}"} for i in range(10_000)],
        },
    )
    assert status == 202, batch
    assert time.monotonic() - began < 10
    assert batch["count"] == len(set(batch["job_ids"])) == 10_000
    assert batch["job_ids"] == sorted(batch["job_ids"])
    await system.callbacks(10_001, 200)
    status, now = await system.call("GET", f"/v1/batches/{batch['id']}")
    assert (status, now["status"]["done"]) == (200, 10_000)
    assert all(received.verified for received in system.inbox.received)
    assert (await system.emulated())["submits"] == 10_000


async def test_a_cross_with_a_callback_of_its_own(system: System) -> None:
    """1,000 jobs by 250 prompts and four scrapers end in one `batch.completed`, after every job has its outcome."""
    status, batch = await system.call(
        "POST",
        "/v1/batches",
        {
            "callback_url": f"{system.inbox_url}/hook",
            "callback_events": ["batch.completed"],
            "prompts": [f"[latency=0.3] question {i}" for i in range(250)],
            "scrapers": ["chatgpt", "perplexity", "grok", "gemini"],
        },
    )
    assert (status, batch["count"]) == (202, 1_000)
    await system.callbacks(1, 60)
    [received] = system.inbox.received
    assert received.body["type"] == "batch.completed"
    assert received.body["data"]["status"]["done"] == 1_000
    assert received.body["data"]["delivery"]["skipped"] == 1_000
    assert received.verified
    _, now = await system.call("GET", f"/v1/batches/{batch['id']}")
    assert now["completed_at"] is not None
    await until(lambda: len(system.inbox.received) == 1, 1, lambda: "more than one callback")
