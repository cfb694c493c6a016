"""What is no acceptable request: keys, bodies, methods, paths, bytes. Never a 5xx, and nothing stored."""

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator

import pytest

from tests.integration.conftest import ACME_KEY, ACME_OTHER_KEY, UMBRELLA_KEY, RelayClient, run_relay

GOOD = json.dumps({"scraper": "chatgpt", "prompt": "x", "callback_url": "https://203.0.113.7/"}).encode()
POST = b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
JSON = {"Content-Type": "application/json"}
CALLS = [
    *(("POST", "/v1/jobs"), ("GET", "/v1/jobs"), ("POST", "/v1/jobs/redeliver"), ("POST", "/v1/batches")),
    *(("GET", "/v1/jobs/job_x"), ("POST", "/v1/jobs/job_x/cancel"), ("GET", "/v1/jobs/job_x/attempts")),
    *(("POST", "/v1/jobs/job_x/redeliver"), ("GET", "/v1/batches/x"), ("POST", "/v1/batches/x/redeliver")),
    ("GET", "/v1/events"),
]


async def nothing_stored(relay: RelayClient) -> None:
    """Fail if a job was accepted."""
    assert (await relay.call("GET", "/v1/jobs")).json["data"] == []


# Keys


@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_every_call_wants_a_key_first(relay_client: RelayClient, method: str, path: str) -> None:
    """Without a key even a bad body or a bad id is 401."""
    answer = await relay_client.call(method, path, key=None, data=b"{" if method == "POST" else None)
    assert (answer.status, answer.code, answer.headers["WWW-Authenticate"]) == (401, "unauthorized", "Bearer")


BAD_KEYS = {
    "empty bearer": b"Authorization: Bearer ",
    "only the scheme": b"Authorization: Bearer",
    "empty": b"Authorization: ",
    "empty key": b"X-API-Key: ",
    "unknown": b"Authorization: Bearer nobody",
    "unknown key": b"X-API-Key: nobody",
    "basic": b"Authorization: Basic " + ACME_KEY.encode(),
    "no scheme": b"Authorization: " + ACME_KEY.encode(),
    "no space": b"Authorization: Bearer" + ACME_KEY.encode(),
    "something after": b"Authorization: Bearer " + ACME_KEY.encode() + b" x",
    "another case": b"X-API-Key: " + ACME_KEY.upper().encode(),
    "not ASCII": "X-API-Key: ключ".encode(),
    "Latin-1": b"X-API-Key: \xe9\xff",
    "bearer twice": (b"Authorization: Bearer %b\r\n" % ACME_KEY.encode()) * 2,
    "key twice": (b"X-API-Key: %b\r\n" % ACME_KEY.encode()) * 2,
    "two clients": b"X-API-Key: %b\r\nAuthorization: Bearer %b" % (ACME_KEY.encode(), UMBRELLA_KEY.encode()),
    "two keys of one client": b"X-API-Key: %b\r\nAuthorization: Bearer %b"
    % (ACME_KEY.encode(), ACME_OTHER_KEY.encode()),
    "good and bad": b"X-API-Key: %b\r\nAuthorization: Bearer nobody" % ACME_KEY.encode(),
    "good and basic": b"X-API-Key: %b\r\nAuthorization: Basic eDp5" % ACME_KEY.encode(),
    "good and empty": b"X-API-Key: %b\r\nAuthorization: " % ACME_KEY.encode(),
    "100 kB": b"Authorization: Bearer " + b"x" * 100_000,
    "100 kB key": b"X-API-Key: " + b"x" * 100_000,
}


@pytest.mark.parametrize("header", BAD_KEYS.values(), ids=BAD_KEYS.keys())
async def test_bad_keys(relay_client: RelayClient, header: bytes) -> None:
    """Whatever is wrong with a key, the answer is the same."""
    raw = await relay_client.raw(
        b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + header.removesuffix(b"\r\n") + b"\r\n\r\n"
    )
    assert raw.startswith(b"HTTP/1.1 401 ")
    assert b"\r\nWWW-Authenticate: Bearer\r\n" in raw
    assert b'"code":"unauthorized"' in raw


@pytest.mark.parametrize(
    "header",
    [
        *(b"Authorization: Bearer %b", b"authorization: BEARER %b", b"Authorization: bearer   %b", b"X-API-Key: %b"),
        b"x-api-key:%b  ",
        b"X-API-Key: %b\r\nAuthorization: Bearer %b",
    ],
)
async def test_good_keys(relay_client: RelayClient, header: bytes) -> None:
    """The scheme's case does not matter, and the same key may be in both headers."""
    filled = header.replace(b"%b", ACME_KEY.encode())
    raw = await relay_client.raw(b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + filled + b"\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 200 ")


