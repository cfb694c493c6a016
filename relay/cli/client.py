"""A client of the relay's HTTP API. Alone knows how calls and answers travel."""

import asyncio
import json
import os
import re
import ssl
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import ip_address
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlsplit

import aiohttp

from relay import __version__
from relay.cli.failures import Document, Refused, Unexpected, Unreachable, problem_of

#: The longest that the API holds one long poll.
_HOLD_S = 50
_ANSWER_WITHIN_S = 30.0
#: A batch may have 64 MiB to send and 10,000 jobs to judge.
_BATCH_WITHIN_S = 300.0
_CONNECT_WITHIN_S = 10.0
_REPEAT_AFTER_S = (0.5, 2.0)
#: A relay that restarts while somebody waits for a job may take this long.
_WAIT_RETRIES_S = (1.0, 2.0, 4.0, 8.0, 15.0)
_PAGE = 200
#: What ids are made of; anything else names nothing, and has no place in a path.
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

_OUTCOMES = frozenset({"done", "failed", "timed_out", "cancelled"})


@dataclass(frozen=True, slots=True)
class Target:
    """Which relay to talk to, and as whom."""

    url: str
    api_key: str = field(repr=False)

    @property
    def is_loopback(self) -> bool:
        """Whether the relay is on this machine."""
        return is_loopback(self.url)


