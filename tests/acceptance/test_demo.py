"""`demo`, as a newcomer runs it first."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dev_process import Running, run

pytestmark = [pytest.mark.acceptance]


@pytest.fixture(name="emulator")
def fixture_emulator(tmp_path: Path) -> Iterator[Running]:
    """An emulator that plays the real ScrapeLLM, and knows one key."""
    environment = {"EMULATOR_API_KEYS": "a-real-key", "EMULATOR_FAILURE_RATE": "0", "EMULATOR_LATENCY_SCALE": "0.05"}
    emulator = Running(["emulator", "--port", "0"], tmp_path, environment).start()
    yield emulator
    emulator.bury()


def address_of(emulator: Running) -> str:
    """Where the emulator listens."""
    return emulator.wait_for("http://").split("at ")[-1].split()[0]


def test_it_relays_verifies_and_ends_with_0(tmp_path: Path) -> None:
    """Every kind of callback arrives signed, among them a failure, a thin one and one that needed two attempts."""
    done = run("demo", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for sign in ("job.failed", "thin:", "batch.completed", "attempt 2", "all 10 callbacks arrived"):
        assert sign in done.stdout
    assert "UNVERIFIED" not in done.stdout
    assert "nothing is paid for" in done.stderr
    assert list(tmp_path.iterdir()) == [], "it leaves nothing behind"


def test_it_says_what_is_missing_when_the_time_is_up(tmp_path: Path) -> None:
    """A demo that cannot end in its time ends with 1 and one line of reason."""
    done = run("demo", "--timeout", "1", folder=tmp_path)
    assert done.returncode == 1
    assert "not within 1 s" in done.stderr
    assert "Traceback" not in done.stderr


def test_with_a_key_it_talks_to_the_real_upstream(tmp_path: Path, emulator: Running) -> None:
    """Where a ScrapeLLM key is set, few prompts go there, and the demo says that they are paid for."""
    url = address_of(emulator)
    done = run("demo", folder=tmp_path, environment={"SCRAPELLM_API_KEY": "a-real-key", "RELAY_UPSTREAM_URL": url})
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"2 prompts go to {url}, and are paid for" in done.stderr
    assert "all 2 callbacks arrived" in done.stdout


def test_a_key_that_the_upstream_refuses_ends_it_with_1(tmp_path: Path, emulator: Running) -> None:
    """A revoked key is told as the reason, at once and without the key."""
    url = address_of(emulator)
    done = run("demo", folder=tmp_path, environment={"SCRAPELLM_API_KEY": "a-revoked-key", "RELAY_UPSTREAM_URL": url})
    assert done.returncode == 1
    assert "job.failed came for" in done.stderr
    assert "Invalid or revoked API key" in done.stderr
    assert "a-revoked-key" not in done.stdout + done.stderr


def test_the_emulator_can_be_used_although_there_is_a_key(tmp_path: Path) -> None:
    """With --emulator nothing is paid for, whatever keys are set."""
    done = run("demo", "--emulator", folder=tmp_path, environment={"SCRAPELLM_API_KEY": "a-real-key"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all 10 callbacks arrived" in done.stdout
