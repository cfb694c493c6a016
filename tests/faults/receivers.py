"""Receivers that misbehave, as TCP servers on loopback. Alone knows what a bad receiver says."""

import asyncio
import contextlib
import datetime
import gzip
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import trustme

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

_LINE = b"HTTP/1.1 %d Some\r\n"
_BOMB = gzip.compress(b"\0" * 50_000_000)
_DRIP_S = 0.05


class Receiver:
    """One port, at which every connection is served as a test says."""

    def __init__(self, serve: Serve, tls: ssl.SSLContext | None = None) -> None:
        self._serve = serve
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        #: Connections, in all.
        self.connections = 0
        self.url = ""

    @property
    def open(self) -> int:
        """Connections that are open now."""
        return len(self._tasks)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["Receiver"]:
        """Serve it."""
        server = await asyncio.start_server(self._run, "127.0.0.1", 0, ssl=self._tls)
        host, port = server.sockets[0].getsockname()
        self.url = f"{'https' if self._tls else 'http'}://{host}:{port}/hook"
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=5)

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the attempt was over, or the test is
        finally:
            self._tasks.discard(task)
            writer.transport.abort()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """One request, head and body, as it came."""
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return head + await reader.readexactly(int(line.split(b":")[1]))
    return head


def answers(status: int, *headers: bytes) -> Serve:
    """Answers with a status and headers, and without a body."""
    return says(_LINE % status + b"".join(line + b"\r\n" for line in (b"Content-Length: 0", *headers)) + b"\r\n")


def says(text: bytes) -> Serve:
    """Reads a request, says `text`, and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(text)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    return serve


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes what comes and never answers; ends when the other side hangs up."""
    while await reader.read(65536):
        pass


async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads a request and resets the connection."""
    await read_request(reader)


def repeats(first: bytes, again: bytes, pause_s: float = 0) -> Serve:
    """Reads a request, says `first`, and then `again` and again for as long as somebody listens."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(first)
        while True:
            writer.write(again)
            await writer.drain()
            await asyncio.sleep(pause_s)

    return serve


drips_headers = repeats(_LINE % 200, b"X-More: yes\r\n", _DRIP_S)
drips_a_body = repeats(_LINE % 200 + b"\r\n", b"x", _DRIP_S)
endless_body = repeats(_LINE % 500 + b"\r\n", b"x" * 65_536)
gzip_bomb = repeats(_LINE % 500 + b"Content-Encoding: gzip\r\n\r\n", _BOMB)
many_headers = says(_LINE % 200 + b"".join(b"X-%d: y\r\n" % n for n in range(500)) + b"\r\n")
not_http = says(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")


def certificate(authority: trustme.CA, *, days: int = 30) -> ssl.SSLContext:
    """A server's context with a certificate for loopback that ends in `days` from now."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    now = datetime.datetime.now(datetime.UTC)
    ends = now + datetime.timedelta(days=days)
    authority.issue_cert("127.0.0.1", not_before=now - datetime.timedelta(days=60), not_after=ends).configure_cert(
        context
    )
    return context
