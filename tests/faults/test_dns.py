"""Names of receivers are slow, have no address, or have another one than before: callbacks go where they may, in time.

Services ask a name server of the test's (`name_server`) through the resolver that they always use.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

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
from tests.faults.name_server import Answer, Code, NameServer
from tests.faults.receivers import answers
from tests.processes import Service, System, eventually, until

pytestmark = pytest.mark.faults

TIMEOUT_S = 2
#: How long accepting waits for a name (docs/api.md, "The address guard").
ACCEPT_S = 2.0
#: Beside what is measured: a machine with much to do.
LATE_S = 0.7
PUBLIC = "93.184.216.34"
INBOX = Answer(("127.0.0.1",))
#: Where a receiver moves from, or where it alone may be.
ELSEWHERE = "127.0.0.2"
SETTINGS = QUICK | {
    "RELAY_CALLBACK_TIMEOUT_S": str(TIMEOUT_S),
    # The gate before receivers that don't answer would spare the worker what is to be shown here.
    "RELAY_DESTINATION_CLOSES_AFTER": "0",
}


@pytest.fixture(name="names")
async def fixture_names() -> AsyncIterator[NameServer]:
    """The name server of a test."""
    async with NameServer().serving() as names:
        yield names


@pytest.fixture(name="system")
async def fixture_system(tmp_path: Path, names: NameServer) -> AsyncIterator[System]:
    """A system that may call all of loopback."""
    schedule = {"RELAY_CALLBACK_SCHEDULE": "0" + ",0.5" * 39}
    async with System(tmp_path, {**SETTINGS, **schedule, **names.settings}, UPSTREAM).running() as system:
        yield system


@pytest.fixture(name="guarded")
async def fixture_guarded(tmp_path: Path, names: NameServer) -> AsyncIterator[System]:
    """A system that may call one address of loopback, at which nothing of its own listens, and has three attempts."""
    settings = {
        **SETTINGS,
        "RELAY_CALLBACK_SCHEDULE": "0,0.2,0.2",
        "RELAY_CALLBACK_ALLOWED_NETWORKS": f"{ELSEWHERE}/32",
        **names.settings,
    }
    async with System(tmp_path, settings, UPSTREAM).running() as system:
        yield system


@contextlib.asynccontextmanager
async def listening(host: str, port: int, status: int) -> AsyncIterator[tuple[int, list[float]]]:
    """A receiver at this address that answers with this status: its port, and when connections were made to it."""
    made: list[float] = []

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.append(time.monotonic())
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await answers(status)(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(run, host, port)
    try:
        yield server.sockets[0].getsockname()[1], made
    finally:
        server.close()


@contextlib.contextmanager
def stopped(service: Service) -> Iterator[None]:
    """While this lasts, a service does nothing."""
    service.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        service.signal(signal.SIGCONT)


def hook(system: System, name: str) -> str:
    """The inbox, under this name."""
    return f"http://{name}:{URL(system.inbox_url).port}/hook"


async def submit(system: System, url: str) -> str:
    """The id of a job that is called back there, and soon done."""
    return str((await system.submit(f"[latency=0.1] {url}", callback_url=url))["id"])


async def attempted(system: System, job: str, times: int) -> None:
    """Wait until so many attempts at a job's callback were made."""

    async def was() -> bool:
        return len(await attempts(system, job)) >= times

    await eventually(was, LEASE_S + 10, f"{times} attempts for {job}")


async def timed(call: Awaitable[Any]) -> float:
    """How long something takes, in seconds."""
    begun_at = time.monotonic()
    await call
    return time.monotonic() - begun_at


