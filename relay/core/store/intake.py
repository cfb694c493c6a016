"""Accepting jobs and batches: together with everything that follows from them, or not at all."""

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from relay.core.errors import (
    IdempotencyKeyReused,
    JobExpired,
    NotFound,
    RateLimited,
    StoreUnavailable,
    TooManyUnfinished,
)
from relay.core.model import (
    BatchId,
    Callback,
    ClientName,
    Delivery,
    DeliveryStatus,
    Job,
    JobId,
    JobSpec,
    JobStatus,
)
from relay.core.store import records
from relay.core.store.queries import Queries
from relay.core.trace_context import TraceContext

#: How long an idempotency key is kept (docs/api.md, "Idempotency").
IDEMPOTENCY_TTL_MS = 24 * 3600 * 1000
#: Records per script: 10,000 at once would stall every other client of the store for 54 to 198 ms (measured).
CHUNK = 200
#: What was staged and not committed is dropped after this.
STAGED_TTL_MS = 15 * 60 * 1000
#: The relay that committed a batch enlists it; after this a worker does.
_ENLIST_GRACE_MS = 5_000
_FULL_RETRY_AFTER_S = 5
#: How far the estimate of the store's clock may be off.
_CLOCK_SLACK_MS = 500


@dataclass(frozen=True, slots=True)
class Admission:
    """Who asks, what it may, and under which idempotency key."""

    client: ClientName
    max_unfinished_jobs: int
    jobs_per_minute: int
    #: Of all clients together.
    max_unfinished_of_all: int
    #: Checked by the caller: 1 to 255 visible ASCII characters, or None.
    idempotency_key: str | None
    #: Of the validated, defaulted body and its kind, in hex.
    body_hash: str
    #: What its asking belongs to, and the callback then as well; no part of what is asked for.
    trace: TraceContext | None = None

    def packed_trace(self) -> str:
        """The trace as it is stored; "" where there is none."""
        return self.trace.packed() if self.trace is not None else ""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job that is in the store."""

    job: Job
    replayed: bool


@dataclass(frozen=True, slots=True)
class AcceptedBatch:
    """A batch that is in the store, with its jobs in the order in which they were given."""

    batch_id: BatchId
    count: int
    job_ids: list[JobId]
    replayed: bool


class Intake(Queries):
    """Accepting."""

    async def accept(self, admission: Admission, spec: JobSpec) -> Accepted:
        """Accept one job; afterwards it is in the store.

        Raises RateLimited, TooManyUnfinished, IdempotencyKeyReused, JobExpired, and StoreUnavailable, after which it
        is not known whether the job was accepted: an idempotency key makes asking again safe.
        """
        [job_id] = records.job_ids(self._db.now_ms(), 1)
        answer = await self._db.run_durably(
            "accept",
            *(admission.client, job_id, records.encode_spec(spec), records.encode_wishes(spec.callback)),
            *(spec.callback.destination, round(spec.deadline_s * 1000), self._submit_window_ms),
            *(admission.idempotency_key or "", admission.body_hash, IDEMPOTENCY_TTL_MS),
            *(admission.max_unfinished_jobs, admission.jobs_per_minute, self._events_kept, self._not_after_ms()),
            *(admission.max_unfinished_of_all, coalesce_hash(spec), admission.packed_trace()),
        )
        if answer[0] == b"accepted":
            created_ms = int(answer[1])
            self._db.saw_time(int(answer[2]))
            return Accepted(_fresh_job(admission.client, job_id, spec, created_ms), replayed=False)
        self._refuse_late(answer)
        known = JobId(_replayed(answer))
        try:
            return Accepted(await self.job(admission.client, known), replayed=True)
        except NotFound as error:
            raise JobExpired(known) from error

    async def accept_batch(
        self, admission: Admission, specs: Sequence[JobSpec], callback: Callback | None
    ) -> AcceptedBatch:
        """Accept a batch whole or not at all; afterwards all its jobs are in the store and live.

        Raises what `accept` raises.
        """
        count = len(specs)
        quota = (admission.max_unfinished_jobs, admission.jobs_per_minute)
        key = (admission.idempotency_key or "", admission.body_hash)
        of_all = admission.max_unfinished_of_all
        answer = await self._db.run("admit", admission.client, *key, count, *quota, of_all)
        if answer[0] in (b"full", b"crowded") and count > min(admission.max_unfinished_jobs, of_all):
            raise TooManyUnfinished(_FULL_RETRY_AFTER_S, of_all=count > of_all, alone=True)
        if answer[0] != b"admitted":
            return await self._replayed_batch(admission.client, BatchId(_replayed(answer)))
        now_ms = self._db.now_ms()
        ids, batch_id = records.job_ids(now_ms, count), records.batch_id(now_ms)
        head = (batch_id, admission.client, STAGED_TTL_MS, count, ids[0])
        own = (records.encode_spec(callback), callback.destination) if callback else ("", "")
        for start in range(0, count, CHUNK):
            rows: list[Any] = []
            for job_id, spec in zip(ids[start : start + CHUNK], specs[start : start + CHUNK], strict=True):
                wishes = records.encode_wishes(spec.callback)
                deadline_ms = round(spec.deadline_s * 1000)
                rows += (job_id, records.encode_spec(spec), wishes, spec.callback.destination, deadline_ms)
                rows.append(coalesce_hash(spec))
            await self._db.run("stage", *head, *own, admission.packed_trace(), *rows)
        answer = await self._db.run_durably(
            "commit_batch",
            *(admission.client, batch_id, *key, IDEMPOTENCY_TTL_MS, *quota, self._events_kept, _ENLIST_GRACE_MS),
            *(self._not_after_ms(), of_all),
        )
        if answer[0] != b"accepted":
            # It cannot get live any more, and would take room until it is purged.
            await self._drop_staged(batch_id, ids)
        self._refuse_late(answer)
        if answer[0] == b"incomplete":
            raise StoreUnavailable("the batch was not stored whole")
        if answer[0] != b"accepted":
            return await self._replayed_batch(admission.client, BatchId(_replayed(answer)))
        # Accepted is accepted: a worker enlists what is left as soon as the store is back.
        with contextlib.suppress(StoreUnavailable):
            await self.enlist(batch_id)
        return AcceptedBatch(batch_id, count, ids, replayed=False)

    async def enlist(self, batch_id: BatchId) -> int:
        """Make the jobs of a committed batch live, some at a time; returns how many it has, 0 where it is not live.

        Any number of callers may do so at once. Raises StoreUnavailable.
        """
        first, n = await self._db.call(lambda: self._db.redis.hmget(self._db.key(batch_id), ["f", "n"]))
        if first is None:
            return 0
        ids, position = records.consecutive(JobId(first.decode()), int(n)), 0
        while 0 <= position < len(ids):
            chunk = ids[position : position + CHUNK]
            position = await self._db.run(
                "enlist", batch_id, position, self._submit_window_ms, self._events_kept, *chunk
            )
        return len(ids) if position > 0 else 0

    def _not_after_ms(self) -> int:
        """Until when the store may still accept what is sent to it now: its answer is not waited for longer."""
        return self._db.now_ms() + round(self._db.timeout_s * 1000) + _CLOCK_SLACK_MS

    def _refuse_late(self, answer: Sequence[bytes]) -> None:
        if answer[0] == b"late":
            # Or its clock has stepped, and is right from now on.
            self._db.saw_time(int(answer[1]))
            raise StoreUnavailable("the store was stalled, and has not accepted it")

    async def _drop_staged(self, batch_id: str, ids: Sequence[JobId]) -> None:
        for start in range(0, len(ids), CHUNK):
            last = int(start + CHUNK >= len(ids))
            await self._db.run("drop_staged", batch_id, last, *ids[start : start + CHUNK])

    async def _replayed_batch(self, client: ClientName, batch_id: BatchId) -> AcceptedBatch:
        ids = await self._members(client, batch_id)
        if not ids:
            raise JobExpired(batch_id)
        return AcceptedBatch(batch_id, len(ids), ids, replayed=True)


def coalesce_hash(spec: JobSpec) -> str:
    """What jobs of a client have in common that share one upstream job; "" for one that shares nothing.

    After a dot, for how many milliseconds an upstream job is joined: as long as it may take (docs/upstream.md).
    """
    if not spec.coalesce or spec.bypass_cache:
        return ""
    same = (spec.scraper, spec.prompt, spec.country, float(spec.timeout_s), spec.params)
    joined_ms = round((3 * spec.timeout_s + 60) * 1000)
    return f"{hashlib.sha256(msgspec.json.encode(same, order='sorted')).hexdigest()[:32]}.{joined_ms}"


def _fresh_job(client: ClientName, job_id: JobId, spec: JobSpec, created_ms: int) -> Job:
    return Job(
        id=job_id,
        client=client,
        spec=spec,
        status=JobStatus.QUEUED,
        created_ms=created_ms,
        deadline_ms=created_ms + round(spec.deadline_s * 1000),
        delivery=Delivery(DeliveryStatus.WAITING),
    )


def _replayed(answer: Sequence[bytes]) -> str:
    """The id that a known idempotency key stands for, or the exception that the store's refusal is."""
    match answer[0]:
        case b"replayed":
            return answer[1].decode()
        case b"reused":
            raise IdempotencyKeyReused("the key was used with another body")
        case b"expired":
            raise JobExpired("what the key made has been purged")
        case b"full" | b"crowded":
            raise TooManyUnfinished(_FULL_RETRY_AFTER_S, of_all=answer[0] == b"crowded")
        case b"rate":
            raise RateLimited(max(1, int(answer[1])))
        case other:
            raise AssertionError(f"unexpected answer of a script: {other!r}")
