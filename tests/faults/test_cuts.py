"""The connection to the store breaks at every command, before and after it was carried out."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from relay.core.store.connection import SCRIPTS
from relay.core.store.work import WorkStore
from tests.faults.account import all_slots_are_free, submits_of
from tests.faults.proxy import EachOnce, Fate, Once, StoreProxy, load_scripts, named, script
from tests.integration.store_harness import ACME, Bench, make_settings
from tests.processes import System, free_port, until
from worker.saver import Saver

pytestmark = pytest.mark.faults

#: What no process can be brought to do within seconds is cut in this one. Those that only read, for who looks at
#: metrics or the dashboard, lose nothing.
ELSEWHERE = {"release", "census", "read_series"}
LEASE_S = 3
#: So few that one which is lost is missed.
SLOTS = {"submit": 2, "poll": 3, "deliver": 3}
INSIST_S = 20.0
SETTINGS = {
    "RELAY_LEASE_S": str(LEASE_S),
    "RELAY_POLL_INTERVAL_S": "0.5",
    "RELAY_POLL_MIN_INTERVAL_S": "0.2",
    "RELAY_STORE_TIMEOUT_S": "1",
    "RELAY_CALLBACK_SCHEDULE": "0,0.3,0.3,0.3,0.3,0.3",
    "RELAY_RESULT_TTL_S": "10",
    **{f"RELAY_{kind.upper()}_SLOTS": str(count) for kind, count in SLOTS.items()},
}
UPSTREAM = {"EMULATOR_FAILURE_RATE": "0", "EMULATOR_RETRY_AFTER_S": "1"}


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


async def insist(system: System, method: str, path: str, body: object = None, *later: int, **headers: str) -> Any:
    """Ask until it is done, as long as the answer is 503 for the store, or one of `later`."""
    ends = asyncio.get_running_loop().time() + INSIST_S
    while True:
        status, answer = await system.call(method, path, body, **headers)
        if status < 300:
            return answer
        assert status in later or (status, answer["code"]) == (503, "store_unavailable"), (path, status, answer)
        assert asyncio.get_running_loop().time() < ends, (path, status, answer)
        await asyncio.sleep(0.1)


class Turn:
    """Everything that jobs, batches and destinations go through, once."""

    def __init__(self, system: System, name: str) -> None:
        self._system = system
        self._name = name
        self.jobs: set[str] = set()
        self.batches: set[str] = set()
        self.cancelled = ""

    async def run(self, rule: EachOnce) -> None:
        """Side by side, as far as one does not follow from another."""
        # The upstream's 429 pauses its key.
        faults = {"fault_sequence": ["submit_429"]}
        async with self._system.http.post(f"{self._system.emulator_url}/_emulator/settings", json=faults) as response:
            assert response.status == 200
        await asyncio.gather(
            self.job("once"), self.slow(), self.cancel(), self.again(), self.batch("batch"), self.twins(rule)
        )

    async def job(self, what: str, marker: str = "[latency=0.2]", path: str = "/hook") -> str:
        """A job, whose id never changes while it is asked for, and that is in the store when it is accepted."""
        body = {
            "scraper": "chatgpt",
            "prompt": f"{marker} {self._name} {what}",
            "callback_url": self._system.inbox_url + path,
        }
        answer = await insist(self._system, "POST", "/v1/jobs", body, **{"Idempotency-Key": f"{self._name}-{what}"})
        found, _ = await self._system.call("GET", f"/v1/jobs/{answer['id']}")
        assert found in (200, 503), "accepted, and not in the store"
        self.jobs.add(answer["id"])
        return str(answer["id"])

    async def slow(self) -> None:
        """A callback that takes more than half of its lease, which is renewed."""
        await self.job("slow", path="/slow/1.8")

    async def cancel(self) -> None:
        """A job that is cancelled, and so is never announced."""
        self.cancelled = await self.job("cancelled", "[never]")
        self.jobs.remove(self.cancelled)
        answer = await insist(self._system, "POST", f"/v1/jobs/{self.cancelled}/cancel")
        assert answer["status"] == "cancelled"

    async def again(self) -> None:
        """A callback that is sent once more, to a destination that is resumed; and the list of what there is."""
        job = await self.job("again")
        await self._arrives(job, 1)
        # One that was carried out and not answered is under way when it is asked for again.
        await insist(self._system, "POST", f"/v1/jobs/{job}/redeliver", None, 409)
        await self._arrives(job, 2)
        destination = self._system.inbox_url.rpartition("/")[2]
        await insist(self._system, "POST", f"/v1/destinations/{destination}/resume")
        assert (await insist(self._system, "GET", "/v1/jobs"))["data"]

    async def _arrives(self, job: str, times: int) -> None:
        inbox = self._system.inbox
        await until(lambda: inbox.times(f"msg_{job}") >= times, INSIST_S, lambda: f"{job} did not come {times} times")

    async def batch(self, what: str) -> str:
        """A batch, with a callback of its own."""
        body = {
            "callback_url": f"{self._system.inbox_url}/hook",
            "prompts": [f"[latency=0.2] {self._name} {what} {number}" for number in range(3)],
            "scrapers": ["grok"],
        }
        answer = await insist(self._system, "POST", "/v1/batches", body, **{"Idempotency-Key": f"{self._name}-{what}"})
        self.jobs.update(answer["job_ids"])
        self.batches.add(answer["id"])
        return str(answer["id"])

    async def twins(self, rule: EachOnce) -> None:
        """The same batch asked for twice at once: one of both is staged for nothing, and dropped."""
        for number in range(10):
            one, other = await asyncio.gather(*(self.batch(f"twins-{number}") for _ in range(2)))
            assert one == other
            if "drop_staged" not in rule.left:
                return


@pytest.mark.timeout(200)
async def test_cut_at_every_script(system: System, proxy: StoreProxy) -> None:
    """Wherever the connection breaks or goes silent, each accepted job is announced, no wait lasts, no slot is lost."""
    await load_scripts(system.store.url)
    jobs: set[str] = set()
    batches: set[str] = set()
    cancelled: list[str] = []
    for fate in (Fate.CUT_BEFORE, Fate.CUT_AFTER, Fate.STALL, Fate.STALL_AFTER):
        rule = proxy.rule = EachOnce(SCRIPTS.keys() - ELSEWHERE, fate)
        turn = Turn(system, fate.value)
        await turn.run(rule)
        await until(lambda rule=rule: not rule.left, INSIST_S, lambda rule=rule: f"never called: {rule.left}")  # type: ignore[misc]  # bound now
        jobs |= turn.jobs
        batches |= turn.batches
        cancelled.append(turn.cancelled)
        await system.callbacks(len(jobs) + len(batches), LEASE_S + 15)
        proxy.heal()
        await all_slots_are_free(system.worker, LEASE_S + 5, **SLOTS)
    assert system.webhook_ids() == {f"msg_{one}" for one in jobs | batches}
    assert all(received.verified for received in system.inbox.received)
    assert (await system.call("GET", f"/v1/jobs/{cancelled[0]}"))[0] == 404, "it was not purged"
    assert system.worker.is_running()
    assert system.relay.is_running()


@pytest.mark.parametrize("fate", [Fate.CUT_BEFORE, Fate.CUT_AFTER, Fate.STALL, Fate.STALL_AFTER])
async def test_cut_at_a_release(store_url: str, fate: Fate) -> None:
    """Whatever becomes of the connection, what is given back is so once: it looks as if it had never been begun."""
    url = urlsplit(store_url)
    async with Bench.open(store_url) as bench, StoreProxy(url.port or 6379).running() as proxy:
        await load_scripts(store_url)
        for _ in range(3):
            await bench.accept()
        far_url = url._replace(netloc=f"127.0.0.1:{proxy.port}").geturl()
        far = await WorkStore.connect(make_settings(far_url, store_timeout_s=0.3))
        saver = Saver(far)
        running = asyncio.create_task(saver.run())
        try:
            claims = await far.begin_submit(ACME, 3)
            rule = proxy.rule = Once(script("release"), fate)
            async with asyncio.timeout(10):
                await asyncio.gather(*(saver.release(claim.lease) for claim in claims))
            assert rule.seen == 2
        finally:
            running.cancel()
            await far.close()
        again = await bench.work.begin_submit(ACME, 3)
        assert {claim.lease.id for claim in again} == {claim.lease.id for claim in claims}
        assert {(claim.tries, claim.was_ambiguous) for claim in again} == {(1, False)}


async def test_cut_at_arq(system: System, proxy: StoreProxy) -> None:
    """arq's own commands may be cut at any point: its worker is built anew, and the process lives."""
    for turn, command in enumerate(("WATCH", "EXISTS", "ZRANGEBYSCORE", "MULTI", "EXEC", "GET", "PSETEX")):
        for fate in (Fate.CUT_BEFORE, Fate.CUT_AFTER):
            proxy.rule = Once(named(command), fate)
            await accept(system, 100 + 10 * turn + (fate is Fate.CUT_AFTER))
    proxy.heal()
    await system.callbacks(14, LEASE_S + 15)
    assert system.worker.is_running()


