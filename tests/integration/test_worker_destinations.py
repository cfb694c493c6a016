"""Callbacks side by side: permits of a destination, leases that are kept, and attempts that nobody ended."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiohttp import web

from relay.core.model import AttemptOutcome, DeliveryStatus
from tests.integration.store_harness import ACME, UMBRELLA
from tests.integration.worker_harness import DEFAULT, Rig, eventually, write_clients
from tests.integration.worker_peers import Arrival, Receiver, Upstream, thanking_after
from tests.processes import free_port, until


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_destination_has_so_many_permits(store_url: str, workers: int) -> None:
    """However many callbacks are due, no more than the permits are under way at one destination, over all workers."""

    async def slowly(_arrival: Arrival) -> web.Response:
        await asyncio.sleep(0.03)
        return web.Response(status=204)

    async with (
        Upstream().serving() as upstream,
        Receiver(slowly).serving() as receiver,
        Rig.open(store_url, upstream.url, callback_concurrency=2) as rig,
        contextlib.AsyncExitStack() as stack,
    ):
        jobs = [await rig.accept(str(n), f"{receiver.url}/hook") for n in range(20)]
        for _ in range(workers):
            await stack.enter_async_context(rig.working())
        for job in jobs:
            assert (await rig.settled(job)).delivery.status is DeliveryStatus.DELIVERED
    assert receiver.most_at_once == 2
    assert len(receiver.arrivals) == len(jobs), "delivered twice"


async def test_a_hanging_receiver_holds_nobody_else_up(store_url: str) -> None:
    """While one destination's permits are all taken, another gets its callbacks, and so does the first afterwards."""
    go_on = asyncio.Event()

    async with (
        Upstream().serving() as upstream,
        Receiver(thanking_after(go_on)).serving() as stuck,
        Rig.open(store_url, upstream.url, callback_concurrency=2) as rig,
        rig.working(),
    ):
        waiting = [await rig.accept(f"stuck {n}", f"{stuck.url}/hook") for n in range(20)]
        await until(lambda: stuck.at_once == 2, 10, lambda: f"{stuck.at_once} under way")
        for job in [await rig.accept(f"free {n}") for n in range(5)]:
            assert (await rig.settled(job)).delivery.status is DeliveryStatus.DELIVERED
        assert len(stuck.arrivals) == 2
        go_on.set()
        for job in waiting:
            assert (await rig.settled(job)).delivery.attempts == 1


async def test_a_dead_destination_is_left_alone(store_url: str) -> None:
    """Where nobody answers callbacks wait, but for one now and then; once one gets through all do, and it is said."""
    port = free_port()
    with structlog.testing.capture_logs() as lines:
        async with (
            Upstream().serving() as upstream,
            Rig.open(
                store_url,
                upstream.url,
                callback_schedule="0,0.5,0.5,0.5,0.5,5",
                callback_concurrency=1,
                destination_closes_after=3,
            ) as rig,
            rig.working(measured=True) as worker,
        ):
            jobs = [await rig.accept(str(n), f"http://127.0.0.1:{port}/hook") for n in range(10)]
            await until(lambda: len(news_of(lines)) == 1, 10, lambda: str(lines))
            async with Receiver().serving(port) as receiver:
                settled = [await rig.settled(job) for job in jobs]
            await eventually(
                lambda: worker.metric("destination_changes_total", change="recovered"), lambda changes: changes == 1
            )
            assert await worker.metric("destination_changes_total", change="unresponsive") == 1
    assert {job.delivery.status for job in settled} == {DeliveryStatus.DELIVERED}
    assert len(receiver.arrivals) == len(jobs)
    assert news_of(lines) == [
        ("warning", "destination unresponsive", f"127.0.0.1:{port}"),
        ("info", "destination recovered", f"127.0.0.1:{port}"),
    ]


