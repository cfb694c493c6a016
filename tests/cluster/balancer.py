"""The Service in front of the relays: connections go round among the endpoints. Plays kube-proxy."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

#: What ends a connection that is passed on.
_CUT = (OSError, asyncio.IncompleteReadError)


class Balancer:
    """Passes each connection on to the next endpoint, and cuts none when endpoints change."""

    def __init__(self, lag_s: float) -> None:
        #: A node hears of a change of endpoints so much later.
        self._lag_s = lag_s
        #: Where connections go now.
        self.endpoints: Sequence[tuple[str, int]] = ()
        self._next = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""

    def lead_to(self, endpoints: Sequence[tuple[str, int]]) -> None:
        """These are the endpoints from now on, which is noticed in a moment."""

        def notice() -> None:
            self.endpoints = endpoints

        asyncio.get_running_loop().call_later(self._lag_s, notice)

    @contextlib.asynccontextmanager
    async def serving(self, host: str) -> AsyncIterator[None]:
        """Take connections at a port of `host`."""
        server = await asyncio.start_server(self._serve, host, 0)
        self.url = f"http://{host}:{server.sockets[0].getsockname()[1]}"
        try:
            yield
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=5)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            # Where there is no endpoint, or it is gone, the connection is refused.
            if self.endpoints:
                self._next += 1
                await _pass_on(reader, writer, self.endpoints[self._next % len(self.endpoints)])
        except (*_CUT, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to: tuple[str, int]) -> None:
    far_reader, far_writer = await asyncio.open_connection(*to)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_pump(reader, far_writer))
            group.create_task(_pump(far_reader, writer))
    except* _CUT:
        pass
    finally:
        far_writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()
