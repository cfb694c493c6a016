"""Receivers misbehave in every way: attempts end in time and are classified, and nobody else notices."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
import trustme

from relay.dev.inbox import Received
from tests.faults import receivers
from tests.faults.account import QUICK, UPSTREAM, attempts, delivery_becomes, job_of, resident_mib
from tests.faults.receivers import Receiver, answers
from tests.processes import System, until

pytestmark = pytest.mark.faults

TIMEOUT_S = 2
#: The second delay is what a `Retry-After` can lengthen, the third the longest that it can.
SCHEDULE_S = (0.0, 0.2, 1.5)
#: Beside the attempt itself: the save, and a machine with much to do.
LATE_MS = 700
MOST_GROWTH_MIB = 50


@dataclass(frozen=True, slots=True)
class Case:
    """A receiver, and what is to become of a callback to it."""

    name: str
    receiver: Receiver
    outcome: str
    #: Where the delivery ends.
    ends: str = "exhausted"
    status: int | None = None
    #: Callbacks that go there at once: more where they could cost memory.
    jobs: int = 1
    #: The least and the most time between the first attempt's end and the second's start.
    pause_s: tuple[float, float] | None = None


def cases(trusted: trustme.CA, trap: str) -> Sequence[Case]:
    """Every kind of bad receiver. `trap` is where a redirect leads."""
    stranger = trustme.CA()
    location = b"Location: " + trap.encode()
    return (
        Case("drips headers", Receiver(receivers.drips_headers), "timeout"),
        Case("silent", Receiver(receivers.silent), "timeout"),
        # A status decides, whatever the body does.
        Case("drips a body", Receiver(receivers.drips_a_body), "delivered", "delivered", 200, jobs=10),
        Case("endless body", Receiver(receivers.endless_body), "http_error", status=500, jobs=10),
        Case("gzip bomb", Receiver(receivers.gzip_bomb), "http_error", status=500, jobs=10),
        Case("500 headers", Receiver(receivers.many_headers), "connection_error"),
        Case("reset", Receiver(receivers.resets), "connection_error"),
        Case("not HTTP", Receiver(receivers.not_http), "connection_error"),
        Case("stranger's certificate", Receiver(receivers.silent, receivers.certificate(stranger)), "tls_error"),
        Case("expired", Receiver(receivers.silent, receivers.certificate(trusted, days=-1)), "tls_error"),
        Case("redirect", Receiver(answers(307, location)), "http_error", status=307),
        Case("500", Receiver(answers(500)), "http_error", status=500),
        Case("410", Receiver(answers(410)), "gone", "gone", 410),
        Case("429", Receiver(answers(429, b"Retry-After: 1")), "http_error", status=429, pause_s=(1.0, 1.5)),
        Case("429 for long", Receiver(answers(429, b"Retry-After: 9999")), "http_error", status=429, pause_s=(1.5, 2)),
        Case("good certificate", Receiver(answers(204), receivers.certificate(trusted)), "delivered", "delivered", 204),
    )


@pytest.fixture(name="authority")
def fixture_authority() -> trustme.CA:
    """The one authority that the worker trusts."""
    return trustme.CA()


@pytest.fixture(name="system")
async def fixture_system(tmp_path: Path, authority: trustme.CA) -> AsyncIterator[System]:
    """A system with short attempts and a short schedule."""
    trust = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(trust)
    settings = QUICK | {
        "RELAY_CALLBACK_TIMEOUT_S": str(TIMEOUT_S),
        "RELAY_CALLBACK_SCHEDULE": ",".join(map(str, SCHEDULE_S)),
        # The gate before receivers that don't answer would spare the worker what is to be shown here.
        "RELAY_DESTINATION_CLOSES_AFTER": "0",
        "SSL_CERT_FILE": str(trust),
    }
    async with System(tmp_path, settings, UPSTREAM).running() as system:
        yield system


@pytest.mark.slow
async def test_every_kind_of_bad_receiver(system: System, authority: trustme.CA) -> None:
    """Each attempt ends within its time and is classified, memory stays flat, and healthy receivers get theirs."""
    async with AsyncExitStack() as stack:
        trap = await stack.enter_async_context(Receiver(answers(204)).serving())
        table = cases(authority, trap.url)
        for case in table:
            await stack.enter_async_context(case.receiver.serving())
        await healthy(system, "warming up", 20)
        before_mib = resident_mib(system.worker)
        asked = [
            (case, (await system.submit(f"[latency=0.1] {case.name} {n}", callback_url=case.receiver.url))["id"])
            for case in table
            for n in range(case.jobs)
        ]
        most_mib = before_mib
        for turn in range(4):
            late_s = await healthy(system, f"beside {turn}", 10)
            assert max(late_s) < 1.0
            most_mib = max(most_mib, resident_mib(system.worker))
        for case, job in asked:
            await delivery_becomes(system, job, case.ends, 15)
            await check_attempts(system, case, job)
            assert (await job_of(system, job))["status"] == "done"
        assert max(most_mib, resident_mib(system.worker)) - before_mib < MOST_GROWTH_MIB
        assert trap.connections == 0, "a redirect was followed"
        assert system.worker.is_running()


async def check_attempts(system: System, case: Case, job: str) -> None:
    """The log of a job's attempts is what `case` says."""
    log = await attempts(system, job)
    assert [entry["outcome"] for entry in log] == [case.outcome] * (3 if case.ends == "exhausted" else 1), case.name
    assert {entry["http_status"] for entry in log} == {case.status}, case.name
    for entry in log:
        assert entry["duration_ms"] <= TIMEOUT_S * 1000 + LATE_MS, (case.name, entry)
        assert len(entry["response_excerpt"] or "") <= 1024, case.name
    if case.pause_s is not None:
        ended = moment(log[0]["started_at"]) + log[0]["duration_ms"] / 1000
        least, most = case.pause_s
        assert least - 0.01 <= moment(log[1]["started_at"]) - ended <= most + LATE_MS / 1000, case.name


async def healthy(system: System, name: str, count: int) -> list[float]:
    """So many jobs with a good receiver; how late each callback came, in seconds after its outcome."""
    jobs = await asyncio.gather(*(system.submit(f"[latency=0.1] {name} {n}") for n in range(count)))
    ids = {f"msg_{job['id']}" for job in jobs}
    await until(lambda: ids <= system.webhook_ids(), 30, lambda: f"{name}: not all arrived")
    first: dict[str, Received] = {}
    for received in system.inbox.received:
        if received.webhook_id in ids:
            first.setdefault(received.webhook_id, received)
    return [received.received_ms / 1000 - moment(received.body["data"]["completed_at"]) for received in first.values()]


def moment(text: str) -> float:
    """An RFC 3339 time in Unix seconds."""
    return datetime.fromisoformat(text).timestamp()
