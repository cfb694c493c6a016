"""`/_emulator/`: what the emulated upstream tells of itself, and how it is steered while it runs."""

import asyncio
import contextlib
import socket
import time

import aiohttp
import pytest

from relay.dev.emulator import EmulatorSettings, run, start
from tests.integration.emulator_harness import BOUND_S, emulated


async def test_an_account_can_be_made() -> None:
    """The counts tell submits, polls, ends, refusals, repetitions, and credits less those that came back."""
    async with emulated(credits=15) as upstream:
        done = await upstream.take("[latency=0] a")
        await upstream.take("[latency=0] [fail]")
        for _ in range(2):
            await upstream.take("[never]")
        await upstream.take("[latency=0] a", scraper="grok")
        await upstream.take("[latency=0] a", scraper="grok")
        assert (await upstream.submit()).status == 429
        assert (await upstream.submit("")).status == 422
        for _ in range(3):
            await upstream.poll(done)
        await upstream.poll("unknown")
        assert await upstream.stats() == {
            "submits": 6,
            "polls": 4,
            "rate_limited": 0,
            "credit_limited": 1,
            "faults": {},
            "jobs": {"done": 3, "failed": 1, "pending": 2},
            "repeated_submits": 2,
            "credits_used": 15,
        }


async def test_submits_are_counted_by_prompt() -> None:
    """Each scraper's prompts are listed with how often they came, all or one."""
    async with emulated() as upstream:
        for scraper, prompt in [("grok", "a"), ("grok", "é & b"), ("gemini", "a"), ("grok", "a")]:
            await upstream.take(prompt, scraper=scraper)
        rows = (await upstream.ask("GET", "/_emulator/submits")).body["data"]
        assert rows == [
            {"scraper": "grok", "prompt": "a", "submits": 2},
            {"scraper": "grok", "prompt": "é & b", "submits": 1},
            {"scraper": "gemini", "prompt": "a", "submits": 1},
        ]
        for query, found in [("a", [rows[0], rows[2]]), ("%C3%A9%20%26%20b", [rows[1]]), ("c", []), ("", [])]:
            assert (await upstream.ask("GET", f"/_emulator/submits?prompt={query}")).body == {"data": found}


async def test_a_job_is_shown_as_it_came() -> None:
    """What was received can be looked at, and an unknown job is 404."""
    async with emulated() as upstream:
        job_id = await upstream.take(
            "[never]", scraper="grok", country="DE", timeout="20.0", bypass_cache="TRUE", n="1"
        )
        assert (await upstream.ask("GET", f"/_emulator/jobs/{job_id}")).body == {
            "job_id": job_id,
            "status": "pending",
            "scraper": "grok",
            "prompt": "[never]",
            "country": "DE",
            "timeout": "20.0",
            "bypass_cache": "TRUE",
            "params": {"n": "1"},
            "credits": 3,
            "cached": False,
        }
        assert (await upstream.ask("GET", "/_emulator/jobs/unknown")).status == 404


