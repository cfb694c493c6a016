"""Requests that a proxy and the relay may read differently. One request is never two, and no bad framing is guessed at.

Every case is followed on its connection by a second submission, and some hide a third in a body. It is sent in one
piece and line by line, to both of aiohttp's parsers: a build without the one in C falls back to the one in Python.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from aiohttp import http_parser

from relay.api import server
from relay.api.context import Limits
from tests.integration.conftest import ACME_KEY, UMBRELLA_KEY, RelayClient, run_relay

PARSERS: dict[str, Any] = {
    name: getattr(http_parser, f"HttpRequestParser{name}")
    for name in ("C", "Py")
    if hasattr(http_parser, f"HttpRequestParser{name}")
}

#: What may come of a case: the statuses of the answers, and the prompts of the jobs that were made.
Outcome = tuple[list[int], list[str]]


def body(prompt: str) -> bytes:
    """A good body."""
    return json.dumps({"scraper": "chatgpt", "prompt": prompt, "callback_url": "https://203.0.113.7/"}).encode()


OUTER = body("outer")
SIZE = len(OUTER)
LENGTH = b"Content-Length: %d\r\n" % SIZE
CHUNKED = b"Transfer-Encoding: chunked\r\n"
KEY = b"X-API-Key: " + ACME_KEY.encode() + b"\r\n"
JSON = b"Content-Type: application/json\r\n"
SUBMIT = b"POST /v1/jobs HTTP/1.1"
LIST = b"GET /v1/jobs HTTP/1.1"


def request(
    fields: bytes = LENGTH, content: bytes = OUTER, line: bytes = SUBMIT, host: bytes = b"Host: x\r\n", key: bytes = KEY
) -> bytes:
    """A request with `fields` at the end of its head."""
    return line + b"\r\n" + host + JSON + key + fields + b"\r\n" + content


def submission(prompt: str, fields: bytes = b"") -> bytes:
    """A request that nobody can misread."""
    return request(b"Content-Length: %d\r\n" % len(body(prompt)) + fields, body(prompt))


#: Comes after every case, and makes the relay hang up if it is read at all.
NEXT = submission("next", b"Connection: close\r\n")
#: Is inside of bodies, and must stay there.
HIDDEN = submission("hidden")


def chunk(content: bytes = OUTER) -> bytes:
    """A whole body of one chunk."""
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)


def length(value: bytes) -> bytes:
    """A submission whose length is written as `value`."""
    return request(b"Content-Length: " + value + b"\r\n")


def coded(value: bytes) -> bytes:
    """A chunked submission whose coding is written as `value`."""
    return request(b"Transfer-Encoding: " + value + b"\r\n", chunk())


def sized(value: bytes, after: bytes = b"\r\n", data: bytes = OUTER) -> bytes:
    """A chunked submission whose only chunk has its size written as `value`."""
    return request(CHUNKED, value + after + data + b"\r\n0\r\n\r\n")


def chunks(content: bytes) -> bytes:
    """A chunked submission with these bytes for its body."""
    return request(CHUNKED, content)


def trailed(trailers: bytes, key: bytes = KEY) -> bytes:
    """A chunked submission with trailers."""
    return request(CHUNKED, chunk()[:-2] + trailers + b"\r\n", key=key)


HEX = b"%x" % SIZE

#: What is answered with 400, whereupon the relay hangs up. Nothing is made of anything that was sent.
REFUSED: dict[str, bytes] = {
    # Two lengths.
    "CL and TE": request(b"Content-Length: %d\r\n" % len(chunk()) + CHUNKED, chunk()),
    "CL of the first chunk line and TE": request(b"Content-Length: 4\r\n" + CHUNKED, chunk()),
    "CL 0 and TE": request(b"Content-Length: 0\r\n" + CHUNKED, chunk(HIDDEN)),
    "TE and CL": request(CHUNKED + LENGTH, chunk()),
    "TE and CL with a request behind the last chunk": request(
        CHUNKED + b"Content-Length: %d\r\n" % len(b"0\r\n\r\n" + HIDDEN), b"0\r\n\r\n" + HIDDEN
    ),
    "CL twice, equal": request(LENGTH * 2),
    "CL twice, different": request(LENGTH + b"Content-Length: 0\r\n"),
    "CL twice, the other way round": request(b"Content-Length: 0\r\n" + LENGTH),
    # A length that is not a row of digits.
    "CL as a list of equals": length(b"%d, %d" % (SIZE, SIZE)),
    "CL as a list": length(b"%d,0" % SIZE),
    "CL with plus": length(b"+%d" % SIZE),
    "CL negative": length(b"-1"),
    "CL minus zero": length(b"-0"),
    "CL with a space inside": length(b" 4 4"),
    "CL in hex": length(b"0x4"),
    "CL with an underscore": length(b"4_0"),
    "CL with a fraction": length(b"%d.0" % SIZE),
    "CL with an exponent": length(b"1e2"),
    "CL in quotes": length(b'"%d"' % SIZE),
    "CL in Arabic digits": length("٤٤".encode()),
    "CL after a vertical tab": length(b"\x0b%d" % SIZE),
    "CL after a no-break space": length(b"\xa0%d" % SIZE),
    "CL empty": length(b""),
    # Lines.
    "folded header": request(b"X-A: a\r\n b\r\n" + LENGTH),
    "folded header that looks like one": request(b"X-A: a\r\n\tContent-Length: 0\r\n" + LENGTH),
    "folded CL": request(b"Content-Length:\r\n %d\r\n" % SIZE),
    "CL folded on": request(b"Content-Length: %d\r\n 0\r\n" % SIZE),
    "folded TE": request(b"Transfer-Encoding:\r\n chunked\r\n", chunk()),
    "space before the first header": request(line=SUBMIT + b"\r\n X-A: b"),
    "CL, space, colon": request(b"Content-Length : %d\r\n" % SIZE),
    "CL, tab, colon": request(b"Content-Length\t: %d\r\n" % SIZE),
    "TE, space, colon": request(b"Transfer-Encoding : chunked\r\n", chunk()),
    "TE, space, colon, and CL": request(b"Transfer-Encoding : chunked\r\n" + LENGTH),
    "space in a name": request(b"X A: b\r\n" + LENGTH),
    "no colon": request(b"nonsense\r\n" + LENGTH),
    "no name": request(b": x\r\n" + LENGTH),
    "LF everywhere": request(content=b"").replace(b"\r\n", b"\n") + OUTER,
    "LF after a header": request(b"X-A: b\n" + LENGTH),
    "LF before TE": request(b"X-A: b\n" + CHUNKED + LENGTH, chunk()),
    "LF at the end of the head": request(content=b"")[:-2] + b"\n" + OUTER,
    "LF after the request line": request().replace(b"\r\n", b"\n", 1),
    "CR in a value": request(b"X-A: b\rContent-Length: 0\r\n" + LENGTH),
    "CR for CRLF": request(b"X-A: b\rX-B: c\r\n" + LENGTH),
    "CR CR LF": request(b"Content-Length: %d\r\r\n" % SIZE),
    "NUL in a value": request(b"X-A: a\0b\r\n" + LENGTH),
    "NUL in a name": request(b"X\0A: b\r\n" + LENGTH),
    "control character in a value": request(b"X-A: a\x01b\r\n" + LENGTH),
    "DEL in a value": request(b"X-A: a\x7fb\r\n" + LENGTH),
    "vertical tab in a value": request(b"X-A: a\x0bb\r\n" + LENGTH),
    "Latin-1 in a name": request(b"X\xe9: b\r\n" + LENGTH),
    "brackets in a name": request(b"X(A): b\r\n" + LENGTH),
    # Codings.
    **{
        f"TE {value!r}": coded(value)
        for value in (
            *(b"xchunked", b"chunked, identity", b"identity, chunked", b"identity", b"chunked, chunked", b"chunked,"),
            *(b",chunked", b"gzip, chunked", b"gzip", b"chunked;q=1", b'"chunked"', b"\x0bchunked", b"chunk\0ed"),
            *(b"chunked\xa0", b"chun\xe2\x84\xaaed", b""),
        )
    },
    "TE twice": request(CHUNKED * 2, chunk()),
    "TE twice, identity last": request(CHUNKED + b"Transfer-Encoding: identity\r\n", chunk()),
    "TE twice, identity first": request(b"Transfer-Encoding: identity\r\n" + CHUNKED, chunk()),
    "TE in HTTP/1.0": request(CHUNKED, chunk(), b"POST /v1/jobs HTTP/1.0"),
    "TE in HTTP/1.0, kept alive": request(
        b"Connection: keep-alive\r\n" + CHUNKED, chunk(HIDDEN), b"POST /v1/jobs HTTP/1.0"
    ),
    # Chunks.
    "chunk size with plus": sized(b"+" + HEX),
    "chunk size with minus": sized(b"-" + HEX),
    "chunk size with 0x": sized(b"0x" + HEX),
    "chunk size with an underscore": sized(HEX[:1] + b"_" + HEX[1:]),
    "space before the chunk size": sized(b" " + HEX),
    "space after the chunk size": sized(HEX + b" "),
    "tab after the chunk size": sized(HEX + b"\t"),
    "no chunk size": sized(b""),
    "chunk size that is none": sized(b"g"),
    "extension with spaces": sized(HEX + b" ; a = b"),
    "LF in an extension": sized(HEX + b";a\nb"),
    "CRLF in a quoted extension": sized(HEX + b';a="b\r\n"'),
    "LF after the chunk size": sized(HEX, after=b"\n"),
    "CR after the chunk size": sized(HEX, after=b"\r"),
    "LF after the chunk": chunks(HEX + b"\r\n" + OUTER + b"\n0\r\n\r\n"),
    "nothing after the chunk": chunks(HEX + b"\r\n" + OUTER + b"0\r\n\r\n"),
    "something after the chunk": chunks(HEX + b"\r\n" + OUTER + b"XX0\r\n\r\n"),
    "chunk longer than its size": sized(b"%x" % (SIZE - 1)),
    "chunk shorter than its size": sized(b"%x" % (SIZE + 1)),
    "no end of the last chunk": chunks(HEX + b"\r\n" + OUTER + b"\r\n0\r\n"),
    "LF for the end of the last chunk": chunks(HEX + b"\r\n" + OUTER + b"\r\n0\r\n\n"),
    "minus zero for the last chunk": chunks(HEX + b"\r\n" + OUTER + b"\r\n-0\r\n\r\n"),
    # Trailers.
    "trailer without colon": trailed(b"nonsense\r\n"),
    "trailer with NUL": trailed(b"X: a\0\r\n"),
    "trailer, folded": trailed(b"X: a\r\n b\r\n"),
    "trailer with LF": trailed(b"X: a\n"),
    "trailer, space, colon": trailed(b"X : a\r\n"),
    "many trailers": trailed(b"X: y\r\n" * 100),
    # Targets and hosts.
    "absolute target without a host": request(line=b"POST http:///v1/jobs HTTP/1.1"),
    "absolute target with a bad host": request(line=b"POST http://[::1/v1/jobs HTTP/1.1"),
    "absolute target with a bad port": request(line=b"POST http://x:99999/v1/jobs HTTP/1.1"),
    "absolute target with a host that is no name": request(line=b"POST http://xn--a/v1/jobs HTTP/1.1"),
    "absolute target with a host that is no text": request(line=b"POST http://\xff/v1/jobs HTTP/1.1"),
    "relative target": request(line=b"POST v1/jobs HTTP/1.1"),
    "asterisk": request(line=b"POST * HTTP/1.1"),
    "NUL in the target": request(line=b"POST /v1/jobs\0 HTTP/1.1"),
    "tab in the target": request(line=b"POST /v1/jobs\tx HTTP/1.1"),
    "space in the target": request(line=b"POST /v1/jobs x HTTP/1.1"),
    "no host": request(host=b""),
    "two hosts": request(host=b"Host: x\r\nHost: y\r\n"),
    "one host twice": request(host=b"Host: x\r\nHost: x\r\n"),
    **{
        f"host {host!r}": request(host=b"Host: " + host + b"\r\n")
        for host in (
            *(b"a b", b"a,b", b"a, b", b"a/b", b"u@a", b"a:x", b"a\\b", b"a?b", b"a#b", b"http://x", b"a%00b"),
            *(b"\xc3\xa9", b"[::1", b"::1", b"a:1:2", b"a:123456"),
        )
    },
    # Lines that are none.
    "HTTP/0.9": b"GET /v1/jobs\r\n",
    "HTTP/0.9 that says so": request(line=b"POST /v1/jobs HTTP/0.9"),
    "HTTP/1.2": request(line=b"POST /v1/jobs HTTP/1.2"),
    "HTTP/1.10": request(line=b"POST /v1/jobs HTTP/1.10"),
    "HTTP/01.1": request(line=b"POST /v1/jobs HTTP/01.1"),
    "HTTP/2.0": request(line=b"POST /v1/jobs HTTP/2.0"),
    "preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "version in lower case": request(line=b"POST /v1/jobs http/1.1"),
    "space before the method": request(line=b" POST /v1/jobs HTTP/1.1"),
    "space after the version": request(line=b"POST /v1/jobs HTTP/1.1 "),
    "tabs in the request line": request(line=b"POST\t/v1/jobs\tHTTP/1.1"),
    "many headers": request(LENGTH + b"X: y\r\n" * 100),
    "a web socket as of 2010": request(
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key1: x\r\n" + LENGTH
    ),
}

UPGRADE = b"Connection: Upgrade\r\nUpgrade: "

#: What is carried out as one request, whereupon the relay hangs up: the first status, and whether it made a job.
LAST: dict[str, tuple[bytes, int, bool]] = {
    "chunked": (chunks(chunk()), 202, True),
    "chunked in capitals": (coded(b"CHUNKED"), 202, True),
    "chunked and spaces": (coded(b"  chunked  "), 202, True),
    "chunk size in capitals": (sized(HEX.upper()), 202, True),
    "chunk size with zeros": (sized(b"0" * 50 + HEX), 202, True),
    "last chunk with zeros": (chunks(HEX + b"\r\n" + OUTER + b"\r\n00\r\n\r\n"), 202, True),
    "extension": (sized(HEX + b";a=b"), 202, True),
    "quoted extension": (sized(HEX + b';a="b;c"'), 202, True),
    "trailer": (trailed(b"X-Checksum: y\r\n"), 202, True),
    "trailer with a key": (trailed(b"X-API-Key: " + UMBRELLA_KEY.encode() + b"\r\n"), 202, True),
    "trailer with an idempotency key": (trailed(b"Idempotency-Key: k\r\n"), 202, True),
    "key in a trailer only": (trailed(b"Authorization: Bearer " + ACME_KEY.encode() + b"\r\n", key=b""), 401, False),
    "two keys in trailers only": (trailed(KEY + b"Authorization: Bearer x\r\n", key=b""), 401, False),
    "request in a chunk of GET": (request(CHUNKED, chunk(HIDDEN), LIST), 200, False),
    "request in a chunk without a key": (request(CHUNKED, chunk(HIDDEN), key=b""), 401, False),
    "request in a chunk for nobody": (request(CHUNKED, chunk(HIDDEN), b"POST /nope HTTP/1.1"), 404, False),
    "upgrade to h2c": (
        request(UPGRADE + b"h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n" + LENGTH),
        202,
        True,
    ),
    "upgrade to a web socket": (
        request(
            UPGRADE + b"websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            b"",
            LIST,
        ),
        200,
        False,
    ),
    "upgrade to a web socket with a body": (request(UPGRADE + b"websocket\r\n" + LENGTH), 202, True),
    "upgrade to a web socket with chunks": (request(UPGRADE + b"websocket\r\n" + CHUNKED, chunk()), 202, True),
    "upgrade to TCP": (request(UPGRADE + b"tcp\r\n", b"", LIST), 200, False),
    "CONNECT": (b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n", 404, False),
    "CONNECT to a path": (request(b"", b"", b"CONNECT /v1/jobs HTTP/1.1"), 404, False),
    "request in a body of CONNECT": (
        request(b"Content-Length: %d\r\n" % len(HIDDEN), HIDDEN, b"CONNECT x:80 HTTP/1.1"),
        404,
        False,
    ),
    "request in a chunk of CONNECT": (request(CHUNKED, chunk(HIDDEN), b"CONNECT x:80 HTTP/1.1"), 404, False),
}

HIDING = b"Content-Length: %d\r\n" % len(HIDDEN)

#: What has one reading: the request that follows is another one. The first statuses, and whether they made a job.
APART: dict[str, tuple[bytes, list[int], bool]] = {
    "nothing odd": (request(), [202], True),
    "CL without a space": (request(b"Content-Length:%d\r\n" % SIZE), [202], True),
    "CL in spaces": (length(b"   %d  " % SIZE), [202], True),
    "CL in tabs": (length(b"\t%d\t" % SIZE), [202], True),
    "CL with zeros": (length(b"000%d" % SIZE), [202], True),
    "another header of nearly that name": (request(b"Content_Length: 0\r\n" + LENGTH), [202], True),
    "Latin-1 in a value": (request(b"X-A: \xe9\r\n" + LENGTH), [202], True),
    "HTTP/1.0, kept alive": (
        request(b"Connection: keep-alive\r\n" + LENGTH, line=b"POST /v1/jobs HTTP/1.0"),
        [202],
        True,
    ),
    "no body": (request(b"", b""), [400], False),
    "empty line first": (b"\r\n" + request(), [202], True),
    # The host is not looked at, be it in the target or in a header: there is one service, whatever it is called.
    "absolute target with another host": (request(line=b"POST http://other.example/v1/jobs HTTP/1.1"), [202], True),
    "absolute target with a user": (request(line=b"POST http://u:p@x/v1/jobs HTTP/1.1"), [202], True),
    "target that begins with two slashes": (request(line=b"POST //other.example/v1/jobs HTTP/1.1"), [404], False),
    "target with a fragment": (request(line=b"POST /v1/jobs#x HTTP/1.1"), [202], True),
    "target with dots": (request(line=b"POST /v1/../v1/jobs HTTP/1.1"), [404], False),
    "OPTIONS *": (request(b"", b"", b"OPTIONS * HTTP/1.1"), [404], False),
    "empty host": (request(host=b"Host:\r\n"), [202], True),
    "host with a port": (request(host=b"Host: relay_1.Example-2.com:8080\r\n"), [202], True),
    "host that is an address": (request(host=b"Host: [::ffff:127.0.0.1]:8080\r\n"), [202], True),
    # A body is read past, whoever answers without it.
    "request in a body of GET": (request(HIDING, HIDDEN, LIST), [200], False),
    "request in a body of HEAD": (request(HIDING, HIDDEN, b"HEAD /v1/jobs HTTP/1.1"), [200], False),
    "request in a body of TRACE": (request(HIDING, HIDDEN, b"TRACE /v1/jobs HTTP/1.1"), [405], False),
    "request in a body for nobody": (request(HIDING, HIDDEN, b"POST /nope HTTP/1.1"), [404], False),
    "request in a body without a key": (request(HIDING, HIDDEN, key=b""), [401], False),
    "request in a body of text": (
        request(HIDING, HIDDEN).replace(JSON, b"Content-Type: text/plain\r\n", 1),
        [415],
        False,
    ),
    "request in a body that is no JSON": (request(HIDING, HIDDEN), [400], False),
    # Expectations other than the one may be ignored (RFC 9110, section 10.1.1).
    "Expect: 100-continue": (request(b"Expect: 100-continue\r\n" + LENGTH), [100, 202], True),
    "another Expect": (request(b"Expect: x\r\n" + LENGTH), [202], True),
    "two Expects": (request(b"Expect: 100-continue\r\nExpect: x\r\n" + LENGTH), [100, 202], True),
    "Expect without a key": (request(b"Expect: 100-continue\r\n" + LENGTH, key=b""), [401], False),
    "other words for the method and the target": (
        request(b"X-HTTP-Method-Override: POST\r\nX-Original-URL: /v1/jobs\r\n", b"", b"GET /healthz HTTP/1.1"),
        [200],
        False,
    ),
}

ONE: Outcome = ([202], ["outer"])
TWO: Outcome = ([202, 202], ["next", "outer"])
NONE: Outcome = ([400], [])
NOT_FOUND: Outcome = ([404, 202], ["next"])

#: What the two parsers, or both ways of sending, see differently. Each of them has one reading, and keeps to it.
EITHER: dict[str, tuple[bytes, Sequence[Outcome]]] = {
    "trailer with CL": (trailed(b"Content-Length: 5\r\n"), (NONE, ONE)),
    "trailer with TE": (trailed(CHUNKED), (NONE, ONE)),
    "trailer with a host": (trailed(b"Host: y\r\n"), (NONE, ONE)),
    "long trailer": (trailed(b"X: " + b"y" * 200_000 + b"\r\n"), (NONE, ([431], []))),
    "extension without a name": (sized(HEX + b";"), (NONE, ONE)),
    "CR in an extension": (sized(HEX + b";a\rb"), (NONE, ONE)),
    "NUL in an extension": (sized(HEX + b";a\0b"), (NONE, ONE)),
    "long extension": (sized(HEX + b";" + b"a" * 200_000), (NONE, ONE)),
    "HTTP/1.0": (request(line=b"POST /v1/jobs HTTP/1.0"), (NONE, ONE)),
    "Connection: close": (request(b"Connection: close\r\n" + LENGTH), (NONE, ONE)),
    "CL as a hop-by-hop header": (request(b"Connection: close, Content-Length\r\n" + LENGTH), (NONE, ONE)),
    "two spaces before the target": (request(line=b"POST  /v1/jobs HTTP/1.1"), (NONE, TWO)),
    "two spaces after the target": (request(line=b"POST /v1/jobs  HTTP/1.1"), (NONE, TWO)),
    "empty line of LF first": (b"\n" + request(), (NONE, TWO)),
    "method in lower case": (request(line=b"post /v1/jobs HTTP/1.1"), (NONE, TWO)),
    "method of nobody": (request(line=b"FOO /v1/jobs HTTP/1.1"), (NONE, ([405, 202], ["next"]))),
    "UTF-8 in the target": (request(line=b"POST /v1/jobs\xc3\xa9 HTTP/1.1"), (NONE, NOT_FOUND)),
    "no UTF-8 in the target": (request(line=b"POST /v1/jobs\xff HTTP/1.1"), (NONE, NOT_FOUND)),
    "broken chunk for nobody": (request(CHUNKED, b"zz\r\n", b"POST /nope HTTP/1.1"), (NONE, ([404], []))),
    "body without a length": (request(b""), (NONE, ([400, 400], []))),
    # A length of more than the limit, or of more than a number may have.
    "CL of 2^63": (length(b"%d" % 2**63), (NONE, ([413], []))),
    "CL of 2^64": (length(b"%d" % 2**64), (NONE, ([413], []))),
    "CL of 2^64 and the true one": (length(b"%d" % (2**64 + SIZE)), (NONE, ([413], []))),
    "CL of thirty digits": (length(b"9" * 30), (NONE, ([413], []))),
}

LONG: dict[str, bytes] = {
    "request line": request(line=b"POST /v1/jobs?" + b"x" * 200_000 + b" HTTP/1.1"),
    "header": request(LENGTH + b"X: " + b"y" * 200_000 + b"\r\n"),
    "name of a header": request(LENGTH + b"X" * 200_000 + b": y\r\n"),
}

CASES: dict[str, tuple[bytes, Sequence[Outcome]]] = {
    **{name: (sent, (NONE,)) for name, sent in REFUSED.items()},
    **{name: (sent, (([first], ["outer"] * made),)) for name, (sent, first, made) in LAST.items()},
    **{name: (sent, (([*first, 202], ["next"] + ["outer"] * made),)) for name, (sent, first, made) in APART.items()},
    **EITHER,
    **{f"long {name}": (sent, (([431], []),)) for name, sent in LONG.items()},
}


class Wire(asyncio.Protocol):
    """One connection, and everything that comes back on it."""

    def __init__(self) -> None:
        self.received = b""
        self.closed = asyncio.Event()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()


def lines(sent: bytes) -> list[bytes]:
    """The pieces that end with a CR or an LF, and what is left."""
    return [piece for piece in re.split(rb"(?<=[\r\n])", sent) if piece]


async def converse(relay: RelayClient, pieces: Sequence[bytes]) -> bytes:
    """All that the relay says to these pieces until it hangs up, which it must do by itself and soon."""
    _, wire = await asyncio.get_running_loop().create_connection(Wire, "127.0.0.1", relay.port)
    try:
        for piece in pieces:
            if (
                wire.closed.is_set()
                or b"\r\nConnection: close\r\n" in wire.received
                or wire.received[:10] == b"HTTP/1.0 4"
            ):
                break  # Writing on would reset the connection, and lose the answer.
            wire.transport.write(piece)
            for _ in range(10 if len(pieces) > 1 else 0):
                await asyncio.sleep(0)  # The relay is in this loop, and takes in what has come.
        async with asyncio.timeout(5):
            await wire.closed.wait()
    finally:
        wire.transport.abort()
    return wire.received


async def made(relay: RelayClient) -> dict[str, str]:
    """The prompts of all jobs, by id."""
    answers = [await relay.call("GET", "/v1/jobs?limit=200", key=key) for key in (ACME_KEY, UMBRELLA_KEY)]
    return {job["id"]: job["prompt"] for answer in answers for job in answer.json["data"]}


def statuses(raw: bytes) -> list[int]:
    """The statuses of all answers; those that refuse are problems, and tell nothing of what the relay is made of."""
    found = [int(status) for status in re.findall(rb"HTTP/\d\.\d (\d{3}) ", raw)]
    assert raw.count(b"application/problem+json") == sum(status >= 400 for status in found), raw
    assert not re.search(rb"Traceback|aiohttp|Python|<html|\.py\b", raw), raw
    return found


@pytest.fixture(name="relay")
async def fixture_relay(store_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RelayClient]:
    """A relay that does not wait ten seconds for the rest of a body that it has refused."""
    monkeypatch.setattr(server, "CONNECTION", {**server.CONNECTION, "lingering_time": 0.1})
    async with run_relay(store_url) as relay:
        yield relay


@pytest.mark.parametrize("by_lines", [False, True], ids=["in one piece", "line by line"])
@pytest.mark.parametrize("parser", PARSERS)
async def test_one_request_is_never_two(
    relay: RelayClient, monkeypatch: pytest.MonkeyPatch, parser: str, by_lines: bool
) -> None:
    """What has no one reading is refused with a 4xx and ends the connection; nothing hidden is carried out."""
    monkeypatch.setattr("aiohttp.web_protocol.HttpRequestParser", PARSERS[parser])
    wrong: dict[str, object] = {}
    before = await made(relay)
    for name, (sent, allowed) in CASES.items():
        raw = await converse(relay, [*lines(sent), NEXT] if by_lines else [sent + NEXT])
        after = await made(relay)
        prompts = sorted(prompt for job, prompt in after.items() if job not in before)
        before = after
        if (statuses(raw), prompts) not in allowed:
            wrong[name] = (statuses(raw), prompts, raw)
    assert wrong == {}


ENDLESS = (
    *(sized(size) for size in (b"f" * 15, b"f" * 16, b"f" * 17, b"1" + b"0" * 16 + HEX)),
    *(chunks(HEX + b"\r\n"), chunks(HEX + b"\r\n" + OUTER), chunks(HEX + b"\r\n" + OUTER + b"\r\n0\r\n")),
    *(request(content=OUTER[:-1]), request(b"Content-Length: %d\r\n" % (SIZE + 1))),
)


@pytest.mark.parametrize("parser", PARSERS)
async def test_a_body_that_does_not_end(store_url: str, monkeypatch: pytest.MonkeyPatch, parser: str) -> None:
    """A body that is not complete in time is 408, or 400 where its size is no number; the connection ends."""
    monkeypatch.setattr("aiohttp.web_protocol.HttpRequestParser", PARSERS[parser])
    monkeypatch.setattr(server, "CONNECTION", {**server.CONNECTION, "lingering_time": 0.1})
    async with run_relay(store_url, limits=Limits(body_timeout_s=0.3)) as relay:
        for raw in await asyncio.gather(*(converse(relay, [sent]) for sent in ENDLESS)):
            assert statuses(raw) in ([408], [400]), raw
            assert b"\r\nConnection: close\r\n" in raw or raw.startswith(b"HTTP/1.0 ")
        assert await made(relay) == {}


async def test_a_body_that_breaks_is_refused_at_once(relay: RelayClient) -> None:
    """Nobody waits for the rest of a body whose framing is broken, though its head was good and came before."""
    head, good = request(CHUNKED, b""), HEX + b"\r\n" + OUTER
    async with asyncio.timeout(0.9):  # a body may take a second
        for broken in (b"zz\r\n", good + b"XX", good + b"\r\n0\r\nnonsense\r\n"):
            raw = await converse(relay, [head, broken])
            assert statuses(raw) == [400]
            assert b'"malformed_request"' in raw
            assert b"\r\nConnection: close\r\n" in raw
    assert await made(relay) == {}


async def test_an_answer_under_way_is_not_spoilt(relay: RelayClient) -> None:
    """Nonsense behind a whole request, which is being answered, does not become its fault."""
    raw = await converse(relay, [request(b"", b"", b"GET /v1/jobs HTTP/1.1"), b"nonsense\r\n\r\n"])
    assert statuses(raw) == [200, 400]


async def test_a_trailer_is_no_header_of_the_next_request(relay: RelayClient) -> None:
    """On a connection that others use as well, nobody adds a header to what comes after their own request."""
    for kind in PARSERS.values():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("aiohttp.web_protocol.HttpRequestParser", kind)
            # The second request has no key of its own.
            raw = await converse(relay, [trailed(KEY) + request(b"", b"", LIST, key=b"")])
            assert statuses(raw) == [202]
            assert b"\r\nConnection: close\r\n" in raw
