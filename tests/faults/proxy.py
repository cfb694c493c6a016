"""A TCP proxy before the store that reads the commands and can cut, stall or refuse at any of them."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import redis.asyncio as redis

from relay.core.store.connection import SCRIPTS

Command = Sequence[bytes]


class Fate(StrEnum):
    """What becomes of one command."""

    PASS = "pass"
    #: The connection is reset, and the store never sees the command.
    CUT_BEFORE = "cut_before"
    #: The store carries it out, and the connection is reset before the answer.
    CUT_AFTER = "cut_after"
    #: Nothing more is passed in either direction on this connection.
    STALL = "stall"
    #: The store carries it out, and nothing more is passed back on this connection.
    STALL_AFTER = "stall_after"
    #: The store never sees the command, and the answer is an error, as of a store that cannot do it now.
    LOADING = "loading"
    READONLY = "readonly"
    OOM = "oom"
    MISCONF = "misconf"


#: What a Valkey says in these states, to the letter.
ERRORS: Mapping[Fate, bytes] = {
    Fate.LOADING: b"-LOADING Valkey is loading the dataset in memory\r\n",
    Fate.READONLY: b"-READONLY You can't write against a read only replica.\r\n",
    Fate.OOM: b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
    Fate.MISCONF: b"-MISCONF Errors writing to the AOF file: No space left on device\r\n",
}


Rule = Callable[[Command], Fate]


def passes(_command: Command) -> Fate:
    """Let everything through."""
    return Fate.PASS


@dataclass
class Once:
    """A rule that dooms the `nth` command that it is about, and lets everything else through."""

    about: Callable[[Command], bool]
    fate: Fate
    nth: int = 1
    seen: int = 0

    def __call__(self, command: Command) -> Fate:
        """The fate of one command."""
        if not self.about(command):
            return Fate.PASS
        self.seen += 1
        return self.fate if self.seen == self.nth else Fate.PASS


_NAMES: Mapping[bytes, str] = {
    hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest().encode(): name for name, source in SCRIPTS.items()
}


class EachOnce:
    """A rule that dooms the next call of every one of these scripts, and lets everything else through."""

    def __init__(self, names: Collection[str], fate: Fate) -> None:
        #: Those that have not been called yet.
        self.left = set(names)
        self._fate = fate

    def __call__(self, command: Command) -> Fate:
        """The fate of one command."""
        name = _NAMES.get(command[1]) if len(command) > 1 and command[0].upper() == b"EVALSHA" else None
        if name not in self.left:
            return Fate.PASS
        self.left.discard(name)
        return self._fate


def script(name: str) -> Callable[[Command], bool]:
    """Whether a command runs the store script `name`."""
    return lambda command: len(command) > 1 and command[0].upper() == b"EVALSHA" and _NAMES.get(command[1]) == name


async def load_scripts(url: str) -> None:
    """Let the store know every script: the first call of one that it does not know is answered, and not carried out."""
    async with redis.from_url(url) as store:  # type: ignore[no-untyped-call]  # the driver's
        for source in SCRIPTS.values():
            await store.script_load(source)


def named(*names: str) -> Callable[[Command], bool]:
    """Whether a command has one of these names."""
    wanted = {name.upper().encode() for name in names}
    return lambda command: command[0].upper() in wanted


class StoreProxy:
    """Listens on a port of its own and speaks to the store."""

    def __init__(self, store_port: int) -> None:
        self.store_port = store_port
        self.rule: Rule = passes
        self.port = 0
        self.commands = 0
        #: Answers of the store that were not passed back.
        self.withheld = 0
        self._connections: set[asyncio.Task[None]] = set()
        self._silent = asyncio.Event()

    @property
    def url(self) -> str:
        """What to give as RELAY_REDIS_URL."""
        return f"redis://127.0.0.1:{self.port}/0"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["StoreProxy"]:
        """The proxy, while it listens."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            await self.cut_all()

    def blackhole(self) -> None:
        """Pass nothing more, and close nothing: the store seems to have vanished."""
        self._silent.set()

    def heal(self) -> None:
        """Pass everything again, on new connections and old ones."""
        self._silent.clear()
        self.rule = passes

    async def cut_all(self) -> None:
        """Reset every connection."""
        for connection in list(self._connections):
            connection.cancel()
        if self._connections:
            await asyncio.wait(self._connections)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._relay(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            # One end hung up, or the connection was cut: that is what this proxy is for.
            writer.transport.abort()
        finally:
            self._connections.discard(task)
            writer.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        store_reader, store_writer = await asyncio.open_connection("127.0.0.1", self.store_port)
        doomed = asyncio.Event()
        answers = asyncio.create_task(self._answers(store_reader, writer, doomed))
        try:
            while True:
                raw, command = await read_command(reader)
                await self._until_heard()
                self.commands += 1
                fate = self.rule(command)
                if fate is Fate.CUT_BEFORE:
                    raise ConnectionResetError
                if fate is Fate.STALL:
                    await asyncio.Event().wait()
                if fate in ERRORS:
                    # redis-py waits for one answer before it sends the next command, so nothing overtakes.
                    writer.write(ERRORS[fate])
                    await writer.drain()
                    continue
                if fate in (Fate.CUT_AFTER, Fate.STALL_AFTER):
                    doomed.set()
                store_writer.write(raw)
                await store_writer.drain()
                if fate is Fate.CUT_AFTER:
                    await answers
                    raise ConnectionResetError
                if fate is Fate.STALL_AFTER:
                    await answers
                    await asyncio.Event().wait()
        finally:
            answers.cancel()
            store_writer.close()

    async def _answers(
        self, store_reader: asyncio.StreamReader, writer: asyncio.StreamWriter, doomed: asyncio.Event
    ) -> None:
        while data := await store_reader.read(65536):
            await self._until_heard()
            if doomed.is_set():
                self.withheld += 1
                return
            writer.write(data)
            await writer.drain()
        writer.close()

    async def _until_heard(self) -> None:
        while self._silent.is_set():
            await asyncio.sleep(0.02)


async def read_command(reader: asyncio.StreamReader) -> tuple[bytes, list[bytes]]:
    """One command as clients send it, an array of bulk strings: its bytes, and its parts."""
    head = await reader.readuntil(b"\r\n")
    raw = bytearray(head)
    parts: list[bytes] = []
    for _ in range(int(head[1:])):
        size_line = await reader.readuntil(b"\r\n")
        body = await reader.readexactly(int(size_line[1:]) + 2)
        raw += size_line + body
        parts.append(body[:-2])
    return bytes(raw), parts
