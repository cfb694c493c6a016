"""The relay is killed while it accepts: what it has promised is in the store, the rest can be asked for again."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.faults.account import LEASE_S, QUICK, UPSTREAM, check_callbacks, job_of
from tests.faults.load import Load
from tests.faults.proxy import Fate, Once, StoreProxy, script
from tests.processes import System, free_port, until

pytestmark = pytest.mark.faults

KILLS = 4
#: More than one script call can stage, so that a kill falls between two of them.
BATCH = 201


async def test_killed_while_many_are_accepted(tmp_path: Path) -> None:
    """Each 202 that reached a client is in the store, and its key names the same job whenever it is asked again."""
    chance = random.Random("relay")
    async with System(tmp_path, QUICK, UPSTREAM).running() as system:
        load = Load(system)
        async with load.coming(clients=20, pause_s=0.05):
            for _ in range(KILLS):
                await load.goes_on(by=20, timeout_s=10)
                await asyncio.sleep(chance.uniform(0, 0.1))  # any moment is as good as another
                await system.relay.kill()
                promised = dict(load.accepted)
                await system.relay.start()
                for job in promised.values():
                    await job_of(system, job)
        again = await asyncio.gather(*(load.ask(key) for key in promised))
        assert again == list(promised.values())
        assert load.changed == []
        await system.callbacks(len(load.accepted), LEASE_S + 15)
        check_callbacks(system, load.accepted.values())


@pytest.fixture(name="proxy")
async def fixture_proxy() -> AsyncIterator[StoreProxy]:
    """A proxy before a store that is not there yet."""
    async with StoreProxy(free_port()).running() as proxy:
        yield proxy


@pytest.fixture(name="system")
async def fixture_system(tmp_path: Path, proxy: StoreProxy) -> AsyncIterator[System]:
    """A system whose relay, and nothing else, reaches the store through the proxy; a call may wait there."""
    settings = QUICK | {"RELAY_STORE_TIMEOUT_S": "10"}
    system = System(tmp_path, settings, UPSTREAM, store_port=proxy.store_port)
    system.relay.environment = {**system.relay.environment, "RELAY_REDIS_URL": proxy.url}
    async with system.running():
        yield system


async def killed_at(system: System, proxy: StoreProxy, rule: Once, *, path: str, body: object, key: str) -> None:
    """Ask, and kill the relay as soon as `rule` has met its command; nobody hears an answer."""
    proxy.rule, before = rule, proxy.withheld
    asking = asyncio.create_task(system.call("POST", path, body, **{"Idempotency-Key": key}))
    await until(lambda: rule.seen >= rule.nth or asking.done(), 10, lambda: f"{key}: the command never came")
    if rule.fate is Fate.STALL_AFTER:
        await until(lambda: proxy.withheld > before, 10, lambda: f"{key}: the store did not answer")
    await system.relay.kill()
    with contextlib.suppress(aiohttp.ClientError):
        raise AssertionError(f"{key}: answered with {await asking}")
    proxy.heal()
    await system.relay.start()


async def listed(system: System, batch: str = "") -> set[str]:
    """The ids of all jobs, or of all of a batch, page by page."""
    found: set[str] = set()
    query: dict[str, Any] = {"limit": "200"} | ({"batch_id": batch} if batch else {})
    while True:
        async with system.http.get("/v1/jobs", params=query) as response:
            page = await response.json()
            assert response.status == 200, page
        found |= {job["id"] for job in page["data"]}
        if not page.get("next_cursor"):
            return found
        query["cursor"] = page["next_cursor"]


@pytest.mark.slow
async def test_killed_at_every_step_of_accepting(system: System, proxy: StoreProxy) -> None:
    """Before its script a job or batch is not there at all, after it wholly; the same key then gives the same one."""
    hook = f"{system.inbox_url}/hook"
    jobs: set[str] = set()
    announced: set[str] = set()
    for fate in (Fate.STALL, Fate.STALL_AFTER):
        key = f"job-{fate}"
        body = {"scraper": "chatgpt", "prompt": f"[latency=0.1] {key}", "callback_url": hook}
        await killed_at(system, proxy, Once(script("accept"), fate), path="/v1/jobs", body=body, key=key)
        there = await listed(system) - jobs
        assert len(there) == (1 if fate is Fate.STALL_AFTER else 0)
        status, answer = await system.call("POST", "/v1/jobs", body, **{"Idempotency-Key": key})
        assert status == 202
        assert not there or there == {answer["id"]}
        jobs.add(answer["id"])
    points = [
        (Once(script("stage"), Fate.STALL, nth=2), False),
        (Once(script("commit_batch"), Fate.STALL), False),
        (Once(script("commit_batch"), Fate.STALL_AFTER), True),
        (Once(script("enlist"), Fate.STALL, nth=2), True),
    ]
    for number, (rule, committed) in enumerate(points):
        key = f"batch-{number}"
        prompts = [f"[latency=0.1] {key} {n}" for n in range(BATCH)]
        batch = {"prompts": prompts, "scrapers": ["grok"], "callback_url": hook}
        await killed_at(system, proxy, rule, path="/v1/batches", body=batch, key=key)
        there = await listed(system) - jobs
        # Of a batch that was committed a worker enlists what the relay did not: now, or in a moment.
        assert committed or there == set(), f"{key}: a part of it is there"
        status, answer = await system.call("POST", "/v1/batches", batch, **{"Idempotency-Key": key})
        assert (status, answer["count"]) == (202, BATCH)
        assert there <= set(answer["job_ids"])
        jobs |= set(answer["job_ids"])
        announced.add(answer["id"])
        if committed:
            _, seen = await system.call("GET", f"/v1/batches/{answer['id']}")
            assert seen["count"] == BATCH
    await system.callbacks(len(jobs | announced), 40)
    check_callbacks(system, jobs | announced)
    assert await listed(system) == jobs
    assert (await system.emulated())["submits"] == len(jobs)