async def test_the_settings_are_shown_without_keys() -> None:
    """Every setting is told but the keys, before and after a change."""
    async with emulated(api_keys="the-key", credits=12) as upstream:
        shown = await upstream.ask("GET", "/_emulator/settings")
        changed = await upstream.change(api_keys=["another-key"])
    for answer in (shown, changed):
        assert answer.status == 200
        assert answer.body.keys() == EmulatorSettings.model_fields.keys() - {"api_keys"}
        assert answer.body["credits"] == 12
        assert "-key" not in str(answer.body)


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({}, {}),
        ({"credits": 5, "credits_per_job": 5}, {"credits": 5, "credits_per_job": 5}),
        ({"credits": "5"}, {"credits": 5}),
        ({"scrapers": "grok, new"}, {"scrapers": ["grok", "new"]}),
        ({"scrapers": ["new"]}, {"scrapers": ["new"]}),
        ({"faults": {"submit_lost": 0.5, "poll_500": 1}}, {"faults": {"submit_lost": 0.5, "poll_500": 1.0}}),
        ({"fault_sequence": "submit_ok"}, {"fault_sequence": ["submit_ok"]}),
        ({"latency_scale": 0.5, "markers": False}, {"latency_scale": 0.5, "markers": False}),
        # As they are: whoever sends back what was shown changes nothing.
        ({"journal": None, "seed": 4}, {"journal": None, "seed": 4}),
    ],
)
async def test_settings_change_while_it_runs(changes: dict[str, object], shown: dict[str, object]) -> None:
    """What is named is changed and shown; the rest stays as it was."""
    async with emulated(seed=4) as upstream:
        before = (await upstream.ask("GET", "/_emulator/settings")).body
        answer = await upstream.change(**changes)
        assert (answer.status, answer.body) == (200, {**before, **shown})
        assert (await upstream.ask("GET", "/_emulator/settings")).body == answer.body


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("", "JSON object"),
        ("{", "JSON object"),
        ("[]", "JSON object"),
        ('{"credits": NaN}', "JSON object"),
        ('{"a":' * 5_000 + "1" + "}" * 5_000, "JSON object"),
        ('{"nope": 1, "credits": 1}', "'nope'"),
        ('{"credits": 1, "EMULATOR_CREDITS": 2}', "'EMULATOR_CREDITS'"),
        ('{"credits": -1}', "EMULATOR_CREDITS"),
        ('{"credits": 1, "failure_rate": 2}', "EMULATOR_FAILURE_RATE"),
        ('{"scrapers": 5}', "EMULATOR_SCRAPERS"),
        ('{"faults": {"submit_ouch": 0.1}}', "EMULATOR_FAULTS"),
        ('{"faults": {"submit_500": 1.1}}', "EMULATOR_FAULTS"),
        ('{"faults": {"submit_500": 0.6, "submit_503": 0.6}}', "EMULATOR_FAULTS"),
        ('{"fault_sequence": "submit_500,ouch"}', "EMULATOR_FAULT_SEQUENCE"),
        # Read at the start: a change would be shown and do nothing.
        ('{"credits": 1, "seed": 5}', "seed"),
        ('{"credits": 1, "journal": "/nowhere/jobs"}', "journal"),
    ],
    ids=lambda value: value[:40],
)
async def test_a_wrong_change_changes_nothing(body: str, named: str) -> None:
    """What cannot be is 422 with a detail that names it, and not even the rest of the change happens."""
    async with emulated(credits=9, seed=4) as upstream:
        before = (await upstream.ask("GET", "/_emulator/settings")).body
        answer = await upstream.ask("POST", "/_emulator/settings", data=body)
        assert answer.status == 422
        assert named in answer.detail
        assert (await upstream.ask("GET", "/_emulator/settings")).body == before
        await upstream.take()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/jobs", 404),
        ("GET", "/_emulator/", 404),
        ("POST", "/scrapers/grok/jobs/", 404),
        ("GET", "/scrapers/grok/jobs", 405),
        ("POST", "/jobs/x", 405),
        ("DELETE", "/jobs/x", 405),
    ],
)
async def test_what_there_is_not_is_refused_in_json(method: str, path: str, status: int) -> None:
    """Also an unknown path or method is answered as every error is."""
    async with emulated() as upstream:
        answer = await upstream.ask(method, path)
    assert answer.status == status
    assert answer.detail


async def test_it_serves_until_it_is_cancelled(unused_tcp_port: int) -> None:
    """`run` answers at the port it was given, and frees the port when it ends."""
    url = f"http://127.0.0.1:{unused_tcp_port}/_emulator/stats"
    serving = asyncio.create_task(run(EmulatorSettings.load(_env_file=None), "127.0.0.1", unused_tcp_port))
    give_up = time.monotonic() + BOUND_S
    status = 0
    async with aiohttp.ClientSession(trust_env=False) as http:
        while status == 0 and time.monotonic() < give_up:
            with contextlib.suppress(aiohttp.ClientConnectorError):
                async with http.get(url) as response:
                    status = response.status
            await asyncio.sleep(0.01)
        assert status == 200
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        with pytest.raises(aiohttp.ClientConnectorError):
            await http.get(url)


async def test_a_port_that_is_taken_is_an_error() -> None:
    """Nothing is left running where it cannot listen."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            await start(EmulatorSettings.load(_env_file=None), "127.0.0.1", taken.getsockname()[1])
