"""Reading: jobs, lists, attempts, batches, results, destinations."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from relay.core.errors import NotFound
from relay.core.model import (
    JOB_PREFIX,
    Attempt,
    Batch,
    BatchId,
    ClientName,
    DeliveryStatus,
    Destination,
    DestinationState,
    Job,
    JobId,
    JobStatus,
)
from relay.core.store import records
from relay.core.store.connection import Connection

_STAGED = b"staged"
#: Sorts after whatever an id may go on with.
LAST = "~"
#: Destinations that are looked at in one trip.
_DESTINATIONS = 200
#: Clients whose jobs are counted in one trip.
_CLIENTS = 100

_AFTER_OUTCOME = tuple(d for d in DeliveryStatus if d is not DeliveryStatus.WAITING)
#: Which delivery statuses go with which status: the index sets that can exist.
COMBINATIONS: tuple[tuple[JobStatus, DeliveryStatus], ...] = (
    (JobStatus.QUEUED, DeliveryStatus.WAITING),
    (JobStatus.PENDING, DeliveryStatus.WAITING),
    *((s, d) for s in (JobStatus.DONE, JobStatus.FAILED, JobStatus.TIMED_OUT) for d in _AFTER_OUTCOME),
    (JobStatus.CANCELLED, DeliveryStatus.SKIPPED),
)


@dataclass(frozen=True, slots=True)
class Page:
    """Some jobs, newest first, and where the next page begins: None on the last one."""

    jobs: list[Job]
    next_before: JobId | None


@dataclass(frozen=True, slots=True)
class BatchPage:
    """Some batches, newest first, and where the next page begins: None on the last one."""

    batches: list[Batch]
    next_before: BatchId | None


@dataclass(frozen=True, slots=True)
class Census:
    """How many jobs there are."""

    #: Of all clients, also of those that are not asked for.
    unfinished: int
    #: Workers that have shown themselves lately.
    workers: int
    #: By client, status and delivery status; what does not occur is 0.
    jobs: Mapping[ClientName, Mapping[tuple[JobStatus, DeliveryStatus], int]]


class Queries:
    """What can be asked of the store without changing it."""

    def __init__(self, db: Connection, submit_window_ms: int, events_kept: int) -> None:
        self._db = db
        self._submit_window_ms = submit_window_ms
        self._events_kept = events_kept

    async def job(self, client: ClientName, job_id: JobId, *, with_result: bool = True) -> Job:
        """One job of a client. Raises NotFound, StoreUnavailable."""
        row, result = await self._row(job_id, with_result=with_result)
        if row[0] is None or row[0].decode() != client:
            raise NotFound(job_id)
        if row[1] == _STAGED:
            await self.enlist_one(job_id)
            row, result = await self._row(job_id, with_result=with_result)
            if row[1] is None or row[1] == _STAGED:
                raise NotFound(job_id)
        return records.job_of_row(job_id, row, result)

    async def _row(self, job_id: JobId, *, with_result: bool) -> tuple[list[bytes | None], bytes | None]:
        async def read() -> Any:
            pipe = self._db.redis.pipeline(transaction=True)
            pipe.hmget(self._db.key(job_id), records.JOB_FIELDS)
            if with_result:
                pipe.get(self._db.key(f"res:{job_id}"))
            return await pipe.execute()

        row, *rest = await self._db.call(read)
        owner = row[records.JOB_FIELDS.index("ro")]
        if not rest or owner is None:
            return row, rest[0] if rest else None
        # It shares another job's result.
        return row, await self._db.call(lambda: self._db.redis.get(self._db.key(f"res:{owner.decode()}")))

    async def enlist_one(self, job_id: JobId) -> None:
        """Enlist a job of a batch that has just become live, ahead of its turn; nothing where it is not live.

        Raises StoreUnavailable.
        """
        batch_id = await self._db.call(lambda: self._db.redis.hget(self._db.key(job_id), "b"))
        if batch_id:
            await self._db.run("enlist", batch_id, -1, self._submit_window_ms, self._events_kept, job_id)

    async def jobs(
        self,
        client: ClientName,
        *,
        statuses: frozenset[JobStatus] = frozenset(),
        deliveries: frozenset[DeliveryStatus] = frozenset(),
        batch_id: BatchId | None = None,
        limit: int = 50,
        before: JobId | None = None,
        prefix: str = "",
    ) -> Page:
        """A client's jobs without their results; empty filters mean all. Raises StoreUnavailable.

        `prefix` is what their ids begin with.
        """
        wanted = [
            part
            for status, delivery in COMBINATIONS
            if (not statuses or status in statuses) and (not deliveries or delivery in deliveries)
            for part in (status.value, delivery.value)
        ]
        if not wanted:
            return Page([], None)
        highest, lowest = (f"({before}" if before else "+"), "-"
        if prefix:
            lowest = f"[{prefix}"
            if before is None or before > prefix + LAST:
                highest = f"[{prefix}{LAST}"
        if batch_id is not None:
            members = await self._members(client, batch_id)
            if not members:
                return Page([], None)
            lowest = f"[{members[0]}"
            if before is None or members[-1] < before:
                highest = f"[{members[-1]}"
        answer = await self._db.run(
            "list",
            *(client, limit + 1, highest, lowest, len(records.JOB_FIELDS)),
            *records.JOB_FIELDS,
            *wanted,
        )
        found = [
            records.job_of_row(JobId(answer[i].decode()), answer[i + 1])
            for i in range(0, min(len(answer), 2 * limit), 2)
            if answer[i + 1][0] is not None
        ]
        more = len(answer) > 2 * limit
        if batch_id is not None:
            found = [job for job in found if job.batch_id == batch_id]
        return Page(found, JobId(answer[2 * limit - 2].decode()) if more else None)

    async def _members(self, client: ClientName, batch_id: BatchId) -> list[JobId]:
        first = await self._db.call(lambda: self._db.redis.hmget(self._db.key(batch_id), ["c", "live", "f", "n"]))
        if first[0] is None or first[0].decode() != client or first[1] != b"1":
            return []
        return records.consecutive(JobId(first[2].decode()), int(first[3]))

    async def attempts(self, client: ClientName, job_id: JobId) -> list[Attempt]:
        """The log of a job's attempts, oldest first; the last 200. Raises NotFound, StoreUnavailable."""
        await self.job(client, job_id, with_result=False)
        entries: Sequence[bytes] = await self._db.call(
            lambda: self._db.redis.lrange(self._db.key(f"att:{job_id}"), 0, -1)
        )
        return [records.decode_attempt(entry) for entry in entries]

    async def owner(self, thing_id: JobId | BatchId) -> ClientName | None:
        """Whose job or batch this is; None where there is no such thing. Raises StoreUnavailable."""
        client = await self._db.call(lambda: self._db.redis.hget(self._db.key(thing_id), "c"))
        return ClientName(client.decode()) if client else None

    async def batch(self, client: ClientName, batch_id: BatchId) -> Batch:
        """One batch of a client. Raises NotFound, StoreUnavailable."""
        return records.batch_of_record(batch_id, await self._batch_record(client, batch_id))

    async def _batch_record(self, client: ClientName, batch_id: BatchId) -> Mapping[bytes, bytes]:
        record: Mapping[bytes, bytes] = await self._db.call(lambda: self._db.redis.hgetall(self._db.key(batch_id)))
        if not record or record[b"c"].decode() != client or record.get(b"live") != b"1":
            raise NotFound(batch_id)
        return record

    async def batches(self, client: ClientName, limit: int = 50, before: BatchId | None = None) -> BatchPage:
        """A client's batches, newest first. Raises StoreUnavailable."""
        key, highest = self._db.key(f"batches:{client}"), f"({before}" if before else "+"

        async def read() -> Any:
            ids = await self._db.redis.zrevrangebylex(key, highest, "-", 0, limit + 1)
            pipe = self._db.redis.pipeline(transaction=False)
            for name in ids[:limit]:
                pipe.hgetall(self._db.key(name.decode()))
            return ids, await pipe.execute()

        ids, found = await self._db.call(read)
        # One may be purged in between.
        batches = [
            records.batch_of_record(BatchId(name.decode()), record)
            for name, record in zip(ids, found, strict=False)
            if record
        ]
        return BatchPage(batches, BatchId(ids[limit - 1].decode()) if len(ids) > limit else None)

    async def subject(self, client: ClientName, thing_id: JobId | BatchId) -> Job | Batch:
        """What the callback of a job or batch tells of, as `message_of` takes it: the worker builds the same bytes.

        A job comes with its result, a completed batch with its numbers of that moment. What has no outcome yet is told
        as it stands. Raises NotFound, StoreUnavailable.
        """
        if thing_id.startswith(JOB_PREFIX):
            return await self.job(client, JobId(thing_id))
        record = await self._batch_record(client, BatchId(thing_id))
        return records.batch_of_record(BatchId(thing_id), record, as_told=True)

    async def account(self, client: ClientName) -> dict[str, float]:
        """A client's counters since its first job: submitted, credits, ambiguous, orphans; those above 0.

        Raises StoreUnavailable.
        """
        record = await self._db.call(lambda: self._db.redis.hgetall(self._db.key(f"acct:{client}")))
        return {name.decode(): float(value) for name, value in record.items()}

    async def destinations(
        self, client: ClientName, states: frozenset[DestinationState] = frozenset(), limit: int = 50
    ) -> list[Destination]:
        """Where a client's callbacks went in the last 30 days, the last one first. Raises StoreUnavailable."""
        found: list[Destination] = []
        start = 0
        while len(found) < limit:
            names = await self._db.call(
                lambda at=start: self._db.redis.zrange(  # type: ignore[misc]  # bound early on purpose
                    self._db.key(f"dests:{client}"), at, at + _DESTINATIONS - 1, desc=True
                )
            )
            page = await self._destinations(client, [name.decode() for name in names])
            found += [destination for destination in page if not states or destination.state in states]
            if len(names) < _DESTINATIONS:
                break
            start += _DESTINATIONS
        return found[:limit]

    async def destination(self, client: ClientName, name: str) -> Destination:
        """How one destination fares. Raises NotFound, StoreUnavailable."""
        known = await self._db.call(lambda: self._db.redis.zscore(self._db.key(f"dests:{client}"), name))
        if known is None:
            raise NotFound(name)
        [found] = await self._destinations(client, [name])
        return found

    async def _destinations(self, client: ClientName, names: Sequence[str]) -> list[Destination]:
        async def read() -> Any:
            pipe = self._db.redis.pipeline(transaction=False)
            for name in names:
                pipe.hmget(self._db.key(f"health:{client}/{name}"), records.HEALTH_FIELDS)
                pipe.zcard(self._db.key(f"parked:{client}/{name}"))
            return await pipe.execute()

        answers = await self._db.call(read) if names else []
        return [
            records.destination_of_row(name, answers[2 * i], int(answers[2 * i + 1])) for i, name in enumerate(names)
        ]

    async def census(self, clients: Iterable[ClientName], *, worker_seen_s: float) -> Census:
        """How many jobs `clients` have, and all others that ever had one. Raises StoreUnavailable."""
        seen: Iterable[bytes] = await self._db.call(lambda: self._db.redis.smembers(self._db.key("clients")))
        names = sorted({*clients, *(ClientName(name.decode()) for name in seen)})
        sets = [part.value for combination in COMBINATIONS for part in combination]
        unfinished, workers, jobs = 0, 0, {}
        for start in range(0, max(1, len(names)), _CLIENTS):
            some = names[start : start + _CLIENTS]
            unfinished, workers, *rows = await self._db.run(
                "census", round(worker_seen_s * 1000), len(COMBINATIONS), *sets, *some
            )
            for name, (*counts, unlisted) in zip(some, rows, strict=True):
                counted = jobs[name] = dict(zip(COMBINATIONS, counts, strict=True))
                counted[JobStatus.QUEUED, DeliveryStatus.WAITING] += unlisted
        return Census(unfinished, workers, jobs)

    async def memory(self) -> tuple[int, int]:
        """Bytes that the store uses, and the most that it may use; 0 for no limit. Raises StoreUnavailable."""
        memory = await self._db.call(lambda: self._db.redis.info("memory"))
        return int(memory.get("used_memory", 0)), int(memory.get("maxmemory", 0))

    async def check_writable(self) -> None:
        """Raises StoreUnavailable unless the store takes writes."""
        await self._db.call(lambda: self._db.redis.set(self._db.key("writable"), b"1", ex=60), repeat=False)

    async def worker_seen_within(self, seconds: float) -> bool:
        """Whether a worker has shown itself in the last `seconds`. Raises StoreUnavailable."""
        last = await self._db.call(
            lambda: self._db.redis.zrange(self._db.key("workers"), 0, 0, desc=True, withscores=True)
        )
        now_s, _ = await self._db.call(self._db.redis.time)
        return bool(last) and now_s - last[0][1] / 1000 <= seconds
