"""The client of ScrapeLLM: one submit, one poll, and what came of it. Alone knows how the upstream is asked.

Whatever the upstream or the network does is an outcome, never an exception. What matters most here is whether a
submit that failed was sent: a job that may exist may have been paid for.
"""

import asyncio
import os
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import quote

import aiohttp
import msgspec
import yarl

from relay.core.egress import AnswerTooLarge, read_bounded
from relay.core.limits import TimeLimits
from relay.core.model import JobSpec
from relay.core.retry_after import parse_retry_after
from relay.core.tracing import Tracing
from worker.upstream_answers import (
    Ambiguous,
    Answer,
    PollOutcome,
    PollUnavailable,
    SubmitOutcome,
    Unauthorized,
    Unsent,
    UpstreamFailed,
    is_success,
    read_poll,
    read_submit,
)

#: The two requests, as traces tell them: without the query and the id.
_SUBMIT, _POLL = ("POST", "/scrapers/{scraper}/jobs"), ("GET", "/jobs/{id}")
#: What is read of a refusal; its status has said the most of it.
_REFUSAL_BYTES = 64 * 1024
#: A refusal whose body drips is one all the same: waiting for that ends before the whole request does.
_SOONER_S = 0.1
#: Nothing has been sent when these are raised: aiohttp raises them before it has a connection.
_UNSENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)
_BROKEN = (aiohttp.ClientError, TimeoutError, OSError)


class UpstreamClient:
    """Talks to one ScrapeLLM, over a session made by `upstream_session`.

    `base_url` may have a path; an answer of more than `max_bytes`, decompressed, is not read. Dates in `Retry-After`
    are judged by `now_ms`.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        *,
        max_bytes: int,
        now_ms: Callable[[], int],
        tracing: Tracing | None = None,
    ) -> None:
        self._session = session
        self._base = yarl.URL(base_url)
        self._server = f"{self._base.host}:{self._base.port}"
        self._max_bytes = max_bytes
        self._now_ms = now_ms
        self._limits = TimeLimits()
        self._tracing = tracing or Tracing()

    async def submit(self, spec: JobSpec, api_key: str, *, timeout_s: float) -> SubmitOutcome:
        """Submit a job, once, within `timeout_s` in all. The key travels in `X-API-Key` and nowhere else."""
        if not api_key or not api_key.isascii() or not api_key.isprintable():
            # A header cannot carry it, and the upstream would not know it.
            return Unauthorized("the API key has characters that no key has")
        url = self._base.joinpath("scrapers", _segment(spec.scraper), "jobs", encoded=True).with_query(query_of(spec))
        try:
            answer = await self._send(_SUBMIT, url, timeout_s, api_key, {"X-API-Key": api_key})
        except _UNSENT as error:
            return Unsent(_reason(error))
        except _BROKEN as error:
            return Ambiguous(_reason(error))
        return read_submit(answer)

    async def poll(self, upstream_job_id: str, *, timeout_s: float) -> PollOutcome:
        """Ask how a job stands, once, within `timeout_s` in all. Any id that is not empty will do."""
        # The quickest of the ways that yarl has: this is done for every poll.
        url = self._base.with_path(f"{self._base.raw_path.rstrip('/')}/jobs/{_segment(upstream_job_id)}", encoded=True)
        try:
            answer = await self._send(_POLL, url, timeout_s, upstream_job_id, {})
        except AnswerTooLarge:
            return UpstreamFailed(f"result larger than {self._max_bytes} bytes")
        except _BROKEN as error:
            return PollUnavailable(_reason(error))
        return read_poll(answer)

    async def _send(
        self, call: tuple[str, str], url: yarl.URL, timeout_s: float, secret: str, headers: dict[str, str]
    ) -> Answer:
        method, template = call
        ends_s = asyncio.get_running_loop().time() + timeout_s
        with self._tracing.sending(method, self._server, template) as span:
            async with (
                self._limits.within(timeout_s),
                self._session.request(
                    method, url, headers=headers, timeout=_connect_within(timeout_s / 2), allow_redirects=False
                ) as response,
            ):
                span.answered(response.status)
                body = await self._body(response, ends_s)
                wait_s = parse_retry_after(response.headers.get("Retry-After"), self._now_ms() / 1000)
                return Answer(response.status, body, wait_s, secret)

    async def _body(self, response: aiohttp.ClientResponse, ends_s: float) -> bytes:
        if is_success(response.status):
            return await read_bounded(response, self._max_bytes)
        try:
            async with asyncio.timeout_at(ends_s - _SOONER_S):
                return await read_bounded(response, min(self._max_bytes, _REFUSAL_BYTES))
        except _BROKEN:
            # The status is there, and says what there is to know.
            response.close()
            return b""


@lru_cache(64)
def _connect_within(timeout_s: float) -> aiohttp.ClientTimeout:
    # A connection that takes half of the time is given up while it is still certain that nothing was sent.
    return aiohttp.ClientTimeout(total=None, connect=timeout_s)


def query_of(spec: JobSpec) -> dict[str, str]:
    """The query string's parameters of a submit: the four that are always sent, then the scraper's own."""
    query = {
        "prompt": spec.prompt,
        "country": spec.country,
        "bypass_cache": _plain(spec.bypass_cache),
        "timeout": _plain(int(spec.timeout_s) if spec.timeout_s == int(spec.timeout_s) else spec.timeout_s),
    }
    return query | {name: _plain(value) for name, value in spec.params.items()}


def _plain(value: str | float) -> str:
    """A value as text: booleans as `true` and `false`, numbers as in JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _segment(text: str) -> str:
    """`text` as one segment of a path, whatever is in it."""
    quoted = quote(text, safe="")
    # Dots alone would be taken for steps in the tree.
    return quoted if quoted.strip(".") else quoted.replace(".", "%2E")


def _reason(error: Exception) -> str:
    """What broke, for logs: without the URL, in which the prompt or an id would be."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "its name does not resolve"
        case aiohttp.ClientConnectorCertificateError():
            return "its certificate is not trusted"
        case aiohttp.ClientSSLError():
            return "no TLS with it"
        case aiohttp.ClientConnectorError():
            return f"could not connect: {_system_error(error)}"
        case aiohttp.ConnectionTimeoutError():
            return "no connection in time"
        case aiohttp.InvalidURL():
            return "its URL is none"
        case TimeoutError():
            return "no answer in time"
        case aiohttp.ClientPayloadError():
            return "the answer broke off"
        case aiohttp.ClientResponseError():
            return "the answer is not HTTP"
        case _:
            return "the connection broke"


def _system_error(error: OSError) -> str:
    # asyncio's own text names the address as well.
    return os.strerror(error.errno).lower() if error.errno else type(error).__name__
