"""Systems of real processes for the acceptance tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.processes import System

#: Quick upstream and quick polls, so that a test takes seconds.
QUICK = {
    "RELAY_POLL_INTERVAL_S": "1",
    "RELAY_CALLBACK_SCHEDULE": "0,0.5,0.5,0.5,0.5,0.5",
}


UPSTREAM = {"EMULATOR_LATENCY_SCALE": "0.1", "EMULATOR_FAILURE_RATE": "0"}


@pytest.fixture(name="upstream")
def fixture_upstream() -> dict[str, str]:
    """The emulator's settings; a test's other fixtures may add to them before the system starts."""
    return dict(UPSTREAM)


@pytest.fixture(name="settings")
def fixture_settings() -> dict[str, str]:
    """The settings of relay and worker; likewise."""
    return dict(QUICK)


@pytest.fixture(name="slow_answers")
def fixture_slow_answers(upstream: dict[str, str], settings: dict[str, str]) -> None:
    """An upstream that answers slowly and few submits at a time, so that requests are under way at any moment."""
    upstream["EMULATOR_ANSWER_DELAY_S"] = "0.3"
    settings["RELAY_SUBMIT_SLOTS"] = "20"


@pytest.fixture(name="system")
async def fixture_system(tmp_path: Path, upstream: dict[str, str], settings: dict[str, str]) -> AsyncIterator[System]:
    """A running system with a quick upstream."""
    async with System(tmp_path, settings, upstream).running() as system:
        yield system
