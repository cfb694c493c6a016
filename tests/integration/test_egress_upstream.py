"""The session for the upstream: one request means one request, and answers are read within a limit."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from relay.core.egress import AnswerTooLarge, read_bounded, upstream_session
from relay.core.settings import Settings


@pytest.fixture(name="session")
async def fixture_session() -> AsyncIterator[aiohttp.ClientSession]:
    """A session with default settings."""
    async with upstream_session(Settings.load(_env_file=None)) as session:
        yield session


Start = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[TestServer]]


@pytest.fixture(name="start")
async def fixture_start() -> AsyncIterator[Start]:
    """Start a server that answers everything with one handler."""
    servers: list[TestServer] = []

    async def start(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> TestServer:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", handler)
        server = TestServer(app, host="127.0.0.1")
        await server.start_server()
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.close()


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_is_not_repeated_on_a_reset_connection(session: aiohttp.ClientSession, method: str) -> None:
    """A poll that meets a reset kept-alive connection is sent once, and the caller learns of it."""
    requests = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await reader.readuntil(b"\r\n\r\n")
        requests += 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await reader.readuntil(b"\r\n\r\n")
        requests += 1
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jobs/1"
    async with session.request(method, url) as response:
        assert await read_bounded(response, 10) == b"ok"
    with pytest.raises((aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)):
        await session.request(method, url)
    assert requests == 2
    server.close()
    await server.wait_closed()


async def test_a_refused_connection_is_known_to_be_unsent(session: aiohttp.ClientSession, unused_tcp_port: int) -> None:
    """What was never sent is told apart from what was lost: only the second may have cost money."""
    with pytest.raises(aiohttp.ClientConnectorError):
        await session.get(f"http://127.0.0.1:{unused_tcp_port}/")


async def test_the_environment_and_cookies_play_no_part(
    session: aiohttp.ClientSession, start: Start, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    """No proxy from the environment, and no cookie comes back."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{unused_tcp_port}")
    cookies: list[str | None] = []

    async def handler(request: web.Request) -> web.Response:
        cookies.append(request.headers.get("Cookie"))
        return web.Response(headers={"Set-Cookie": "a=b"})

    server = await start(handler)
    for _ in range(2):
        async with session.get(server.make_url("/")) as response:
            assert response.status == 200
    assert cookies == [None, None]


async def test_answers_are_decompressed_up_to_a_limit(session: aiohttp.ClientSession, start: Start) -> None:
    """The limit counts what the answer expands to, not what travelled."""
    bomb = gzip.compress(b"\0" * 10_000_000)

    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    server = await start(handler)
    async with session.get(server.make_url("/")) as response:
        assert len(await read_bounded(response, 10_000_000)) == 10_000_000
    async with session.get(server.make_url("/")) as response:
        with pytest.raises(AnswerTooLarge):
            await read_bounded(response, 9_999_999)
