"""The emulated upstream's submit: what is taken, what is refused, and what it costs (docs/upstream.md, "Submit")."""

import uuid

import pytest

from relay.core.settings import SCRAPERS
from tests.integration.emulator_harness import KEY, emulated

RATE_LIMITED = "Rate limit exceeded. Retry after a moment."
CREDITS_USED_UP = "Credit limit reached. Upgrade your plan or wait for your billing cycle to reset."
EMOJI = "\N{GRINNING FACE}"


@pytest.mark.parametrize("scraper", SCRAPERS)
async def test_every_scraper_takes_a_job(scraper: str) -> None:
    """A submit is answered 202 with a version 4 UUID and `pending`, and nothing else."""
    async with emulated() as upstream:
        answer = await upstream.submit(scraper=scraper)
        assert answer.status == 202
        assert answer.headers["Content-Type"].startswith("application/json")
        assert answer.body == {"job_id": answer.body["job_id"], "status": "pending"}
        job_id = uuid.UUID(answer.body["job_id"])
        assert (job_id.version, str(job_id)) == (4, answer.body["job_id"])
        assert (await upstream.poll(str(job_id))).body["scraper"] == scraper


async def test_a_repeated_submit_is_a_second_job() -> None:
    """There is no idempotency: the same question is another job, and costs again."""
    async with emulated() as upstream:
        first, second = await upstream.take("again"), await upstream.take("again")
        assert first != second
        assert (await upstream.stats())["credits_used"] == 6


@pytest.mark.parametrize(("scrapers", "scraper"), [(SCRAPERS, "altavista"), (SCRAPERS, "GROK"), (("new",), "grok")])
async def test_an_unknown_scraper_is_not_found(scrapers: tuple[str, ...], scraper: str) -> None:
    """Scrapers are a setting; what is not among them is 404, in the shape of every error."""
    async with emulated(scrapers=scrapers) as upstream:
        answer = await upstream.submit(scraper=scraper)
        assert answer.status == 404
        assert scraper in answer.detail
        assert (await upstream.submit(scraper=scrapers[-1])).status == 202


@pytest.mark.parametrize(
    ("header", "query", "status"),
    [
        (None, {}, 401),
        ("", {}, 401),
        (None, {"api_key": ""}, 401),
        ("unknown", {}, 401),
        (None, {"api_key": "unknown"}, 401),
        (KEY.upper(), {}, 401),
        # The header is the better place, and goes first.
        ("unknown", {"api_key": KEY}, 401),
        (KEY, {"api_key": "unknown"}, 202),
        (KEY, {}, 202),
        ("the-second", {}, 202),
        (None, {"api_key": KEY}, 202),
    ],
)
async def test_a_submit_needs_a_key(header: str | None, query: dict[str, str], status: int) -> None:
    """A key that is missing or unknown is 401, wherever it was looked for; a known one is taken from both places."""
    async with emulated(api_keys=f"{KEY}, the-second") as upstream:
        answer = await upstream.submit(key=header, **query)
        assert answer.status == status
        if status == 401:
            assert "API key" in answer.detail
            assert (await upstream.stats())["credits_used"] == 0
        else:
            shown = await upstream.ask("GET", f"/_emulator/jobs/{answer.body['job_id']}")
            assert shown.body["params"] == {}, "the key is no parameter of the scraper"


async def test_any_key_will_do_where_none_is_named() -> None:
    """Without `api_keys` each key that is not empty has an account of its own; one that no key can be is refused."""
    async with emulated(credits=3) as upstream:
        for key, status in [("one", 202), ("two", 202), ("one", 429), ("", 401), ("schlüssel", 401)]:
            assert (await upstream.submit(key=key)).status == status


async def test_a_key_can_be_revoked() -> None:
    """A key that is taken off the list is refused from then on; jobs that it paid for are still there."""
    async with emulated(api_keys=KEY) as upstream:
        job_id = await upstream.take()
        assert (await upstream.change(api_keys=["another"])).status == 200
        assert (await upstream.submit()).status == 401
        assert (await upstream.poll(job_id)).status == 200


@pytest.mark.parametrize(
    ("prompt", "status"),
    [
        ("", 422),
        ("x", 202),
        (" ", 202),
        ("x" * 4_000, 202),
        ("x" * 4_001, 422),
        # A query string of 48 kB.
        (EMOJI * 4_000, 202),
        (EMOJI * 4_001, 422),
    ],
    ids=["none", "1", "blank", "4000", "4001", "4000 emoji", "4001 emoji"],
)
async def test_a_prompt_has_1_to_4000_characters(prompt: str, status: int) -> None:
    """Characters are counted, not bytes, and what is taken is what was sent."""
    async with emulated() as upstream:
        answer = await upstream.submit(prompt)
        assert answer.status == status
        if status == 202:
            assert (await upstream.poll(answer.body["job_id"])).body["prompt"] == prompt
        else:
            assert "prompt" in answer.detail


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("", "prompt"),
        ("country=US", "prompt"),
        ("prompt=a&prompt=b", "prompt"),
        ("prompt=a&country=US&country=US", "country"),
        ("prompt=a&timeout=20&timeout=20", "timeout"),
        ("prompt=a&bypass_cache=true&bypass_cache=true", "bypass_cache"),
        ("prompt=a&country=", "country"),
        ("prompt=a&country=XX", "country"),
        ("prompt=a&country=us", "country"),
        ("prompt=a&country=USA", "country"),
        *((f"prompt=a&timeout={value}", "timeout") for value in ("", "soon", "9.99", "600.1", "-20", "nan", "inf")),
        *((f"prompt=a&bypass_cache={value}", "bypass_cache") for value in ("", "2", "truthy")),
    ],
)
async def test_a_wrong_parameter_is_refused_by_name(query: str, named: str) -> None:
    """What breaks a rule is 422 with a detail that names the parameter, and costs nothing."""
    async with emulated() as upstream:
        answer = await upstream.ask("POST", f"/scrapers/grok/jobs?{query}", headers={"X-API-Key": KEY})
        assert answer.status == 422
        assert answer.detail.startswith(f"{named}: ")
        assert (await upstream.stats())["submits"] == 0


