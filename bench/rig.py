"""The system under measurement: store, relay, workers, upstream and sink, each a process of its own.

Alone knows how they are started and what they have used so far.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import redis

from relay.core.settings import hash_api_key
from relay.core.signing import new_secret
from tests.processes import API_KEY, STOP_S, Service, StoreProcess, free_port

#: No quota is in the way.
_CLIENTS = """\
[clients.default]
api_key_sha256 = ["{key}"]
signing_secrets = ["{secret}"]
max_unfinished_jobs = 1000000
jobs_per_minute = 1000000000
"""


def cpu_s(pids: int | Iterable[int]) -> float:
    """CPU time, user and system, that processes have used so far."""
    # The CPU-time clock of another process (clock_getcpuclockid(3)): in nanoseconds, where /proc counts ticks.
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in ((pids,) if isinstance(pids, int) else pids))


def resident_bytes(pid: int) -> int:
    """The memory that a process holds now."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


class Rig:
    """One of everything, and as many workers as wanted. `settings` are those of relay and workers."""

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None, workers: int = 1) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.secret = new_secret()
        self.store = StoreProcess(folder / "store", free_port())
        ports = {name: free_port() for name in ("relay", "upstream", "sink")}
        urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        self.relay_url, self.upstream_url, self._sink_url = urls["relay"], urls["upstream"], urls["sink"]
        self.callback_url = f"{self._sink_url}/hook"
        clients = folder / "clients.toml"
        clients.write_text(_CLIENTS.format(key=hash_api_key(API_KEY), secret=self.secret))
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("RELAY_", "SCRAPELLM_"))}
        self.environment = clean | {
            "RELAY_REDIS_URL": self.store.url,
            "RELAY_UPSTREAM_URL": self.upstream_url,
            "RELAY_UPSTREAM_API_KEY": "upstream-key",
            "RELAY_CLIENTS_FILE": str(clients),
            "RELAY_HOST": "127.0.0.1",
            "RELAY_PORT": str(ports["relay"]),
            "RELAY_WORKER_HOST": "127.0.0.1",
            "RELAY_CALLBACK_ALLOWED_NETWORKS": "127.0.0.0/8,::1/128",
            # One receiver gets everything here.
            "RELAY_CALLBACK_CONCURRENCY": "250",
            "RELAY_LOG_FORMAT": "json",
            **(settings or {}),
        }
        self.upstream = self.service("upstream", ["bench.upstream", str(ports["upstream"])], self.upstream_url)
        self.sink = self.service("sink", ["bench.sink", str(ports["sink"])], self._sink_url)
        self.relay = self.service("relay", ["relay"], f"{self.relay_url}/healthz")
        self.workers = [self._worker(number, free_port()) for number in range(workers)]

    def service(
        self, name: str, module: Sequence[str], ready_url: str, environment: Mapping[str, str] | None = None
    ) -> Service:
        """A process of this rig, not started."""
        ready_url = ready_url if ready_url.count("/") > 2 else f"{ready_url}/_bench/ready"
        environment = self.environment | dict(environment or {})
        return Service(name, ["-m", *module], environment, self.folder / f"{name}.log", ready_url)

    def _worker(self, number: int, port: int) -> Service:
        settings = {"RELAY_WORKER_PORT": str(port)}
        return self.service(f"worker-{number}", ["worker"], f"http://127.0.0.1:{port}/readyz", settings)

    @contextlib.asynccontextmanager
    async def running(self, *services: Service) -> AsyncIterator["Rig"]:
        """The store and `services`, or all of them, started; all ended afterwards."""
        self.http = aiohttp.ClientSession(trust_env=False, headers={"Authorization": f"Bearer {API_KEY}"})
        try:
            self.store.start()
            async with self.also_running(*(services or (self.upstream, self.sink, self.relay, *self.workers))):
                yield self
        finally:
            self.store.stop()
            await self.http.close()

    @contextlib.asynccontextmanager
    async def also_running(self, *services: Service) -> AsyncIterator[None]:
        """Some services, started; ended afterwards."""
        try:
            await asyncio.gather(*(service.start() for service in services))
            yield
        finally:
            await stop(*services)

    def worker_pids(self) -> list[int]:
        """The workers' process ids."""
        return [pid_of(worker) for worker in self.workers]

    def raw_store(self) -> Any:
        """A connection to the store, for looking at it. The caller closes it."""
        return redis.Redis.from_url(self.store.url)

    async def relayed(self, prompts: Sequence[str]) -> None:
        """Hand in a batch, and wait until all its callbacks have come."""
        expected = (await self.sunk("counts"))["callbacks"] + len(prompts)
        await self.accept(prompts)
        await self.callbacks(expected, 90 + len(prompts) / 50)

    async def accept(self, prompts: Sequence[str]) -> float:
        """Hand in a batch; returns the seconds until its 202."""
        body = {
            "callback_url": self.callback_url,
            "callback_events": ["job.completed", "job.failed"],
            "scrapers": ["chatgpt"],
            "prompts": list(prompts),
        }
        began_s = time.monotonic()
        async with self.http.post(f"{self.relay_url}/v1/batches", json=body) as response:
            answer = await response.text()
            assert response.status == 202, answer
        return time.monotonic() - began_s

    async def callbacks(self, expected: int, timeout_s: float) -> None:
        """Wait until so many different callbacks have come; fail after `timeout_s`."""
        ends_s = time.monotonic() + timeout_s
        while (come := (await self.sunk("counts"))["callbacks"]) < expected:
            assert time.monotonic() < ends_s, f"{come} of {expected} callbacks after {timeout_s:g} s"
            await asyncio.sleep(0.1)
        # The saves of the last ones.
        await asyncio.sleep(0.2)

    async def sunk(self, what: str) -> dict[str, Any]:
        """What the sink knows: `counts` or `came`."""
        return await self._get(f"{self._sink_url}/_bench/{what}")

    async def seen_upstream(self, what: str) -> dict[str, Any]:
        """What the upstream knows: `counts`, `ends` or `waited`."""
        return await self._get(f"{self.upstream_url}/_bench/{what}")

    async def _get(self, url: str) -> dict[str, Any]:
        async with self.http.get(url) as response:
            return dict(await response.json())


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as folder:
        yield Path(folder)


def pid_of(service: Service) -> int:
    """The process id of what has been started."""
    assert service.process is not None
    return service.process.pid


async def stop(*services: Service) -> None:
    """End what runs of `services`."""
    running = [service for service in services if service.is_running()]
    for service in running:
        service.process.terminate()  # type: ignore[union-attr]  # it is running
    for service in running:
        try:
            await service.wait(STOP_S)
        except subprocess.TimeoutExpired:
            await service.kill()


async def run_program(module: str, *arguments: object, log: Path, **environment: str) -> bytes:
    """What a program of ours prints, run as a process of its own; what it logs goes to `log`."""
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, *map(str, arguments)),
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env=os.environ | environment,
        )
        try:
            out, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
    assert process.returncode == 0, f"{module} failed: {_end_of(log)}"
    return out


def _end_of(log: Path) -> str:
    return log.read_text()[-4000:]
