"""The upstream refuses, fails, hangs, talks nonsense and dies: each job still ends, in time, with its callback."""

import asyncio
import json
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest

from tests.faults.account import QUICK, UPSTREAM, check_callbacks, submits_of
from tests.faults.load import Load
from tests.processes import System

pytestmark = pytest.mark.faults

#: docs/api.md: a job ends at most so long after its deadline.
SLACK_S = 10
DEADLINE_S = 6
JOBS = 120
#: Half of all submits and a third of all polls go wrong, one way or another.
SUBMIT_FAULTS = ("429", "credits", "408", "500", "503", "504", "garbage", "hang", "reset", "lost", "stall")
POLL_FAULTS = ("404", "408", "429", "500", "503", "504", "garbage", "hang", "reset")
SHARES = {f"submit_{kind}": 0.045 for kind in SUBMIT_FAULTS} | {f"poll_{kind}": 0.035 for kind in POLL_FAULTS}


@pytest.mark.slow
async def test_everything_goes_wrong_now_and_then(tmp_path: Path) -> None:
    """With every fault of the upstream mixed, each job is announced once, no later than 10 s after its deadline."""
    settings = QUICK | {"RELAY_UPSTREAM_TIMEOUT_S": "1", "RELAY_SUBMIT_WINDOW_S": "4"}
    upstream = {
        "EMULATOR_FAULTS": json.dumps(SHARES),
        "EMULATOR_SEED": "7",
        "EMULATOR_RETRY_AFTER_S": "1",
        "EMULATOR_HANG_S": "3",
    }
    kinds = ("[latency=0.5]", "[latency=0.5]", "[latency=2]", "[latency=0.5] [fail]", "[never]", "[reject]")
    async with System(tmp_path, settings, UPSTREAM | upstream).running() as system:
        answers = []
        for number in range(JOBS):
            prompt = f"{kinds[number % len(kinds)]} job {number}"
            answers.append(await system.submit(prompt, deadline=DEADLINE_S))
            await asyncio.sleep(0.02)  # spread over a few seconds, so that a pause of all submits does not meet all
        jobs = {answer["id"] for answer in answers}
        await system.callbacks(JOBS, DEADLINE_S + SLACK_S + 5)
        check_callbacks(system, jobs)
        seen = {received.webhook_id: received for received in system.inbox.received}
        for received in seen.values():
            lived_s = moment(received.body["data"]["completed_at"]) - moment(received.body["data"]["created_at"])
            assert lived_s <= DEADLINE_S + SLACK_S, received.body["data"]
        events = Counter(received.event for received in seen.values())
        assert set(events) == {"job.completed", "job.failed", "job.timed_out"}, events
        met = (await system.emulated())["faults"]
        assert {fault for fault in SHARES if not met.get(fault)} == set(), "not all of it was tried"
        submits = await submits_of(system)
        assert submits.repeated <= submits.ambiguous
        assert system.worker.is_running()


def moment(text: str) -> float:
    """An RFC 3339 time in Unix seconds."""
    return datetime.fromisoformat(text).timestamp()


async def test_killed_and_started_again(tmp_path: Path) -> None:
    """While the upstream is down jobs wait and are polled for; when it is back each is done, and called back."""
    upstream = {"EMULATOR_JOURNAL": str(tmp_path / "journal"), "EMULATOR_ANSWER_DELAY_S": "0.3"}
    settings = QUICK | {"RELAY_SUBMIT_SLOTS": "5", "RELAY_UPSTREAM_TIMEOUT_S": "2"}
    async with System(tmp_path, settings, UPSTREAM | upstream).running() as system:
        load = Load(system, markers="[latency=1]")
        async with load.coming(clients=10, pause_s=0.1):
            await load.goes_on(by=30, timeout_s=10)
            await system.emulator.kill()
            await load.goes_on(by=30, timeout_s=10)
            await system.emulator.start()
        await system.callbacks(len(load.accepted), 25)
        check_callbacks(system, load.accepted.values())
        assert {received.event for received in system.inbox.received} == {"job.completed"}
        submits = await submits_of(system)
        # What the kill cut off was sent and not answered: it is sent again, and counted.
        assert submits.repeated <= submits.ambiguous
        assert system.worker.is_running()
