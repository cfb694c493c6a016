"""Healthy receivers under a steady load, beside bad ones with a backlog. Alone knows how lateness is taken.

Lateness is the time from a job's outcome, by the store's clock, to the arrival of its callback.
"""

import asyncio
import contextlib
import json
import math
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from relay.core.settings import hash_api_key
from relay.core.signing import new_secret
from tests.faults.receivers import Receiver, Serve, read_request
from tests.processes import API_KEY, System, eventually, until

HEALTHY = 50
#: The API key of the client `other`.
OTHER_KEY = "another-key-of-the-tests"
_TAKEN = b"HTTP/1.1 204 No Content\r\n\r\n"
_ARRIVE_S = 30.0
#: Backlogs of thousands on two cores.
_FILL_S = 60.0


def system_for(folder: Path, settings: dict[str, str]) -> System:
    """A system whose clients may have as many jobs as they like, with an upstream in which nothing fails.

    The healthy receivers are those of `default`; `other` has receivers of its own.
    """
    secret = new_secret()
    clients = folder / "clients.toml"
    clients.write_text(
        "".join(
            f'[clients.{name}]\napi_key_sha256 = ["{hash_api_key(key)}"]\nsigning_secrets = ["{secret}"]\n'
            "max_unfinished_jobs = 1000000\njobs_per_minute = 1000000\n"
            for name, key in (("default", API_KEY), ("other", OTHER_KEY))
        )
    )
    polls = {"RELAY_POLL_INTERVAL_S": "0.2", "RELAY_POLL_MIN_INTERVAL_S": "0.2"}
    settings = polls | settings | {"RELAY_CLIENTS_FILE": str(clients)}
    return System(folder, settings, {"EMULATOR_FAILURE_RATE": "0"}, secret=secret)


@dataclass(frozen=True, slots=True)
class Lateness:
    """How late callbacks came."""

    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, late_ms: Sequence[float]) -> "Lateness":
        """Of so many callbacks, by the nearest rank."""
        ordered = sorted(late_ms)
        return cls(*(ordered[math.ceil(len(ordered) * share) - 1] for share in (0.5, 0.99)))


@dataclass
class Crowd:
    """Fifty healthy receivers, each with a port of its own. Each belongs to one of the clients."""

    system: System
    api_keys: Sequence[str] = (API_KEY,)
    urls: list[str] = field(default_factory=list)
    #: What came, and when.
    _arrived: list[tuple[float, bytes]] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["Crowd"]:
        """The receivers, while they serve."""
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(HEALTHY):
                receiver = await stack.enter_async_context(Receiver(self._take).serving())
                self.urls.append(receiver.url)
            yield self

    async def callbacks(self, name: str, count: int, per_s: float) -> Lateness:
        """So many callbacks at a steady rate."""
        self._arrived.clear()
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def ask(number: int) -> None:
            await asyncio.sleep(began + number / per_s - loop.time())
            url = self.urls[number % len(self.urls)]
            job = {"scraper": "chatgpt", "prompt": f"[latency=0.1] {name} {number}", "callback_url": url}
            api_key = self.api_keys[number % len(self.api_keys)]
            status, answer = await self.system.call("POST", "/v1/jobs", job, **_as(api_key))
            assert status == 202, answer

        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(ask(number))
        await until(lambda: len(self._arrived) >= count, _ARRIVE_S, lambda: f"{name}: {len(self._arrived)} arrived")
        late_ms = dict(_read(*one) for one in reversed(self._arrived))
        assert len(late_ms) == count, "a callback came twice"
        return Lateness.of(list(late_ms.values()))

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_request(reader)
            self._arrived.append((time.time(), request))
            writer.write(_TAKEN)


def _read(arrived_s: float, request: bytes) -> tuple[str, float]:
    """The event that a request brings, and how many milliseconds after its outcome that was."""
    event = json.loads(request.partition(b"\r\n\r\n")[2])
    completed = datetime.fromisoformat(event["data"]["completed_at"]).timestamp()
    return event["data"]["id"], (arrived_s - completed) * 1000


async def side_by_side(name: str, crowds: Sequence[Crowd], count: int, per_s: float) -> list[Lateness]:
    """The same at several systems at the same time, so that what else the machine does hits all of them."""
    return await asyncio.gather(*(crowd.callbacks(name, count, per_s) for crowd in crowds))


@dataclass(frozen=True, slots=True)
class Backlog:
    """Bad receivers, each with as many callbacks due as there are."""

    system: System
    receivers: Sequence[Receiver]
    batch: str
    api_key: str

    async def due(self) -> int:
        """How many callbacks still have attempts before them."""
        delivery = (await self._state())["delivery"]
        return int(delivery["pending"] + delivery["retrying"])

    async def is_closed(self) -> bool:
        """Whether all of the receivers are left alone by now."""
        found = await self._get("/v1/destinations?state=unresponsive&limit=200")
        closed = {destination["destination"] for destination in found["data"]}
        return closed >= {one.url.split("/")[2] for one in self.receivers}

    async def _state(self) -> dict[str, Any]:
        return await self._get(f"/v1/batches/{self.batch}")

    async def _get(self, path: str) -> dict[str, Any]:
        status, answer = await self.system.call("GET", path, **_as(self.api_key))
        assert status == 200, answer
        return dict(answer)

    async def _is_filled(self) -> bool:
        return (await self._state())["completed_at"] is not None

    @classmethod
    @contextlib.asynccontextmanager
    async def at(
        cls, system: System, serve: Serve, *, receivers: int, callbacks: int, api_key: str = API_KEY
    ) -> AsyncIterator["Backlog"]:
        """So many receivers of a client that serve like this, once so many callbacks are due at each."""
        async with contextlib.AsyncExitStack() as stack:
            bad = [await stack.enter_async_context(Receiver(serve).serving()) for _ in range(receivers)]
            jobs = [
                {"scraper": "grok", "prompt": f"[latency=0.1] {one.url} {n}", "callback_url": one.url}
                for n in range(callbacks)
                for one in bad
            ]
            status, answer = await system.call("POST", "/v1/batches", {"jobs": jobs}, **_as(api_key))
            assert status == 202, answer
            backlog = cls(system, bad, answer["id"], api_key)
            await eventually(backlog._is_filled, _FILL_S, "not all outcomes of the backlog came")
            yield backlog


def _as(api_key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {api_key}"}


def slow(least_s: float, most_s: float) -> Serve:
    """Reads requests and answers each well, after a while; not all at the same moment, as long as these differ."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            await asyncio.sleep(random.uniform(least_s, most_s))
            writer.write(_TAKEN)

    return serve
