"""The calls of the API, by their names there. Alone knows paths, and how long each may take."""

import asyncio
import os
import re
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack
from urllib.parse import quote

from relay.client.documents import (
    AcceptedBatch,
    Attempt,
    Batch,
    BatchFields,
    Destination,
    Job,
    JobOptions,
    read,
)
from relay.client.errors import Misconfigured, NotFound, Unexpected
from relay.client.following import follow
from relay.client.sse import Change
from relay.client.transport import ANSWER_WITHIN_S, Call, Query, Transport

DEFAULT_URL = "http://127.0.0.1:8080"
#: The longest that one long poll is held, a bit less than the API allows.
_HOLD_S = 50
#: A batch may have 64 MiB to send and 10,000 jobs to judge.
_BATCH_WITHIN_S = 300.0
#: Who waits for what will happen would rather wait for the relay's restart, too.
_WAITING_PATIENCE_S = 60.0
_LOOK_EVERY_S = (0.3, 0.5, 1.0, 2.0)
_PAGE = 200
#: What ids are made of; anything else names nothing, and has no place in a path.
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

T = TypeVar("T")
D = TypeVar("D")


class RelayClient:
    """Calls of the API. Use it as an async context manager, in one event loop, from any number of tasks.

        async with RelayClient("https://relay.example.com", api_key) as relay:
            job = await relay.submit(scraper="chatgpt", prompt="Why?", callback_url="https://example.com/hook")
            print((await relay.wait(job)).result)

    Without arguments the address is that of `RELAY_URL`, or http://127.0.0.1:8080, and the key that of `RELAY_API_KEY`.
    Every call has a time limit, and raises the ClientErrors of `relay.client.errors`. What is safe to repeat is
    repeated for up to `patience_s` seconds, with growing pauses and as `Retry-After` says: reads, submits (which carry
    an idempotency key for that), cancels. A redelivery is repeated only where it was never sent.

    Proxies of the environment (`HTTPS_PROXY` …) are used, but not on the way to this machine.
    """

    def __init__(self, url: str | None = None, api_key: str | None = None, *, patience_s: float = 30.0) -> None:
        key = api_key or os.environ.get("RELAY_API_KEY")
        if not key:
            raise Misconfigured("no API key: give api_key, or set RELAY_API_KEY")
        self._transport = Transport(url or os.environ.get("RELAY_URL") or DEFAULT_URL, key, patience_s=patience_s)

    async def __aenter__(self) -> Self:
        await self._transport.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.close()

    async def submit(
        self,
        *,
        scraper: str,
        prompt: str,
        callback_url: str,
        idempotency_key: str | None = None,
        traceparent: str | None = None,
        **options: Unpack[JobOptions],
    ) -> Job:
        """Submit one prompt; returns the job that is in the store now.

        A key that you give makes the submit safe to repeat for 24 hours, also over restarts of your program; one is
        made for this call otherwise. `traceparent` (W3C trace context) goes along with the request.
        """
        body = {"scraper": scraper, "prompt": prompt, "callback_url": callback_url, **options}
        return await self._ask(Job, _submission("v1/jobs", body, idempotency_key, traceparent, ANSWER_WITHIN_S))

    async def submit_batch(
        self,
        *,
        idempotency_key: str | None = None,
        traceparent: str | None = None,
        **batch: Unpack[BatchFields],
    ) -> AcceptedBatch:
        """Submit up to 10,000 jobs, all or nothing: `jobs`, or every one of `prompts` to every one of `scrapers`.

        The other fields hold for all jobs that have none of their own.
        """
        call = _submission("v1/batches", dict(batch), idempotency_key, traceparent, _BATCH_WITHIN_S)
        return await self._ask(AcceptedBatch, call)

    async def job(self, job_id: str, *, wait_s: float = 0) -> Job:
        """One job; held up to `wait_s` (0 to 60) seconds until it has an outcome."""
        query = [("wait", f"{wait_s:g}")] if wait_s else []
        return await self._get(Job, f"v1/jobs/{_checked(job_id)}", query, held_s=wait_s)

    async def wait(self, job: Job | str) -> Job:
        """The job, or that of this id, once it has an outcome, which is at the latest soon after its deadline.

        A relay that is away for a minute meanwhile is waited for.
        """
        path = f"v1/jobs/{_checked(job if isinstance(job, str) else job.id)}"
        while True:
            began_s = time.monotonic()
            found = await self._get(Job, path, [("wait", str(_HOLD_S))], held_s=_HOLD_S, patience_s=_WAITING_PATIENCE_S)
            if found.status.is_outcome:
                return found
            # A relay that is stopping answers early.
            await asyncio.sleep(max(0.0, 1.0 - (time.monotonic() - began_s)))

    async def jobs(
        self,
        *,
        status: Sequence[str] = (),
        delivery: Sequence[str] = (),
        batch_id: str | None = None,
        limit: int | None = None,
    ) -> AsyncGenerator[Job, None]:
        """The jobs that match, newest first and without results, read page by page; the newest `limit`, or all."""
        query = [*(("status", s) for s in status), *(("delivery", d) for d in delivery)]
        if batch_id is not None:
            query.append(("batch_id", batch_id))
        cursor: list[tuple[str, str]] = []
        left = limit
        while left is None or left > 0:
            size = _PAGE if left is None else min(left, _PAGE)
            page = await self._call(Call("GET", "v1/jobs", [*query, ("limit", str(size)), *cursor], is_repeatable=True))
            found = _each(Job, page)
            for job in found:
                yield job
            left = None if left is None else left - len(found)
            if page.get("next_cursor") is None:
                return
            cursor = [("cursor", str(page["next_cursor"]))]

    async def cancel(self, job_id: str) -> Job:
        """Cancel a job; returns it. Raises Conflict where it has another outcome already."""
        return await self._ask(Job, Call("POST", f"v1/jobs/{_checked(job_id)}/cancel", is_repeatable=True))

    async def attempts(self, job_id: str) -> list[Attempt]:
        """The attempts at the job's callback, oldest first."""
        path = f"v1/jobs/{_checked(job_id)}/attempts"
        return _each(Attempt, await self._call(Call("GET", path, is_repeatable=True)))

    async def redeliver(self, job_id: str) -> Job:
        """Send the job's callback again. Raises Conflict where none has ended."""
        return await self._ask(Job, Call("POST", f"v1/jobs/{_checked(job_id)}/redeliver"))

    async def redeliver_batch(self, batch_id: str) -> Batch:
        """Send `batch.completed` again. Raises Conflict where its delivery has not ended."""
        return await self._ask(Batch, Call("POST", f"v1/batches/{_checked(batch_id)}/redeliver"))

    async def redeliver_many(
        self,
        *,
        delivery: str | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        callback_host: str | None = None,
    ) -> int:
        """Send the callbacks again whose delivery stands so (`exhausted`, unless given); returns how many.

        Those of jobs that ended from `since` on and before `until`, to exactly `callback_host`.
        """
        given = {
            "delivery": delivery,
            "since": _moment(since),
            "until": _moment(until),
            "callback_host": callback_host,
        }
        selection = {name: value for name, value in given.items() if value is not None}
        answer = await self._call(Call("POST", "v1/jobs/redeliver", body=selection))
        count = answer.get("count")
        if not isinstance(count, int):
            raise Unexpected("the answer is not the relay's: it has no count")
        return count

    async def batch(self, batch_id: str) -> Batch:
        """One batch."""
        return await self._get(Batch, f"v1/batches/{_checked(batch_id)}")

    async def watch_batch(self, batch_id: str) -> AsyncGenerator[Batch, None]:
        """The batch, again and again, until all of its jobs have an outcome: the last one is the whole of it."""
        path = f"v1/batches/{_checked(batch_id)}"
        looks = iter(_LOOK_EVERY_S)
        pause_s = next(looks)
        while True:
            found = await self._get(Batch, path, patience_s=_WAITING_PATIENCE_S)
            yield found
            if found.completed_at is not None:
                return
            await asyncio.sleep(pause_s)
            pause_s = next(looks, pause_s)

    def events(self, *, after: str | None = None) -> AsyncGenerator[Change, None]:
        """Every change of a job or batch of yours, as it happens, without end.

        The first item is a `reset`, and another one comes whenever changes may have been missed: read then what you
        need to know; what changes after that moment is told. With `after`, the `event_id` of a change, the stream goes
        on behind that, and begins with a `reset` only where the relay does not know it any more.

        A broken connection is made again, and goes on where it was. Raises as every call, once the relay is away for
        longer than a minute.
        """
        return follow(self._transport, after, _WAITING_PATIENCE_S)

    async def destinations(self, *, state: Sequence[str] = (), limit: int = 50) -> list[Destination]:
        """Where callbacks went in the last 30 days, the last first, and how they fare there; at most 200."""
        query = [*(("state", s) for s in state), ("limit", str(limit))]
        return _each(Destination, await self._call(Call("GET", "v1/destinations", query, is_repeatable=True)))

    async def destination(self, name: str) -> Destination:
        """How callbacks to `host:port` fare."""
        return await self._get(Destination, f"v1/destinations/{quote(name, safe='')}")

    async def resume(self, name: str) -> Destination:
        """Forget the failures of `host:port`, and have what waits for it sent."""
        path = f"v1/destinations/{quote(name, safe='')}/resume"
        return await self._ask(Destination, Call("POST", path, is_repeatable=True))

    async def _get(
        self, kind: type[D], path: str, query: Query = (), *, held_s: float = 0.0, patience_s: float = 0.0
    ) -> D:
        within_s = ANSWER_WITHIN_S + held_s
        call = Call("GET", path, query, within_s=within_s, is_repeatable=True, patience_s=patience_s)
        return await self._ask(kind, call)

    async def _ask(self, kind: type[D], call: Call) -> D:
        return _read(kind, await self._call(call))

    async def _call(self, call: Call) -> dict[str, Any]:
        return await self._transport.call(call)