@pytest.mark.slow
async def test_names_change(system: System, names: NameServer) -> None:
    """A callback goes where its name leads now: tried until it has an address, followed if it moves."""
    elsewhere = Answer((ELSEWHERE,))
    names.names |= {
        "broken.example": Answer(code=Code.SERVFAIL),
        "empty.example": Answer(),
        "fine.example": INBOX,
        "accepted.example": elsewhere,
        "tried.example": elsewhere,
    }
    without = ("missing.example", "broken.example", "empty.example")
    async with listening(ELSEWHERE, int(URL(system.inbox_url).port or 0), 500) as (_, connections):
        with stopped(system.worker):
            moved = await submit(system, hook(system, "accepted.example"))
            assert names.asked["accepted.example"], "not judged when accepted"
            names.names["accepted.example"] = INBOX
        await delivery_becomes(system, moved, "delivered")
        assert connections == []

        tried = await submit(system, hook(system, "tried.example"))
        await attempted(system, tried, 1)
        names.names["tried.example"] = INBOX

        jobs = {name: await submit(system, hook(system, name)) for name in without}
        fine = await submit(system, hook(system, "fine.example"))
        await delivery_becomes(system, fine, "delivered")
        for job in jobs.values():
            await attempted(system, job, 3)
        names.names |= dict.fromkeys(without, INBOX)
        for name, job in jobs.items():
            await delivery_becomes(system, job, "delivered")
            failed = await failures(system, job)
            assert len(failed) >= 3, name
            assert {(entry["outcome"], entry["error"]) for entry in failed} == {
                ("connection_error", "the host name could not be resolved")
            }, name

        # An address that was good is kept for 10 s.
        await delivery_becomes(system, tried, "delivered", 10 + LEASE_S)
        failed = await failures(system, tried)
        assert {entry["http_status"] for entry in failed} == {500}
        assert len(failed) == len(connections)
    check_callbacks(system, [moved, tried, fine, *jobs.values()])
    assert len(system.inbox.received) == 3 + len(jobs), "a callback was sent twice"


async def failures(system: System, job: str) -> list[dict[str, Any]]:
    """The attempts before the one that was delivered."""
    *failed, last = await attempts(system, job)
    assert last["outcome"] == "delivered"
    return failed


#: More than the threads of any pool of resolvers, and than the look-ups that one request has under way.
SLOW = 100
FINE = 40
#: Longer than anybody waits.
NEVER_S = 60.0
#: A call that waits for nothing, on a machine with much to do.
QUICK_S = 0.7


@pytest.mark.slow
async def test_slow_names(system: System, names: NameServer) -> None:
    """While names are waited for, when accepted and when sent, others are served; with the name comes the callback."""
    slow = [f"slow-{n}.example" for n in range(SLOW)]
    fine = iter(f"fine-{n}.example" for n in range(FINE))
    names.names |= dict.fromkeys(slow, Answer(INBOX.addresses, after_s=NEVER_S))
    names.names |= {f"fine-{n}.example": INBOX for n in range(FINE)}
    names.names["late.example"] = Answer(INBOX.addresses, after_s=1.0)
    names.names["inner.example"] = Answer((PUBLIC, "10.0.0.1"))

    begun_at = time.monotonic()
    accepting = asyncio.create_task(batch(system, slow))
    await until(lambda: any(names.asked[name] for name in slow), 5, lambda: "no slow name was asked for")
    took_s = [await timed(submit(system, hook(system, next(fine)))) for _ in range(10)]
    took_s.append(await timed(refused(system, hook(system, "inner.example"))))
    took_s.append(await timed(system.call("GET", "/v1/jobs")))
    assert max(took_s) < QUICK_S, took_s
    assert not accepting.done(), "the slow names were not slow: nothing was shown"
    waiting: list[str] = (await accepting)["job_ids"]
    assert time.monotonic() - begun_at < ACCEPT_S + LATE_S

    # When all jobs have ended, what the worker has under way is their callbacks.
    await metric_reaches(system.worker, SLOW + 10, LEASE_S + 10, "scrapellm_relay_job_outcomes_total")
    late = await submit(system, hook(system, "late.example"))
    for name in fine:
        await metric_reaches(system.worker, SLOW / 2, 5, "scrapellm_relay_steps_running")
        took_s += [await timed(submit(system, hook(system, name))), await timed(job_of(system, waiting[0]))]
    assert max(took_s) < QUICK_S, took_s
    await system.callbacks(FINE, 5)
    assert max(late_s(system, besides=late)) < 1.0
    # Its name takes longer than the first tries of a look-up wait.
    await delivery_becomes(system, late, "delivered", 10)

    for job in waiting:
        await attempted(system, job, 1)
    names.names |= dict.fromkeys(slow, INBOX)
    await system.callbacks(FINE + 1 + SLOW, 20)
    for job in waiting:
        await delivery_becomes(system, job, "delivered")
        failed = await failures(system, job)
        assert failed, "its name was not slow"
        assert {entry["outcome"] for entry in failed} <= {"timeout", "connection_error"}, failed
        assert max(entry["duration_ms"] for entry in failed) <= (TIMEOUT_S + LATE_S) * 1000, failed


