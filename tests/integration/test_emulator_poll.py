"""The emulated upstream's poll: what is told of a job, and for how long (docs/upstream.md, "Poll")."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from relay.core.settings import SCRAPERS
from tests.integration.emulator_harness import emulated

ALWAYS = {"job_id", "status", "scraper", "prompt", "country", "created_at", "completed_at"}
RESULT = {
    "scraper",
    "status",
    "job_id",
    "prompt",
    "country",
    "result",
    "result_markdown",
    "credits_used",
    "elapsed_ms",
    "cached",
    "markdown_url",
}


@pytest.mark.parametrize(
    ("prompt", "status", "more"),
    [
        ("[never]", "pending", set()),
        ("[latency=60]", "pending", set()),
        ("[latency=0]", "done", {"result"}),
        ("[latency=0] [fail]", "failed", {"error"}),
    ],
)
async def test_the_fields_of_each_status(prompt: str, status: str, more: set[str]) -> None:
    """Seven fields are always there; a result comes with `done` alone, and an error with `failed` alone."""
    began = datetime.now(UTC)
    async with emulated() as upstream:
        job_id = await upstream.take(prompt, scraper="perplexity", country="DE")
        answer = await upstream.poll(job_id)
    body = answer.body
    assert answer.status == 200
    assert body.keys() == ALWAYS | more
    assert (body["job_id"], body["status"], body["scraper"]) == (job_id, status, "perplexity")
    assert (body["prompt"], body["country"]) == (prompt, "DE")
    created = datetime.fromisoformat(body["created_at"])
    assert created.utcoffset() == timedelta(0)
    assert began <= created <= datetime.now(UTC)
    assert (body["completed_at"] is None) == (status == "pending")
    if status == "failed":
        assert body["error"] == "execution failed"


@pytest.mark.parametrize(
    ("prompt", "status"), [("[latency=0.3]", "done"), ("[slow=0.2] [latency=0.1] [fail]", "failed")]
)
async def test_a_job_ends_after_its_latency(prompt: str, status: str) -> None:
    """A job is pending until its time has passed, and completed at that moment, whenever it is asked for."""
    async with emulated() as upstream:
        job_id = await upstream.take(prompt)
        body = await upstream.ended(job_id)
        assert datetime.now(UTC) >= datetime.fromisoformat(body["completed_at"])
        assert body["status"] == status
        took = datetime.fromisoformat(body["completed_at"]) - datetime.fromisoformat(body["created_at"])
        assert took / timedelta(milliseconds=1) == pytest.approx(300, abs=0.1)
        assert (await upstream.poll(job_id)).body == body


@pytest.mark.parametrize("scraper", SCRAPERS)
async def test_a_result_is_the_synchronous_answer(scraper: str) -> None:
    """A result has every documented field, says what it was for, and adds the provider's own."""
    prompt = "[latency=0] Why?"
    async with emulated(credits_per_job=5) as upstream:
        job_id = await upstream.take(prompt, scraper=scraper, country="FR")
        result: dict[str, Any] = (await upstream.poll(job_id)).body["result"]
    assert result.keys() > RESULT
    expected = {"scraper": scraper, "status": "done", "job_id": job_id, "prompt": prompt, "country": "FR"}
    assert {name: result[name] for name in expected} == expected
    assert (result["credits_used"], result["elapsed_ms"], result["cached"]) == (5, 0, False)
    assert prompt in result["result"]
    assert result["result"] in result["result_markdown"]
    assert result["links"]
    assert ("search_queries" in result) == (scraper in ("chatgpt", "perplexity", "google_ai_mode"))
    assert ("products" in result) == (scraper == "amazon_rufus")


@pytest.mark.parametrize(
    ("prompt", "setting", "at_least"), [("[latency=0]", 5_000, 5_000), ("[latency=0] [bytes=9000]", 5_000, 9_000)]
)
async def test_a_result_can_be_made_large(prompt: str, setting: int, at_least: int) -> None:
    """The text has at least as many bytes as the setting or, before it, the prompt says, and few more."""
    async with emulated(result_bytes=setting) as upstream:
        result = (await upstream.poll(await upstream.take(prompt))).body["result"]
    assert at_least <= len(result["result"].encode()) < at_least + 100


