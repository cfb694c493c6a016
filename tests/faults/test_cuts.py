"""The connection to the store breaks at every command, before and after it was carried out."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.account import submits_of
from tests.faults.proxy import Fate, Once, StoreProxy, named, script
from tests.processes import System, free_port, until

pytestmark = pytest.mark.faults

#: Every script that the work of a job or a batch goes through.
SCRIPTS = (
    *("accept", "admit", "stage", "commit_batch", "enlist", "look"),
    *("begin_submit", "begin_poll", "begin_deliver", "save", "list"),
)
LEASE_S = 3
SETTINGS = {
    "RELAY_LEASE_S": str(LEASE_S),
    "RELAY_POLL_INTERVAL_S": "0.5",
    "RELAY_POLL_MIN_INTERVAL_S": "0.2",
    "RELAY_STORE_TIMEOUT_S": "1",
    "RELAY_CALLBACK_SCHEDULE": "0,0.3,0.3,0.3,0.3,0.3",
}
UPSTREAM = {"EMULATOR_FAILURE_RATE": "0"}


@pytest.fixture(name="proxy")
async def fixture_proxy() -> AsyncIterator[StoreProxy]:
    """A proxy before a store that is not there yet."""
    async with StoreProxy(free_port()).running() as proxy:
        yield proxy


@pytest.fixture(name="system")
async def fixture_system(tmp_path: Path, proxy: StoreProxy) -> AsyncIterator[System]:
    """A system whose relay and worker reach the store through the proxy."""
    settings = SETTINGS | {"RELAY_REDIS_URL": proxy.url}
    async with System(tmp_path, settings, UPSTREAM, store_port=proxy.store_port).running() as system:
        yield system


async def accept(system: System, number: int) -> str | None:
    """Ask for one job until it is accepted; the id, and never another one for the same key."""
    body = {"scraper": "chatgpt", "prompt": f"[latency=0.2] job {number}", "callback_url": f"{system.inbox_url}/hook"}
    for _ in range(10):
        status, answer = await system.call("POST", "/v1/jobs", body, **{"Idempotency-Key": f"key-{number}"})
        if status == 202:
            found, _ = await system.call("GET", f"/v1/jobs/{answer['id']}")
            assert found in (200, 503), "accepted, and not in the store"
            return str(answer["id"])
        assert (status, answer["code"]) == (503, "store_unavailable")
        await asyncio.sleep(0.2)
    return None


@pytest.mark.timeout(300)
@pytest.mark.parametrize("fate", [Fate.CUT_BEFORE, Fate.CUT_AFTER, Fate.STALL])
async def test_cut_at_every_script(system: System, proxy: StoreProxy, fate: Fate) -> None:
    """Wherever the connection breaks or goes silent, each accepted job is announced, and no wait lasts."""
    jobs: set[str] = set()
    events = 0
    for turn, name in enumerate(SCRIPTS):
        rule = proxy.rule = Once(script(name), fate)
        for number in range(3):
            job_id = await accept(system, 10 * turn + number)
            assert job_id is not None, f"not accepted after a fault at {name}"
            jobs.add(job_id)
        batch = {
            "callback_url": f"{system.inbox_url}/hook",
            "prompts": [f"[latency=0.2] batch {turn} {n}" for n in range(3)],
            "scrapers": ["grok"],
        }
        for _ in range(10):
            status, answer = await system.call("POST", "/v1/batches", batch, **{"Idempotency-Key": f"batch-{turn}"})
            if status == 202:
                break
            assert (status, answer["code"]) == (503, "store_unavailable"), json.dumps(answer)
            await asyncio.sleep(0.2)
        jobs |= set(answer["job_ids"])
        await system.call("GET", "/v1/jobs")
        events += 1
        expected = len(jobs) + events
        await system.callbacks(expected, LEASE_S + 15)
        assert rule.seen >= 1, f"{name} was never called: nothing was shown"
        proxy.heal()
    assert len(system.webhook_ids()) == len(jobs) + events
    assert all(received.verified for received in system.inbox.received)
    assert system.worker.is_running()
    assert system.relay.is_running()


async def test_cut_at_arq(system: System, proxy: StoreProxy) -> None:
    """arq's own commands may be cut at any point: its worker is built anew, and the process lives."""
    for turn, command in enumerate(("WATCH", "EXISTS", "ZRANGEBYSCORE", "MULTI", "EXEC", "GET", "PSETEX")):
        for fate in (Fate.CUT_BEFORE, Fate.CUT_AFTER):
            proxy.rule = Once(named(command), fate)
            await accept(system, 100 + 10 * turn + (fate is Fate.CUT_AFTER))
    proxy.heal()
    await system.callbacks(14, LEASE_S + 15)
    assert system.worker.is_running()


@pytest.mark.parametrize("fate", [Fate.CUT_AFTER, Fate.STALL_AFTER])
async def test_a_lost_claim_is_not_paid_for(tmp_path: Path, proxy: StoreProxy, fate: Fate) -> None:
    """Claims whose replies are lost were not begun: no submit counts as ambiguous, and no attempt is used up."""
    settings = SETTINGS | {"RELAY_REDIS_URL": proxy.url, "RELAY_ON_AMBIGUOUS_SUBMIT": "fail"}
    # The first attempt waits, so that it is claimed and not carried on to.
    settings["RELAY_CALLBACK_SCHEDULE"] = "0.2,5"
    async with System(tmp_path, settings, UPSTREAM, store_port=proxy.store_port).running() as system:
        for turn, name in enumerate(("begin_submit", "begin_poll", "begin_deliver")):
            rule = proxy.rule = Once(script(name), fate)
            jobs = [await accept(system, 10 * turn + number) for number in range(3)]
            await system.callbacks(3 * turn + 3, LEASE_S + 15)
            assert rule.seen >= 1, f"{name} was never called: nothing was shown"
            proxy.heal()
            for job in jobs:
                _, found = await system.call("GET", f"/v1/jobs/{job}")
                assert (found["status"], found["delivery"]["attempts"]) == ("done", 1)
        submits = await submits_of(system)
        assert (submits.taken, submits.repeated, submits.ambiguous) == (9, 0, 0)


async def test_the_store_vanishes(system: System, proxy: StoreProxy) -> None:
    """A store behind a silent network is answered for with 503 within bounds; afterwards everything goes on."""
    for number in range(5):
        await accept(system, number)
    proxy.blackhole()
    began = asyncio.get_running_loop().time()
    status, problem = await system.call("GET", "/v1/jobs")
    assert (status, problem["code"]) == (503, "store_unavailable")
    assert asyncio.get_running_loop().time() - began < 5
    await asyncio.sleep(3)
    proxy.heal()
    await system.callbacks(5, LEASE_S + 20)
    await until(system.worker.is_running, 1, lambda: "the worker died")
