"""What the machine has runs out, or its clock jumps: the services say so, live, and go on."""

import asyncio
import contextlib
import itertools
import os
import resource
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

import aiohttp
import pytest
import redis.asyncio as redis

from tests.faults.account import (
    LEASE_S,
    QUICK,
    UPSTREAM,
    attempts,
    check_callbacks,
    delivery_becomes,
    job_of,
    metric_reaches,
)
from tests.faults.load import Load
from tests.faults.receivers import Receiver, answers
from tests.processes import Service, System

pytestmark = pytest.mark.faults

CLOCK = Path(__file__).parent / "clock"
DISK_MIB = 24


@contextlib.contextmanager
def limited(service: Service, descriptors: int) -> Iterator[None]:
    """While this lasts, a running service gets no new descriptor with this number or a higher one."""
    assert service.process is not None
    pid = service.process.pid
    usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors, usual[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)


def few_descriptors(service: Service, more: int) -> contextlib.AbstractContextManager[None]:
    """While this lasts, a running service may open so many descriptors beyond those that it has."""
    assert service.process is not None
    taken = {int(descriptor.name) for descriptor in Path(f"/proc/{service.process.pid}/fd").iterdir()}
    # A new one gets the lowest number that is free, and between those in use there are gaps.
    free = (number for number in itertools.count() if number not in taken)
    return limited(service, next(itertools.islice(free, more, None)))


def no_descriptors(service: Service) -> contextlib.AbstractContextManager[None]:
    """While this lasts, a running service keeps what it has and gets nothing else, not even for what it closes."""
    return limited(service, 3)


@contextlib.asynccontextmanager
async def idle_connections(port: int, count: int) -> AsyncIterator[list[asyncio.StreamWriter]]:
    """So many connections to a port over which nothing is sent."""
    writers: list[asyncio.StreamWriter] = []
    try:
        for _ in range(count):
            with contextlib.suppress(OSError):
                writers.append((await asyncio.open_connection("127.0.0.1", port))[1])
        yield writers
    finally:
        for writer in writers:
            writer.transport.abort()


async def answers_again(system: System, timeout_s: float) -> None:
    """Wait until a new connection is answered with 200."""
    ends = asyncio.get_running_loop().time() + timeout_s
    while True:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with (
                aiohttp.ClientSession(headers=system.http.headers, trust_env=False) as http,
                http.get(f"{system.relay_url}/v1/jobs", timeout=aiohttp.ClientTimeout(total=1)) as response,
            ):
                if response.status == 200:
                    return
        assert asyncio.get_running_loop().time() < ends, f"no answer within {timeout_s} s"
        await asyncio.sleep(0.1)


async def is_taken_by_nobody(system: System) -> None:
    """A new connection to the relay is not answered."""
    with pytest.raises((aiohttp.ClientError, TimeoutError)):
        async with (
            aiohttp.ClientSession(trust_env=False) as http,
            http.get(f"{system.relay_url}/healthz", timeout=aiohttp.ClientTimeout(total=1)),
        ):
            raise AssertionError("answered: the descriptors were not used up")


async def test_idle_connections_take_all_descriptors_of_the_relay(tmp_path: Path) -> None:
    """With all descriptors taken by idle connections the relay serves those that it knows, lives, and recovers."""
    async with System(tmp_path, QUICK, UPSTREAM).running() as system:
        load = Load(system)
        async with load.coming(clients=2, pause_s=0.1, most=10):
            await load.goes_on(by=10, timeout_s=10)
        with few_descriptors(system.relay, 10):
            async with idle_connections(system.relay_port, 60):
                assert (await system.call("GET", "/v1/jobs"))[0] == 200
                await is_taken_by_nobody(system)
                assert system.relay.is_running()
            # The limit stands; only the connections are gone.
            await answers_again(system, 5)
        await load.one()
        await system.callbacks(len(load.accepted), LEASE_S + 10)
        check_callbacks(system, load.accepted.values())