@pytest.mark.parametrize("job_id", ["x", "..%2Fx", "%00", "3f0c2c1e-8a4b-4d6f-9b1e-2c7d5e8f0a13", "x" * 5_000])
async def test_an_unknown_job_is_not_found(job_id: str) -> None:
    """Whatever was never given out is 404, and needs no key to be asked for."""
    async with emulated() as upstream:
        answer = await upstream.poll(job_id)
    assert answer.status == 404
    assert answer.detail


async def test_a_job_is_forgotten_after_its_retention() -> None:
    """Past its time from submission a job is 404, done or not, and is counted no more."""
    async with emulated() as upstream:
        for prompt in ("[latency=0]", "[never]"):
            job_id = await upstream.take(prompt)
            assert (await upstream.poll(job_id)).status == 200
            await upstream.change(retention_s=0.000_001)
            answer = await upstream.poll(job_id)
            assert answer.status == 404
            assert answer.detail
            assert (await upstream.ask("GET", f"/_emulator/jobs/{job_id}")).status == 404
            assert (await upstream.stats())["jobs"] == {}
            await upstream.change(retention_s=86_400)


async def test_a_forgotten_job_makes_room() -> None:
    """Jobs past their retention are dropped with the next submit, and stay unknown."""
    async with emulated() as upstream:
        old = await upstream.take()
        await upstream.change(retention_s=0.000_001)
        await upstream.take()
        await upstream.change(retention_s=86_400)
        assert (await upstream.poll(old)).status == 404


async def test_the_oldest_jobs_make_room() -> None:
    """At most `max_jobs` are known: those that were submitted last."""
    async with emulated(max_jobs=2) as upstream:
        jobs = [await upstream.take(f"[latency=0] {number}") for number in range(4)]
        assert [(await upstream.poll(job)).status for job in jobs] == [404, 404, 200, 200]
        rows = (await upstream.ask("GET", "/_emulator/submits")).body["data"]
        assert [row["prompt"] for row in rows] == ["[latency=0] 2", "[latency=0] 3"]


@pytest.mark.parametrize(
    ("changes", "cached"),
    [
        ({}, True),
        ({"bypass_cache": "false"}, True),
        ({"bypass_cache": "1"}, False),
        ({"country": "DE"}, False),
        ({"mode": "MODEL_MODE_FAST"}, False),
        ({"scraper": "copilot"}, False),
    ],
    ids=str,
)
async def test_a_question_that_was_answered_comes_from_the_cache(changes: dict[str, str], cached: bool) -> None:
    """The same question is answered from the cache, says so and still costs; another, or a bypassing one, is not."""
    async with emulated(latency_scale=0.001, cached_latency_s=0) as upstream:
        first = (await upstream.ended(await upstream.take("Why?", scraper="grok")))["result"]
        second = (await upstream.ended(await upstream.take("Why?", **{"scraper": "grok", **changes})))["result"]
        assert (first["cached"], second["cached"]) == (False, cached)
        assert second["credits_used"] == 3
        if cached:
            assert (first["elapsed_ms"] > 0, second["elapsed_ms"]) == (True, 0)
            assert second["result"] == first["result"]


@pytest.mark.parametrize("prompt", ["[never]", "[latency=60]", "[latency=0] [fail]"])
async def test_what_has_no_answer_yet_is_not_in_the_cache(prompt: str) -> None:
    """A question whose job is pending or has failed is asked anew."""
    async with emulated() as upstream:
        jobs = [await upstream.take(prompt) for _ in range(2)]
        shown = [(await upstream.ask("GET", f"/_emulator/jobs/{job}")).body["cached"] for job in jobs]
    assert shown == [False, False]


@pytest.mark.parametrize(("rate", "status"), [(0, "done"), (1, "failed")])
async def test_jobs_fail_by_chance(rate: float, status: str) -> None:
    """`failure_rate` is the share of jobs that fail."""
    async with emulated(failure_rate=rate) as upstream:
        ends = {(await upstream.ended(await upstream.take()))["status"] for _ in range(10)}
    assert ends == {status}


async def test_a_seed_makes_latencies_repeatable() -> None:
    """The same seed draws the same latencies, another one others."""
    drawn = []
    for seed in (1, 1, 2):
        async with emulated(seed=seed, latency_scale=0.001) as upstream:
            jobs = [await upstream.ended(await upstream.take(prompt)) for prompt in ("a", "b", "c")]
        drawn.append([job["result"]["elapsed_ms"] for job in jobs])
    assert drawn[0] == drawn[1] != drawn[2]
