"""Jobs that keep coming while something is broken. Alone knows how they are asked for until they are accepted."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp

from tests.processes import until

#: Errors that a client of ours meets while the relay is being killed.
_AWAY = (aiohttp.ClientError, TimeoutError, OSError)
_AGAIN_S = 0.1
_CALL_S = 10


class Asked(Protocol):
    """Who is asked for jobs, and whose inbox their callbacks go to."""

    inbox_url: str

    async def call(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        """One call of the API: the status, and the JSON of the answer."""


@dataclass
class Load:
    """Clients that ask for jobs under idempotency keys, each job until it is accepted."""

    system: Asked
    #: The path at the inbox that the callbacks go to.
    path: str = "/hook"
    #: What every prompt begins with.
    markers: str = "[latency=0.3]"
    #: What every key begins with.
    prefix: str = "job"
    #: The jobs by their keys.
    accepted: dict[str, str] = field(default_factory=dict)
    #: Keys that were asked for again, and named another job: none, or something is wrong.
    changed: list[str] = field(default_factory=list)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    async def ask(self, key: str) -> str | None:
        """Ask once for the job of `key`; its id, or None where the service could not take it now."""
        body = {
            "scraper": "chatgpt",
            "prompt": f"{self.markers} {key}",
            "callback_url": f"{self.system.inbox_url}{self.path}",
        }
        try:
            async with asyncio.timeout(_CALL_S):
                status, answer = await self.system.call("POST", "/v1/jobs", body, **{"Idempotency-Key": key})
        except _AWAY:
            return None
        if status == 503:
            assert answer["code"] == "store_unavailable", answer
            return None
        assert status == 202, answer
        job = str(answer["id"])
        if self.accepted.setdefault(key, job) != job:
            self.changed.append(key)
        return job

    async def one(self) -> None:
        """Ask for one more job until it is accepted."""
        key = f"{self.prefix}-{next(self._numbers)}"
        while await self.ask(key) is None:
            await asyncio.sleep(_AGAIN_S)

    async def goes_on(self, by: int, timeout_s: float) -> None:
        """Wait until `by` more jobs have been accepted than now."""
        wanted = len(self.accepted) + by
        await until(lambda: len(self.accepted) >= wanted, timeout_s, lambda: f"{len(self.accepted)} of {wanted} jobs")

    @contextlib.asynccontextmanager
    async def coming(self, clients: int, pause_s: float, most: int = 1_000_000) -> AsyncIterator[None]:
        """While this lasts, `clients` ask for jobs, with a pause after each; every job begun is accepted at the end."""
        over = asyncio.Event()
        left = iter(range(most))

        async def client() -> None:
            while not over.is_set() and next(left, None) is not None:
                await self.one()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), pause_s)

        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(client())
            try:
                yield
            finally:
                over.set()
