"""The pump: looks at what is due, and starts batches where slots are free. Starting is all that arq is asked for."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

from relay.core.errors import StoreUnavailable
from relay.core.model import ClientName
from relay.core.store.work import Look
from worker.batches import Batches
from worker.context import Context
from worker.gates import may_submit, with_pauses
from worker.runner import Kind

log = structlog.get_logger("worker.pump")

_LOOK_S = 0.1
_OUTAGE_S = 0.5
#: A task that has not ended after this was lost on its way; another may be started.
_LOST_S = 5.0
#: Housekeeping is a cron job by the wall clock. Where a step of that clock keeps it away for this long, it starts here.
_HOUSE_LATE_S = 15.0
_HOUSE_TASK = "keep_house"


class Pump:
    """One worker's pump. `enqueue` has arq start the task of that name."""

    def __init__(self, context: Context, batches: Batches, enqueue: Callable[[str], Awaitable[None]]) -> None:
        self._context = context
        self._batches = batches
        self._enqueue = enqueue
        self._started: dict[str, float] = {}
        self._looked_s = float("-inf")
        #: Since when housekeeping has been due at every look.
        self._unkept_s: float | None = None

    def sees(self, within_s: float) -> bool:
        """Whether the pump has reached the store in the last `within_s` seconds."""
        return asyncio.get_running_loop().time() - self._looked_s <= within_s

    def ended(self, task: str) -> None:
        """A task of this name has ended: the next may start."""
        self._started.pop(task, None)

    async def run(self) -> None:
        """Look and start, until cancelled."""
        keys: Mapping[ClientName, str] = {name: self._context.pause_name(name) for name in self._context.clients}
        away = False
        while True:
            try:
                look = await self._context.store.look(keys)
                self._looked_s = asyncio.get_running_loop().time()
                self._batches.saw(look)
                self._measure(look)
                await self._start_due(look)
                if away:
                    log.info("the store is back")
                away = False
                await asyncio.sleep(_LOOK_S)
            except StoreUnavailable as error:
                if not away:
                    log.warning("the store is away; going on when it is back", reason=str(error))
                away = True
                await asyncio.sleep(_OUTAGE_S)

    async def _start_due(self, look: Look) -> None:
        clients = with_pauses(look.clients, self._context.noted_pauses())
        submits = any(seen.overdue or may_submit(seen, look.now_ms) for seen in clients.values())
        for kind, due in ((Kind.SUBMIT, submits), (Kind.POLL, look.poll), (Kind.DELIVER, look.deliver)):
            if due:
                await self._start(kind)
        if not (look.enlist or look.purge):
            self._unkept_s = None
        elif self._unkept_s is None:
            self._unkept_s = self._looked_s
        elif self._looked_s - self._unkept_s > _HOUSE_LATE_S:
            await self._start(_HOUSE_TASK)

    async def _start(self, task: str) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._started.get(task, float("-inf")) <= _LOST_S:
            return
        # Noted first: the task may have ended before the answer to starting it is here.
        self._started[task] = now_s
        try:
            await self._enqueue(task)
        except StoreUnavailable:
            self.ended(task)
            raise

    def _measure(self, look: Look) -> None:
        due = self._context.metrics.due
        due.labels("submit").set(sum(seen.due for seen in look.clients.values()))
        due.labels("poll").set(look.poll)
        due.labels("deliver").set(look.deliver)
        destinations = self._context.metrics.destinations
        destinations.labels("unresponsive").set(look.unresponsive)
        destinations.labels("paused").set(look.paused)
        self._context.metrics.running.set(self._context.runner.running())
