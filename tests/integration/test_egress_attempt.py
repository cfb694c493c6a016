"""Attempts against receivers that behave well, badly, and worse: over real sockets on loopback."""

import asyncio
import datetime
import gzip
import resource
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import aiohttp
import pytest
import trustme
from yarl import URL

from relay.core.egress import (
    Answered,
    BlockedAddress,
    CallbackGuard,
    CallbackSession,
    NotAnswered,
    OutOfResources,
    RefusedUrl,
    Reply,
    callback_session,
    post_callback,
)
from relay.core.model import AttemptOutcome, ClientName
from relay.core.settings import Client, Settings

Receiver = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

PUBLIC = "93.184.216.34"


class ChangingResolver:
    """Answers each name from a list, one entry a question; the last one stays."""

    def __init__(self, answers: dict[str, list[list[str]]]) -> None:
        self.answers = answers

    async def resolve_host(self, host: str) -> list[str]:
        entries = self.answers.get(host)
        if entries is None:
            raise OSError(None, "no such name")
        answer = entries[0] if len(entries) == 1 else entries.pop(0)
        if not answer:
            await asyncio.Event().wait()
        return answer

    async def close(self) -> None:
        """Nothing to give back."""


class Bench:
    """Receivers and sessions of one test, closed at its end."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    async def receiver(self, serve: Receiver, tls: ssl.SSLContext | None = None) -> int:
        """The port of a receiver that hands every connection to `serve`."""
        tasks: set[asyncio.Task[None]] = set()

        async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                await serve(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass  # the attempt was over, or the test is
            finally:
                writer.transport.abort()

        server = await asyncio.start_server(run, "127.0.0.1", 0, ssl=tls)

        async def stop() -> None:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._stack.push_async_callback(stop)
        port: int = server.sockets[0].getsockname()[1]
        return port

    def session(
        self,
        answers: dict[str, list[list[str]]] | None = None,
        tls: ssl.SSLContext | None = None,
        allowed: str = "127.0.0.0/8,::1/128",
    ) -> CallbackSession:
        """A session that may call loopback."""
        settings = Settings.load(_env_file=None, callback_allowed_networks=allowed, callback_refused_ports="22")
        guard = CallbackGuard(settings, ChangingResolver(answers or {}))
        session = callback_session(settings, guard, tls)
        self._stack.push_async_callback(guard.close)
        self._stack.push_async_callback(session.close)
        return session


@pytest.fixture(name="bench")
async def fixture_bench() -> AsyncIterator[Bench]:
    """Receivers and sessions."""
    async with AsyncExitStack() as stack:
        yield Bench(stack)


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """One request, head and body, as it came."""
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return head + await reader.readexactly(int(line.split(b":")[1]))
    return head


def saying(*parts: bytes, then: str = "close") -> Receiver:
    """A receiver that reads a request and says `parts`; `then` it closes, resets or waits."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for part in parts:
            writer.write(part)
            await writer.drain()
        if then == "wait":
            await asyncio.Event().wait()
        if then == "close":
            writer.close()
            await writer.wait_closed()

    return serve


async def post(session: CallbackSession, url: str, timeout_s: float = 5.0, body: bytes = b"{}") -> Reply:
    """An attempt with plain headers."""
    return await post_callback(session, url, {"Content-Type": "application/json"}, body, timeout_s)


