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
#: How often the store is asked which clients it knows.
_CLIENTS_S = 10.0
#: How long after an outage nothing is begun, so that every worker has renewed its leases by then.
_RETURN_S = 2.0
#: A task that has not ended after this was lost on its way; another may be started.
_LOST_S = 5.0
#: Housekeeping is a cron job by the wall clock. Where a step of that clock keeps it away for this long, it starts here.
_HOUSE_LATE_S = 15.0
HOUSE_TASK = "keep_house"


class Pump:
    """One worker's pump. `enqueue` has arq start the task of that name."""

    def __init__(self, context: Context, batches: Batches, enqueue: Callable[[str], Awaitable[None]]) -> None:
        self._context = context
        self._batches = batches
        self._enqueue = enqueue
        self._started: dict[str, float] = {}
        #: Batches that arq could not be given.
        self._direct: set[asyncio.Task[None]] = set()
        self._looked_s = float("-inf")
        self._known: Mapping[ClientName, str] = {}
        self._asked_s = float("-inf")
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
        away = False
        while True:
            try:
                look = await self._context.store.look(await self._keys())
                self._looked_s = asyncio.get_running_loop().time()
                if away:
                    await self._return()
                    away = False
                    continue
                self._batches.saw(look)
                self._measure(look)
                await self._start_due(look)
                await asyncio.sleep(_LOOK_S)
            except StoreUnavailable as error:
                if not away:
                    log.warning("the store is out of reach; going on when it is back", reason=str(error))
                away = True
                self._context.metrics.looked.look = None
                await asyncio.sleep(_OUTAGE_S)

    async def _keys(self) -> Mapping[ClientName, str]:
        """Whom to look for, with the name of its upstream key's pause.

        Clients that are not configured any more are among them: their jobs must end too.
        """
        now_s = asyncio.get_running_loop().time()
        if now_s - self._asked_s > _CLIENTS_S:
            gone = await self._context.store.known_clients() - self._context.clients.keys()
            self._known = {name: self._context.pause_name(name) for name in self._context.clients} | dict.fromkeys(
                gone, ""
            )
            self._asked_s = now_s
        return self._known

    async def _return(self) -> None:
        """The store was away, and leases may have run out meanwhile whose steps go on.

        They are renewed before anything is begun, here and in the moment that follows by the other workers: a submit
        that is begun again costs twice.
        """
        await self._context.runner.renew()
        await asyncio.sleep(_RETURN_S)
        log.info("the store is back")

    async def _start_due(self, look: Look) -> None:
        clients = with_pauses(look.clients, self._context.noted_pauses())
        submits = any(
            seen.overdue or (name in self._context.clients and may_submit(seen, look.now_ms))
            for name, seen in clients.items()
        )
        for kind, due in ((Kind.SUBMIT, submits), (Kind.POLL, look.poll), (Kind.DELIVER, look.deliver)):
            if due or self._context.store.unanswered(kind):
                await self._start(kind)
        if not (look.enlist or look.purge):
            self._unkept_s = None
        elif self._unkept_s is None:
            self._unkept_s = self._looked_s
        elif self._looked_s - self._unkept_s > _HOUSE_LATE_S:
            await self._start(HOUSE_TASK)

    async def _start(self, task: str) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._started.get(task, float("-inf")) <= _LOST_S:
            return
        # Noted first: the task may have ended before the answer to starting it is here.
        self._started[task] = now_s
        try:
            await self._enqueue(task)
        except StoreUnavailable:
            # A full store takes no task from arq, and what frees it must run all the same.
            running = asyncio.create_task(self._batches.run(task))
            self._direct.add(running)
            running.add_done_callback(lambda done: self._ended_directly(task, done))

    def _ended_directly(self, task: str, done: asyncio.Task[None]) -> None:
        self._direct.discard(done)
        self.ended(task)
        if not done.cancelled() and (error := done.exception()) is not None:
            self._context.metrics.faults.inc()
            log.error("a batch failed", task=task, error=type(error).__name__)

    def _measure(self, look: Look) -> None:
        self._context.metrics.looked.look = look
        self._context.metrics.running.set(self._context.runner.running())
        for kind in Kind:
            self._context.metrics.slots_free.labels(kind.value).set(self._context.runner.free(kind))
