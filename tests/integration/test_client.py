"""The client, against a running relay."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from relay.client import (
    Change,
    ChangeKind,
    Conflict,
    Invalid,
    NotFound,
    RateLimited,
    RelayClient,
    Unauthorized,
    ask,
)
from relay.core.model import AttemptOutcome, DeliveryStatus, JobStatus
from relay.core.settings import Client
from tests.integration.conftest import ACME_KEY, UMBRELLA_KEY, HandWorker, make_client, run_relay
from tests.integration.conftest import RelayClient as RunningRelay
from tests.integration.test_api_jobs import until_waiting

HOOK = "https://203.0.113.7/hook"
UNKNOWN = "job_01jzzzzzzzzzzzzzzzzzzzzzzz"


def address(relay: RunningRelay) -> str:
    """Where it listens."""
    return f"http://127.0.0.1:{relay.port}"


@pytest.fixture(name="client")
async def fixture_client(relay_client: RunningRelay) -> AsyncIterator[RelayClient]:
    """A client of a running relay."""
    async with RelayClient(address(relay_client), ACME_KEY) as client:
        yield client


async def test_a_job_from_submit_to_redelivery(client: RelayClient, hand_worker: HandWorker) -> None:
    """Every call about one job, with typed answers."""
    job = await client.submit(
        scraper="grok",
        prompt="Why?",
        callback_url=HOOK,
        country="DE",
        timeout=20,
        deadline=90.5,
        params={"mode": "fast"},
        metadata={"row": 1},
        callback_headers={"X-Token": "t"},
        callback_events=["job.completed"],
    )
    assert (job.status, job.country, job.timeout, job.metadata) == (JobStatus.QUEUED, "DE", 20, {"row": 1})
    assert job.deadline_at - job.created_at == timedelta(seconds=90.5)
    with pytest.raises(Conflict):
        await client.redeliver(job.id)
    await hand_worker.submit_all()
    await hand_worker.finish_all()
    assert (await client.wait(job)).result == {"result": "Paris."}
    await hand_worker.deliver_all(DeliveryStatus.EXHAUSTED, AttemptOutcome.HTTP_ERROR)
    [attempt] = await client.attempts(job.id)
    assert (attempt.number, attempt.outcome, attempt.http_status) == (1, "http_error", 500)
    assert attempt.started_at.tzinfo is not None
    assert (await client.redeliver(job.id)).delivery.status is DeliveryStatus.PENDING
    with pytest.raises(Conflict) as caught:
        await client.cancel(job.id)
    assert (caught.value.status, caught.value.code) == (409, "conflict")


async def test_waiting_ends_with_the_outcome(
    client: RelayClient, relay_client: RunningRelay, hand_worker: HandWorker
) -> None:
    """The wait is held at the relay, not polled."""
    job = await client.submit(scraper="grok", prompt="Why?", callback_url=HOOK)
    await hand_worker.submit_all()
    waiting = asyncio.create_task(client.wait(job.id))
    await until_waiting(relay_client)
    await hand_worker.finish_all(JobStatus.FAILED)
    ended = await asyncio.wait_for(waiting, 5)
    assert (ended.status, ended.error and ended.error.code) == (JobStatus.FAILED, "upstream_failed")


async def test_the_same_key_gives_the_same_job(client: RelayClient) -> None:
    """A key of one's own outlives the program; without one each submit is a new job."""
    again = [
        await client.submit(scraper="grok", prompt="Why?", callback_url=HOOK, idempotency_key="order-17")
        for _ in range(2)
    ]
    assert again[0].id == again[1].id
    with pytest.raises(Invalid) as caught:
        await client.submit(scraper="grok", prompt="What?", callback_url=HOOK, idempotency_key="order-17")
    assert caught.value.code == "idempotency_key_reused"
    new = [await client.submit(scraper="grok", prompt="Why?", callback_url=HOOK) for _ in range(2)]
    assert len({job.id for job in [*again, *new]}) == 3