async def test_a_lost_claim_is_not_paid_for(tmp_path: Path, proxy: StoreProxy) -> None:
    """Claims whose replies are lost were not begun: no submit counts as ambiguous, and no attempt is used up."""
    settings = SETTINGS | {"RELAY_REDIS_URL": proxy.url, "RELAY_ON_AMBIGUOUS_SUBMIT": "fail"}
    # The first attempt waits, so that it is claimed and not carried on to.
    settings["RELAY_CALLBACK_SCHEDULE"] = "0.2,5"
    async with System(tmp_path, settings, UPSTREAM, store_port=proxy.store_port).running() as system:
        await load_scripts(system.store.url)
        accepted = 0
        for fate in (Fate.CUT_AFTER, Fate.STALL_AFTER):
            for name in ("begin_submit", "begin_poll", "begin_deliver"):
                rule = proxy.rule = Once(script(name), fate)
                jobs = [await accept(system, accepted + number) for number in range(3)]
                accepted += 3
                await system.callbacks(accepted, LEASE_S + 15)
                assert rule.seen >= 1, f"{name} was never called: nothing was shown"
                proxy.heal()
                for job in jobs:
                    _, found = await system.call("GET", f"/v1/jobs/{job}")
                    assert (found["status"], found["delivery"]["attempts"]) == ("done", 1)
        submits = await submits_of(system)
        assert (submits.taken, submits.repeated, submits.ambiguous) == (accepted, 0, 0)


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
