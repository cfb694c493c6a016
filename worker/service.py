"""One worker process from start to stop: builds the parts, runs them, and ends them in the right order."""

import asyncio
import contextlib
from collections.abc import Sequence

import structlog

from relay.core.egress import CallbackGuard, callback_session, upstream_session
from relay.core.ending import end
from relay.core.errors import ConfigurationError, StoreUnavailable
from relay.core.loop_lag import watch_loop
from relay.core.settings import Settings
from relay.core.store.work import WorkStore
from relay.core.tracing import start_tracing
from worker import health
from worker.batches import Batches
from worker.context import Context, rules_of
from worker.deliver import Deliverer
from worker.learning import Learner
from worker.metrics import WorkerMetrics
from worker.pump import Pump
from worker.runner import StepRunner
from worker.runtime import Runtime
from worker.saver import Saver
from worker.upstream import UpstreamClient

log = structlog.get_logger("worker")

_STORE_RETRY_S = 0.5
_READY_WITHIN_S = 10
_BATCH_WAIT_S = 3.0
#: Longer than arq's worker takes to end its own tasks, which another cancellation would cut short.
_ASK_AGAIN_S = 1.5


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Work until `stop` is set, then finish what was begun, within `RELAY_STOP_GRACE_S`.

    Raises ConfigurationError; an unreachable store is waited for.
    """
    clients = settings.clients()
    if settings.upstream_api_key is None and any(c.upstream_api_key is None for c in clients.values()):
        raise ConfigurationError("RELAY_UPSTREAM_API_KEY is missing: it is the ScrapeLLM key that jobs are paid with")
    metrics = WorkerMetrics(clients)
    tracing = start_tracing(settings, "worker")
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(tracing.close)
        ready = _Ready()
        try:
            server = await health.serve(settings.worker_host, settings.worker_port, metrics, ready)
        except OSError as error:
            where = f"{settings.worker_host}:{settings.worker_port}"
            raise ConfigurationError(f"RELAY_WORKER_PORT: cannot listen on {where}: {error.strerror}") from error
        stack.push_async_callback(server.cleanup)
        store = await _connect(settings, stop)
        if store is None:
            return
        stack.push_async_callback(store.close)
        runner, saver = StepRunner(store, settings, metrics, tracing), Saver(store)
        learner = Learner(store, settings, metrics)
        context = Context(settings, rules_of(settings), clients, store, runner, saver, learner, metrics, tracing)
        upstream = UpstreamClient(
            await stack.enter_async_context(upstream_session(settings)),
            settings.upstream_url,
            max_bytes=settings.upstream_max_bytes,
            now_ms=store.now_ms,
            tracing=tracing,
        )
        guard = await stack.enter_async_context(CallbackGuard(settings))
        session = await stack.enter_async_context(callback_session(settings, guard))
        deliverer = Deliverer(context, session)
        batches = Batches(context, upstream, deliverer)
        runtime = Runtime(settings, store.boot_id)
        stack.push_async_callback(runtime.close)
        pump = Pump(context, batches, runtime.enqueue)
        pumping = asyncio.create_task(pump.run())
        tasks = [
            pumping,
            asyncio.create_task(runtime.run(batches=batches, pump=pump)),
            asyncio.create_task(runner.renew_forever()),
            asyncio.create_task(saver.run()),
            asyncio.create_task(learner.run()),
            asyncio.create_task(watch_loop(metrics.loop_lag)),
        ]
        stack.push_async_callback(end, tasks, ask_again_s=_ASK_AGAIN_S)
        ready.pump = pump
        log.info("worker started", boot_id=store.boot_id, clients=len(clients))
        await _first(stop, tasks)
        log.info("worker stopping", steps=runner.running())
        # Nothing new is begun; what runs finishes and is saved, its leases renewed; then everything closes.
        ends_s = asyncio.get_running_loop().time() + settings.stop_grace_s
        ready.pump = None
        batches.stopping = deliverer.stopping = True
        pumping.cancel()
        await runtime.stop(min(_BATCH_WAIT_S, settings.stop_grace_s))
        await batches.settle(ends_s - asyncio.get_running_loop().time())
        await batches.give_back_unanswered(min(_BATCH_WAIT_S, ends_s - asyncio.get_running_loop().time()))
        left = await runner.drain(ends_s - asyncio.get_running_loop().time())
        log.info("worker stopped", cut_off=left)
    for task in tasks:
        if not task.cancelled():
            # They end by being cancelled only; whatever else ended one is the reason why the worker stopped.
            task.result()


async def _first(stop: asyncio.Event, tasks: Sequence[asyncio.Task[None]]) -> None:
    """Wait until the worker is told to stop, or one of its parts has failed."""
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()


class _Ready:
    """Whether the worker can work."""

    def __init__(self) -> None:
        self.pump: Pump | None = None

    def __call__(self) -> bool:
        return self.pump is not None and self.pump.sees(_READY_WITHIN_S)


async def _connect(settings: Settings, stop: asyncio.Event) -> WorkStore | None:
    """The store, as soon as it is there; None when told to stop before."""
    told = False
    while not stop.is_set():
        try:
            return await WorkStore.connect(settings)
        except StoreUnavailable as error:
            if not told:
                log.warning("waiting for the store", reason=str(error))
            told = True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _STORE_RETRY_S)
    return None
