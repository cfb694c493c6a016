"""Saving: what steps came to within a few milliseconds shares one trip to the store."""

import asyncio
from collections import deque

import structlog

from relay.core.errors import StoreUnavailable
from relay.core.store.work import Save, SaveAnswer, WorkStore

log = structlog.get_logger("worker.saver")

_GATHER_S = 0.002
_TRIP_BYTES = 256 * 1024
_RETRY_S = 0.5


class Saver:
    """The queue of saves of this process."""

    def __init__(self, store: WorkStore) -> None:
        self._store = store
        self._queue: deque[tuple[Save, asyncio.Future[SaveAnswer]]] = deque()
        self._filled = asyncio.Event()

    async def save(self, save: Save) -> SaveAnswer:
        """Save, and wait until that is acknowledged, through outages of the store as long as the process lives.

        A step holds its slot meanwhile, so what waits here is bounded.
        """
        future: asyncio.Future[SaveAnswer] = asyncio.get_running_loop().create_future()
        self._queue.append((save, future))
        self._filled.set()
        return await future

    async def run(self) -> None:
        """Carry saves to the store, until cancelled."""
        while True:
            await self._filled.wait()
            await asyncio.sleep(_GATHER_S)
            self._filled.clear()
            while self._queue:
                await self._trip(self._take())

    def _take(self) -> list[tuple[Save, asyncio.Future[SaveAnswer]]]:
        taken: list[tuple[Save, asyncio.Future[SaveAnswer]]] = []
        size = 0
        while self._queue and (not taken or size + len(self._queue[0][0].result) < _TRIP_BYTES):
            entry = self._queue.popleft()
            size += len(entry[0].result) + 512
            taken.append(entry)
        return taken

    async def _trip(self, entries: list[tuple[Save, asyncio.Future[SaveAnswer]]]) -> None:
        told = False
        while True:
            try:
                answers = await self._store.save([save for save, _ in entries])
                break
            except StoreUnavailable as error:
                if not told:
                    log.warning("saves wait for the store", saves=len(entries), reason=str(error))
                told = True
                await asyncio.sleep(_RETRY_S)
            except Exception as error:  # noqa: BLE001 - it goes to the step that asked for the save
                await self._failed(entries, error)
                return
        for (_, future), answer in zip(entries, answers, strict=True):
            if not future.done():
                future.set_result(answer)

    async def _failed(self, entries: list[tuple[Save, asyncio.Future[SaveAnswer]]], error: Exception) -> None:
        """One save cannot be applied, and must not cost the others what they came to, which may have been paid for.

        Each goes alone then; those that were applied before the fault are recognised by the store.
        """
        if len(entries) > 1:
            for entry in entries:
                await self._trip([entry])
            return
        for _, future in entries:
            if not future.done():
                future.set_exception(error)