async def refused(system: System, url: str) -> None:
    """Ask for a job that is called back there; it is refused for the sake of the address, and nothing is kept."""
    body = {"scraper": "grok", "prompt": f"[latency=0.1] {url}", "callback_url": url}
    status, answer = await system.call("POST", "/v1/jobs", body)
    assert (status, answer.get("code")) == (422, "callback_url_refused"), answer
    assert [fault["pointer"] for fault in answer["errors"]] == ["/callback_url"]


async def batch(system: System, hosts: Sequence[str]) -> dict[str, Any]:
    """Accept a batch with a job for the inbox under each of these names."""
    jobs = [
        {"scraper": "grok", "prompt": f"[latency=0.1] {name}", "callback_url": hook(system, name)} for name in hosts
    ]
    status, answer = await system.call("POST", "/v1/batches", {"jobs": jobs})
    assert status == 202, answer
    return dict(answer)


def late_s(system: System, besides: str) -> list[float]:
    """How long after its outcome each callback came to the inbox, in seconds; that of one job left out."""
    return [
        received.received_ms / 1000 - datetime.fromisoformat(received.body["data"]["completed_at"]).timestamp()
        for received in system.inbox.received
        if received.webhook_id != f"msg_{besides}"
    ]


#: What the names of the next test come to mean, each refused.
REFUSED = {
    "loopback.example": ("127.0.0.1",),
    "metadata.example": ("169.254.169.254",),
    "private.example": ("10.0.0.1",),
    "mapped.example": ("::ffff:127.0.0.1",),
    "sixth.example": ("::1",),
    "mixed.example": (PUBLIC, "127.0.0.1"),
    "mixed-families.example": (ELSEWHERE, "::1"),
}


async def test_refused_addresses(guarded: System, names: NameServer) -> None:
    """A name with one refused address is refused, and not connected to where it got that address after acceptance."""
    names.names |= {f"already-{name}": Answer(addresses) for name, addresses in REFUSED.items()}
    for name in REFUSED:
        await refused(guarded, f"http://already-{name}/hook")
    assert (await guarded.call("GET", "/v1/jobs"))[1]["data"] == []

    names.names |= dict.fromkeys((*REFUSED, "moved.example"), Answer((PUBLIC,)))
    async with listening("127.0.0.1", 0, 204) as (port, trapped), listening(ELSEWHERE, port, 204) as (_, reached):
        # The worker asks for a name as late as when it calls back; before that, nobody has connected anywhere.
        with stopped(guarded.worker):
            jobs = {name: await submit(guarded, f"http://{name}:{port}/") for name in (*REFUSED, "moved.example")}
            assert {name for name in jobs if not names.asked[name]} == set(), "not judged when accepted"
            names.names |= {name: Answer(addresses) for name, addresses in REFUSED.items()}
            names.names["moved.example"] = Answer((ELSEWHERE,))
        moved = jobs.pop("moved.example")
        for name, job in jobs.items():
            await delivery_becomes(guarded, job, "exhausted")
            log = await attempts(guarded, job)
            assert [entry["outcome"] for entry in log] == ["blocked_address"] * 3, (name, log)
        await delivery_becomes(guarded, moved, "delivered")
        assert (len(reached), trapped) == (1, [])
