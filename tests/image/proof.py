"""What is shown of an image: it says what it should, and does its work with no rights at all."""

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.image.engine import Engine, NotProved
from tests.processes import Service, System
from tests.unit.dockerfile import Dockerfile

_LOOK = Path(__file__).with_name("look.py").read_text()
_SETTINGS = {"RELAY_POLL_INTERVAL_S": "1"}
_UPSTREAM = {"EMULATOR_LATENCY_SCALE": "0.1", "EMULATOR_FAILURE_RATE": "0"}
_RELAYED_S = 30.0
#: As long as compose.yaml and the manifests give a worker.
_STOPPED_S = 40.0


class Proof:
    """The proof of one image. `tell` gets a line for each thing that was shown."""

    def __init__(self, engine: Engine, tag: str, tell: Callable[[str], None]) -> None:
        self._engine, self._tag, self._tell = engine, tag, tell
        self._written = Dockerfile.read()
        self._names = f"scrapellm-relay-proof-{os.getpid()}"

    async def run(self, folder: Path) -> None:
        """Show everything, with logs in `folder`. Raises NotProved or AssertionError."""
        self._says_what_it_is()
        self._says_what_is_wrong()
        system = System(folder, _SETTINGS, _UPSTREAM)
        workers = [system.worker, system.another_worker()]
        services = [system.emulator, system.relay, *workers]
        for service in services:
            variables = [name for name in service.environment if name.startswith(("RELAY_", "EMULATOR_"))]
            service.program, *contained = self._engine.contained(self._name(service), self._tag, variables)
            service.arguments = [*contained, "python", *service.arguments]
        try:
            async with system.running():
                await workers[1].start()
                self._tell("a relay, two workers and the emulator run from it")
                await self._relays(system, [system.relay, *workers])
                # One after the other, the relay first: none can be taken for another that still answers.
                for service in (system.relay, *workers):
                    self._is_healthy(service)
                    self._has_no_rights(service)
                    await self._stops(service)
        finally:
            self._engine.remove(map(self._name, services))

    def _name(self, service: Service) -> str:
        return f"{self._names}-{service.name}"

    def _says_what_it_is(self) -> None:
        image = self._engine.image(self._tag)
        config, written = image["Config"], self._written
        # Docker has it in one place, podman in another.
        health = config.get("Healthcheck") or image.get("HealthCheck") or image.get("Healthcheck") or {}
        _same("user", config["User"], written.user)
        _same("command", config["Cmd"], written.command)
        _same("entry point", config.get("Entrypoint") or [], [])
        _same("signal", config["StopSignal"], "SIGTERM")
        _same("ports", sorted(config["ExposedPorts"]), sorted(f"{port}/tcp" for port in written.ports))
        _same("health check", health.get("Test"), ["CMD", *written.health])
        _same("labels", written.labels.keys() - config["Labels"].keys(), set())
        self._tell(
            f"user, command, signal, ports, health check and labels are as written; {image['Size'] / 1e6:.0f} MB"
        )

    def _says_what_is_wrong(self) -> None:
        """Nothing is set: both services name the first setting that is missing, and end with 2."""
        for module in ("relay", "worker"):
            done = self._engine.try_once(f"{self._names}-unset", self._tag, "python", "-m", module)
            _same(f"exit code of {module} without settings", done.returncode, 2)
            _same(f"lines of {module} without settings", done.stderr.count("\n"), 1)
        health = ("python", "-m", "relay.healthcheck")
        done = self._engine.try_once(f"{self._names}-unhealthy", self._tag, *health, RELAY_PORT="1")
        _same("exit code of the health check where nothing listens", done.returncode, 1)
        self._tell("without settings each service says in one line what is missing, and nothing is healthy")

    def _is_healthy(self, service: Service) -> None:
        done = self._engine.execute(self._name(service), *self._written.health)
        _same(f"health check of {service.name}", (done.returncode, done.stderr), (0, ""))
        self._tell(f"{service.name}: the health check passes")

    def _has_no_rights(self, service: Service) -> None:
        done = self._engine.execute(self._name(service), "python", "-c", _LOOK)
        if done.returncode != 0:
            raise NotProved(f"{service.name} could not be looked into: {done.stderr[-2000:]}")
        found: dict[str, Any] = json.loads(done.stdout)
        size = found.pop("bytes")
        nothing: dict[str, Sequence[str]] = {kind: [] for kind in ("writable", "owned", "shells", "modules")}
        _same(f"rights of {service.name}", found, {"user": self._written.user, "capabilities": 0, **nothing})
        self._tell(
            f"{service.name}: runs as {found['user']}, can write nothing, start no shell, and has nothing that builds "
            f"or tests; {size / 1e6:.0f} MB are ours"
        )

    async def _relays(self, system: System, services: Sequence[Service]) -> None:
        await system.submit("Which webhooks are signed?")
        await system.callbacks(1, _RELAYED_S)
        _same("signatures", [received.verified for received in system.inbox.received], [True])
        for service in services:
            async with system.http.get(service.ready_url.replace("/healthz", "/readyz")) as response:
                _same(f"/readyz of {service.name}", response.status, 200)
        self._tell("a job was relayed and its signature verified, and each service is ready")

    async def _stops(self, service: Service) -> None:
        began_s = time.monotonic()
        _same(f"exit code of {service.name} after SIGTERM", await service.terminate(_STOPPED_S), 0)
        self._tell(f"{service.name}: SIGTERM ended it in {time.monotonic() - began_s:.1f} s with exit code 0")


def _same(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise NotProved(f"{what}: {found!r}, and should be {expected!r}")
