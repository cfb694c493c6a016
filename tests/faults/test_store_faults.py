"""The store is killed, stopped, full, loading, read-only: the API says so, the workers live, and nothing is lost."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis.asyncio as redis

from tests.faults.account import LEASE_S, QUICK, STORE_TIMEOUT_S, UPSTREAM, check_callbacks, job_of, submits_of
from tests.faults.load import Load
from tests.faults.proxy import ERRORS, StoreProxy
from tests.processes import System, free_port

pytestmark = pytest.mark.faults

LONG = pytest.mark.skipif(not os.environ.get("FAULTS_LONG"), reason="takes a minute; FAULTS_LONG=1 asks for it")
#: Two waits for the store at most, and what a busy machine adds.
BOUND_S = 2 * STORE_TIMEOUT_S + 1
#: After the store is back: leases that ran out meanwhile, and the jobs themselves.
AFTER_S = LEASE_S + 20


async def refused(system: System, prompt: str = "refused") -> None:
    """Reading and accepting are answered with 503, a reason and a `Retry-After`, in bounded time."""
    body = {"scraper": "chatgpt", "prompt": prompt, "callback_url": f"{system.inbox_url}/hook"}
    for method, sent in (("GET", None), ("POST", body)):
        await refused_call(system, method, sent)


async def refused_call(system: System, method: str, body: object) -> None:
    """One call is."""
    began = time.monotonic()
    async with system.http.request(method, "/v1/jobs", json=body) as response:
        problem = await response.json()
        assert (response.status, problem.get("code")) == (503, "store_unavailable"), problem
        assert response.content_type == "application/problem+json"
        assert int(response.headers["Retry-After"]) >= 1
    assert time.monotonic() - began < BOUND_S


def pids(system: System) -> list[int]:
    """The processes that must live through everything."""
    for service in (system.relay, system.worker):
        assert service.is_running(), service.log.read_text()[-2000:]
    return [service.process.pid for service in (system.relay, system.worker) if service.process]


async def begin(system: System, count: int = 40) -> Load:
    """Jobs in every stage of their way."""
    load = Load(system, path="/slow/0.3", markers="[latency=0.4]")
    await more(load, count)
    return load


async def more(load: Load, count: int) -> None:
    """More of them."""
    async with load.coming(clients=8, pause_s=0.1, most=count):
        await load.goes_on(by=count, timeout_s=10)


async def ended_well(system: System, load: Load) -> None:
    """Every accepted job is called back, and what was submitted twice is accounted for."""
    await system.callbacks(len(load.accepted), AFTER_S)
    assert load.changed == []
    check_callbacks(system, load.accepted.values())
    submits = await submits_of(system)
    assert submits.repeated <= submits.ambiguous


@pytest.mark.parametrize("outages_s", [(1, 10), pytest.param((60,), marks=[LONG, pytest.mark.timeout(240)])], ids=str)
async def test_killed_and_started_again(tmp_path: Path, outages_s: tuple[int, ...]) -> None:
    """While the store is down the API answers 503; what was acknowledged goes on afterwards, in the same processes."""
    async with System(tmp_path, QUICK, UPSTREAM).running() as system:
        before = pids(system)
        load = Load(system, path="/slow/0.3", markers="[latency=0.4]")
        for down_s in outages_s:
            await more(load, 40)
            accepted = len(load.accepted)
            # everysec may cost the last second. That would let jobs end twice, so nothing happens in it: what is shown
            # here is that nothing older is lost.
            for service in (system.relay, system.worker):
                service.signal(signal.SIGSTOP)
            await asyncio.sleep(1.1)
            system.store.kill()
            for service in (system.relay, system.worker):
                service.signal(signal.SIGCONT)
            ends = time.monotonic() + down_s
            async with load.coming(clients=2, pause_s=0.1, most=10):
                while time.monotonic() < ends:
                    await refused(system)
                    await asyncio.sleep(0.2)
                await asyncio.to_thread(system.store.start)
            assert len(load.accepted) > accepted
            await ended_well(system, load)
            assert pids(system) == before


async def test_stopped_and_continued(tmp_path: Path) -> None:
    """A store that takes connections and never answers costs each caller a bounded time, and then all goes on."""
    async with System(tmp_path, QUICK, UPSTREAM).running() as system:
        before, store = pids(system), system.store.pid()
        load = await begin(system)
        os.kill(store, signal.SIGSTOP)
        try:
            began = time.monotonic()
            # All at once: nobody waits for another one's wait.
            await asyncio.gather(*(refused_call(system, "GET", None) for _ in range(100)))
            while time.monotonic() - began < LEASE_S + 1:
                await refused(system)
        finally:
            os.kill(store, signal.SIGCONT)
        await ended_well(system, load)
        assert pids(system) == before


@pytest.fixture(name="proxy")
async def fixture_proxy() -> AsyncIterator[StoreProxy]:
    """A proxy before a store that is not there yet."""
    async with StoreProxy(free_port()).running() as proxy:
        yield proxy


async def test_it_says_that_it_cannot(tmp_path: Path, proxy: StoreProxy) -> None:
    """Whichever error the store answers with, the API says 503, the worker lives, and all goes on afterwards."""
    settings = QUICK | {"RELAY_REDIS_URL": proxy.url}
    async with System(tmp_path, settings, UPSTREAM, store_port=proxy.store_port).running() as system:
        before = pids(system)
        load = Load(system, path="/slow/0.3", markers="[latency=0.4]")
        for fate in ERRORS:
            await more(load, 20)
            proxy.rule = lambda _command, fate=fate: fate  # type: ignore[misc]  # bound now, not when it is called
            for _ in range(3):
                await refused(system)
                await asyncio.sleep(0.2)  # the worker meets it as well, wherever it is
            proxy.heal()
        await ended_well(system, load)
        assert pids(system) == before


async def test_out_of_memory(tmp_path: Path) -> None:
    """A full store takes nothing new and finishes what it has; with room again it takes more."""
    async with System(tmp_path, QUICK, UPSTREAM).running() as system, redis.Redis(port=system.store.port) as store:
        before = pids(system)
        load = await begin(system)
        await store.config_set("maxmemory", 1_000_000)
        body = {"scraper": "chatgpt", "prompt": "refused", "callback_url": f"{system.inbox_url}/hook"}
        await refused_call(system, "POST", body)
        status, _ = await system.call("POST", "/v1/batches", {"jobs": [body, body]})
        assert status == 503
        # Reading is not affected, and neither is what is under way.
        assert (await system.call("GET", "/v1/jobs"))[0] == 200
        await ended_well(system, load)
        await refused_call(system, "POST", body)
        await store.config_set("maxmemory", 0)
        await load.one()
        await ended_well(system, load)
        assert pids(system) == before


async def test_read_only(tmp_path: Path) -> None:
    """A store that became a replica takes nothing; jobs wait, and go on when it is the master again."""
    async with System(tmp_path, QUICK, UPSTREAM).running() as system, redis.Redis(port=system.store.port) as store:
        before = pids(system)
        load = await begin(system)
        await store.replicaof("127.0.0.1", str(free_port()))
        body = {"scraper": "chatgpt", "prompt": "refused", "callback_url": f"{system.inbox_url}/hook"}
        await refused_call(system, "POST", body)
        for job in load.accepted.values():
            await job_of(system, job)
        await asyncio.sleep(LEASE_S)  # long enough for every lease to run out
        await refused_call(system, "POST", body)
        await store.replicaof("NO", "ONE")
        await ended_well(system, load)
        assert pids(system) == before