async def test_jobs_are_read_page_by_page(client: RelayClient) -> None:
    """All of them, newest first, or as many as one wants, by status and batch."""
    prompts = [f"number {n}" for n in range(205)]
    batch = await client.submit_batch(prompts=prompts, scrapers=["grok"], callback_url=HOOK)
    assert batch.count == 205
    assert [job.id async for job in client.jobs()] == list(reversed(batch.job_ids))
    assert [job.id async for job in client.jobs(limit=3)] == list(reversed(batch.job_ids[-3:]))
    cancelled = await client.cancel(batch.job_ids[100])
    assert cancelled.status is JobStatus.CANCELLED
    assert (await client.cancel(cancelled.id)).status is JobStatus.CANCELLED
    found = [job async for job in client.jobs(status=["cancelled"], delivery=["skipped"], batch_id=batch.id)]
    assert [(job.id, job.result) for job in found] == [(cancelled.id, None)]


async def test_a_batch_is_watched_to_its_end(client: RelayClient, hand_worker: HandWorker) -> None:
    """Each look is a count of its own, and the last one is complete."""
    jobs: Any = [{"prompt": "a", "scraper": "grok"}, {"prompt": "b", "country": "DE"}]
    accepted = await client.submit_batch(jobs=jobs, scraper="chatgpt", callback_url=HOOK)
    seen = []
    async for batch in client.watch_batch(accepted.id):
        seen.append(batch.ended)
        if len(seen) == 1:
            await hand_worker.submit_all()
            await hand_worker.finish_all()
    assert (seen[0], seen[-1]) == (0, 2)
    assert batch.completed_at is not None
    assert (await client.batch(accepted.id)).status["done"] == 2
    assert (await client.job(accepted.job_ids[0])).batch_id == accepted.id


async def test_many_are_redelivered(client: RelayClient, hand_worker: HandWorker) -> None:
    """The selection is the relay's; times may be datetimes."""
    await client.submit_batch(
        prompts=["a", "b"], scrapers=["grok"], callback_url=HOOK, callback_events=["job.completed"]
    )
    await hand_worker.submit_all()
    await hand_worker.finish_all()
    await hand_worker.deliver_all(DeliveryStatus.EXHAUSTED, AttemptOutcome.HTTP_ERROR)
    later = datetime.now(UTC) + timedelta(hours=1)
    assert await client.redeliver_many(since=later) == 0
    with pytest.raises(ValueError, match="time zone"):
        await client.redeliver_many(since=datetime(2026, 1, 1))  # noqa: DTZ001 - that is what is wrong with it
    assert await client.redeliver_many(until=later, callback_host="203.0.113.7") == 2


async def test_destinations(client: RelayClient, hand_worker: HandWorker) -> None:
    """Where callbacks went, one of them, and what waits there sent."""
    await client.submit(scraper="grok", prompt="Why?", callback_url=HOOK)
    await hand_worker.submit_all()
    await hand_worker.finish_all()
    await hand_worker.deliver_all()
    [found] = await client.destinations(state=["healthy"])
    assert (found.destination, found.failures, found.waiting) == ("203.0.113.7:443", 0, 0)
    assert (await client.destination(found.destination)).state == "healthy"
    assert (await client.resume(found.destination)).state == "healthy"
    with pytest.raises(NotFound):
        await client.resume("nowhere.example:443")


async def test_what_is_wrong_has_its_places(client: RelayClient) -> None:
    """A refusal says which field, for programs and for people."""
    with pytest.raises(Invalid) as caught:
        await client.submit(scraper="nosuch", prompt="", callback_url=HOOK)
    assert {error.where for error in caught.value.errors} == {"/scraper", "/prompt"}
    assert "/scraper" in str(caught.value)


@pytest.mark.parametrize("name", [UNKNOWN, "", "..", "a/b", "?", "job_1\n"])
async def test_what_does_not_exist_is_not_found(client: RelayClient, name: str) -> None:
    """Whatever characters are in it: none leads to another path."""
    for call in (client.job, client.cancel, client.attempts, client.redeliver, client.batch, client.wait):
        with pytest.raises(NotFound):
            await call(name)


async def test_another_key_sees_nothing(client: RelayClient, relay_client: RunningRelay) -> None:
    """What belongs to another client does not exist; a key that nobody has is told."""
    job = await client.submit(scraper="grok", prompt="Why?", callback_url=HOOK)
    async with RelayClient(address(relay_client), UMBRELLA_KEY) as other:
        assert [found async for found in other.jobs()] == []
        with pytest.raises(NotFound):
            await other.job(job.id)
    async with RelayClient(address(relay_client), "nobodys-key") as nobody:
        with pytest.raises(Unauthorized) as caught:
            await nobody.job(job.id)
        with pytest.raises(Unauthorized):
            await anext(nobody.events())
    assert "nobodys-key" not in str(caught.value)


