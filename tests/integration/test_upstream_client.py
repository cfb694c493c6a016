"""The upstream client over real HTTP: what is sent, what comes of it, and whether a lost submit may have been sent."""

import asyncio
import contextlib
import gzip
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace

import aiohttp
import pytest
import trustme
from aiohttp import web
from aiohttp.test_utils import TestServer

from relay.core.egress import upstream_session
from relay.core.model import Callback, JobSpec
from relay.core.settings import Settings
from relay.dev.emulator import EmulatorSettings, start
from worker.upstream import UpstreamClient
from worker.upstream_answers import (
    Ambiguous,
    CreditsExhausted,
    Done,
    Lost,
    PollUnavailable,
    RateLimited,
    Rejected,
    StillPending,
    SubmitOutcome,
    Submitted,
    Unauthorized,
    Unavailable,
    Unsent,
    UpstreamFailed,
)

KEY = "the-upstream-key"
MAX_BYTES = 100_000
#: The store's time: Sun, 06 Nov 1994 08:48:37 GMT.
NOW_MS = 784_111_717_000
SPEC = JobSpec(
    scraper="grok",
    prompt="[latency=0] Why?",
    country="DE",
    timeout_s=120.0,
    bypass_cache=True,
    deadline_s=420,
    callback=Callback("https://example.com/", "example.com:443", ()),
    params={"mode": "MODEL_MODE_FAST", "deep": True, "n": 3},
)

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(name="session")
async def fixture_session() -> AsyncIterator[aiohttp.ClientSession]:
    """The session that the worker uses."""
    async with upstream_session(Settings.load(_env_file=None)) as session:
        yield session


@contextlib.asynccontextmanager
async def emulated(**settings: object) -> AsyncIterator[str]:
    """An emulator; yields its address."""
    runner = await start(EmulatorSettings.load(_env_file=None, failure_rate=0, **settings), "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def raw_server(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server that does with each connection what `serve` does, and then hangs up; yields its address."""
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await serve(reader, writer)
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    yield f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks)


def saying(*answers: bytes, then_reset: bool = False) -> Serve:
    """Answer each request of a connection with the next of `answers`, then hang up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        if then_reset:
            await reader.readuntil(b"\r\n\r\n")
            writer.transport.abort()

    return serve


def http(status: int, body: bytes, **headers: str) -> bytes:
    """An answer as bytes."""
    lines = [f"HTTP/1.1 {status} X", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}"]).encode() + b"\r\n\r\n" + body


def client_of(session: aiohttp.ClientSession, url: str) -> UpstreamClient:
    """A client of the upstream at `url`."""
    return UpstreamClient(session, url, max_bytes=MAX_BYTES, now_ms=lambda: NOW_MS)


async def submit_to(session: aiohttp.ClientSession, url: str, *, timeout_s: float = 5) -> SubmitOutcome:
    """One submit."""
    return await client_of(session, url).submit(SPEC, KEY, timeout_s=timeout_s)


async def test_a_job_goes_through(session: aiohttp.ClientSession) -> None:
    """Submitted, polled, and done with the upstream's result, times and price."""
    async with emulated() as url:
        client = client_of(session, url)
        submitted = await client.submit(SPEC, KEY, timeout_s=5)
        assert isinstance(submitted, Submitted)
        done = await client.poll(submitted.upstream_job_id, timeout_s=5)
    assert isinstance(done, Done)
    assert done.result.startswith(b'{"scraper":"grok"')
    assert done.credits_used == 3
    assert done.created_ms is not None
    assert done.completed_ms == done.created_ms