def is_loopback(url: str) -> bool:
    """Whether `url` names this machine itself."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class RelayClient:
    """Calls of the API. Use it as an async context manager.

    Every method raises Unreachable, Refused or Unexpected. Submissions carry an idempotency key, so that one whose
    answer was lost is asked again without making a second job.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._base = target.url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._target.api_key}", "User-Agent": f"scrapellm-relay/{__version__}"},
            # A proxy is of no use on the way to this machine.
            trust_env=not self._target.is_loopback,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def submit(self, job: Document, *, idempotency_key: str | None = None) -> Document:
        """Accept one job; returns it."""
        return await self._submit("v1/jobs", job, idempotency_key, _ANSWER_WITHIN_S)

    async def submit_batch(self, batch: Document, *, idempotency_key: str | None = None) -> Document:
        """Accept a batch; returns its `id`, `count` and `job_ids`."""
        return await self._submit("v1/batches", batch, idempotency_key, _BATCH_WITHIN_S)

    async def job(self, job_id: str, *, wait_s: int = 0) -> Document:
        """One job; held up to `wait_s` (0 to 60) seconds until it has an outcome."""
        query = {"wait": str(wait_s)} if wait_s else None
        return await self._call("GET", f"v1/jobs/{_checked(job_id)}", query=query, within_s=_ANSWER_WITHIN_S + wait_s)

    async def outcome(self, job_id: str) -> Document:
        """The job, once it has an outcome. A relay that is away for half a minute meanwhile is waited for."""
        pauses = iter(_WAIT_RETRIES_S)
        while True:
            try:
                job = await self.job(job_id, wait_s=_HOLD_S)
            except Unreachable:
                pause_s = next(pauses, None)
                if pause_s is None:
                    raise
                await asyncio.sleep(pause_s)
            else:
                if job.get("status") in _OUTCOMES:
                    return job
                pauses = iter(_WAIT_RETRIES_S)

    async def jobs(
        self,
        *,
        statuses: Sequence[str] = (),
        deliveries: Sequence[str] = (),
        batch_id: str | None = None,
        limit: int = 50,
    ) -> AsyncIterator[Document]:
        """The newest `limit` jobs that match, newest first, read page by page."""
        query = [*(("status", s) for s in statuses), *(("delivery", d) for d in deliveries)]
        if batch_id is not None:
            query.append(("batch_id", batch_id))
        cursor: str | None = None
        while limit > 0:
            page_query = [*query, ("limit", str(min(limit, _PAGE)))]
            if cursor is not None:
                page_query.append(("cursor", cursor))
            page = await self._call("GET", "v1/jobs", query=page_query)
            for job in page["data"]:
                yield job
            limit -= len(page["data"])
            cursor = page["next_cursor"]
            if cursor is None:
                return

    async def attempts(self, job_id: str) -> list[Document]:
        """The attempts at the job's callback, oldest first."""
        answer = await self._call("GET", f"v1/jobs/{_checked(job_id)}/attempts")
        return list(answer["data"])

    async def batch(self, batch_id: str) -> Document:
        """One batch."""
        return await self._call("GET", f"v1/batches/{_checked(batch_id)}")

    async def redeliver(self, subject_id: str) -> Document:
        """Repeat the callback of a job or of a batch; returns that."""
        kind = "batches" if subject_id.startswith("batch_") else "jobs"
        return await self._call("POST", f"v1/{kind}/{_checked(subject_id)}/redeliver")

    async def redeliver_many(self, selection: Document) -> int:
        """Repeat the callbacks that `selection` names; returns how many."""
        answer = await self._call("POST", "v1/jobs/redeliver", body=selection)
        return int(answer["count"])

    async def destinations(self, states: Sequence[str] = (), limit: int = 50) -> list[Document]:
        """Where callbacks went, and how they fare there; at most 200."""
        query = [*(("state", state) for state in states), ("limit", str(limit))]
        answer = await self._call("GET", "v1/destinations", query=query)
        return list(answer["data"])

    async def resume_destination(self, name: str) -> Document:
        """Have what waits for `host:port` sent."""
        return await self._call("POST", f"v1/destinations/{quote(name, safe='')}/resume")

    async def _submit(self, path: str, body: Document, idempotency_key: str | None, within_s: float) -> Document:
        key = uuid.uuid4().hex if idempotency_key is None else idempotency_key
        return await self._call("POST", path, body=body, headers={"Idempotency-Key": key}, within_s=within_s)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
        body: Document | None = None,
        headers: Mapping[str, str] | None = None,
        within_s: float = _ANSWER_WITHIN_S,
    ) -> Document:
        if self._session is None:
            raise RuntimeError("use the client as an async context manager")
        # What is not UTF-8 on the command line is sent as it is: the relay says what is wrong with it.
        text = None if body is None else json.dumps(body, ensure_ascii=False, allow_nan=False)
        data = None if text is None else text.encode(errors="surrogatepass")
        sent = dict(headers or {}) | ({} if data is None else {"Content-Type": "application/json"})
        # What may be asked twice without harm is asked again when a connection breaks.
        pauses = iter(_REPEAT_AFTER_S if method == "GET" or "Idempotency-Key" in sent else ())
        while True:
            try:
                async with self._session.request(
                    method,
                    f"{self._base}/{path}",
                    params=query,
                    data=data,
                    headers=sent,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=within_s, sock_connect=_CONNECT_WITHIN_S),
                ) as response:
                    return self._read(response.status, response.headers, await response.read())
            except (aiohttp.ClientConnectorError, aiohttp.ClientProxyConnectionError, ssl.SSLError) as error:
                raise Unreachable(
                    f"no relay at {self._target.url}: {_reason(error)}; start one, or give --url"
                ) from error
            except aiohttp.InvalidURL as error:
                raise Unexpected(f"{self._target.url} is not the address of a relay") from error
            except TimeoutError as error:
                raise Unreachable(f"the relay at {self._target.url} does not answer") from error
            except aiohttp.ClientError as error:
                pause_s = next(pauses, None)
                if pause_s is None:
                    raise Unreachable(f"the relay at {self._target.url} broke off the connection") from error
                await asyncio.sleep(pause_s)

    def _read(self, status: int, headers: Mapping[str, str], body: bytes) -> Document:
        try:
            document = json.loads(body)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            if status in (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT):
                raise Unreachable(f"no relay at {self._target.url}: something before it answers {status}")
            raise Unexpected(f"{self._target.url} answered {status} with something that is not the relay's API")
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return document
        problem = problem_of(status, document, headers.get("Retry-After"))
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise Unreachable(f"the relay at {self._target.url} cannot do it now: {problem.line()}")
        raise problem


def _checked(name: str) -> str:
    if _ID.fullmatch(name) is None:
        raise Refused(HTTPStatus.NOT_FOUND, "not_found", "There is no such thing, or it is not yours.")
    return name


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate is not trusted"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the host name does not resolve"
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        return os.strerror(number).lower() if number else "connection failed"
    return "connection failed"