async def test_no_descriptor_for_the_store_left_in_the_relay(tmp_path: Path) -> None:
    """A relay that can open no connection to the store says 503 in bounded time; with descriptors it goes on."""
    async with System(tmp_path, QUICK, UPSTREAM).running() as system, redis.Redis(port=system.store.port) as store:
        load = Load(system)
        await load.one()
        with no_descriptors(system.relay):
            # This test's own connection to the relay stays; those of the relay to the store go, and none comes.
            await store.client_kill_filter(_type="normal", skipme=True)
            body = {"scraper": "chatgpt", "prompt": "refused", "callback_url": f"{system.inbox_url}/hook"}
            for method, sent in (("GET", None), ("POST", body)) * 3:
                began = time.monotonic()
                async with system.http.request(method, "/v1/jobs", json=sent) as response:
                    problem = await response.json()
                    assert (response.status, problem["code"]) == (503, "store_unavailable")
                    assert int(response.headers["Retry-After"]) >= 1
                assert time.monotonic() - began < 3
            await is_taken_by_nobody(system)
            assert system.relay.is_running()
        await answers_again(system, 5)
        await load.one()
        await system.callbacks(len(load.accepted), LEASE_S + 10)
        check_callbacks(system, load.accepted.values())


async def test_no_descriptors_left_in_the_worker(tmp_path: Path) -> None:
    """A worker that can open no connection tries again; with descriptors every job is done and called back."""
    async with System(tmp_path, QUICK, UPSTREAM).running() as system:
        load = Load(system, markers="[latency=0.1]")
        with no_descriptors(system.worker):
            async with load.coming(clients=4, pause_s=0.05):
                await load.goes_on(by=20, timeout_s=10)
            await asyncio.sleep(1)  # it has tried, and failed
            assert len(system.webhook_ids()) < len(load.accepted), "it had descriptors left: nothing was shown"
            assert system.worker.is_running()
        await system.callbacks(len(load.accepted), LEASE_S + 15)
        check_callbacks(system, load.accepted.values())


async def test_what_a_worker_had_no_descriptor_for_was_not_attempted(tmp_path: Path) -> None:
    """Callbacks that could not be sent for want of descriptors wait, and use up nothing of their schedule."""
    # All come due together, when the worker has no connection to the inbox yet and cannot open one.
    settings = QUICK | {"RELAY_CALLBACK_SCHEDULE": "4,1"}
    async with System(tmp_path, settings, UPSTREAM).running() as system:
        jobs = [(await system.submit(f"[latency=0.1] callback {number}"))["id"] for number in range(40)]
        await metric_reaches(system.worker, len(jobs), 10, "scrapellm_relay_job_outcomes_total")
        with no_descriptors(system.worker):
            # Longer than the schedule and two leases: each would be used up.
            await asyncio.sleep(4 + 2 * LEASE_S)
            assert system.webhook_ids() == set(), "it had descriptors left: nothing was shown"
            tries = system.worker.log.read_text().count("callback not attempted")
        assert len(jobs) <= tries <= len(jobs) * 10, "it tries all the time"
        await system.callbacks(len(jobs), LEASE_S + 10)
        for job in jobs:
            await delivery_becomes(system, job, "delivered")
            assert [(one["number"], one["outcome"]) for one in await attempts(system, job)] == [(1, "delivered")]
            assert (await job_of(system, job))["delivery"]["attempts"] == 1
        assert "worker stopped" not in system.worker.log.read_text()


