"""The step runner: runs steps beside each other, a bounded number of each kind, and keeps their leases alive.

A step outlives the arq task that began it. Alone knows which leases this process holds.
"""

import asyncio
import contextlib
import traceback
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import structlog

from relay.core.errors import StoreUnavailable
from relay.core.settings import Settings
from relay.core.store.work import Lease, WorkStore
from relay.core.trace_context import TraceContext
from relay.core.tracing import Tracing
from worker.metrics import WorkerMetrics

log = structlog.get_logger("worker.runner")


class Kind(StrEnum):
    """The kinds of step. Each has slots of its own, so that none starves another."""

    SUBMIT = "submit"
    POLL = "poll"
    DELIVER = "deliver"


@dataclass(slots=True)
class _Held:
    lease: Lease
    #: When it was begun or last renewed, by the event loop's clock.
    since_s: float
    lost: bool = False


class StepRunner:
    """The steps under way in this process."""

    def __init__(self, store: WorkStore, settings: Settings, metrics: WorkerMetrics, tracing: Tracing) -> None:
        self._store = store
        self._tracing = tracing
        self._metrics = metrics
        self._renew_s = settings.lease_s / 3
        self._free = {
            Kind.SUBMIT: settings.submit_slots,
            Kind.POLL: settings.poll_slots,
            Kind.DELIVER: settings.deliver_slots,
        }
        for kind, slots in self._free.items():
            metrics.slots.labels(kind.value).set(slots)
        self._held: dict[asyncio.Task[None], _Held] = {}
        self._freed = {kind: asyncio.Event() for kind in Kind}

    def free(self, kind: Kind) -> int:
        """How many more steps of this kind may start."""
        return self._free[kind]

    def running(self) -> int:
        """How many steps are under way."""
        return len(self._held)

    async def wait_free(self, kind: Kind, timeout_s: float) -> None:
        """Return as soon as a slot of this kind is free, at the latest after `timeout_s`."""
        if self._free[kind] > 0:
            return
        self._freed[kind].clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._freed[kind].wait()

    @contextlib.contextmanager
    def reserved(self, kind: Kind, count: int = 1) -> Iterator[None]:
        """Keep slots for what is being claimed. Whoever asks has seen that so many are free."""
        self._free[kind] -= count
        try:
            yield
        finally:
            self._vacate(kind, count)

    def start(
        self, kind: Kind, lease: Lease, step: Coroutine[None, None, None], trace: TraceContext | None = None
    ) -> None:
        """Run a step in a slot of its kind, holding its lease. Never waits; the slot is taken before this returns.

        `trace` is what its job belongs to.
        """
        self._free[kind] -= 1
        task = asyncio.create_task(step, context=self._tracing.following(trace, lease.id))
        self._held[task] = _Held(lease, asyncio.get_running_loop().time())
        task.add_done_callback(lambda done: self._ended(kind, done))

    def _vacate(self, kind: Kind, count: int = 1) -> None:
        self._free[kind] += count
        self._freed[kind].set()

    def _ended(self, kind: Kind, task: asyncio.Task[None]) -> None:
        held = self._held.pop(task)
        self._vacate(kind)
        if task.cancelled() or (error := task.exception()) is None:
            return
        # The lease runs out, and the job comes back.
        if isinstance(error, StoreUnavailable):
            log.warning(
                "step given up: the store is out of reach", kind=kind.value, id=held.lease.id, reason=str(error)
            )
        else:
            self._metrics.faults.inc()
            # A fault of ours. Where it happened, and not what it says: that may quote a URL or what was received.
            log.error(
                "step failed",
                kind=kind.value,
                id=held.lease.id,
                error=type(error).__name__,
                trace="".join(traceback.format_tb(error.__traceback__)),
            )

    async def renew_forever(self) -> None:
        """Renew the leases of steps that take long, until cancelled."""
        while True:
            await asyncio.sleep(self._renew_s / 2)
            now = asyncio.get_running_loop().time()
            old = {task: held for task, held in self._held.items() if now - held.since_s >= self._renew_s}
            try:
                await self._renew(old)
            except StoreUnavailable as error:
                log.warning("leases not renewed", leases=len(old), reason=str(error))

    async def renew(self) -> None:
        """Renew the leases of all steps now. Raises StoreUnavailable."""
        await self._renew(dict(self._held))

    async def _renew(self, steps: Mapping["asyncio.Task[None]", _Held]) -> None:
        now = asyncio.get_running_loop().time()
        held = {task: one for task, one in steps.items() if not one.lost}
        if not held:
            return
        lost = set(await self._store.renew(one.lease for one in held.values()))
        for one in held.values():
            one.since_s, one.lost = now, one.lease in lost
        # A step that was saved meanwhile has no lease any more, and misses none.
        missed = [one.lease.id for task, one in held.items() if one.lost and task in self._held]
        if missed:
            # The steps go on: what they come to will be refused, and what they paid for counted.
            self._metrics.leases_lost.inc(len(missed))
            log.warning("leases lost", leases=len(missed), ids=missed)

    async def drain(self, grace_s: float) -> int:
        """Wait for the steps under way; after `grace_s` cancel what is left. Returns how many that were."""
        deadline_s = asyncio.get_running_loop().time() + grace_s
        # A poll may hand over to a callback that it had kept a slot for, so look again until nothing is left.
        while self._held and (left_s := deadline_s - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(list(self._held), timeout=left_s)
        left = list(self._held)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=1)
        return len(left)
