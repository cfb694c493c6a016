"""Callbacks: what a receiver gets, and what becomes of a delivery by the way it answers."""

import asyncio
import itertools
from email.utils import formatdate
from time import time

from aiohttp import web

from relay.core.model import AttemptOutcome, DeliveryStatus, Job
from tests.integration.worker_harness import Rig, callback_to
from tests.integration.worker_peers import Arrival, Receiver, Upstream, emulated
from tests.processes import free_port

EXTRA = {"Authorization": "Bearer of-the-receiver", "X-Trace": "a b\tc"}


def gaps_s(arrivals: list[Arrival]) -> list[float]:
    """The seconds between one attempt and the next."""
    return [later.at_s - earlier.at_s for earlier, later in itertools.pairwise(arrivals)]


def replying(status: int, **headers: str) -> web.Response:
    """An answer of a receiver; underscores in the names of `headers` stand for hyphens."""
    return web.Response(status=status, headers={name.replace("_", "-"): value for name, value in headers.items()})


async def states(rig: Rig, job: Job) -> list[str]:
    """The delivery statuses that a job went through."""
    entries = (await rig.bench.snapshot()).streams[f"ev:{job.client}"]
    return [entry["d"] for entry in entries if entry["i"] == job.id and entry["d"] != "waiting"]


async def test_a_callback_is_repeated_until_it_gets_through(store_url: str) -> None:
    """Every attempt carries the same signed bytes under the same id, and its own number and time."""
    async with emulated() as upstream, Rig.open(store_url, upstream.url) as rig:
        async with rig.working():
            job = await rig.settled(await rig.accept("[latency=0]", f"{rig.inbox_url}/fail/500/2"))
        attempts = await rig.attempts(job)
        assert await states(rig, job) == ["pending", "retrying", "delivered"]
    received = rig.received(job)
    assert [one.attempt for one in received] == [1, 2, 3]
    assert all(one.verified for one in received)
    assert len({one.raw for one in received}) == 1
    assert received[0].content_type == "application/json"
    assert received[0].body["data"]["id"] == job.id
    assert "delivery" not in received[0].body["data"]
    assert (job.delivery.status, job.delivery.attempts) == (DeliveryStatus.DELIVERED, 3)
    assert job.delivery.delivered_ms is not None
    assert [(a.number, a.outcome, a.http_status, a.error) for a in attempts] == [
        (1, AttemptOutcome.HTTP_ERROR, 500, "HTTP 500"),
        (2, AttemptOutcome.HTTP_ERROR, 500, "HTTP 500"),
        (3, AttemptOutcome.DELIVERED, 204, None),
    ]


async def test_a_used_up_schedule_exhausts_the_delivery(store_url: str) -> None:
    """After the last attempt of the schedule there is no other, and the log tells all of them truthfully."""
    async with emulated() as upstream, Rig.open(store_url, upstream.url) as rig:
        async with rig.working():
            job = await rig.settled(await rig.accept("[latency=0]", f"{rig.inbox_url}/fail/502"))
        attempts = await rig.attempts(job)
    received = rig.received(job)
    assert (job.delivery.status, job.delivery.attempts, len(received)) == (DeliveryStatus.EXHAUSTED, 3, 3)
    for number, (attempt, one) in enumerate(zip(attempts, received, strict=True), start=1):
        assert (attempt.number, attempt.outcome, attempt.http_status) == (number, AttemptOutcome.HTTP_ERROR, 502)
        assert attempt.response_excerpt == "answering as the path asks"
        assert attempt.duration_ms < 2_000
        # Store and inbox share one clock here.
        assert -5 <= one.received_ms - attempt.started_ms < 2_000
    for earlier, later in itertools.pairwise(attempts):
        assert later.started_ms - earlier.started_ms >= 200


STATUSES = {
    200: (DeliveryStatus.DELIVERED, AttemptOutcome.DELIVERED),
    299: (DeliveryStatus.DELIVERED, AttemptOutcome.DELIVERED),
    302: (DeliveryStatus.EXHAUSTED, AttemptOutcome.HTTP_ERROR),
    308: (DeliveryStatus.EXHAUSTED, AttemptOutcome.HTTP_ERROR),
    404: (DeliveryStatus.EXHAUSTED, AttemptOutcome.HTTP_ERROR),
    410: (DeliveryStatus.GONE, AttemptOutcome.GONE),
}


async def test_a_status_decides(store_url: str) -> None:
    """Any 2xx is success, 410 is the end, and a redirect is a failure that is never followed."""

    async def reply(arrival: Arrival) -> web.Response:
        return replying(int(arrival.path.removeprefix("/")), Location="/elsewhere")

    async with (
        Upstream().serving() as upstream,
        Receiver(reply).serving() as receiver,
        Rig.open(store_url, upstream.url, callback_schedule="0,0.1") as rig,
        rig.working(),
    ):
        jobs = [await rig.accept(f"status {status}", f"{receiver.url}/{status}") for status in STATUSES]
        for job, (status, (delivery, outcome)) in zip(jobs, STATUSES.items(), strict=True):
            assert (await rig.settled(job)).delivery.status is delivery
            made = 2 if delivery is DeliveryStatus.EXHAUSTED else 1
            assert [(a.outcome, a.http_status) for a in await rig.attempts(job)] == [(outcome, status)] * made
            assert len(receiver.at(f"/{status}")) == made
    assert receiver.at("/elsewhere") == []