PROMPTS = [
    "plain",
    "a+b & c=d ?e#f %41 %zz ;g",
    " leading and trailing ",
    "two\nlines\r\n\ttab",
    "😀 \u202eright to left\u202c é e\u0301",
    "'\"<>\\|^`{}[]~!*()",
    "\x01\x7f\x85\u2028",
    "../../jobs/x",
    "😀" * 4_000,
    "é" * 4_000,
]


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: repr(prompt[:12]))
async def test_what_is_received_is_what_was_sent(session: aiohttp.ClientSession, prompt: str) -> None:
    """Every character of a prompt arrives, also where the query string is 48 kB; so does everything else."""
    spec = replace(SPEC, prompt=prompt, params={"mode": prompt[:100], "x-y.z_1": "a b+c", "deep": False, "n": 1.5})
    async with emulated() as url:
        submitted = await client_of(session, url).submit(spec, KEY, timeout_s=5)
        assert isinstance(submitted, Submitted)
        async with session.get(f"{url}/_emulator/jobs/{submitted.upstream_job_id}") as response:
            received = await response.json()
    assert (received["scraper"], received["prompt"], received["country"]) == ("grok", prompt, "DE")
    assert (received["timeout"], received["bypass_cache"]) == ("120", "true")
    assert received["params"] == {"mode": prompt[:100], "x-y.z_1": "a b+c", "deep": "false", "n": "1.5"}


@pytest.mark.parametrize("base", ["", "/", "/v2", "/v2/"])
async def test_the_key_travels_in_the_header_only(session: aiohttp.ClientSession, base: str) -> None:
    """URLs get logged; the base URL's own path is kept."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(http(202, b'{"job_id":"j"}'))

    async with raw_server(serve) as url:
        assert await submit_to(session, url + base) == Submitted("j")
    line, _, headers = seen[0].partition(b"\r\n")
    assert line.startswith(b"POST %s/scrapers/grok/jobs?prompt=" % base.rstrip("/").encode())
    assert KEY.encode() not in line
    assert b"\r\nX-API-Key: the-upstream-key\r\n" in headers


@pytest.mark.parametrize(
    "job_id", ["../x", "..", ".", "a/b", "a?b#c", "a%2Fb", " ", "é😀", "\x00\n", "x" * 5_000, "0b7e0f1c-4a5d"]
)
async def test_a_job_id_is_one_segment_of_the_path(session: aiohttp.ClientSession, job_id: str) -> None:
    """Whatever the upstream calls a job, nothing else is asked for."""
    asked: list[tuple[str, str]] = []

    async def handler(request: web.Request) -> web.Response:
        asked.append((request.match_info["job_id"], request.query_string))
        return web.json_response({"status": "pending"})

    app = web.Application()
    app.router.add_get("/jobs/{job_id:[^/]*}", handler)
    async with TestServer(app, host="127.0.0.1") as server:
        client = client_of(session, str(server.make_url("")))
        assert await client.poll(job_id, timeout_s=5) == StillPending()
    assert asked == [(job_id, "")]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("submit_400", Rejected),
        ("submit_401", Unauthorized),
        ("submit_408", Unavailable),
        ("submit_429", RateLimited),
        ("submit_credits", CreditsExhausted),
        ("submit_500", Unavailable),
        ("submit_503", Unavailable),
        ("submit_504", Unavailable),
        ("submit_garbage", Ambiguous),
        ("submit_hang", Ambiguous),
        ("submit_reset", Ambiguous),
        ("submit_lost", Ambiguous),
        ("submit_stall", Ambiguous),
    ],
)
async def test_every_fault_of_a_submit_has_its_outcome(
    session: aiohttp.ClientSession, fault: str, kind: type[SubmitOutcome]
) -> None:
    """What the upstream does wrong is told apart, and the next submit goes through."""
    async with emulated(fault_sequence=fault, retry_after_s=7) as url:
        client = client_of(session, url)
        outcome = await client.submit(SPEC, KEY, timeout_s=0.3)
        assert isinstance(outcome, kind)
        if isinstance(outcome, RateLimited):
            assert outcome.retry_after_s == 7
        assert isinstance(await client.submit(SPEC, KEY, timeout_s=5), Submitted)


@pytest.mark.parametrize("fault", ["404", "408", "429", "500", "503", "504", "garbage", "hang", "reset"])
async def test_every_fault_of_a_poll_has_its_outcome(session: aiohttp.ClientSession, fault: str) -> None:
    """Only a 404 says that the job is lost; after everything else it is asked for again."""
    async with emulated(fault_sequence=f"poll_{fault}") as url:
        client = client_of(session, url)
        submitted = await client.submit(SPEC, KEY, timeout_s=5)
        assert isinstance(submitted, Submitted)
        outcome = await client.poll(submitted.upstream_job_id, timeout_s=0.3)
        assert isinstance(outcome, Lost if fault == "404" else PollUnavailable)
        assert isinstance(await client.poll(submitted.upstream_job_id, timeout_s=5), Done)


async def test_a_url_that_is_too_long_is_rejected(session: aiohttp.ClientSession) -> None:
    """A 414 is for good: the same prompt would be as long again."""
    async with emulated(max_url_bytes=1_000) as url:
        outcome = await client_of(session, url).submit(replace(SPEC, prompt="😀" * 4_000), KEY, timeout_s=5)
    assert outcome == Rejected(414, "URI too long.")


async def test_a_failed_and_an_unfinished_job(session: aiohttp.ClientSession) -> None:
    """The upstream's own word for why it failed is passed on."""
    async with emulated() as url:
        client = client_of(session, url)
        outcomes = []
        for prompt in ("[latency=0][fail]", "[never]"):
            submitted = await client.submit(replace(SPEC, prompt=prompt), KEY, timeout_s=5)
            assert isinstance(submitted, Submitted)
            outcomes.append(await client.poll(submitted.upstream_job_id, timeout_s=5))
    failed, unfinished = outcomes
    assert isinstance(failed, UpstreamFailed)
    assert failed.message == "execution failed"
    assert failed.created_ms is not None
    assert failed.completed_ms == failed.created_ms
    assert unfinished == StillPending()