async def test_a_key_in_the_query_is_none(relay_client: RelayClient) -> None:
    """URLs are logged, so keys in them are not looked at."""
    assert (await relay_client.call("GET", f"/v1/jobs?api_key={ACME_KEY}", key=None)).status == 401


# Bodies

BAD_TYPES = {
    "none": {},
    "text": {"Content-Type": "text/plain"},
    "form": {"Content-Type": "application/x-www-form-urlencoded"},
    "another JSON": {"Content-Type": "application/vnd.api+json"},
    "two": {"Content-Type": "application/json, text/plain"},
    "charset": {"Content-Type": "application/json; charset=utf-16"},
    "junk": {"Content-Type": "///"},
    "gzip": JSON | {"Content-Encoding": "gzip"},
    "br": JSON | {"Content-Encoding": "br"},
    "unknown coding": JSON | {"Content-Encoding": "x"},
}


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/batches", "/v1/jobs/redeliver"])
@pytest.mark.parametrize("headers", BAD_TYPES.values(), ids=BAD_TYPES.keys())
async def test_bad_types(relay_client: RelayClient, path: str, headers: dict[str, str]) -> None:
    """What is not plain JSON is 415, before anything is read."""
    body = gzip.compress(GOOD) if "Content-Encoding" in headers else GOOD
    answer = await relay_client.call("POST", path, data=body, headers=headers, skip_auto_headers=["Content-Type"])
    assert (answer.status, answer.code) == (415, "unsupported_media_type")
    await nothing_stored(relay_client)


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON", 'application/json; charset="UTF-8"'])
async def test_good_types(relay_client: RelayClient, kind: str) -> None:
    """The type in any case, with or without the only charset that JSON has."""
    assert (await relay_client.call("POST", "/v1/jobs", data=GOOD, headers={"Content-Type": kind})).status == 202


BAD_JSON = {
    "empty": b"",
    "truncated": GOOD[:-1],
    "NaN": GOOD[:-1] + b',"timeout":NaN}',
    "duplicate": GOOD[:-1] + b',"prompt":"y"}',
    "deep": GOOD[:-1] + b',"metadata":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_001,
    "digits": GOOD[:-1] + b',"timeout":' + b"1" * 5000 + b"}",
    "not UTF-8": GOOD.replace(b'"x"', b'"\xff"'),
    "surrogate": GOOD.replace(b'"x"', rb'"\ud800"'),
    "byte order mark": b"\xef\xbb\xbf" + GOOD,
    "raw NUL": GOOD.replace(b'"x"', b'"\0"'),
    "zeros": b"\0" * 100,
}


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/batches"])
@pytest.mark.parametrize("body", BAD_JSON.values(), ids=BAD_JSON.keys())
async def test_bad_json(relay_client: RelayClient, path: str, body: bytes) -> None:
    """What is not strict JSON is 400 and says why."""
    answer = await relay_client.call("POST", path, data=body, headers=JSON)
    assert (answer.status, answer.code) == (400, "invalid_json")
    await nothing_stored(relay_client)


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/batches", "/v1/jobs/redeliver"])
@pytest.mark.parametrize("body", [b"null", b"[]", b'"x"', b"1", b"true", b'[{"prompt":"x"}]'])
async def test_no_object(relay_client: RelayClient, path: str, body: bytes) -> None:
    """JSON that is no object breaks a rule as a whole."""
    answer = await relay_client.call("POST", path, data=body, headers=JSON)
    assert (answer.status, answer.code, answer.faults) == (422, "invalid_request", [("pointer", "")])


async def test_escaped_nul_in_the_prompt(relay_client: RelayClient) -> None:
    """U+0000 is legal JSON and a refused prompt."""
    answer = await relay_client.call("POST", "/v1/jobs", data=GOOD.replace(b'"x"', rb'"a\u0000"'), headers=JSON)
    assert (answer.status, answer.faults) == (422, [("pointer", "/prompt")])


async def test_a_single_job_may_have_a_mebibyte(relay_client: RelayClient) -> None:
    """1 MiB is read, one byte more is 413."""
    padded = GOOD + b" " * (1024 * 1024 - len(GOOD))
    assert (await relay_client.call("POST", "/v1/jobs", data=padded, headers=JSON)).status == 202
    answer = await relay_client.call("POST", "/v1/jobs", data=padded + b" ", headers=JSON)
    assert (answer.status, answer.code) == (413, "too_large")