async def test_a_receiver_may_ask_for_time(store_url: str) -> None:
    """`Retry-After` of a 429 or 503 lengthens a delay, up to the schedule's longest, and adds no attempts."""

    async def reply(arrival: Arrival) -> web.Response:
        if int(arrival.headers["relay-attempt"]) > 1:
            return replying(204)
        match arrival.path:
            case "/seconds":
                return replying(429, Retry_After="1")
            case "/date":
                return replying(503, Retry_After=formatdate(time() + 2, usegmt=True))
            case "/forever":
                return replying(503, Retry_After="86400")
            case "/nothing":
                return replying(503)
            case _:
                return replying(500, Retry_After="1.5")

    bounds = {
        "/seconds": (0.99, 1.9),
        # Dates are in whole seconds.
        "/date": (0.9, 2.4),
        "/forever": (1.79, 2.6),
        "/nothing": (0.1, 0.9),
        "/another-status": (0.1, 0.9),
    }
    async with (
        Upstream().serving() as upstream,
        Receiver(reply).serving() as receiver,
        Rig.open(store_url, upstream.url, callback_schedule="0,0.1,1.8") as rig,
        rig.working(),
    ):
        jobs = [await rig.accept(path, receiver.url + path) for path in bounds]
        for job in jobs:
            assert (await rig.settled(job)).delivery.attempts == 2
    for path, (least_s, most_s) in bounds.items():
        [gap_s] = gaps_s(receiver.at(path))
        assert least_s <= gap_s, (path, gap_s)
        # What comes late does so because the machine is busy; only what was asked to wait for long must not.
        assert gap_s < most_s + 3, (path, gap_s)


async def test_a_first_delay_is_kept_to(store_url: str) -> None:
    """A schedule that does not begin with 0 lets the outcome rest before it is announced."""
    async with (
        Upstream().serving() as upstream,
        Rig.open(store_url, upstream.url, callback_schedule="0.6") as rig,
        rig.working(),
    ):
        job = await rig.settled(await rig.accept())
    assert job.completed_ms is not None
    assert rig.received(job)[0].received_ms - job.completed_ms >= 595


async def test_what_is_not_answered_says_why(store_url: str) -> None:
    """A receiver that refuses, hangs or hangs up has its own outcome in the log."""

    async def reply(arrival: Arrival) -> web.Response:
        if arrival.path == "/hang":
            await asyncio.sleep(30)
        raise web.HTTPInternalServerError

    async with (
        Upstream().serving() as upstream,
        Receiver(reply).serving() as receiver,
        Rig.open(store_url, upstream.url, callback_schedule="0", callback_timeout_s=0.5) as rig,
    ):
        cases = {
            f"http://127.0.0.1:{free_port()}/": (
                AttemptOutcome.CONNECTION_ERROR,
                "could not connect: connection refused",
            ),
            f"{receiver.url}/hang": (AttemptOutcome.TIMEOUT, "no answer within 0.5 s"),
            f"{receiver.url.replace('http:', 'https:')}/": (AttemptOutcome.TLS_ERROR, "TLS failed: "),
        }
        async with rig.working():
            for url, (outcome, error) in cases.items():
                job = await rig.settled(await rig.accept("Why?", url))
                [attempt] = await rig.attempts(job)
                assert job.delivery.status is DeliveryStatus.EXHAUSTED
                assert (attempt.outcome, attempt.http_status) == (outcome, None)
                assert attempt.error is not None
                assert attempt.error.startswith(error), attempt.error


async def test_a_refused_address_is_never_called(store_url: str) -> None:
    """The guard judges when a callback is sent, too: what it refuses is not connected to."""
    async with (
        Upstream().serving() as upstream,
        Receiver().serving() as receiver,
        Rig.open(store_url, upstream.url, callback_schedule="0", callback_allowed_networks="") as rig,
        rig.working(),
    ):
        port = receiver.url.rpartition(":")[2]
        for url in (f"{receiver.url}/", f"http://localhost:{port}/", f"http://[::ffff:127.0.0.1]:{port}/"):
            job = await rig.settled(await rig.accept("Why?", url, callback=callback_to(url, destination=f"x:{port}")))
            [attempt] = await rig.attempts(job)
            assert (attempt.outcome, attempt.http_status) == (AttemptOutcome.BLOCKED_ADDRESS, None)
    assert receiver.arrivals == []


async def test_the_client_s_headers_are_sent(store_url: str) -> None:
    """Extra headers reach the receiver with every attempt, and cannot take the place of the event's own."""
    async with (
        Upstream().serving() as upstream,
        Receiver().serving() as receiver,
        Rig.open(store_url, upstream.url) as rig,
        rig.working(),
    ):
        callback = callback_to(f"{receiver.url}/hook", headers=EXTRA | {"webhook-id": "another"})
        job = await rig.settled(await rig.accept(callback=callback))
    [arrival] = receiver.arrivals
    assert {name.lower(): value for name, value in EXTRA.items()}.items() <= arrival.headers.items()
    assert arrival.headers["webhook-id"] == f"msg_{job.id}"
    assert arrival.headers["relay-attempt"] == "1"
    assert arrival.headers["user-agent"].startswith("scrapellm-relay/")
    assert "of-the-receiver" not in arrival.body.decode()