def ask(call: Callable[[RelayClient], Coroutine[Any, Any, T]], url: str | None = None, api_key: str | None = None) -> T:
    """Make a call from a script that has no event loop; returns what it returns.

        job = ask(lambda relay: relay.wait("job_01…"))

    `call` may be an async function of yours that makes many. The address and the key are found as RelayClient does.
    """

    async def run() -> T:
        async with RelayClient(url, api_key) as relay:
            return await call(relay)

    return asyncio.run(run())


def _submission(
    path: str, body: Mapping[str, Any], idempotency_key: str | None, traceparent: str | None, within_s: float
) -> Call:
    headers = {"Idempotency-Key": uuid.uuid4().hex if idempotency_key is None else idempotency_key}
    if traceparent is not None:
        headers["traceparent"] = traceparent
    return Call("POST", path, body=body, headers=headers, within_s=within_s, is_repeatable=True)


def _read(kind: type[D], document: object) -> D:
    try:
        return read(kind, document)
    except ValueError as error:
        raise Unexpected(f"the answer is not the relay's: {error}") from error


def _each(kind: type[D], page: Mapping[str, Any]) -> list[D]:
    data = page.get("data")
    if not isinstance(data, list):
        raise Unexpected("the answer is not the relay's: it has no list of data")
    return [_read(kind, document) for document in data]


def _moment(moment: datetime | str | None) -> str | None:
    if not isinstance(moment, datetime):
        return moment
    if moment.tzinfo is None:
        raise ValueError("a time needs its time zone")
    return moment.isoformat()


def _checked(name: str) -> str:
    if _ID.fullmatch(name) is None:
        raise NotFound(HTTPStatus.NOT_FOUND, "not_found", "There is no such thing, or it is not yours.")
    return name