@pytest.mark.parametrize("scraper", SCRAPERS)
async def test_three_scrapers_refuse_japan_and_taiwan(scraper: str) -> None:
    """`gemini`, `google_ai_mode` and `grok` refuse JP and TW, the others don't, and all take the rest."""
    status = 422 if scraper in ("gemini", "google_ai_mode", "grok") else 202
    async with emulated() as upstream:
        for country, expected in [("JP", status), ("TW", status), ("KR", 202), ("DE", 202)]:
            answer = await upstream.submit(scraper=scraper, country=country)
            assert (country, answer.status) == (country, expected)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"timeout": "10"},
        {"timeout": "600"},
        {"timeout": "12.5"},
        {"bypass_cache": "true"},
        {"bypass_cache": "False"},
        {"mode": "MODEL_MODE_EXPERT"},
        {"mode": "MODEL_MODE_FAST", "new one": "a b+c&d=é", "empty": ""},
    ],
    ids=str,
)
async def test_parameters_arrive(parameters: dict[str, str]) -> None:
    """The documented ones are taken within their bounds, and those of the scraper are passed through."""
    documented = {"timeout", "bypass_cache"}
    async with emulated() as upstream:
        job_id = await upstream.take(scraper="grok", **parameters)
        shown = (await upstream.ask("GET", f"/_emulator/jobs/{job_id}")).body
        assert shown["country"] == "US"
        assert {name: shown[name] for name in documented} == {name: parameters.get(name, "") for name in documented}
        assert shown["params"] == {name: value for name, value in parameters.items() if name not in documented}


async def test_credits_are_taken_at_submit() -> None:
    """A job costs before it is done, and a key that has too few left is told that they are used up."""
    async with emulated(credits=7) as upstream:
        for used in (3, 6):
            await upstream.take("[never]")
            assert (await upstream.stats())["credits_used"] == used
        answer = await upstream.submit()
        assert (answer.status, answer.detail) == (429, CREDITS_USED_UP)
        assert "Retry-After" not in answer.headers
        stats = await upstream.stats()
        assert (stats["credit_limited"], stats["rate_limited"], stats["submits"]) == (1, 0, 2)


@pytest.mark.parametrize(("prompt", "status"), [("[fail] [latency=0]", 202), ("[fail] [latency=60]", 429)])
async def test_credits_come_back_when_a_job_fails(prompt: str, status: int) -> None:
    """A job that has failed costs nothing; one that will fail still does."""
    async with emulated(credits=3) as upstream:
        await upstream.take(prompt)
        assert (await upstream.submit()).status == status
        assert (await upstream.stats())["credits_used"] == 3


async def test_a_key_that_is_too_fast_is_told_to_wait() -> None:
    """The rate limit is each key's own, comes with `Retry-After`, and takes no credits."""
    async with emulated(rate_limit_per_s=0.001, retry_after_s=7) as upstream:
        await upstream.take()
        answer = await upstream.submit()
        assert (answer.status, answer.detail) == (429, RATE_LIMITED)
        assert answer.headers["Retry-After"] == "7"
        await upstream.take(key="another")
        stats = await upstream.stats()
        assert (stats["rate_limited"], stats["credit_limited"], stats["submits"]) == (1, 0, 2)
        assert stats["credits_used"] == 6


async def test_a_url_that_is_too_long_is_refused() -> None:
    """With `max_url_bytes` a long prompt is 414, a short one is taken, and control has no such limit."""
    async with emulated(max_url_bytes=60) as upstream:
        answer = await upstream.submit(EMOJI * 10)
        assert answer.status == 414
        assert answer.detail
        await upstream.take("short")
        assert (await upstream.ask("GET", f"/_emulator/submits?prompt={'x' * 100}")).body == {"data": []}
        assert (await upstream.change(max_url_bytes=1)).status == 200
        assert (await upstream.submit("x")).status == 414
        assert (await upstream.change(max_url_bytes=0)).status == 200
        await upstream.take(EMOJI * 10)


@pytest.mark.parametrize(
    ("prompt", "status"), [("[reject]", 400), ("[status=503]", 503), ("[status=429]", 429), ("[status=200]", 202)]
)
async def test_a_prompt_can_ask_for_its_refusal(prompt: str, status: int) -> None:
    """An error that the prompt names is answered, and no job is taken; without `markers` it is text."""
    async with emulated() as upstream:
        answer = await upstream.submit(prompt)
        assert answer.status == status
        assert (await upstream.stats())["submits"] == (status == 202)
        await upstream.change(markers=False)
        await upstream.take(prompt)
