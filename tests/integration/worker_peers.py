"""Whom a worker talks to, on loopback: the emulator, an upstream whose answers a test writes, and a receiver."""

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from relay.dev.emulator import EmulatorSettings, start

RESULT = b'{"result":"Paris.","credits_used":3}'


@contextlib.asynccontextmanager
async def serving(app: web.Application, port: int = 0) -> AsyncIterator[str]:
    """Serve `app`; yields its address."""
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class Emulated:
    """The emulator, and the way to ask and to steer it."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self.url = url

    async def change(self, **settings: Any) -> None:
        """Change settings while it runs."""
        async with self._http.post(f"{self.url}/_emulator/settings", json=settings) as response:
            assert response.status == 200, await response.text()

    async def stats(self) -> dict[str, Any]:
        """What it has counted."""
        return await self._get("stats")

    async def received(self, upstream_job_id: str | None) -> dict[str, Any]:
        """A job as it was received."""
        return await self._get(f"jobs/{upstream_job_id}")

    async def taken(self) -> int:
        """How many jobs it has taken."""
        return int((await self.stats())["submits"])

    async def _get(self, path: str) -> dict[str, Any]:
        async with self._http.get(f"{self.url}/_emulator/{path}") as response:
            assert response.status == 200, await response.text()
            return dict(await response.json())


@contextlib.asynccontextmanager
async def emulated(port: int = 0, **settings: Any) -> AsyncIterator[Emulated]:
    """An emulator whose jobs take no time unless `settings` or prompts say so."""
    values = {"failure_rate": 0, "latency_scale": 0.001, "cached_latency_s": 0, "retry_after_s": 1}
    runner = await start(EmulatorSettings.load(_env_file=None, **values | settings), "127.0.0.1", port)
    try:
        async with aiohttp.ClientSession(trust_env=False) as http:
            yield Emulated(http, f"http://127.0.0.1:{runner.addresses[0][1]}")
    finally:
        await runner.cleanup()


@dataclass(frozen=True, slots=True)
class Asked:
    """One request to the upstream."""

    #: On the clock of the event loop.
    at_s: float
    #: Unix seconds.
    time_s: float
    #: Of a submit; empty for a poll.
    prompt: str
    key: str
    query: Mapping[str, str]
    #: The upstream id of a poll; empty for a submit.
    job_id: str


Answering = Callable[[Asked], Awaitable[web.Response]]


class Upstream:
    """An upstream that answers as a test says: without more, it takes every job, and each is done at once."""

    def __init__(self, *, submit: Answering | None = None, poll: Answering | None = None) -> None:
        self._answer_submit, self._answer_poll = submit or taking, poll or answering(done())
        self.submits: list[Asked] = []
        self.polls: list[Asked] = []
        self.url = ""

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["Upstream"]:
        """Serve it."""
        app = web.Application()
        app.add_routes([web.post("/scrapers/{scraper}/jobs", self._submit), web.get("/jobs/{job_id}", self._poll)])
        async with serving(app) as self.url:
            yield self

    async def _submit(self, request: web.Request) -> web.Response:
        self.submits.append(asked := _asked(request))
        return await self._answer_submit(asked)

    async def _poll(self, request: web.Request) -> web.Response:
        self.polls.append(asked := _asked(request))
        return await self._answer_poll(asked)


def _asked(request: web.Request) -> Asked:
    return Asked(
        asyncio.get_running_loop().time(),
        time.time(),
        request.query.get("prompt", ""),
        request.headers.get("X-API-Key", ""),
        dict(request.query),
        request.match_info.get("job_id", ""),
    )


def upstream_id(prompt: str) -> str:
    """The id that the upstream gives the job with this prompt."""
    return f"upstream-id-of-{prompt}"


async def taking(asked: Asked) -> web.Response:
    """Take a job."""
    return web.json_response({"job_id": upstream_id(asked.prompt), "status": "pending"}, status=202)


def answering(*answers: Callable[[], web.Response]) -> Answering:
    """Answer the first time with the first of `answers`, and so on; the last one stays. Counted for each job."""
    times: Counter[str] = Counter()

    async def answer(asked: Asked) -> web.Response:
        who = asked.job_id or asked.prompt
        times[who] += 1
        return answers[min(times[who], len(answers)) - 1]()

    return answer


def pending() -> web.Response:
    """The job is not done yet."""
    return web.json_response({"job_id": "the id", "status": "pending"})


def done(result: bytes = RESULT) -> Callable[[], web.Response]:
    """The job is done; `result` is put into the answer as it is."""
    body = b'{"job_id":"the id","status":"done","result":' + result + b"}"
    return lambda: web.Response(body=body, content_type="application/json")


def refusing(status: int, detail: str = "No.", **headers: str) -> Callable[[], web.Response]:
    """An error of the upstream; underscores in the names of `headers` stand for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda: web.json_response({"detail": detail}, status=status, headers=named)


@dataclass(frozen=True, slots=True)
class Arrival:
    """One attempt at a callback."""

    #: On the clock of the event loop.
    at_s: float
    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def document(self) -> dict[str, Any]:
        """The body."""
        return dict(json.loads(self.body))


Replying = Callable[[Arrival], Awaitable[web.Response]]


async def thanking(_arrival: Arrival) -> web.Response:
    """Take a callback."""
    return web.Response(status=204)


def thanking_after(go_on: asyncio.Event) -> Replying:
    """Answers once a test lets it; until then attempts hang."""

    async def hold(_arrival: Arrival) -> web.Response:
        await go_on.wait()
        return web.Response(status=204)

    return hold


class Receiver:
    """A receiver that answers as a test says, and notes what comes, when, and how much of it at once."""

    def __init__(self, reply: Replying = thanking) -> None:
        self._reply = reply
        self.arrivals: list[Arrival] = []
        self.at_once = 0
        self.most_at_once = 0
        self.url = ""

    @contextlib.asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator["Receiver"]:
        """Serve it."""
        app = web.Application(client_max_size=32 * 1024 * 1024)
        app.add_routes([web.route("*", "/{path:.*}", self._receive)])
        async with serving(app, port) as self.url:
            yield self

    def at(self, path: str) -> list[Arrival]:
        """The attempts at one path."""
        return [arrival for arrival in self.arrivals if arrival.path == path]

    async def _receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        # With lower-case names, as they are compared.
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.arrivals.append(arrival := Arrival(asyncio.get_running_loop().time(), request.path, headers, body))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self._reply(arrival)
        finally:
            self.at_once -= 1
