"""What was accepted arrives, whatever is killed on the way."""

import asyncio
import time
from collections import Counter
from typing import Any

import pytest

from relay.core.model import ClientName
from relay.core.settings import Settings
from relay.core.store import WorkStore
from tests.processes import System

pytestmark = [pytest.mark.acceptance, pytest.mark.usefixtures("slow_answers")]

LEASE_S = 15
JOBS = 200


async def accept_in_every_stage(system: System) -> None:
    """Jobs of which some are queued, some submitted, some polled and some called back at the time of the return."""
    prompts = [f"[latency={0.2 + (i % 40) * 0.1:.1f}] question {i}" for i in range(JOBS)]
    for start in range(0, JOBS, 50):
        await asyncio.sleep(0.8)  # spread over the stages; nothing depends on how
        status, _ = await system.call(
            "POST",
            "/v1/batches",
            {
                "jobs": [
                    {"scraper": "chatgpt", "prompt": prompt, "callback_url": f"{system.inbox_url}/slow/0.5"}
                    for prompt in prompts[start : start + 50]
                ]
            },
        )
        assert status == 202


def check_account(system: System, stats: dict[str, Any]) -> None:
    """Each job was announced and verified, and every repeat of a callback carries the same bytes."""
    assert len(system.webhook_ids()) == JOBS
    assert all(received.verified for received in system.inbox.received)
    assert stats["submits"] >= JOBS
    bodies: dict[str, set[bytes]] = {}
    for received in system.inbox.received:
        bodies.setdefault(received.webhook_id, set()).add(received.raw)
    assert Counter(len(variants) for variants in bodies.values()) == {1: JOBS}


async def test_worker_killed_in_the_middle(system: System) -> None:
    """After SIGKILL of the worker with 200 jobs in every stage, a new one finishes them within lease + 5 s."""
    await accept_in_every_stage(system)
    await asyncio.sleep(0.45)  # into the submits of the last batch
    await system.worker.kill()
    killed_at = time.monotonic()
    submitted = (await system.emulated())["submits"]
    await system.worker.start()
    await system.callbacks(JOBS, LEASE_S + 5 + 5)
    assert time.monotonic() - killed_at <= LEASE_S + 5 + 5  # the last five for the slowest of the jobs
    assert submitted < JOBS, "nothing was left to submit: the kill came too late to show anything"
    stats = await system.emulated()
    check_account(system, stats)
    # What was sent and not saved is submitted again, and counted.
    assert stats["submits"] == JOBS + stats["repeated_submits"]
    assert stats["repeated_submits"] <= await ambiguous(system)


async def ambiguous(system: System) -> int:
    """The submits that the store counts as not accounted for."""
    store = await WorkStore.connect(Settings.load(redis_url=system.store.url))
    try:
        return int((await store.account(ClientName("default"))).get("ambiguous", 0))
    finally:
        await store.close()


async def test_store_killed_and_restarted(system: System) -> None:
    """A crash of the store costs nothing that was acknowledged, and the worker process lives through it."""
    await accept_in_every_stage(system)
    await asyncio.sleep(1.1)  # everysec: what is older than a second is on disk
    worker_pid = system.worker.process.pid if system.worker.process else None
    system.store.kill()
    status, problem = await system.call("GET", "/v1/jobs")
    assert (status, problem["code"]) == (503, "store_unavailable")
    await asyncio.sleep(1)
    system.store.start()
    await system.callbacks(JOBS, 60)
    assert system.worker.is_running()
    assert system.worker.process is not None
    assert system.worker.process.pid == worker_pid
    check_account(system, await system.emulated())


async def test_graceful_stop_loses_and_repeats_nothing(system: System) -> None:
    """SIGTERM under load: exit 0 within the grace, and neither a submit nor a callback happens twice."""
    await accept_in_every_stage(system)
    assert await system.worker.terminate() == 0
    await system.worker.start()
    await system.callbacks(JOBS, 40)
    stats = await system.emulated()
    assert stats["submits"] == JOBS
    assert len(system.inbox.received) == JOBS
    check_account(system, stats)