async def test_too_large_by_chunks(relay_client: RelayClient) -> None:
    """A body of unknown length is read up to the limit, and then the connection ends."""
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nX-API-Key: " + ACME_KEY.encode() + b"\r\n"
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    raw = await relay_client.raw(
        head + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 17 + b"0\r\n\r\n"
    )
    assert raw.startswith(b"HTTP/1.1 413 ")
    assert b"Connection: close" in raw
    await nothing_stored(relay_client)


async def test_too_large_by_length(relay_client: RelayClient) -> None:
    """A length over the limit is refused without waiting for the body; a wrong type comes first."""
    head = (
        b"POST /v1/batches HTTP/1.1\r\nHost: x\r\nX-API-Key: " + ACME_KEY.encode() + b"\r\nContent-Length: 67108865\r\n"
    )
    for kind, status in ((b"application/json", b"413"), (b"text/plain", b"415")):
        reader, writer = await asyncio.open_connection("127.0.0.1", relay_client.port)
        writer.write(head + b"Content-Type: " + kind + b"\r\n\r\n")
        async with asyncio.timeout(5):
            assert (await reader.readline()).split()[1] == status
        writer.close()
        await writer.wait_closed()


async def test_good_chunks(relay_client: RelayClient) -> None:
    """A chunked body is as good as any."""

    async def pieces() -> AsyncIterator[bytes]:
        for i in range(0, len(GOOD), 7):
            yield GOOD[i : i + 7]

    assert (await relay_client.call("POST", "/v1/jobs", data=pieces(), headers=JSON)).status == 202


async def test_slow_body(relay_client: RelayClient) -> None:
    """A body that drips is given up when its time is over, however lively it drips."""
    reader, writer = await asyncio.open_connection("127.0.0.1", relay_client.port)
    writer.write(POST + b"Content-Length: 1000\r\nX-API-Key: " + ACME_KEY.encode() + b"\r\n\r\n{")
    started_s = time.monotonic()

    async def drip() -> None:
        while True:
            writer.write(b" ")
            await asyncio.sleep(0.05)

    dripping = asyncio.create_task(drip())
    async with asyncio.timeout(8):
        status = (await reader.readline()).split()[1]
    dripping.cancel()
    writer.close()
    assert status == b"408"
    assert 0.9 <= time.monotonic() - started_s < 5


async def test_continue_is_said_only_to_who_may_go_on(relay_client: RelayClient) -> None:
    """A client that asks first is stopped before it sends a body that nobody would read."""
    head = POST + b"Connection: close\r\nExpect: 100-continue\r\n"
    body = b"Content-Length: %d\r\n\r\n" % len(GOOD) + GOOD
    refused = await relay_client.raw(head + body)
    assert refused.startswith(b"HTTP/1.1 401 ")
    taken = await relay_client.raw(head + b"X-API-Key: " + ACME_KEY.encode() + b"\r\n" + body)
    assert taken.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 ")


@pytest.mark.parametrize(
    ("data", "headers", "status"),
    [
        (None, {}, 202),
        (b"", {}, 202),
        (b"", JSON, 202),
        (b"{}", JSON, 202),
        (b'{"delivery": null, "since": null, "until": null, "callback_host": null}', JSON, 202),
        (b"{}", {}, 415),
        (b"{", JSON, 400),
        (b"null", JSON, 422),
    ],
)
async def test_an_optional_body(
    relay_client: RelayClient, data: bytes | None, headers: dict[str, str], status: int
) -> None:
    """A call whose body may be left out takes none at all, with or without a type."""
    answer = await relay_client.call(
        "POST", "/v1/jobs/redeliver", data=data, headers=headers, skip_auto_headers=["Content-Type"]
    )
    assert answer.status == status


# Paths and methods


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/nope",
            "/v1",
            "/v1/",
            "/v1/jobs/",
            "/v2/jobs",
            "/V1/jobs",
            "/v1/jobs/a/b/c",
            "/v1//jobs",
            "/v1/jobs/x/result",
        ),
        *(
            "/%00",
            "/..%2f..%2fetc/passwd",
            "/docs/..%2f..%2f__init__.py",
            "/docs/swagger-ui.css.map",
            "/docs/index.html",
            "/%FF",
        ),
    ],
)
async def test_unknown_paths(relay_client: RelayClient, path: str) -> None:
    """What is not there is a 404 like any other."""
    answer = await relay_client.call("GET", path)
    assert (answer.status, answer.code) == (404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/v1/jobs", "GET, HEAD, OPTIONS, POST"),
        ("DELETE", "/v1/jobs/job_x", "GET, HEAD, OPTIONS"),
        ("GET", "/v1/jobs/redeliver", "OPTIONS, POST"),
        ("GET", "/v1/batches", "OPTIONS, POST"),
        ("PATCH", "/v1/batches/x", "GET, HEAD, OPTIONS"),
        ("POST", "/v1/events", "GET, HEAD, OPTIONS"),
        ("POST", "/healthz", "GET, HEAD, OPTIONS"),
        ("TRACE", "/v1/jobs", "GET, HEAD, OPTIONS, POST"),
        ("PROPFIND", "/v1/jobs", "GET, HEAD, OPTIONS, POST"),
    ],
)
async def test_methods_that_are_not_allowed(relay_client: RelayClient, method: str, path: str, allow: str) -> None:
    """405 says what is allowed."""
    answer = await relay_client.call(method, path, key=None)
    assert (answer.status, answer.code, answer.headers["Allow"]) == (405, "method_not_allowed", allow)