async def test_the_request_goes_out_as_it_was_made(bench: Bench) -> None:
    """Path, query, header names and values, and body reach the receiver byte for byte, with nothing unexpected."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()

    port = await bench.receiver(serve)
    headers = {
        "Content-Type": "application/cloudevents+json",
        "User-Agent": "scrapellm-relay/1",
        "webhook-id": "evt_1",
        "WebHook-Oddly-CASED": "a\tb  c",
        "authorization": "Bearer t",
        "x": "",
    }
    body = '{"a": "\u00fc"}\n'.encode()
    reply = await post_callback(bench.session(), f"http://localhost:{port}/a/../%2f?b=+%zz&&c", headers, body, 5.0)
    assert isinstance(reply, Answered)
    assert (reply.status, reply.excerpt, reply.retry_after) == (204, "", None)
    head, _, sent = seen[0].partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    assert first == "POST /a/../%2f?b=+%zz&&c HTTP/1.1"
    assert sent == body
    for name, value in headers.items():
        assert f"{name}: {value}" in lines
    others = {line for line in lines if line.partition(":")[0] not in headers}
    assert others == {
        f"Host: localhost:{port}",
        "Accept: */*",
        "Accept-Encoding: identity",
        f"Content-Length: {len(body)}",
    }


async def test_a_large_body_arrives_whole(bench: Bench) -> None:
    """Results of several megabytes are sent with their length, and without a warning."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    body = bytes(range(256)) * 20_000
    reply = await post(bench.session(), f"http://127.0.0.1:{await bench.receiver(serve)}/", body=body)
    assert isinstance(reply, Answered)
    assert seen[0].endswith(b"\r\n\r\n" + body)


@pytest.mark.parametrize("status", [200, 201, 204, 299, 301, 302, 307, 308, 400, 404, 410, 429, 500, 503, 599])
async def test_a_status_is_an_answer(bench: Bench, status: int) -> None:
    """Whatever the status, the attempt reports it and leaves the judgement to the policy."""
    head = f"HTTP/1.1 {status} Whatever\r\nContent-Length: 0\r\nRetry-After: 120\r\n\r\n".encode()
    reply = await post(bench.session(), f"http://127.0.0.1:{await bench.receiver(saying(head))}/")
    assert isinstance(reply, Answered)
    assert (reply.status, reply.retry_after) == (status, "120")
    assert 0 <= reply.duration_ms < 5000