def news_of(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """What was said of destinations."""
    said = [line for line in lines if line["event"].startswith("destination ")]
    return [(line["log_level"], line["event"], line["destination"]) for line in said]


async def test_a_slow_receiver_is_called_once(store_url: str) -> None:
    """An attempt that takes longer than a lease keeps it: no other worker makes the same one."""

    async def slow(_arrival: Arrival) -> web.Response:
        await asyncio.sleep(3.5)
        return web.Response(status=204)

    async with (
        Upstream().serving() as upstream,
        Receiver(slow).serving() as receiver,
        Rig.open(store_url, upstream.url, lease_s=3) as rig,
        rig.working(),
        rig.working(),
    ):
        job = await rig.settled(await rig.accept("Why?", f"{receiver.url}/hook"))
    assert (job.delivery.status, job.delivery.attempts) == (DeliveryStatus.DELIVERED, 1)
    assert len(receiver.arrivals) == 1


async def test_an_attempt_of_a_dead_worker_is_closed(store_url: str) -> None:
    """What another worker began and never ended is logged as cut off, counts, and is followed by the next attempt."""
    async with Upstream().serving() as upstream, Rig.open(store_url, upstream.url) as rig:
        job = await rig.accept()
        await rig.bench.submit_all(DEFAULT)
        await rig.bench.finish_all()
        assert len(await rig.bench.other.begin_deliver(10)) == 1
        await rig.bench.let_pass(4)
        async with rig.working():
            job = await rig.settled(job)
        log = await rig.attempts(job)
    assert [(a.number, a.outcome, a.error) for a in log] == [
        (1, AttemptOutcome.CONNECTION_ERROR, "worker stopped"),
        (2, AttemptOutcome.DELIVERED, None),
    ]
    assert [received.attempt for received in rig.received(job)] == [2]


async def test_a_worker_that_was_taken_for_dead_is_not_listened_to(store_url: str) -> None:
    """An attempt whose lease was lost is made again, and what the first one comes to changes nothing any more."""
    go_on = asyncio.Event()

    async with (
        Upstream().serving() as upstream,
        Receiver(thanking_after(go_on)).serving() as receiver,
        Rig.open(store_url, upstream.url) as rig,
        rig.working(measured=True) as worker,
    ):
        job = await rig.accept("Why?", f"{receiver.url}/hook")
        await until(lambda: receiver.at_once == 1, 10, lambda: "not called")
        # Its lease runs out, as if the process had stood still.
        await rig.bench.let_pass(4)
        await until(lambda: receiver.at_once == 2, 10, lambda: "not called again")
        go_on.set()
        job = await rig.settled(job)
        async with asyncio.timeout(10):
            while not await worker.metric("refused_saves_total", kind="deliver"):
                await asyncio.sleep(0.02)
    assert [arrival.headers["relay-attempt"] for arrival in receiver.arrivals] == ["1", "2"]
    assert len({arrival.headers["webhook-id"] for arrival in receiver.arrivals}) == 1
    assert (job.delivery.status, job.delivery.attempts) == (DeliveryStatus.DELIVERED, 2)


async def test_callbacks_of_a_removed_client_wait(store_url: str, tmp_path: Path) -> None:
    """Nothing can be signed for a client that is not configured: its callbacks cost no attempt until it is again."""
    clients = tmp_path / "clients.toml"
    async with Upstream().serving() as upstream:
        write_clients(clients, acme=None, umbrella=None)
        async with Rig.open(store_url, upstream.url, clients_file=clients) as rig:
            jobs = [await rig.accept(f"number {n}", client=UMBRELLA) for n in range(3)]
            await rig.bench.submit_all(UMBRELLA)
            write_clients(clients, acme=None)
            with structlog.testing.capture_logs() as lines:
                async with rig.working():
                    # Their polls go on: they have been paid for.
                    for job in jobs:
                        await rig.ended(job)
                    await rig.settled(await rig.accept(client=ACME))
            for job in jobs:
                seen = await rig.now(job)
                assert (seen.delivery.status, seen.delivery.attempts) == (DeliveryStatus.PENDING, 0)
            said = [line for line in lines if "no such client" in line["event"]]
            assert [(line["log_level"], line["client"]) for line in said] == [("error", "umbrella")]
            write_clients(clients, acme=None, umbrella=None)
            await rig.bench.let_pass(60)
            async with rig.working():
                for job in jobs:
                    assert (await rig.settled(job)).delivery.status is DeliveryStatus.DELIVERED
                    assert [received.attempt for received in rig.received(job)] == [1]