async def test_a_refused_connection_is_unsent(session: aiohttp.ClientSession, unused_tcp_port: int) -> None:
    """Nothing listens, so nothing was paid for."""
    url = f"http://127.0.0.1:{unused_tcp_port}"
    assert await submit_to(session, url) == Unsent("could not connect: connection refused")
    assert await client_of(session, url).poll("j", timeout_s=5) == PollUnavailable(
        "could not connect: connection refused"
    )


async def test_a_name_that_does_not_resolve_is_unsent(session: aiohttp.ClientSession) -> None:
    """No address, no request (RFC 6761: `.invalid` has none)."""
    assert await submit_to(session, "http://upstream.invalid") == Unsent("its name does not resolve")


@pytest.mark.parametrize("url", ["http://", "http:///path"])
async def test_a_url_that_is_none_is_unsent(session: aiohttp.ClientSession, url: str) -> None:
    """A setting that names no host costs nothing."""
    assert await submit_to(session, url) == Unsent("its URL is none")


async def test_a_connection_that_takes_too_long_is_unsent(session: aiohttp.ClientSession) -> None:
    """A handshake that never ends is given up while it is certain that nothing was sent."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with raw_server(serve) as url:
        began_s = time.monotonic()
        outcome = await submit_to(session, url.replace("http", "https"), timeout_s=0.5)
    assert outcome == Unsent("no connection in time")
    assert time.monotonic() - began_s < 0.5


async def test_an_untrusted_certificate_is_unsent(session: aiohttp.ClientSession) -> None:
    """The key is not shown to somebody else."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read())

    async with raw_server(serve, tls) as url:
        assert await submit_to(session, url) == Unsent("its certificate is not trusted")
    assert not any(seen)


