"""A real worker in the test's own loop, on a real store, with jobs that are accepted by hand."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import aiohttp
import yarl
from prometheus_client.parser import text_string_to_metric_families

from relay.core.model import Attempt, Callback, ClientName, ErrorCode, Job, JobSpec, JobStatus
from relay.core.settings import Settings, hash_api_key
from relay.core.signing import new_secret
from relay.core.store import Store
from relay.dev.inbox import Inbox, Received
from tests.integration.store_harness import Bench, make_admission, make_callback, make_spec
from tests.integration.worker_peers import serving
from tests.processes import free_port
from worker import service

T = TypeVar("T")

#: The one client, where there is no clients file.
DEFAULT = ClientName("default")
UPSTREAM_KEY = "the-operators-upstream-key"
SECRET = new_secret()
#: For what takes a fraction of a second on a machine that has nothing else to do.
WAIT_S = 20.0
STOP_S = 15.0

FAST: Mapping[str, Any] = {
    "upstream_api_key": UPSTREAM_KEY,
    "api_key": "key-of-the-tests",
    "signing_secret": SECRET,
    "worker_host": "127.0.0.1",
    "worker_port": 0,
    "callback_allowed_networks": "127.0.0.0/8",
    "callback_schedule": "0,0.2,0.2",
    "poll_interval_s": 0.1,
    "poll_min_interval_s": 0.1,
    "lease_s": 3,
    "stop_grace_s": 10,
}


async def eventually(ask: Callable[[], Awaitable[T]], holds: Callable[[T], bool], timeout_s: float = WAIT_S) -> T:
    """Ask until the answer `holds`, and return it; fail with the last answer after `timeout_s`."""
    loop = asyncio.get_running_loop()
    ends_s = loop.time() + timeout_s
    while not holds(answer := await ask()):
        assert loop.time() < ends_s, f"not within {timeout_s} s: {answer!r}"
        await asyncio.sleep(0.02)
    return answer


def callback_to(url: str, **changes: Any) -> Callback:
    """A callback that asks for every event of a job."""
    target = yarl.URL(url)
    return make_callback(url=url, **{"destination": f"{target.host}:{target.port}"} | changes)


def write_clients(path: Path, **clients: str | None) -> Path:
    """A clients file in which every client signs with SECRET, and has the given upstream key or none of its own."""
    sections = []
    for name, upstream_key in clients.items():
        lines = [
            f"[clients.{name}]",
            f'api_key_sha256 = ["{hash_api_key(f"key of {name}")}"]',
            f'signing_secrets = ["{SECRET}"]',
        ]
        if upstream_key is not None:
            lines.append(f'upstream_api_key = "{upstream_key}"')
        sections.append("\n".join(lines))
    path.write_text("\n\n".join(sections))
    return path


@dataclass(slots=True)
class Worker:
    """A running worker."""

    task: "asyncio.Task[None]"
    told: asyncio.Event
    settings: Settings
    http: aiohttp.ClientSession

    async def stop(self) -> float:
        """Tell it to stop; returns how many seconds that took."""
        began_s = asyncio.get_running_loop().time()
        self.told.set()
        async with asyncio.timeout(self.settings.stop_grace_s + STOP_S):
            await self.task
        return asyncio.get_running_loop().time() - began_s

    async def get(self, path: str) -> tuple[int, str]:
        """Ask its HTTP server, which must have a port: the status and the body."""
        async with self.http.get(f"http://127.0.0.1:{self.settings.worker_port}{path}") as response:
            return response.status, await response.text()

    async def metric(self, name: str, **labels: str) -> float:
        """One of its metrics; 0 where it was never counted."""
        _, text = await self.get("/metrics")
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == f"scrapellm_relay_{name}" and labels.items() <= sample.labels.items()
        )


@contextlib.asynccontextmanager
async def started(settings: Settings) -> AsyncIterator[Worker]:
    """A worker with these settings, until the end of the context at the latest. It need not be ready yet."""
    told = asyncio.Event()
    async with aiohttp.ClientSession(trust_env=False) as http:
        worker = Worker(asyncio.create_task(service.run(settings, told)), told, settings, http)
        try:
            yield worker
        finally:
            await worker.stop()


@dataclass(slots=True)
class Rig:
    """A store, an inbox, and as many workers as a test starts."""

    bench: Bench
    inbox: Inbox
    inbox_url: str
    workers: list[Worker] = field(default_factory=list)

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, store_url: str, upstream_url: str, **settings: Any) -> AsyncIterator[Self]:
        """A rig whose workers have these settings; whatever they did, the store is consistent at the end."""
        inbox = Inbox([SECRET])
        async with (
            serving(inbox.build_app()) as inbox_url,
            Bench.open(store_url, **{**FAST, "upstream_url": upstream_url, **settings}) as bench,
        ):
            yield cls(bench, inbox, inbox_url)

    @property
    def store(self) -> Store:
        """The store, as the HTTP service sees it."""
        return self.bench.store

    @contextlib.asynccontextmanager
    async def working(self, *, measured: bool = False, **changes: Any) -> AsyncIterator[Worker]:
        """A worker; `measured` gives its HTTP server a port that is known."""
        if measured:
            changes["worker_port"] = free_port()
        settings = self.bench.settings.model_copy(update=changes)
        async with started(settings) as worker:
            self.workers.append(worker)
            try:
                if measured:
                    await eventually(self._is_ready(worker), bool)
                yield worker
            finally:
                self.workers.remove(worker)

    def _is_ready(self, worker: Worker) -> Callable[[], Awaitable[bool]]:
        async def ask() -> bool:
            self._check_workers()
            with contextlib.suppress(aiohttp.ClientConnectionError):
                return (await worker.get("/readyz"))[0] == 200
            return False

        return ask

    def _check_workers(self) -> None:
        for worker in self.workers:
            if worker.task.done() and not worker.told.is_set():
                worker.task.result()
                raise AssertionError("a worker has ended")

    # Jobs.

    def spec(self, prompt: str = "[latency=0] Why?", url: str | None = None, **changes: Any) -> JobSpec:
        """A job whose callback goes to the inbox, or to `url`."""
        fields: dict[str, Any] = {"prompt": prompt} | changes
        fields["callback"] = fields.get("callback") or callback_to(url or f"{self.inbox_url}/hook")
        return make_spec(**fields)

    async def accept(
        self, prompt: str = "[latency=0] Why?", url: str | None = None, *, client: ClientName = DEFAULT, **changes: Any
    ) -> Job:
        """Accept a job."""
        return (await self.store.accept(make_admission(client), self.spec(prompt, url, **changes))).job

    async def now(self, job: Job) -> Job:
        """A job as it is now."""
        self._check_workers()
        return await self.store.job(job.client, job.id)

    async def until(self, job: Job, holds: Callable[[Job], bool], timeout_s: float = WAIT_S) -> Job:
        """Wait for something about a job."""
        return await eventually(lambda: self.now(job), holds, timeout_s)

    async def ended(self, job: Job, timeout_s: float = WAIT_S) -> Job:
        """Wait until a job has its outcome."""
        return await self.until(job, lambda seen: seen.status.is_outcome, timeout_s)

    async def settled(self, job: Job, timeout_s: float = WAIT_S) -> Job:
        """Wait until a job has its outcome and its delivery has ended."""
        return await self.until(job, lambda seen: seen.delivery.status.is_ended, timeout_s)

    async def attempts(self, job: Job) -> Sequence[Attempt]:
        """The log of a job's attempts."""
        return await self.store.attempts(job.client, job.id)

    async def account(self, client: ClientName = DEFAULT) -> Mapping[str, float]:
        """A client's counters, but for those that are 0."""
        return {name: value for name, value in (await self.bench.work.account(client)).items() if value}

    def received(self, job: Job) -> list[Received]:
        """The attempts at a job's callback that the inbox has seen."""
        return [received for received in self.inbox.received if received.webhook_id == f"msg_{job.id}"]


def failure(job: Job) -> tuple[ErrorCode, str]:
    """Why a job failed."""
    assert job.status is JobStatus.FAILED, job
    assert job.error is not None
    return job.error.code, job.error.message


def lived_s(job: Job) -> float:
    """How long it took from acceptance to outcome."""
    assert job.completed_ms is not None
    return (job.completed_ms - job.created_ms) / 1000