async def test_options_and_head(relay_client: RelayClient) -> None:
    """OPTIONS tells the methods; HEAD is GET without the body, and does not hang on an event stream."""
    options = await relay_client.call("OPTIONS", "/v1/jobs", key=None)
    assert (options.status, options.headers["Allow"], options.body) == (204, "GET, HEAD, OPTIONS, POST", b"")
    for path in ("/v1/jobs", "/healthz", "/docs", "/openapi.json", "/v1/events"):
        head = await relay_client.call("HEAD", path)
        assert (head.status, head.body) == (200, b"")
    assert (await relay_client.call("HEAD", "/v1/jobs", key=None)).status == 401


NO_HTTP = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "words": b"hello there\r\n\r\n",
    "bad method": b"G\xffT / HTTP/1.1\r\nHost: x\r\n\r\n",
    "header without colon": b"GET / HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n",
    "NUL in a header": b"GET / HTTP/1.1\r\nHost: x\r\nX-API-Key: a\0b\r\n\r\n",
    "two lengths": b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "negative length": b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "bad version": b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
    "endless path": b"GET /" + b"x" * 300_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "huge key": b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\nX-API-Key: " + b"secret-" * 50_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", NO_HTTP.values(), ids=NO_HTTP.keys())
async def test_what_is_not_http(
    relay_client: RelayClient, request_bytes: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    """Bytes that are no request are answered with a 4xx problem, and are not quoted in it or in the log."""
    raw = await relay_client.raw(request_bytes)
    status = int(raw.split(b" ", 2)[1])
    assert 400 <= status < 500
    assert b"application/problem+json" in raw
    for header in (
        b"Content-Security-Policy: default-src 'none'",
        b"X-Frame-Options: DENY",
        b"Cache-Control: no-store",
    ):
        assert header in raw
    assert json.loads(raw.partition(b"\r\n\r\n")[2])["status"] == status
    shown = raw.decode() + "".join(capfd.readouterr())
    assert "secret-" not in shown
    assert (await relay_client.call("GET", "/healthz")).status == 200


async def test_bad_chunks(relay_client: RelayClient) -> None:
    """A body whose framing breaks is a 4xx."""
    raw = await relay_client.raw(
        POST + b"Transfer-Encoding: chunked\r\nX-API-Key: " + ACME_KEY.encode() + b"\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"
    )
    assert raw.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert b"application/problem+json" in raw


async def test_a_client_that_vanishes_while_sending(relay_client: RelayClient) -> None:
    """Half a body and a reset harm nobody else."""
    for _ in range(5):
        _, writer = await asyncio.open_connection("127.0.0.1", relay_client.port)
        writer.write(POST + b"Content-Length: 1000\r\nX-API-Key: " + ACME_KEY.encode() + b"\r\n\r\n{")
        await writer.drain()
        writer.transport.abort()
    await nothing_stored(relay_client)


async def test_the_order_of_checks(store_url: str) -> None:
    """401 before 415 before 413 before 400 before 422."""
    async with run_relay(store_url) as relay:
        huge = b"x" * (1024 * 1024 + 1)

        async def status(headers: dict[str, str], key: str | None = ACME_KEY, data: bytes = b"{") -> int:
            return (
                await relay.call(
                    "POST", "/v1/jobs", key=key, data=data, headers=headers, skip_auto_headers=["Content-Type"]
                )
            ).status

        text = {"Content-Type": "text/plain"}
        assert await status(text, key=None, data=huge) == 401
        assert await status(text, data=huge) == 415
        assert await status(JSON, data=huge) == 413
        assert await status(JSON | {"Idempotency-Key": ""}) == 400
        assert await status(JSON | {"Idempotency-Key": ""}, data=b"[]") == 422
