"""The account of a run on real processes: what was accepted, submitted and called back, and what was paid for twice.

Alone knows how it is read: from the inbox, from the emulator, from the store's counters and from the workers' metrics.
"""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from relay.core.model import ClientName
from relay.core.settings import Settings
from relay.core.store import WorkStore
from relay.dev.inbox import Inbox
from tests.processes import Service, System

LEASE_S = 3
#: The store's own bound on one wait; the API may ask twice.
STORE_TIMEOUT_S = 1.0
#: Short leases, polls and waits, so that what must happen after a fault happens within seconds.
QUICK = {
    "RELAY_LEASE_S": str(LEASE_S),
    "RELAY_POLL_INTERVAL_S": "0.5",
    "RELAY_POLL_MIN_INTERVAL_S": "0.2",
    "RELAY_STORE_TIMEOUT_S": str(STORE_TIMEOUT_S),
    "RELAY_CALLBACK_SCHEDULE": "0" + ",0.3" * 19,
}
#: An upstream in which nothing fails by chance, and everything takes a while.
UPSTREAM = {"EMULATOR_FAILURE_RATE": "0", "EMULATOR_ANSWER_DELAY_S": "0.1"}


class Run(Protocol):
    """What the account of a run is read from."""

    inbox: Inbox

    @property
    def store_url(self) -> str:
        """The store."""

    async def emulated(self) -> dict[str, Any]:
        """The emulator's account."""


@dataclass(frozen=True, slots=True)
class Submits:
    """What the upstream was asked for, and what of that the store cannot account for."""

    taken: int
    #: Beyond the first of each prompt.
    repeated: int
    ambiguous: int
    orphans: int
    #: Credits that are counted for the results.
    credits: float


async def submits_of(system: Run) -> Submits:
    """The submits of a run so far; every job, or group of equal ones, must have a prompt of its own."""
    stats = await system.emulated()
    store = await WorkStore.connect(Settings.load(_env_file=None, redis_url=system.store_url))
    try:
        counters = await store.account(ClientName("default"))
    finally:
        await store.close()
    return Submits(
        taken=stats["submits"],
        repeated=stats["repeated_submits"],
        ambiguous=int(counters.get("ambiguous", 0)),
        orphans=int(counters.get("orphans", 0)),
        credits=counters.get("credits", 0),
    )


def check_callbacks(system: Run, jobs: Collection[str]) -> None:
    """Each of `jobs` and nothing else was announced, verified, and in the same bytes under the same id each time."""
    bodies: dict[str, set[bytes]] = {}
    for received in system.inbox.received:
        assert received.verified, received.reason
        bodies.setdefault(received.webhook_id, set()).add(received.raw)
    assert set(bodies) == {f"msg_{job}" for job in jobs}
    assert {webhook_id for webhook_id, variants in bodies.items() if len(variants) > 1} == set()


async def attempts(system: System, job: str) -> list[dict[str, Any]]:
    """The log of a job's attempts."""
    status, answer = await system.call("GET", f"/v1/jobs/{job}/attempts")
    assert status == 200, answer
    return list(answer["data"])


async def job_of(system: System, job: str) -> dict[str, Any]:
    """A job as the API shows it."""
    status, answer = await system.call("GET", f"/v1/jobs/{job}")
    assert status == 200, answer
    return dict(answer)


async def metric(service: Service, name: str, **labels: str) -> float:
    """The sum of a worker's samples of this name that have these labels."""
    async with (
        aiohttp.ClientSession(trust_env=False) as http,
        http.get(service.ready_url.replace("/readyz", "/metrics"), timeout=aiohttp.ClientTimeout(total=5)) as response,
    ):
        text = await response.text()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


async def metric_reaches(service: Service, least: float, timeout_s: float, name: str, **labels: str) -> None:
    """Wait until a worker's metric is at least `least`."""
    ends = asyncio.get_running_loop().time() + timeout_s
    while (value := await metric(service, name, **labels)) < least:
        assert asyncio.get_running_loop().time() < ends, f"{name} {labels} is {value} after {timeout_s} s"
        await asyncio.sleep(0.05)


async def all_slots_are_free(service: Service, timeout_s: float, **slots: int) -> None:
    """Wait until nothing runs in a worker, and so many slots of each kind are free: none is lost, none is made up."""
    wanted = {"steps_running": 0.0, **slots}
    ends = asyncio.get_running_loop().time() + timeout_s
    while True:
        seen = {"steps_running": await metric(service, "scrapellm_relay_steps_running")}
        for kind in slots:
            seen[kind] = await metric(service, "scrapellm_relay_slots_free", kind=kind)
        if seen == wanted:
            return
        assert asyncio.get_running_loop().time() < ends, f"{seen} and not {wanted}"
        await asyncio.sleep(0.2)


async def delivery_becomes(system: System, job: str, status: str, timeout_s: float = LEASE_S + 5) -> None:
    """Wait until a job's delivery has this status."""
    ends = asyncio.get_running_loop().time() + timeout_s
    while (seen := (await job_of(system, job))["delivery"]["status"]) != status:
        assert asyncio.get_running_loop().time() < ends, f"{seen} and not {status}"
        await asyncio.sleep(0.05)


def resident_mib(service: Service) -> float:
    """The memory that a process holds now."""
    assert service.process is not None
    for line in Path(f"/proc/{service.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")
