"""An emulator of the upstream in this process, on a real port, and a client that tells what it answered."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import yarl

from relay.core.egress import upstream_session
from relay.core.settings import Settings
from relay.dev.emulator import EmulatorSettings, start

KEY = "the-upstream-key"
#: For what ends by itself; a test that waits longer has found a bug.
BOUND_S = 10.0
_LOOK_EVERY_S = 0.01


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def detail(self) -> str:
        """The text of an error, whose body has nothing else."""
        assert self.body.keys() == {"detail"}
        return str(self.body["detail"])


@dataclass(frozen=True)
class Emulated:
    """A running emulator, and the one who asks it."""

    url: str
    http: aiohttp.ClientSession

    async def ask(self, method: str, path: str, **options: Any) -> Answer:
        """One request, and its answer in JSON."""
        url = yarl.URL(self.url + path, encoded=True)
        async with self.http.request(method, url, **options) as response:
            return Answer(response.status, response.headers, await response.json())

    async def submit(
        self, prompt: str = "[latency=0] Why?", *, scraper: str = "chatgpt", key: str | None = KEY, **parameters: str
    ) -> Answer:
        """Submit a job; the parameters travel in the query string."""
        headers = {} if key is None else {"X-API-Key": key}
        query = yarl.URL.build(query={"prompt": prompt, **parameters}).raw_query_string
        return await self.ask("POST", f"/scrapers/{scraper}/jobs?{query}", headers=headers)

    async def take(self, prompt: str = "[latency=0] Why?", **options: Any) -> str:
        """Submit a job that must be taken; returns its id."""
        answer = await self.submit(prompt, **options)
        assert answer.status == 202, answer.body
        return str(answer.body["job_id"])

    async def poll(self, job_id: str) -> Answer:
        """Ask how a job stands; without a key."""
        return await self.ask("GET", f"/jobs/{job_id}")

    async def ended(self, job_id: str) -> dict[str, Any]:
        """Wait until the job is done or failed; returns the last answer's body."""
        give_up = time.monotonic() + BOUND_S
        while time.monotonic() < give_up:
            answer = await self.poll(job_id)
            assert answer.status == 200
            body: dict[str, Any] = answer.body
            if body["status"] != "pending":
                return body
            await asyncio.sleep(_LOOK_EVERY_S)
        raise AssertionError("the job does not end")

    async def taken_without_answer(self, prompt: str = "[latency=0] Why?") -> None:
        """Submit, and go away when the job has been taken; there must be no answer by then."""
        before = (await self.stats())["submits"]
        submitting = asyncio.create_task(self.submit(prompt))
        give_up = time.monotonic() + BOUND_S
        while (await self.stats())["submits"] == before and time.monotonic() < give_up:
            await asyncio.sleep(_LOOK_EVERY_S)
        assert not submitting.done()
        submitting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await submitting
        assert (await self.stats())["submits"] == before + 1

    async def stats(self) -> dict[str, Any]:
        """What it has counted."""
        stats: dict[str, Any] = (await self.ask("GET", "/_emulator/stats")).body
        return stats

    async def change(self, **settings: object) -> Answer:
        """Change settings while it runs."""
        return await self.ask("POST", "/_emulator/settings", json=settings)


@contextlib.asynccontextmanager
async def emulated(**settings: object) -> AsyncIterator[Emulated]:
    """An emulator with these settings, in which no job fails by chance."""
    given = {"failure_rate": 0, **settings}
    runner = await start(EmulatorSettings.load(_env_file=None, **given), "127.0.0.1", 0)
    try:
        # aiohttp's own session would repeat a GET that was cut, and hide the cut.
        async with upstream_session(Settings.load(_env_file=None, upstream_timeout_s=BOUND_S)) as http:
            yield Emulated(f"http://127.0.0.1:{runner.addresses[0][1]}", http)
    finally:
        await runner.cleanup()