@pytest.fixture(name="small_disk")
def fixture_small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few MiB, where the store of a test keeps its data."""
    folder = tmp_path / "store"
    folder.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None:
        pytest.skip("there is no mount: a full disk is shown by MISCONF in test_store_faults only")
    done = subprocess.run(  # noqa: S603 - our own command
        [mount, "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("mounting is not permitted: a full disk is shown by MISCONF in test_store_faults only")
    yield folder
    subprocess.run([umount, "--lazy", str(folder)], check=True)  # noqa: S603 - our own command


async def test_the_disk_of_the_store_is_full(tmp_path: Path, small_disk: Path) -> None:
    """While the store cannot write its file, the API answers 503; with room again everything goes on."""
    async with System(tmp_path, QUICK, UPSTREAM).running() as system:
        load = Load(system, markers="[latency=0.5]")
        async with load.coming(clients=4, pause_s=0.05, most=20):
            await load.goes_on(by=20, timeout_s=10)
        ballast = small_disk / "ballast"
        await asyncio.to_thread(fill, ballast)
        async with asyncio.timeout(10):
            # Valkey notices at its next write of the file, within a second.
            while await load.ask(f"full-{len(load.accepted)}") is not None:
                await asyncio.sleep(0.1)
        body = {"scraper": "chatgpt", "prompt": "refused", "callback_url": f"{system.inbox_url}/hook"}
        async with system.http.post("/v1/jobs", json=body) as response:
            assert (response.status, (await response.json())["code"]) == (503, "store_unavailable")
            assert int(response.headers["Retry-After"]) >= 1
        assert (await system.call("GET", "/v1/jobs"))[0] == 200
        ballast.unlink()
        await load.one()
        await system.callbacks(len(load.accepted), LEASE_S + 20)
        check_callbacks(system, load.accepted.values())
        assert system.worker.is_running()
        assert system.relay.is_running()


def fill(ballast: Path) -> None:
    """Write until there is no room."""
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(b"\0" * 4096):
            pass


async def clock_of(service: Service) -> float:
    """What a service thinks the time is, in Unix seconds: its HTTP server says so."""
    async with (
        aiohttp.ClientSession(trust_env=False) as http,
        http.get(service.ready_url, timeout=aiohttp.ClientTimeout(total=5)) as response,
    ):
        return parsedate_to_datetime(response.headers["Date"]).timestamp()


@pytest.mark.slow
async def test_the_clock_jumps_by_an_hour(tmp_path: Path) -> None:
    """Clocks of the services that jump ahead or back expire nothing, hasten nothing and hold nothing up."""
    offset, steady = tmp_path / "offset", tmp_path / "steady"
    for file in (offset, steady):
        file.write_text("0")
    settings = QUICK | {
        "RELAY_CALLBACK_SCHEDULE": "0,1,1,60",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(CLOCK), os.environ.get("PYTHONPATH")))),
        "CLOCK_OFFSET": str(offset),
    }
    # The upstream's clock is its own affair.
    upstream = UPSTREAM | {"CLOCK_OFFSET": str(steady)}
    async with Receiver(answers(500)).serving() as failing, System(tmp_path, settings, upstream).running() as system:
        retried = (await system.submit("[latency=0.1] retried", callback_url=failing.url))["id"]
        load = Load(system, markers="[latency=1]")
        async with load.coming(clients=4, pause_s=0.1):
            for step_s in (3600, 0, -3600, 0):
                await load.goes_on(by=10, timeout_s=10)
                # In one piece: the services read it at any moment, and an empty file is no time.
                offset.with_suffix(".new").write_text(str(step_s))
                offset.with_suffix(".new").replace(offset)
                for service in (system.relay, system.worker):
                    assert abs(await clock_of(service) - time.time() - step_s) < 5, "its clock has not jumped"
        await system.callbacks(len(load.accepted), LEASE_S + 10)
        assert {received.event for received in system.inbox.received} == {"job.completed"}
        check_callbacks(system, load.accepted.values())
        assert len(system.inbox.received) == len(load.accepted), "a callback was sent twice"
        assert (await system.emulated())["submits"] == len(load.accepted) + 1
        await delivery_becomes(system, retried, "retrying")
        # Three attempts by the schedule, and the fourth an hour's jump did not bring forward.
        async with asyncio.timeout(10):
            while len(log := await attempts(system, retried)) < 3:
                await asyncio.sleep(0.1)
        assert failing.connections == len(log) == 3
        assert max(entry["duration_ms"] for entry in log) < 5000
