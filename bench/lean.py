"""A lean HTTP/1.1 server: so little work for each request that whoever talks to it is the bottleneck.

Alone knows how requests are read. It takes what aiohttp's client sends, on kept-alive connections, and nothing else.
"""

import asyncio
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import msgspec
import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_REASONS = {200: b"OK", 202: b"Accepted", 204: b"No Content", 404: b"Not Found"}


@dataclass(frozen=True, slots=True)
class Request:
    """One request, whole."""

    method: bytes
    target: bytes
    head: bytes
    body: bytes
    #: When its first byte came, by the machine's monotonic clock.
    first_byte_s: float


Handler = Callable[[Request], bytes]


def answer(status: int, body: bytes = b"") -> bytes:
    """A whole answer with a JSON body."""
    head = b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (status, _REASONS[status], len(body)) + body


def json_answer(document: object) -> bytes:
    """A document, as 200."""
    return answer(200, msgspec.json.encode(document))


class _Connection(asyncio.Protocol):
    def __init__(self, handle: Handler) -> None:
        self._handle = handle
        self._buffer = bytearray()
        self._first_byte_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if not self._buffer:
            self._first_byte_s = time.monotonic()
        self._buffer += data
        while (request := self._take()) is not None:
            self._transport.write(self._handle(request))

    def _take(self) -> Request | None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = bytes(self._buffer[:end])
        length = _LENGTH.search(head)
        until = end + 4 + (int(length[1]) if length else 0)
        if len(self._buffer) < until:
            return None
        body = bytes(self._buffer[end + 4 : until])
        del self._buffer[:until]
        method, target, _ = head.split(b" ", 2)
        return Request(method, target, head, body, self._first_byte_s)


def serve(handle: Handler, port: int) -> None:
    """Serve on the loopback interface until SIGTERM."""

    async def run() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        server = await loop.create_server(lambda: _Connection(handle), "127.0.0.1", port, backlog=4096)
        await stop.wait()
        server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
