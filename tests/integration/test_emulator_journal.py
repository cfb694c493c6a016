"""The emulated upstream over a restart: its jobs, what they cost, and a journal that a crash has cut."""

from pathlib import Path

import pytest

from relay.core.errors import ConfigurationError
from relay.dev.emulator import EmulatorSettings, build_app
from tests.integration.emulator_harness import KEY, emulated


@pytest.fixture(name="journal")
def fixture_journal(tmp_path: Path) -> Path:
    """A journal that is not there yet."""
    return tmp_path / "jobs.jsonl"


def content(journal: Path) -> bytes:
    """What is in the journal; reading so little takes no time."""
    return journal.read_bytes()


@pytest.mark.parametrize("tail", ["", '{"id": "cut o', "\x00\x00", "null\n", '{"id": 1}\n', "\n\n"], ids=repr)
async def test_jobs_outlive_a_restart(journal: Path, tail: str) -> None:
    """Every job is known again as it was, whatever a crash has left at the journal's end; so is the next one."""
    prompts = ["[latency=0] é\r\n\u2028", "[latency=0] [fail]", "[never]", "[latency=60]"]
    async with emulated(journal=journal) as upstream:
        jobs = [await upstream.take(prompt, scraper="grok", mode="é") for prompt in prompts]
        before = [(await upstream.poll(job)).body for job in jobs]
        shown = [(await upstream.ask("GET", f"/_emulator/jobs/{job}")).body for job in jobs]
    with journal.open("ab") as file:
        file.write(tail.encode())
    async with emulated(journal=journal) as upstream:
        assert [(await upstream.poll(job)).body for job in jobs] == before
        assert [(await upstream.ask("GET", f"/_emulator/jobs/{job}")).body for job in jobs] == shown
        later = await upstream.take()
    async with emulated(journal=journal) as upstream:
        assert {(await upstream.poll(job)).status for job in [*jobs, later]} == {200}
        assert (await upstream.stats())["jobs"] == {"done": 2, "failed": 1, "pending": 2}


async def test_a_job_whose_answer_was_lost_is_in_the_journal(journal: Path) -> None:
    """It is written when it is taken, not when that is told."""
    async with emulated(journal=journal, fault_sequence="submit_stall") as upstream:
        await upstream.taken_without_answer()
    async with emulated(journal=journal) as upstream:
        assert (await upstream.stats())["jobs"] == {"done": 1}


async def test_credits_stay_spent_over_a_restart(journal: Path) -> None:
    """What was paid is still paid, and comes back where the job has failed."""
    async with emulated(journal=journal, credits=9) as upstream:
        for prompt in ("[never]", "[latency=0] [fail]", "[latency=0]"):
            await upstream.take(prompt)
    async with emulated(journal=journal, credits=9) as upstream:
        assert (await upstream.stats())["credits_used"] == 6
        await upstream.take()
        assert (await upstream.submit()).status == 429
        await upstream.take(key="another")


async def test_answers_stay_in_the_cache_over_a_restart(journal: Path) -> None:
    """What was answered before is answered from the cache after."""
    async with emulated(journal=journal) as upstream:
        await upstream.take()
    async with emulated(journal=journal) as upstream:
        assert (await upstream.poll(await upstream.take())).body["result"]["cached"] is True


async def test_expired_jobs_leave_the_journal(journal: Path) -> None:
    """A job past its retention is not known after a restart, and takes no room any more."""
    async with emulated(journal=journal) as upstream:
        job_id = await upstream.take()
    async with emulated(journal=journal, retention_s=0.000_001):
        assert content(journal) == b""
    async with emulated(journal=journal) as upstream:
        assert (await upstream.poll(job_id)).status == 404


async def test_no_more_jobs_than_allowed_come_back(journal: Path) -> None:
    """A smaller `max_jobs` holds from the restart on: the oldest are forgotten."""
    async with emulated(journal=journal) as upstream:
        jobs = [await upstream.take() for _ in range(3)]
    async with emulated(journal=journal, max_jobs=2) as upstream:
        assert [(await upstream.poll(job)).status for job in jobs] == [404, 200, 200]


async def test_the_journal_holds_no_key(journal: Path) -> None:
    """Keys are known by their hash."""
    async with emulated(journal=journal) as upstream:
        await upstream.take()
    assert KEY.encode() not in content(journal)


def test_a_journal_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """It does not start, rather than forget what was paid for."""
    with pytest.raises(ConfigurationError, match=r"EMULATOR_JOURNAL .*Is a directory"):
        build_app(EmulatorSettings.load(_env_file=None, journal=tmp_path))
