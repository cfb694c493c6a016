"""Saving and giving back: what steps came to within a few milliseconds shares one trip to the store."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import structlog

from relay.core.errors import StoreUnavailable
from relay.core.store.work import Lease, Release, Save, SaveAnswer, WorkStore

log = structlog.get_logger("worker.saver")

#: How long a save waits for others to share its trip: the usual, and one that nobody waits for.
_GATHER_S = 0.002
_PATIENT_S = 0.02
_TRIP_BYTES = 256 * 1024
#: What one entry takes beside its result.
_ENTRY_BYTES = 512
_RETRY_S = 0.5

T = TypeVar("T")
A = TypeVar("A")


class _Trips(Generic[T, A]):
    """A queue of one sort of thing that `carry` takes to the store, several at a time, until that is acknowledged.

    `waits` is what the log says while the store cannot take them.
    """

    def __init__(
        self, waits: str, carry: Callable[[Sequence[T]], Awaitable[Sequence[A]]], size: Callable[[T], int]
    ) -> None:
        self._waits = waits
        self._carry = carry
        self._size = size
        self._queue: deque[tuple[T, asyncio.Future[A]]] = deque()
        self._due = asyncio.Event()
        self._alarm: asyncio.TimerHandle | None = None

    async def take(self, thing: T, wait_s: float = _GATHER_S) -> A:
        """Queue it, and wait for its answer; others may go along with it for `wait_s`."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[A] = loop.create_future()
        self._queue.append((thing, future))
        self._set_alarm(loop, loop.time() + wait_s)
        return await future

    def _set_alarm(self, loop: asyncio.AbstractEventLoop, at_s: float) -> None:
        if self._alarm is not None:
            if self._alarm.when() <= at_s:
                return
            self._alarm.cancel()
        self._alarm = loop.call_at(at_s, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._due.set()

    async def run(self) -> None:
        """Carry, until cancelled."""
        while True:
            await self._due.wait()
            self._due.clear()
            # What comes meanwhile has an alarm of its own.
            left = len(self._queue)
            while left > 0:
                taken = self._next()
                left -= len(taken)
                await self._trip(taken)

    def _next(self) -> list[tuple[T, asyncio.Future[A]]]:
        taken: list[tuple[T, asyncio.Future[A]]] = []
        size = 0
        while self._queue and (not taken or size + self._size(self._queue[0][0]) < _TRIP_BYTES):
            entry = self._queue.popleft()
            size += self._size(entry[0]) + _ENTRY_BYTES
            taken.append(entry)
        return taken

    async def _trip(self, entries: list[tuple[T, asyncio.Future[A]]]) -> None:
        told = False
        while True:
            try:
                answers = await self._carry([thing for thing, _ in entries])
                break
            except StoreUnavailable as error:
                if not told:
                    log.warning(self._waits, count=len(entries), reason=str(error))
                told = True
                await asyncio.sleep(_RETRY_S)
            except Exception as error:  # noqa: BLE001 - it goes to the step that asked
                await self._failed(entries, error)
                return
        for (_, future), answer in zip(entries, answers, strict=True):
            if not future.done():
                future.set_result(answer)

    async def _failed(self, entries: list[tuple[T, asyncio.Future[A]]], error: Exception) -> None:
        """One cannot be applied, and must not cost the others what they came to, which may have been paid for.

        Each goes alone then; those that were applied before the fault are recognised by the store.
        """
        if len(entries) > 1:
            for entry in entries:
                await self._trip([entry])
            return
        for _, future in entries:
            if not future.done():
                future.set_exception(error)


class Saver:
    """The saves and releases of this process."""

    def __init__(self, store: WorkStore) -> None:
        self._saves: _Trips[Save, SaveAnswer] = _Trips(
            "saves wait for the store", store.save, lambda save: len(save.result)
        )
        self._releases: _Trips[Release, None] = _Trips("releases wait for the store", store.release, lambda _: 0)

    async def save(self, save: Save, *, patient: bool = False) -> SaveAnswer:
        """Save, and wait until that is acknowledged, through outages of the store as long as the process lives.

        `patient` is for what costs nothing if it is lost, and holds up nobody. A step holds its slot meanwhile, so
        what waits here is bounded.
        """
        return await self._saves.take(save, _PATIENT_S if patient else _GATHER_S)

    async def release(self, lease: Lease, *, delay_ms: int = 0, patient: bool = False) -> None:
        """Give back what was claimed and not begun, and wait for that in the same way (WorkStore.release)."""
        await self._releases.take(Release(lease, delay_ms, patient))

    async def run(self) -> None:
        """Carry both to the store, until cancelled."""
        await asyncio.gather(self._saves.run(), self._releases.run())
