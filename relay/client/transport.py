"""How calls travel: connections, time limits, repeats. Alone knows HTTP, and what may be asked twice."""

import asyncio
import json
import os
import random
import re
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from relay import __version__
from relay.client.errors import Misconfigured, RateLimited, Refused, Unexpected, Unreachable, refusal
from relay.core.retry_after import parse_retry_after

ANSWER_WITHIN_S = 30.0
_CONNECT_WITHIN_S = 10.0
#: A stream has a sign of life every 15 s.
_SILENCE_S = 45.0
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 8.0
_JITTER = 0.2
#: RFC 9110's tchar is wider; keys are visible ASCII.
_KEY = re.compile(r"[!-~]+")
_BEFORE_THE_RELAY = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)

Query = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Call:
    """One request of the API."""

    method: str
    path: str
    query: Query = ()
    body: object = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    within_s: float = ANSWER_WITHIN_S
    #: Whether carrying it out twice is the same as once.
    is_repeatable: bool = False
    #: The least time for which it is repeated.
    patience_s: float = 0.0


def is_loopback(url: str) -> bool:
    """Whether `url` names this machine itself."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def check_address(url: str) -> None:
    """Raise Misconfigured, without `url` in it, unless it can be the address of a relay."""
    try:
        parsed = urlsplit(url)
        good = parsed.scheme in ("http", "https") and bool(parsed.hostname) and parsed.port != 0
        # A password there would end up in messages.
        good = good and parsed.username is None
    except ValueError:
        good = False
    if not good or parsed.query or parsed.fragment or any(c.isspace() for c in url):
        raise Misconfigured("the address of the relay must be one, such as https://relay.example.com")


def check_key(api_key: str) -> None:
    """Raise Misconfigured, without the key in it, unless a header can carry it."""
    if _KEY.fullmatch(api_key) is None:
        raise Misconfigured("the API key must be ASCII without white space")


def pause_before(repeat: int, retry_after_s: float | None, jitter: float) -> float:
    """Seconds before the `repeat`-th repeat (from 1): 0.5, 1, 2 … 8, up to a fifth more by `jitter` (0 to 1).

    What the relay asks for with `Retry-After` is the least.
    """
    pause_s = min(_FIRST_PAUSE_S * float(2 ** min(repeat - 1, 10)), _LONGEST_PAUSE_S) * (1 + _JITTER * jitter)
    return max(pause_s, retry_after_s or 0.0)


class Transport:
    """Connections to one relay, as one client. To be opened and closed in one event loop."""

    def __init__(self, url: str, api_key: str, *, patience_s: float) -> None:
        check_address(url)
        check_key(api_key)
        self._url = url
        self._base = url.rstrip("/")
        self._headers = {
            "Authorization": f"Bearer {api_key}",
            "User-Agent": f"scrapellm-relay/{__version__}",
        }
        self._patience_s = patience_s
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make ready."""
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            # A proxy is of no use on the way to this machine.
            trust_env=not is_loopback(self._url),
        )

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def call(self, call: Call) -> dict[str, Any]:
        """The answer; asked for again, with growing pauses, while nobody can give one and patience lasts.

        What could be carried out twice is only repeated where it was never sent. Raises Refused, Unreachable and
        Unexpected.
        """
        ends_s = time.monotonic() + max(self._patience_s, call.patience_s)
        repeat = 0
        while True:
            repeat += 1
            try:
                return await self._once(call)
            except (Unreachable, RateLimited) as error:
                is_safe = call.is_repeatable or (isinstance(error, Unreachable) and not error.is_sent)
                pause_s = pause_before(repeat, error.retry_after_s, random.random())  # noqa: S311 - spreads load
                if not is_safe or time.monotonic() + pause_s > ends_s:
                    raise
            await asyncio.sleep(pause_s)

    @asynccontextmanager
    async def stream(self, path: str, headers: Mapping[str, str]) -> AsyncIterator[AsyncIterator[bytes]]:
        """The body of an answer that has no end, as it comes. Raises as `call`, once."""
        limits = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_WITHIN_S, sock_read=_SILENCE_S)
        async with self._answer(Call("GET", path, headers=headers), limits) as response:
            if response.status != HTTPStatus.OK:
                self._read(response.status, response.headers, await response.read())
            if response.content_type != "text/event-stream":
                raise self._unexpected(response.status)
            yield response.content.iter_any()

    async def _once(self, call: Call) -> dict[str, Any]:
        limits = aiohttp.ClientTimeout(total=call.within_s, sock_connect=_CONNECT_WITHIN_S)
        async with self._answer(call, limits) as response:
            return self._read(response.status, response.headers, await response.read())

    @asynccontextmanager
    async def _answer(self, call: Call, limits: aiohttp.ClientTimeout) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to one request; what goes wrong with the connection while it is read is Unreachable."""
        if self._session is None:
            raise RuntimeError("use the client as an async context manager")
        headers = dict(call.headers)
        data = None
        if call.body is not None:
            # What is no UTF-8 is sent as it is: the relay says what is wrong with it.
            data = json.dumps(call.body, ensure_ascii=False, allow_nan=False).encode(errors="surrogatepass")
            headers["Content-Type"] = "application/json"
        try:
            async with self._session.request(
                call.method,
                f"{self._base}/{call.path}",
                params=call.query,
                data=data,
                headers=headers,
                allow_redirects=False,
                timeout=limits,
            ) as response:
                yield response
        except (aiohttp.ClientConnectorError, aiohttp.ClientProxyConnectionError, ssl.SSLError) as error:
            raise Unreachable(f"no relay at {self._url}: {_reason(error)}", is_sent=False) from error
        except aiohttp.InvalidURL as error:
            raise Misconfigured(f"{self._url} is not the address of a relay") from error
        except TimeoutError as error:
            raise Unreachable(f"the relay at {self._url} does not answer") from error
        except aiohttp.ClientError as error:
            raise Unreachable(f"the relay at {self._url} broke off the connection") from error

    def _read(self, status: int, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
        retry_after = headers.get("Retry-After")
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            if status in _BEFORE_THE_RELAY:
                raise Unreachable(
                    f"no relay at {self._url}: something before it answers {status}",
                    retry_after_s=parse_retry_after(retry_after, time.time()),
                )
            raise self._unexpected(status)
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return document
        problem: Refused = refusal(status, document, retry_after)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise Unreachable(
                f"the relay at {self._url} cannot do it now: {problem}", retry_after_s=problem.retry_after_s
            )
        raise problem

    def _unexpected(self, status: int) -> Unexpected:
        return Unexpected(f"{self._url} answered {status} with something that is not the relay's API")


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate is not trusted"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the host name does not resolve"
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        return os.strerror(number).lower() if number else "connection failed"
    return "connection failed"
