"""`GET /v1/events`: server-sent events."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import redis

from tests.integration.conftest import ACME_KEY, LIMITS, UMBRELLA_KEY, HandWorker, RelayClient, run_relay
from tests.integration.test_api_jobs import until_waiting


class Stream:
    """A reader of events, as a browser would be."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.pings = 0

    async def next(self) -> dict[str, Any]:
        """The next event: its fields, with `data` parsed."""
        fields: dict[str, Any] = {}
        async with asyncio.timeout(5):
            while True:
                line = (await self.response.content.readline()).decode()
                if not line:
                    raise EOFError
                if line.startswith(":"):
                    self.pings += line == ": ping\n"
                elif line == "\n":
                    if fields:
                        return fields | {"data": json.loads(fields["data"])}
                else:
                    name, _, value = line.rstrip("\n").partition(": ")
                    fields[name] = value

    async def until_the_end(self) -> None:
        """Read on until the relay hangs up. Raises EOFError then."""
        while True:
            await self.next()


@contextlib.asynccontextmanager
async def open_stream(relay: RelayClient, *, key: str = ACME_KEY, last_id: str | None = None) -> AsyncIterator[Stream]:
    """A stream that is open and listening."""
    headers = {"Authorization": f"Bearer {key}"} | ({} if last_id is None else {"Last-Event-ID": last_id})
    async with relay.http.get(f"http://127.0.0.1:{relay.port}/v1/events", headers=headers) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert response.headers["Cache-Control"] == "no-cache"
        assert response.headers["X-Accel-Buffering"] == "no"
        yield Stream(response)


async def test_the_life_of_a_job(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """One event for every change of status or delivery status, with ids and states only."""
    async with open_stream(relay_client) as stream:
        job_id = (await relay_client.submit()).json["id"]
        await hand_worker.submit_all()
        await hand_worker.finish_all()
        await hand_worker.deliver_all()
        events = [await stream.next() for _ in range(4)]
    assert [(e["event"], e["data"]["id"], e["data"]["status"], e["data"]["delivery"]) for e in events] == [
        ("job", job_id, "queued", "waiting"),
        ("job", job_id, "pending", "waiting"),
        ("job", job_id, "done", "pending"),
        ("job", job_id, "done", "delivered"),
    ]
    assert all(e["data"].keys() == {"id", "status", "delivery", "batch_id", "at"} for e in events)
    assert len({e["id"] for e in events}) == 4
    assert events[0]["data"]["at"].endswith("Z")


async def test_a_batch(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """Batches have events of their own, and their jobs name them."""
    async with open_stream(relay_client) as stream:
        made = await relay_client.call(
            "POST",
            "/v1/batches",
            json={"prompts": ["a"], "scrapers": ["grok"], "callback_url": "https://203.0.113.7/"},
        )
        await hand_worker.submit_all()
        await hand_worker.finish_all()
        seen: list[dict[str, Any]] = []
        while not seen or seen[-1]["data"]["status"] != "completed":
            seen.append(await stream.next())
    batches = [e["data"] for e in seen if e["event"] == "batch"]
    assert [(b["id"], b["status"]) for b in batches] == [(made.json["id"], "open"), (made.json["id"], "completed")]
    assert {e["data"]["batch_id"] for e in seen if e["event"] == "job"} == {made.json["id"]}


async def test_only_ones_own(relay_client: RelayClient) -> None:
    """A client sees nothing of another's."""
    async with open_stream(relay_client) as stream:
        await relay_client.submit(key=UMBRELLA_KEY)
        mine = (await relay_client.submit()).json["id"]
        assert (await stream.next())["data"]["id"] == mine


async def test_resuming(relay_client: RelayClient) -> None:
    """After `Last-Event-ID` nothing is missed and nothing repeated, also on another relay."""
    async with open_stream(relay_client) as stream:
        await relay_client.submit()
        last_id = (await stream.next())["id"]
    missed = [(await relay_client.submit()).json["id"] for _ in range(20)]
    async with (
        run_relay(relay_client.settings.redis_url, clients=relay_client.clients) as another,
        open_stream(another, last_id=last_id) as stream,
    ):
        later = (await relay_client.submit()).json["id"]
        assert [(await stream.next())["data"]["id"] for _ in range(21)] == [*missed, later]


async def test_reset(relay_client: RelayClient) -> None:
    """What is unknown or too old gives one `reset`, then new events."""
    for unknown in ("0-0", "1-1", "x", "99999999999999-0", "99999999999999999999999-0", "a" * 1000, "$", "-", "*"):
        async with open_stream(relay_client, last_id=unknown) as stream:
            first = await stream.next()
            assert (first["event"], first.get("id")) == ("reset", None)
            job_id = (await relay_client.submit()).json["id"]
            assert (await stream.next())["data"]["id"] == job_id


async def test_unknown_parameters(relay_client: RelayClient) -> None:
    """A parameter is refused, so that one that was meant to resume or to filter does not go unheard."""
    for method in ("GET", "HEAD"):
        reply = await relay_client.call(method, "/v1/events?last_event_id=1-1&x=1")
        assert reply.status == 422
    reply = await relay_client.call("GET", "/v1/events?last_event_id=1-1&x=1")
    assert (reply.code, reply.faults) == ("invalid_request", [("parameter", "last_event_id"), ("parameter", "x")])


async def test_pings(relay_client: RelayClient) -> None:
    """A quiet stream has a comment now and then."""
    async with open_stream(relay_client) as stream:
        async with asyncio.timeout(5):
            lines = [await stream.response.content.readline() for _ in range(6)]
    assert lines.count(b": ping\n") >= 2


async def test_a_slow_reader_is_cut_off(store_url: str) -> None:
    """A reader that is too far behind loses its stream, and nobody else anything."""
    limits = replace(LIMITS, events_buffered=20, events_write_s=0.5)
    async with run_relay(store_url, limits=limits) as relay:
        head = f"GET /v1/events HTTP/1.1\r\nHost: x\r\nX-API-Key: {ACME_KEY}\r\n\r\n".encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port, limit=1024)
        writer.write(head)
        await until_waiting(relay, gauge="event_streams_open")
        # Events in bulk, straight into the stream: the reader takes none, and sockets buffer only so much.
        with redis.Redis.from_url(store_url) as store:
            event = {"k": "job", "i": "job_x" + "y" * 2000, "s": "queued", "d": "waiting", "b": "", "t": "0"}
            async with asyncio.timeout(20):
                while b"event_streams_open 1.0" in (await relay.call("GET", "/metrics", key=None)).body:
                    for _ in range(200):
                        store.xadd("relay:ev:acme", event)
        assert (await relay.submit()).status == 202
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        del reader


async def test_hanging_up(relay_client: RelayClient) -> None:
    """A reader that is gone holds nothing."""
    async with open_stream(relay_client):
        await until_waiting(relay_client, gauge="event_streams_open")
    await until_waiting(relay_client, count=0, gauge="event_streams_open")
