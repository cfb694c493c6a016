"""The arq worker, made to survive. Alone knows arq.

arq starts bounded tasks and the housekeeping cron, and is trusted with nothing else: its worker ends when the store
restarts, so it is built anew; each process has a queue of its own, so that no two machines' clocks meet in its scores.
"""

import asyncio
import contextlib
import json
from datetime import UTC, datetime
from typing import Any

import structlog
from arq import cron
from arq.connections import ArqRedis
from arq.worker import Worker
from redis.exceptions import RedisError

from relay.core.errors import StoreUnavailable
from relay.core.settings import Settings
from relay.core.store.pool import close_pool, connection_pool
from worker import tasks

log = structlog.get_logger("worker.runtime")

_CONNECTIONS = 32
#: How often arq looks around without being told that something is there; its cron needs no more.
_LOOK_S = 0.5
_TASK_TIMEOUT_S = 30
_QUEUE_TTL_S = 3600
_RESTART_S = 0.5
_END_S = 1.0
#: A score of the past: arq compares it with this machine's clock, which may step.
_AT_ONCE = datetime(2001, 1, 1, tzinfo=UTC)


def _encode(value: dict[str, Any]) -> bytes:
    return json.dumps(value, default=repr).encode()


class _Worker(Worker):
    """arq's, which looks at its queue when `due` is set: to look twenty times a second is half of what idling costs."""

    def __init__(self, due: asyncio.Event, **options: Any) -> None:
        super().__init__(**options)
        self._due = due

    async def main(self) -> None:
        """Look and start, until cancelled."""
        while True:
            self._due.clear()
            await self._poll_iteration()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.poll_delay_s):
                    await self._due.wait()


class Runtime:
    """arq's worker in this process, and the way to give it a batch to start."""

    def __init__(self, settings: Settings, boot_id: str) -> None:
        self._prefix = settings.key_prefix
        self._queue = f"arq:{settings.key_prefix}{boot_id}"
        self._boot_id = boot_id
        self._count = 0
        self._ctx: dict[str, Any] = {}
        self._worker: Worker | None = None
        #: Set when something was put into the queue, which no other process does.
        self._due = asyncio.Event()
        self._pool = connection_pool(settings, _CONNECTIONS, timed=True)
        self._redis = ArqRedis(
            self._pool,
            job_serializer=_encode,
            job_deserializer=json.loads,
            default_queue_name=self._queue,
        )

    async def enqueue(self, task: str) -> None:
        """Have arq start a task of tasks.py, by its name. Raises StoreUnavailable; it may be started all the same."""
        self._count += 1
        try:
            started = await self._redis.enqueue_job(
                task,
                _job_id=f"{self._boot_id}:{task}:{self._count}",
                _defer_until=_AT_ONCE,
                _expires=60,
            )
            # A killed worker's queue goes by itself. One that was empty is a new key, without an end.
            await self._redis.expire(self._queue, _QUEUE_TTL_S)
        except (RedisError, OSError) as error:
            raise StoreUnavailable("the store is unreachable") from error
        self._due.set()
        if started is None:
            # arq takes a connection that was lost before EXEC for a duplicate; there are none here.
            raise StoreUnavailable("the store did not take a task")

    async def run(self, **ctx: object) -> None:
        """Run arq's worker, and a new one whenever it ends, until cancelled."""
        self._ctx = dict(ctx)
        told = ""
        while True:
            worker = self._worker = self._build()
            try:
                await worker.async_run()
            except (RedisError, OSError) as error:
                reason = type(error).__name__
                if reason != told:
                    log.warning("arq lost the store; starting it again", reason=reason)
                told = reason
                # Its address may lead to another server by now.
                await self._pool.disconnect(inuse_connections=False)
            except Exception:
                log.exception("arq failed; starting it again")
            finally:
                await _end_tasks(worker)
            await asyncio.sleep(_RESTART_S)

    async def stop(self, wait_s: float) -> None:
        """Pick nothing new, and wait for the batches under way. What they began goes on in the step runner."""
        if self._worker is not None:
            self._worker.allow_pick_jobs = False
            running = list(self._worker.tasks.values())
            if running:
                await asyncio.wait(running, timeout=wait_s)

    async def close(self) -> None:
        """Drop the queue and close arq's connections."""
        with contextlib.suppress(RedisError, OSError):
            await self._redis.delete(self._queue)
        await self._redis.aclose()
        await close_pool(self._pool)

    def _build(self) -> Worker:
        return _Worker(
            self._due,
            functions=[tasks.submit, tasks.poll, tasks.deliver, tasks.keep_house],
            # Unique over all workers of one relay by the second, so that one of them does it.
            cron_jobs=[
                cron(
                    tasks.keep_house,
                    name=f"cron:{self._prefix}keep_house",
                    second=set(range(0, 60, 5)),
                    timeout=_TASK_TIMEOUT_S,
                )
            ],
            queue_name=self._queue,
            redis_pool=self._redis,
            handle_signals=False,
            max_jobs=16,
            job_timeout=_TASK_TIMEOUT_S,
            keep_result=0,
            max_tries=1,
            poll_delay=_LOOK_S,
            health_check_interval=60,
            health_check_key=f"{self._queue}:health",
            ctx=dict(self._ctx),
            job_serializer=_encode,
            job_deserializer=json.loads,
            log_results=False,
        )


async def _end_tasks(worker: Worker) -> None:
    """Cancel what an ended worker has left running, and wait for it, but not for a store that does not answer."""
    left = list(worker.tasks.values())
    for task in left:
        task.cancel()
        # Nobody asks any more how it ended.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
    if left:
        await asyncio.wait(left, timeout=_END_S)