async def test_redirects_are_not_followed(bench: Bench) -> None:
    """A redirect to loopback, or anywhere, is an answer like another."""
    elsewhere: list[bytes] = []

    async def target(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        elsewhere.append(await read_request(reader))

    location = f"http://127.0.0.1:{await bench.receiver(target)}/".encode()
    head = b"HTTP/1.1 307 Temporary Redirect\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n"
    reply = await post(bench.session(), f"http://127.0.0.1:{await bench.receiver(saying(head))}/")
    assert isinstance(reply, Answered)
    assert reply.status == 307
    assert elsewhere == []


@pytest.mark.parametrize(
    ("body", "excerpt"),
    [
        (b"thanks", "thanks"),
        (b"a\r\nb\tc\n", "a\nb\tc\n"),
        (b"\x1b[31mred\x00\x07\x9b", "\ufffd[31mred\ufffd\ufffd\ufffd"),
        ("\u202eevil\u2066\ufeff".encode(), "\ufffdevil\ufffd\ufffd"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        ("\u00fc\U0001f600".encode(), "\u00fc\U0001f600"),
        (b"a" * 1024, "a" * 1024),
        (b"a" * 5000, "a" * 1024),
        (b"a" * 50_000, "a" * 1024),
        (b"a" * 1023 + "\U0001f600".encode() * 9, "a" * 1023),
        (b"\xff" * 5000, "\ufffd" * 341),
        (gzip.compress(b"x", mtime=0), None),
    ],
)
async def test_the_excerpt_is_short_and_harmless(bench: Bench, body: bytes, excerpt: str | None) -> None:
    """At most 1 KiB of UTF-8, decoded with replacement, nothing in it that a terminal would act on."""
    head = f"HTTP/1.1 500 No\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    reply = await post(bench.session(), f"http://127.0.0.1:{await bench.receiver(saying(head + body))}/")
    assert isinstance(reply, Answered)
    assert len(reply.excerpt.encode()) <= 1024
    assert "\x1b" not in reply.excerpt
    if excerpt is not None:
        assert reply.excerpt == excerpt


@pytest.mark.parametrize("size", [0, 2, 1024, 1025, 10_000])
async def test_connections_are_used_again(bench: Bench, size: int) -> None:
    """Answers of ordinary size are read to their end, so that the next callback needs no new connection."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await read_request(reader)
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode() + b"x" * size)
            await writer.drain()

    url = f"http://127.0.0.1:{await bench.receiver(serve)}/"
    session = bench.session()
    for _ in range(3):
        assert isinstance(await post(session, url), Answered)
    assert connections == 1


async def test_a_lost_connection_is_not_retried(bench: Bench) -> None:
    """One attempt is one request: a kept-alive connection that is reset ends it."""
    requests = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await read_request(reader)
        requests += 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await read_request(reader)
        requests += 1

    url = f"http://127.0.0.1:{await bench.receiver(serve)}/"
    session = bench.session()
    assert isinstance(await post(session, url), Answered)
    lost = await post(session, url)
    assert isinstance(lost, NotAnswered)
    assert lost.outcome is AttemptOutcome.CONNECTION_ERROR
    assert requests == 2


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "said",
    [
        pytest.param([OK, b"Content-Length: 100\r\n\r\n", b"half"], id="stalled"),
        pytest.param([OK, b"Transfer-Encoding: chunked\r\n\r\n", b"4\r\nhalf\r\n"], id="stalled in chunks"),
        pytest.param([OK, b"\r\n", b"half"], id="until the end of the connection"),
    ],
)
async def test_the_status_decides_though_the_body_stalls(bench: Bench, said: list[bytes]) -> None:
    """A receiver that said 200 has the callback; its body is not waited for longer than about a second."""
    reply = await post(bench.session(), f"http://127.0.0.1:{await bench.receiver(saying(*said, then='wait'))}/")
    assert isinstance(reply, Answered)
    assert (reply.status, reply.excerpt) == (200, "half")
    assert 500 < reply.duration_ms < 3000


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 100\r\n\r\nhalf", b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"]
)
async def test_the_status_decides_though_the_body_is_cut_short(bench: Bench, framing: bytes) -> None:
    """A body that is not what the headers promised changes nothing about the status."""
    reply = await post(bench.session(), f"http://127.0.0.1:{await bench.receiver(saying(OK + framing))}/")
    assert isinstance(reply, Answered)
    assert (reply.status, reply.excerpt) == (200, "half")


@pytest.mark.parametrize("drip", [b"HTTP/1.1 200 OK\r\n", b""])
async def test_dripping_headers_and_silence_end_in_time(bench: Bench, drip: bytes) -> None:
    """However a receiver keeps a connection busy, the attempt ends with its total time."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(drip)
        while drip:
            writer.write(b"X-More: yes\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)
        await asyncio.Event().wait()

    reply = await post(bench.session(), f"http://127.0.0.1:{await bench.receiver(serve)}/", timeout_s=0.6)
    assert isinstance(reply, NotAnswered)
    assert reply.outcome is AttemptOutcome.TIMEOUT
    assert 500 < reply.duration_ms < 1500


async def test_a_dripping_body_ends_within_the_total_time(bench: Bench) -> None:
    """A body begun just before the end of the total time does not get a second of its own."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await asyncio.sleep(0.3)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    reply = await post(bench.session(), f"http://127.0.0.1:{await bench.receiver(serve)}/", timeout_s=0.6)
    assert isinstance(reply, Answered)
    assert reply.excerpt.startswith("x")
    assert reply.duration_ms < 1000


async def test_slow_dns_counts_against_the_total_time(bench: Bench) -> None:
    """The DNS is part of the attempt."""
    reply = await post(bench.session({"slow.example": [[]]}), "http://slow.example/", timeout_s=0.3)
    assert isinstance(reply, NotAnswered)
    assert reply.outcome is AttemptOutcome.TIMEOUT


async def test_a_receiver_that_reads_nothing_ends_in_time(bench: Bench) -> None:
    """A body that cannot be written is given up with the attempt."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a stream's transport reads and writes
        await asyncio.Event().wait()

    url = f"http://127.0.0.1:{await bench.receiver(serve)}/"
    reply = await post(bench.session(), url, timeout_s=0.5, body=b"x" * 16_000_000)
    assert isinstance(reply, NotAnswered)
    assert reply.outcome is AttemptOutcome.TIMEOUT


async def test_silence_in_the_tls_handshake_ends_in_time(bench: Bench) -> None:
    """A port that accepts and says nothing does not hold an https attempt longer than any other."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    reply = await post(bench.session(), f"https://127.0.0.1:{await bench.receiver(serve)}/", timeout_s=0.4)
    assert isinstance(reply, NotAnswered)
    assert reply.outcome is AttemptOutcome.TIMEOUT


@pytest.mark.parametrize("bomb", [False, True])
async def test_memory_stays_flat_under_endless_bodies(bench: Bench, bomb: bool) -> None:
    """Neither an endless body nor one that would expand a thousandfold is taken in."""
    chunk = gzip.compress(b"\0" * 50_000_000) if bomb else b"x" * 65_536
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(OK + (b"Content-Encoding: gzip\r\n\r\n" if bomb else b"\r\n"))
        while sent < 500_000_000:
            writer.write(chunk)
            sent += len(chunk)
            await writer.drain()

    url = f"http://127.0.0.1:{await bench.receiver(serve)}/"
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reply = await post(bench.session(), url)
    assert isinstance(reply, Answered)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 20 * 1024
    assert sent < 50_000_000


@pytest.mark.parametrize(
    "serve",
    [
        pytest.param(saying(), id="closed without an answer"),
        pytest.param(saying(then="reset"), id="reset"),
        pytest.param(saying(b"SSH-2.0-OpenSSH_9.9\r\n\r\n", then="wait"), id="ssh"),
        pytest.param(saying(b"\x00\xff" * 500 + b"\r\n\r\n", then="wait"), id="binary"),
        pytest.param(saying(b"HTTP/1.1 banana\r\n\r\n", then="wait"), id="bad status"),
        pytest.param(saying(OK + b"".join(b"X-%d: y\r\n" % n for n in range(500)) + b"\r\n"), id="500 headers"),
        pytest.param(saying(OK + b"X: " + b"y" * 100_000 + b"\r\n\r\n", then="wait"), id="long header"),
        pytest.param(saying(OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx"), id="two lengths"),
        pytest.param(saying(OK + b"Content-Length: 5"), id="cut in the headers"),
    ],
)
async def test_what_is_not_http_is_a_connection_error(bench: Bench, serve: Receiver) -> None:
    """Garbage, resets and absurd headers end the attempt at once, classified, and nothing of them in the error."""
    reply = await post(bench.session(), f"http://127.0.0.1:{await bench.receiver(serve)}/?token=sesame")
    assert isinstance(reply, NotAnswered)
    assert reply.outcome is AttemptOutcome.CONNECTION_ERROR
    assert reply.duration_ms < 3000
    assert len(reply.error) < 120
    assert "sesame" not in reply.error
    assert "banana" not in reply.error
    assert "SSH" not in reply.error


async def test_a_refused_connection_is_a_connection_error(bench: Bench, unused_tcp_port: int) -> None:
    """Nobody listening is said as the system says it."""
    reply = await post(bench.session(), f"http://127.0.0.1:{unused_tcp_port}/")
    assert isinstance(reply, NotAnswered)
    assert (reply.outcome, reply.error) == (AttemptOutcome.CONNECTION_ERROR, "could not connect: connection refused")


async def test_too_few_descriptors_are_no_fault_of_the_receiver(bench: Bench) -> None:
    """Without a descriptor nothing is sent, and that is no attempt; with one again, the callback goes out."""
    session, port = bench.session(), await bench.receiver(saying(b"HTTP/1.1 204 No Content\r\n\r\n"))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with tempfile.TemporaryFile() as file:
        free = file.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        with pytest.raises(OutOfResources, match=r"^too many open files$"):
            await post(session, f"http://127.0.0.1:{port}/")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert isinstance(await post(session, f"http://127.0.0.1:{port}/"), Answered)


async def test_an_unknown_name_is_a_connection_error(bench: Bench) -> None:
    """NXDOMAIN is retried like any other failure to connect."""
    reply = await post(bench.session(), "http://nowhere.example/")
    assert isinstance(reply, NotAnswered)
    assert reply.outcome is AttemptOutcome.CONNECTION_ERROR
    assert reply.error == "the host name could not be resolved"


def server_tls(authority: trustme.CA, host: str = "127.0.0.1", days: int = 30) -> ssl.SSLContext:
    """A server's context with a certificate for `host`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    now = datetime.datetime.now(datetime.UTC)
    begins, ends = now - datetime.timedelta(days=60), now + datetime.timedelta(days=days)
    authority.issue_cert(host, not_before=begins, not_after=ends).configure_cert(context)
    return context


def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    """A client's context that trusts `authority` only."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_a_good_certificate_is_accepted(bench: Bench) -> None:
    """https works, by address and by name."""
    authority = trustme.CA()
    for host in ("127.0.0.1", "localhost"):
        port = await bench.receiver(saying(OK + b"Content-Length: 0\r\n\r\n"), server_tls(authority, host))
        reply = await post(bench.session(tls=client_tls(authority)), f"https://{host}:{port}/")
        assert isinstance(reply, Answered)


@pytest.mark.parametrize(
    ("host", "days", "trusted", "said"),
    [
        ("127.0.0.1", -1, True, "expired"),
        ("other.example", 30, True, "mismatch"),
        ("127.0.0.1", 30, False, "certificate"),
    ],
)
async def test_bad_certificates_are_tls_errors(bench: Bench, host: str, days: int, trusted: bool, said: str) -> None:
    """Expired, for another host, or of nobody we trust: nothing is sent, and the log says why."""
    authority = trustme.CA()
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read(10))

    port = await bench.receiver(serve, server_tls(authority, host, days))
    session = bench.session(tls=client_tls(authority if trusted else trustme.CA()))
    reply = await post(session, f"https://127.0.0.1:{port}/")
    assert isinstance(reply, NotAnswered)
    assert reply.outcome is AttemptOutcome.TLS_ERROR
    assert said in reply.error
    assert seen in ([], [b""])


async def test_plain_http_on_an_https_url_is_a_tls_error(bench: Bench) -> None:
    """A receiver without TLS behind an https URL is told apart from one that is down."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        await asyncio.Event().wait()

    reply = await post(bench.session(), f"https://127.0.0.1:{await bench.receiver(serve)}/")
    assert isinstance(reply, NotAnswered)
    assert reply.outcome is AttemptOutcome.TLS_ERROR


@pytest.mark.parametrize(
    "answer",
    [["10.0.0.1"], ["127.0.0.1", "10.0.0.1"], ["10.0.0.1", "127.0.0.1"], ["169.254.169.254", "::1"], ["fe80::1"]],
)
async def test_an_answer_with_a_refused_address_blocks_the_attempt(bench: Bench, answer: list[str]) -> None:
    """The whole answer is refused: the address that could be called is not called either."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read(1))

    port = await bench.receiver(serve)
    reply = await post(bench.session({"hook.example": [answer]}), f"http://hook.example:{port}/")
    assert isinstance(reply, NotAnswered)
    assert reply.outcome is AttemptOutcome.BLOCKED_ADDRESS
    assert not any(address in reply.error for address in answer)
    assert seen == []


async def test_a_name_that_changes_after_acceptance_is_blocked(bench: Bench) -> None:
    """The address is judged when sent, whatever it was when the job was accepted."""
    session = bench.session({"hook.example": [[PUBLIC], ["10.0.0.1"]]})
    assert (await session.guard.judge("http://hook.example/")).host == "hook.example"
    reply = await post(session, "http://hook.example/")
    assert isinstance(reply, NotAnswered)
    assert reply.outcome is AttemptOutcome.BLOCKED_ADDRESS


@pytest.mark.parametrize("url", ["http://10.0.0.1/", "http://[::ffff:10.0.0.1]/", "http://127.0.0.1:22/", "ftp://x/"])
async def test_a_url_that_is_refused_now_is_blocked(bench: Bench, url: str) -> None:
    """Rules that were tightened after acceptance hold for what is sent."""
    reply = await post(bench.session(), url)
    assert isinstance(reply, NotAnswered)
    assert reply.outcome is AttemptOutcome.BLOCKED_ADDRESS


async def test_a_clients_list_of_hosts_holds_when_sent(bench: Bench) -> None:
    """A host taken off a client's list gets nothing more."""
    client = Client(ClientName("acme"), (), (), None, ("*.acme.com",), 1, 1)
    session = bench.session({"hook.example": [["127.0.0.1"]]})
    reply = await post_callback(session, "http://hook.example/", {}, b"", 5.0, client=client)
    assert isinstance(reply, NotAnswered)
    assert reply.outcome is AttemptOutcome.BLOCKED_ADDRESS
    with pytest.raises(RefusedUrl):
        session.guard.parse("http://hook.example/", client)


@pytest.mark.parametrize("host", ["10.0.0.1", "[::ffff:10.0.0.1]", "[fe80::1]", "169.254.169.254"])
async def test_literals_that_never_reach_a_resolver_are_stopped_at_connect(bench: Bench, host: str) -> None:
    """Even a request that went round the parser opens no socket to a refused address."""
    session = bench.session()
    with pytest.raises(aiohttp.ClientOSError) as caught:
        await session.http.post(URL(f"http://{host}/"))
    assert isinstance(caught.value.__cause__, BlockedAddress)


async def test_a_refused_address_at_connect_ends_the_attempt(bench: Bench) -> None:
    """It is not skipped in favour of the next address of the answer."""

    class Lax(CallbackGuard):
        async def addresses(self, host: str) -> list[str]:
            return ["10.0.0.1", "127.0.0.1", "127.0.0.2"]

    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read(1))

    settings = Settings.load(_env_file=None, callback_allowed_networks="127.0.0.0/8")
    guard = Lax(settings, ChangingResolver({}))
    port = await bench.receiver(serve)
    async with callback_session(settings, guard) as session:
        reply = await post(session, f"http://hook.example:{port}/")
    await guard.close()
    assert isinstance(reply, NotAnswered)
    assert reply.outcome is AttemptOutcome.BLOCKED_ADDRESS
    assert seen in ([], [b""])


async def test_proxies_of_the_environment_are_ignored(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    """A proxy would resolve and connect in the guard's place."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{unused_tcp_port}")
    port = await bench.receiver(saying(OK + b"Content-Length: 0\r\n\r\n"))
    assert isinstance(await post(bench.session(), f"http://127.0.0.1:{port}/"), Answered)


async def test_cookies_are_not_kept(bench: Bench) -> None:
    """What one client's receiver sets never travels with another's callback."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            seen.append(await read_request(reader))
            writer.write(OK + b"Set-Cookie: a=b\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()

    url = f"http://localhost:{await bench.receiver(serve)}/"
    session = bench.session()
    for _ in range(2):
        assert isinstance(await post(session, url), Answered)
    assert not any(b"cookie" in request.lower() for request in seen)


async def test_a_cancelled_attempt_stays_cancelled(bench: Bench) -> None:
    """A worker that stops is not told that the receiver failed."""
    started = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        started.set()
        await asyncio.Event().wait()

    attempt = asyncio.create_task(post(bench.session(), f"http://127.0.0.1:{await bench.receiver(serve)}/"))
    await started.wait()
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