async def test_a_server_without_tls_is_unsent(session: aiohttp.ClientSession) -> None:
    """A handshake that fails comes before the request."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(http(400, b"not TLS"))

    async with raw_server(serve) as url:
        outcome = await submit_to(session, url.replace("http", "https"))
    assert outcome == Unsent("no TLS with it")


async def no_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take the request, and say nothing."""
    await reader.readuntil(b"\r\n\r\n")
    await reader.read()


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take the request, and reset the connection."""
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.abort()


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with a byte now and then."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 202 X\r\nContent-Length: 1000\r\n\r\n")
    while not reader.at_eof():
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer without end, as fast as it is read."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        await writer.drain()


BROKEN: Mapping[str, Serve] = {
    "silent": no_answer,
    "reset": reset,
    "closed": saying(b""),
    "drips": drip,
    "endless": endless,
    "broken off in the headers": saying(b"HTTP/1.1 202 Acc"),
    "broken off in the body": saying(b'HTTP/1.1 202 X\r\nContent-Length: 900\r\n\r\n{"job_'),
    "broken off in a chunk": saying(b'HTTP/1.1 202 X\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"j'),
    "wrong chunks": saying(b"HTTP/1.1 202 X\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "not HTTP": saying(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    "no status": saying(b"HTTP/1.1 abc\r\n\r\n"),
    "bad length": saying(b"HTTP/1.1 202 X\r\nContent-Length: -5\r\n\r\n"),
    "two lengths": saying(b"HTTP/1.1 202 X\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\n12345"),
    "bytes": saying(bytes(range(256))),
    "long header": saying(b"HTTP/1.1 202 X\r\nA: " + b"x" * 100_000 + b"\r\n\r\n"),
    "many headers": saying(b"HTTP/1.1 202 X\r\n" + b"A: b\r\n" * 50_000 + b"\r\n"),
    "not gzip": saying(http(202, b'{"job_id":"j"}', Content_Encoding="gzip")),
    "not deflate": saying(http(202, b"\xff" * 20, Content_Encoding="deflate")),
    "gzip bomb": saying(http(202, gzip.compress(b"\0" * 10_000_000), Content_Encoding="gzip")),
    "HTML": saying(http(200, b"<html>hello</html>", Content_Type="text/html")),
    "not UTF-8": saying(http(202, b'{"job_id": "\xff"}')),
    "nothing": saying(http(204, b"")),
}


@pytest.mark.parametrize("serve", BROKEN.values(), ids=BROKEN.keys())
async def test_an_answer_that_is_none_is_ambiguous(session: aiohttp.ClientSession, serve: Serve) -> None:
    """The request was sent, so there may be a job; nothing is raised, and it ends in time."""
    async with raw_server(serve) as url:
        client = client_of(session, url)
        began_s = time.monotonic()
        assert isinstance(await client.submit(SPEC, KEY, timeout_s=0.5), Ambiguous)
        polled = await client.poll("j", timeout_s=0.5)
        assert time.monotonic() - began_s < 2
    assert isinstance(polled, PollUnavailable | UpstreamFailed)


async def test_a_kept_alive_connection_that_breaks_is_ambiguous(session: aiohttp.ClientSession) -> None:
    """The second request on a connection may have been read before it was reset; it is sent once."""
    async with raw_server(saying(http(202, b'{"job_id":"j"}'), then_reset=True)) as url:
        client = client_of(session, url)
        assert await client.submit(SPEC, KEY, timeout_s=5) == Submitted("j")
        assert await client.submit(SPEC, KEY, timeout_s=5) == Ambiguous("the connection broke")


async def test_a_connection_that_was_closed_while_idle_is_not_used(session: aiohttp.ClientSession) -> None:
    """What the server closed after an answer is seen to be closed: the next submit has a connection of its own."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await saying(http(202, b'{"job_id":"j"}'))(reader, writer)

    async with raw_server(serve) as url:
        for n in range(1, 4):
            assert await submit_to(session, url) == Submitted("j")
            async with asyncio.timeout(5):
                assert session.connector is not None
                # The close arrives a moment after the answer.
                while any(p.is_connected() for kept in session.connector._conns.values() for p, _ in kept):
                    await asyncio.sleep(0.001)
            assert connections == n


