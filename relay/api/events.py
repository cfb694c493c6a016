"""`GET /v1/events`: server-sent events (WHATWG HTML, section 9.2). Alone knows the framing."""

import asyncio
import math
from collections.abc import Sequence
from typing import Self

import structlog
from aiohttp import web

from relay.api.answers import store_of
from relay.api.context import CLIENT, EVENTS, HELD, LIMITS, METRICS
from relay.api.hub import Subscription
from relay.api.parameters import Query
from relay.core.model import ClientName
from relay.core.settings import Client
from relay.core.store import EventRecord
from relay.core.wire import encode, iso

_PING = b": ping\n\n"
_OPENED = b": connected\n\n"
#: Frames are written so many at a time, so that a long replay leaves room for other requests.
_WRITTEN_AT_ONCE = 500
_LAST_ID_CHARACTERS = 64
log = structlog.get_logger(component="events")


async def stream(request: web.Request, client: Client) -> web.StreamResponse:
    """`GET /v1/events`: new events, or those after `Last-Event-ID`, until either side hangs up."""
    Query(request.query, ()).check()
    return await serve(request, [client.name], request.headers.get("Last-Event-ID", ""))


async def serve(
    request: web.Request, clients: Sequence[ClientName], last_id: str = "", *, lasts_s: float = math.inf
) -> web.StreamResponse:
    """New events of `clients` until either side hangs up or `lasts_s` are over; those after `last_id` of one first."""
    store = store_of(request)
    response = web.StreamResponse(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
    response.content_type = "text/event-stream"
    response.charset = "utf-8"
    if request.method == "HEAD":
        await response.prepare(request)
        return response
    request[HELD] = True
    with request.app[METRICS].event_streams.track_inprogress(), request.app[EVENTS].subscribe(*clients) as news:
        # Subscribed first: what comes while the past is read is waiting afterwards.
        past: list[EventRecord] | None = []
        if last_id:
            fits = len(last_id) <= _LAST_ID_CHARACTERS and last_id.isascii()
            past = await store.events_after(clients[0], last_id) if fits else None
        await response.prepare(request)
        try:
            async with _Writer(request, response) as writer:
                await writer.write(_OPENED)
                if past is None:
                    await writer.write(_frame(None, "reset", None, store.now_ms()))
                await writer.write_records(past or ())
                await _follow(request, writer, news, {record.id for record in past or ()}, lasts_s)
        except (ConnectionError, TimeoutError):
            # The reader is gone, or takes nothing; it resumes by `Last-Event-ID`.
            log.info("event_stream_cut", client=request.get(CLIENT))
    return response


async def _follow(request: web.Request, writer: "_Writer", news: Subscription, sent: set[str], lasts_s: float) -> None:
    loop, ping_s = asyncio.get_running_loop(), request.app[LIMITS].ping_s
    ping_at, ends_at = loop.time() + ping_s, loop.time() + lasts_s
    while True:
        records = await news.take(max(0.0, ping_at - loop.time()))
        await writer.write_records([record for record in records if record.id not in sent])
        if news.ended or loop.time() >= ends_at:
            return
        if loop.time() >= ping_at:
            await writer.write(_PING)
            ping_at += ping_s


class _Writer:
    """Writes with a limit on how long the reader may take nothing, after which the connection is cut."""

    def __init__(self, request: web.Request, response: web.StreamResponse) -> None:
        self._request = request
        self._response = response
        self._patience_s = request.app[LIMITS].events_write_s

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, TimeoutError) and self._request.transport is not None:
            # Closing would wait for the reader to take what is buffered.
            self._request.transport.abort()

    async def write(self, data: bytes) -> None:
        """Write `data`. Raises TimeoutError, ConnectionError."""
        async with asyncio.timeout(self._patience_s):
            await self._response.write(data)

    async def write_records(self, records: Sequence[EventRecord]) -> None:
        """Write one frame per record."""
        for start in range(0, len(records), _WRITTEN_AT_ONCE):
            some = records[start : start + _WRITTEN_AT_ONCE]
            await self.write(b"".join(_frame(record.id, record.kind, record, record.at_ms) for record in some))


def _frame(event_id: str | None, kind: str, record: EventRecord | None, at_ms: int) -> bytes:
    data = encode(
        {
            "id": record and record.subject,
            "status": record and record.status,
            "delivery": record and record.delivery,
            "batch_id": record and record.batch_id,
            "at": iso(at_ms),
        }
    )
    head = b"" if event_id is None else b"id: " + event_id.encode() + b"\n"
    return head + b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"