async def test_limits_are_told_with_when_to_come_again(store_url: str) -> None:
    """A client that has no patience gets the refusal, with the seconds that the relay asks for."""
    limited: Client = make_client("acme", ACME_KEY, max_unfinished_jobs=1)
    async with (
        run_relay(store_url, clients={limited.name: limited}) as relay,
        RelayClient(address(relay), ACME_KEY, patience_s=0) as client,
    ):
        await client.submit(scraper="grok", prompt="Why?", callback_url=HOOK)
        with pytest.raises(RateLimited) as caught:
            await client.submit(scraper="grok", prompt="Why?", callback_url=HOOK)
    assert caught.value.code == "too_many_unfinished"
    assert caught.value.retry_after_s is not None
    assert caught.value.retry_after_s >= 1


async def test_changes_are_told_as_they_happen(client: RelayClient, hand_worker: HandWorker) -> None:
    """The first item says that the stream is open; what happens afterwards is told."""
    async with asyncio.timeout(10), aclosing(client.events()) as changes:
        assert (await anext(changes)).kind is ChangeKind.RESET
        job = await client.submit(scraper="grok", prompt="Why?", callback_url=HOOK)
        await hand_worker.submit_all()
        await hand_worker.finish_all()
        seen = [await anext(changes) for _ in range(3)]
    assert [(change.kind, change.id, change.status, change.delivery) for change in seen] == [
        ("job", job.id, "queued", "waiting"),
        ("job", job.id, "pending", "waiting"),
        ("job", job.id, "done", "pending"),
    ]


async def test_the_stream_goes_on_over_a_restart(store_url: str) -> None:
    """What happened while the relay was away is told when it is back, once."""
    known = {client.name: client for client in (make_client("acme", ACME_KEY),)}
    seen: list[Change] = []
    news = asyncio.Event()

    async def read(changes: AsyncIterator[Change]) -> None:
        async for change in changes:
            seen.append(change)
            news.set()

    async def until(count: int) -> None:
        async with asyncio.timeout(15):
            while len(seen) < count:
                news.clear()
                await news.wait()

    async with run_relay(store_url, clients=known) as first:
        port = first.port
        client = RelayClient(address(first), ACME_KEY)
        await client.__aenter__()
        reading = asyncio.create_task(read(client.events()))
        await until(1)
        before = (await first.submit()).json["id"]
        await until(2)
    async with run_relay(store_url, clients=known) as meanwhile:
        missed = (await meanwhile.submit()).json["id"]
    async with run_relay(store_url, clients=known, port=port) as second:
        await until(3)
        after = (await second.submit()).json["id"]
        await until(4)
        reading.cancel()
        await asyncio.wait([reading])
        await client.__aexit__(None, None, None)
    assert [change.id for change in seen] == [None, before, missed, after]


async def test_a_stream_can_begin_in_the_past(client: RelayClient) -> None:
    """With the id of a change the next ones follow, without a reset; an unknown id begins with one."""
    async with asyncio.timeout(10), aclosing(client.events()) as changes:
        await anext(changes)
        await client.submit(scraper="grok", prompt="Why?", callback_url=HOOK)
        known = (await anext(changes)).event_id
    job = await client.submit(scraper="grok", prompt="Why?", callback_url=HOOK)
    async with asyncio.timeout(10), aclosing(client.events(after=known)) as changes:
        assert (await anext(changes)).id == job.id
    async with asyncio.timeout(10), aclosing(client.events(after="1-1")) as changes:
        assert (await anext(changes)).kind is ChangeKind.RESET


async def test_a_script_needs_no_loop(relay_client: RunningRelay) -> None:
    """One call, or a function with many, from a program that has no event loop."""
    url = address(relay_client)

    async def two(relay: RelayClient) -> list[str]:
        return [(await relay.submit(scraper="grok", prompt="Why?", callback_url=HOOK)).id for _ in range(2)]

    made = await asyncio.to_thread(ask, two, url, ACME_KEY)
    one = await asyncio.to_thread(ask, lambda relay: relay.job(made[0]), url, ACME_KEY)
    assert one.id == made[0]


def test_it_is_light() -> None:
    """A program that imports it gets no server, no store and no command line with it."""
    heavy = {"redis", "arq", "pydantic", "structlog", "rich", "typer", "prometheus_client", "relay.core.store"}
    code = f"import sys, relay.client; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == "[]\n"