@pytest.mark.parametrize(
    "body", [b'{"detail": "Sc', b'{"detail": "' + b"x" * 200_000 + b'"}'], ids=["broken off", "too long"]
)
async def test_a_refusal_whose_words_are_lost_is_a_refusal(session: aiohttp.ClientSession, body: bytes) -> None:
    """A status that came says that there is no job, whatever becomes of the body."""
    answer = b"HTTP/1.1 %d X\r\nRetry-After: 9\r\nContent-Length: 300000\r\n\r\n" + body
    async with raw_server(saying(answer % 503)) as url:
        assert await submit_to(session, url) == Unavailable("status 503", 9)
        assert await client_of(session, url).poll("j", timeout_s=5) == PollUnavailable("status 503", 9)
    async with raw_server(saying(answer % 422)) as url:
        assert await submit_to(session, url) == Rejected(422, "the upstream answered with status 422")


async def test_a_date_is_judged_by_the_store_s_time(session: aiohttp.ClientSession) -> None:
    """`Retry-After` as a date is so far away as the store's clock says, whatever this machine's says."""
    answer = b"HTTP/1.1 503 X\r\nRetry-After: Sun, 06 Nov 1994 08:49:07 GMT\r\nContent-Length: 0\r\n\r\n"
    async with raw_server(saying(answer)) as url:
        assert await submit_to(session, url) == Unavailable("status 503", 30)


async def test_a_refusal_that_drips_ends_in_time(session: aiohttp.ClientSession) -> None:
    """The status counts, and the time limit is for all of it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 400 X\r\nContent-Length: 1000\r\n\r\n{")
        await reader.read()

    async with raw_server(serve) as url:
        began_s = time.monotonic()
        assert await submit_to(session, url, timeout_s=0.3) == Rejected(400, "the upstream answered with status 400")
        assert time.monotonic() - began_s < 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(session: aiohttp.ClientSession, status: int) -> None:
    """The key goes nowhere else; an upstream that redirects is not available."""
    async with raw_server(saying(http(status, b"", Location="/elsewhere", Connection="close"))) as url:
        assert await submit_to(session, url) == Unavailable(f"status {status}")
        assert await client_of(session, url).poll("j", timeout_s=5) == PollUnavailable(f"status {status}")
        # Nor with a session that was not built for it.
        async with aiohttp.ClientSession() as plain:
            assert await submit_to(plain, url) == Unavailable(f"status {status}")


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_a_result_that_is_too_large_fails_the_job(session: aiohttp.ClientSession, encoding: str) -> None:
    """It would be as large the next time; the limit counts what it expands to, and up to the limit it is read."""

    def answer(size: int) -> bytes:
        document = b'{"status":"done","result":"%s"}'
        body = document % (b"x" * (size - len(document) + 2))
        assert len(body) == size
        return http(200, gzip.compress(body) if encoding == "gzip" else body, Content_Encoding=encoding)

    async with raw_server(saying(answer(MAX_BYTES))) as url:
        assert isinstance(await client_of(session, url).poll("j", timeout_s=5), Done)
    async with raw_server(saying(answer(MAX_BYTES + 1))) as url:
        assert await client_of(session, url).poll("j", timeout_s=5) == UpstreamFailed("result larger than 100000 bytes")


@pytest.mark.parametrize("key", ["", "a\r\nX: y", "a\nb", "a\x00b", "clé", "\ud800"])
async def test_a_key_that_no_header_takes_is_not_sent(session: aiohttp.ClientSession, key: str) -> None:
    """It is refused as the upstream would refuse it, without a request."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))

    async with raw_server(serve) as url:
        assert isinstance(await client_of(session, url).submit(SPEC, key, timeout_s=5), Unauthorized)
    assert asked == []


async def test_a_submit_that_is_cancelled_is_cancelled(session: aiohttp.ClientSession) -> None:
    """Stopping is no outcome."""
    sent = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        sent.set()
        await reader.read()

    async with raw_server(serve) as url:
        submit = asyncio.ensure_future(submit_to(session, url))
        async with asyncio.timeout(5):
            await sent.wait()
        submit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submit
