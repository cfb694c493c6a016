"""Workers are killed and stopped at every moment of their jobs, and others go on where they were."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from tests.faults.account import (
    LEASE_S,
    QUICK,
    UPSTREAM,
    attempts,
    check_callbacks,
    delivery_becomes,
    job_of,
    metric,
    metric_reaches,
    submits_of,
)
from tests.faults.load import Load
from tests.processes import System, until

pytestmark = pytest.mark.faults

LONG = pytest.mark.skipif(not os.environ.get("FAULTS_LONG"), reason="takes minutes; FAULTS_LONG=1 asks for it")
#: The slowest job after the last kill: its latency, its polls and a callback that takes its time.
SLOWEST_S = 5
#: What a worker gets done beside that at least, on any machine, with 50 callbacks of 0.3 s under way at once.
DONE_PER_S = 30


@pytest.mark.slow
@pytest.mark.parametrize(
    "kills", [10, pytest.param(100, marks=[LONG, pytest.mark.timeout(600)])], ids=lambda kills: f"{kills} kills"
)
async def test_killed_at_random(tmp_path: Path, kills: int) -> None:
    """However often the worker is killed, each job is announced, in the same bytes; what is paid twice is counted."""
    chance = random.Random(f"worker {kills}")
    settings = QUICK | {"RELAY_CALLBACK_SCHEDULE": "0" + ",0.3" * 99, "RELAY_SUBMIT_SLOTS": "10"}
    async with System(tmp_path, settings, UPSTREAM).running() as system:
        load = Load(system, path="/slow/0.3")
        async with load.coming(clients=4, pause_s=0.1):
            for _ in range(kills):
                await asyncio.sleep(chance.uniform(0.1, 1.0))  # any moment is as good as another
                await system.worker.kill()
                await system.worker.start()
        arrived = len(system.webhook_ids())
        # Within lease + 5 s; in the short form other tests start their processes meanwhile, on the same cores.
        await system.callbacks(min(arrived + 1, len(load.accepted)), LEASE_S + (5 if kills > 10 else 15))
        # A worker that hardly lives falls behind, and has that to do as well.
        behind_s = (len(load.accepted) - arrived) / DONE_PER_S
        await system.callbacks(len(load.accepted), SLOWEST_S + behind_s)
        assert len(load.accepted) > 10 * kills
        check_callbacks(system, load.accepted.values())
        assert any(received.repeated for received in system.inbox.received), "no callback was hit"
        # The last attempts' saves come after their callbacks.
        submits = await submits_of(system)
        assert submits.taken == len(load.accepted) + submits.repeated
        assert submits.repeated <= submits.ambiguous


class Unanswering:
    """A receiver that never answers the first `silent` callbacks of each job at `/later`, and none at `/never`."""

    def __init__(self, silent: int) -> None:
        self._silent = silent
        self.arrivals: dict[str, list[bytes]] = {"/later": [], "/never": []}
        self.ids: dict[str, set[str]] = {"/later": set(), "/never": set()}
        self.url = ""

    async def receive(self, request: web.Request) -> web.Response:
        """Note a callback, and answer or not."""
        self.arrivals[request.path].append(await request.read())
        self.ids[request.path].add(request.headers["webhook-id"])
        if request.path == "/later" and len(self.arrivals["/later"]) > self._silent:
            return web.Response(status=204)
        await asyncio.Event().wait()
        raise AssertionError

    def count(self, path: str) -> int:
        """How many callbacks came there."""
        return len(self.arrivals[path])

    async def reached(self, count: int) -> None:
        """Wait until so many callbacks came at each path."""
        await until(
            lambda: min(map(self.count, self.arrivals)) >= count,
            LEASE_S + 5,
            lambda: f"{[*map(self.count, self.arrivals)]} arrived",
        )


@pytest.fixture(name="unanswering")
async def fixture_unanswering() -> AsyncIterator[Unanswering]:
    """It, being served."""
    receiver = Unanswering(silent=5)
    app = web.Application()
    app.add_routes([web.post("/{path:.*}", receiver.receive)])
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = site.name
    yield receiver
    await runner.cleanup()


@pytest.mark.slow
async def test_killed_at_every_attempt_at_one_job(tmp_path: Path, unanswering: Unanswering) -> None:
    """A job whose worker dies at each of its attempts ends delivered, or exhausted by its schedule, and says why."""
    schedule = {"RELAY_CALLBACK_SCHEDULE": "0,0.2,0.2,0.2,0.2,0.2", "RELAY_CALLBACK_TIMEOUT_S": "30"}
    async with System(tmp_path, QUICK | schedule, UPSTREAM).running() as system:
        later, never = [
            (await system.submit(f"[latency=0.1] {path}", callback_url=f"{unanswering.url}{path}"))["id"]
            for path in ("/later", "/never")
        ]
        for kills in range(1, 7):
            await unanswering.reached(kills)
            if kills == 6:
                await delivery_becomes(system, later, "delivered")
            await system.worker.kill()
            await system.worker.start()
        await delivery_becomes(system, never, "exhausted")
        assert [entry["error"] for entry in await attempts(system, later)] == ["worker stopped"] * 5 + [None]
        assert [entry["error"] for entry in await attempts(system, never)] == ["worker stopped"] * 6
        for path, job in (("/later", later), ("/never", never)):
            assert unanswering.count(path) == 6
            assert unanswering.ids[path] == {f"msg_{job}"}
            assert len(set(unanswering.arrivals[path])) == 1
        assert (await job_of(system, never))["status"] == "done"


async def test_stopped_past_its_lease(tmp_path: Path) -> None:
    """A worker that was stopped for longer than its leases has its saves refused: others have finished its jobs."""
    upstream = UPSTREAM | {"EMULATOR_ANSWER_DELAY_S": "1"}
    async with System(tmp_path, QUICK, upstream).running() as system:
        jobs = [(await system.submit("[latency=0.1] called back", callback_url=f"{system.inbox_url}/slow/2"))["id"]]
        await system.callbacks(1, 10)
        jobs += [(await system.submit(f"[latency=0.1] submitted {n}"))["id"] for n in range(5)]
        while (await system.emulated())["submits"] < len(jobs):
            await asyncio.sleep(0.02)
        # The receiver and the upstream have not answered yet, so both steps end after the stop.
        late, other = system.worker, system.another_worker()
        late.signal(signal.SIGSTOP)
        try:
            await other.start()
            await system.callbacks(len(jobs), LEASE_S + 10)
            for job in jobs:
                await delivery_becomes(system, job, "delivered")
        finally:
            late.signal(signal.SIGCONT)
        await metric_reaches(late, 5, 10, "scrapellm_relay_refused_saves_total", kind="submit")
        await metric_reaches(late, 1, 10, "scrapellm_relay_refused_saves_total", kind="deliver")
        check_callbacks(system, jobs)
        outcomes = [await metric(worker, "scrapellm_relay_job_outcomes_total") for worker in (late, other)]
        assert sum(outcomes) == len(jobs)
        submits = await submits_of(system)
        assert submits.taken == len(jobs) + submits.repeated
        assert submits.repeated == submits.ambiguous == submits.orphans == 5
        assert [entry["error"] for entry in await attempts(system, jobs[0])] == ["worker stopped", None]
