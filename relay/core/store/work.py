"""The worker's side of the store: looking, claiming, saving, giving back, purging."""

import asyncio
import itertools
import math
import secrets
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

import msgspec
import structlog

from relay.core.latency import MEMORY_JOBS, LatencyHistogram
from relay.core.model import (
    Attempt,
    AttemptOutcome,
    Batch,
    BatchId,
    ClientName,
    Delivery,
    DeliveryStatus,
    ErrorCode,
    EventType,
    Job,
    JobError,
    JobId,
    JobSpec,
    JobStatus,
)
from relay.core.policy import DEADLINE_SLACK_MS, Trouble
from relay.core.settings import Settings
from relay.core.store import records
from relay.core.store.connection import Connection
from relay.core.store.intake import CHUNK, Intake
from relay.core.store.slots import Doubt
from relay.core.trace_context import TraceContext

#: What an attempt says of its destination. A refused address costs nobody's time.
_HEALTH: Mapping[AttemptOutcome, str] = {
    AttemptOutcome.DELIVERED: "well",
    AttemptOutcome.GONE: "well",
    AttemptOutcome.HTTP_ERROR: "bad",
    AttemptOutcome.BLOCKED_ADDRESS: "bad",
    AttemptOutcome.TIMEOUT: "silent",
    AttemptOutcome.CONNECTION_ERROR: "silent",
    AttemptOutcome.TLS_ERROR: "silent",
}
#: A claim of callbacks brings their results along; no more than this at a time.
_CLAIM_BYTES = 4 * 1024 * 1024
_PURGE_LATER_MS = 60_000
#: The due sets that are looked at besides those of submits.
_LOOKED_AT = ("poll", "deliver", "enlist", "purge")
#: What was learned of jobs that nobody submits any more is forgotten.
_LEARNED_TTL_MS = 30 * 24 * 3600 * 1000
#: How long a destination at which nobody answers is left alone at first, and at most, as a share of the schedule's
#: longest delay.
_FIRST_CLOSED_S = 5.0
_CLOSED_SHARE = 0.1

#: What no other process has, and what this one has once: no two saves have the same nonce.
_NONCE = secrets.token_hex(8)
_numbers = itertools.count()

C = TypeVar("C")
log = structlog.get_logger("store")


@dataclass(frozen=True, slots=True)
class Lease:
    """A claim on one job or batch: only the holder of the token may save."""

    id: str
    token: str


@dataclass(frozen=True, slots=True)
class Release:
    """A claim that was not begun, to be given back and due after `delay_ms`. Nothing may have been sent.

    `patient` lets a submit wait past its submit window, until its deadline.
    """

    lease: Lease
    delay_ms: int = 0
    patient: bool = False


@dataclass(frozen=True, slots=True)
class SubmitClaim:
    """A job to submit."""

    lease: Lease
    client: ClientName
    spec: JobSpec
    created_ms: int
    deadline_ms: int
    #: An earlier submit was begun and never accounted for.
    was_ambiguous: bool
    #: And is counted: by another job of its group, which handed it on.
    is_counted: bool
    #: Submits begun, this one included.
    tries: int
    last: Trouble | None
    trace: TraceContext | None = None


@dataclass(frozen=True, slots=True)
class SharedOutcome:
    """How the job ended that another one follows; `timed_out` where its own deadline has passed."""

    of: JobId
    status: JobStatus
    error: JobError | None


@dataclass(frozen=True, slots=True)
class PollClaim:
    """A job to poll, or one that shares another's outcome."""

    lease: Lease
    client: ClientName
    upstream_job_id: str = field(repr=False)
    submitted_ms: int
    deadline_ms: int
    #: Polls in a row that had no answer.
    failures: int
    #: What jobs like this one are called, as far as latencies go.
    kind: str
    #: The age at which it was last seen to be pending; 0 where it never was.
    seen_ms: int
    #: Polls that were made before this one.
    polls: int
    events: tuple[EventType, ...]
    thin: bool
    shared: SharedOutcome | None = None
    trace: TraceContext | None = None


@dataclass(frozen=True, slots=True)
class DeliverClaim:
    """A callback to attempt: the subject as it was when its outcome came."""

    lease: Lease
    client: ClientName
    subject: Job | Batch
    generation: int
    #: Over all generations, from 1: the `relay-attempt` header.
    attempt: int
    #: Within this generation, from 1: the place in the schedule.
    turn: int
    #: How its destination stands, as far as is known when this is told.
    doubt: Doubt = field(default=Doubt.SOME, compare=False)
    trace: TraceContext | None = None

    @property
    def destination(self) -> str:
        """Where its callback goes: `host:port`."""
        callback = self.subject.spec.callback if isinstance(self.subject, Job) else self.subject.callback
        return callback.destination if callback is not None else ""


@dataclass(frozen=True, slots=True)
class ClientLook:
    """What is due for one client's submits, and what holds them back."""

    due: int
    overdue: int
    paused_until_ms: int
    paused_by: Trouble | None
    #: Since when the oldest is due; now where none is.
    since_ms: int = 0


@dataclass(frozen=True, slots=True)
class Look:
    """What is due now."""

    now_ms: int
    poll: int
    deliver: int
    enlist: int
    purge: int
    clients: Mapping[ClientName, ClientLook]
    #: Destinations that are left alone now, and, among them or about to be tried, those that are paused.
    unresponsive: int = 0
    paused: int = 0
    #: Since when the oldest of a kind is due, submits aside; now where none is.
    poll_since_ms: int = 0
    deliver_since_ms: int = 0
    enlist_since_ms: int = 0
    purge_since_ms: int = 0


@dataclass(slots=True)
class Save:
    """One transition, to be applied under the token of `lease`. The script (save.lua) names the fields' meaning."""

    lease: Lease
    body: dict[str, Any]
    #: A result as it is stored; travels beside the body because the script's msgpack has no binary type.
    result: bytes = b""
    nonce: str = field(default_factory=lambda: f"{_NONCE}.{next(_numbers)}")

    def packed(self) -> bytes:
        """The form that the script takes."""
        return records.pack({"id": self.lease.id, "tok": self.lease.token, "n": self.nonce, **self.body})


class News(StrEnum):
    """What an attempt has changed for the destination that it went to."""

    #: Nobody answers there: callbacks wait, and one is tried now and then.
    UNRESPONSIVE = "unresponsive"
    #: It has failed for days: the same, and seldom.
    PAUSED = "paused"
    #: Something got through again, and all that waited goes out.
    RECOVERED = "recovered"


@dataclass(frozen=True, slots=True)
class Saved:
    """The transition is in the store."""

    news: News | None = None


@dataclass(frozen=True, slots=True)
class Carried:
    """It is, and the same token goes on with the callback."""

    claim: DeliverClaim


@dataclass(frozen=True, slots=True)
class Refused:
    """The token is void: somebody else goes on with this job, or it was cancelled."""


SaveAnswer = Saved | Carried | Refused


def saved_submission(lease: Lease, upstream_job_id: str, poll_after_ms: int, kind: str = "") -> Save:
    """The upstream has the job. `kind` is what its latency will be learned under."""
    body = {"ask": 1, "up": upstream_job_id, "s": "pending", "due": "poll", "delay": poll_after_ms}
    return Save(lease, body | {"set": {"kd": kind}, "del": ["amb", "last", "fails"]})


def saved_submit_retry(lease: Lease, trouble: Trouble, delay_ms: int) -> Save:
    """The upstream does not have the job, or is not known to; another try follows.

    The ambiguous are counted here, so their note goes.
    """
    body: dict[str, Any] = {"set": {"last": trouble.value}, "del": ["amb"]}
    body |= {"ask": 1, "due": "submit", "delay": delay_ms}
    if trouble is Trouble.AMBIGUOUS:
        body["amb"] = 1
    return Save(lease, body)


def saved_poll(lease: Lease, failures: int, delay_ms: int, seen_ms: int = 0) -> Save:
    """Still pending at the age of `seen_ms`, or, with `failures`, no answer: the next poll follows."""
    fields = {"set": {"fails": str(failures)}} if failures else {"set": {"sn": str(seen_ms)}, "del": ["fails"]}
    return Save(lease, {"ask": 1, "due": "poll", "delay": delay_ms} | fields)


def saved_outcome(
    lease: Lease,
    status: JobStatus,
    error: JobError | None,
    *,
    announce_after_ms: int | None,
    asked: bool = True,
    carry_on: bool = False,
    slots: Mapping[str, Any] | None = None,
    result: bytes | None = None,
    result_url: str | None = None,
    credits_used: float | None = None,
    ambiguous: bool = False,
    result_of: JobId | None = None,
) -> Save:
    """The job has its outcome. `announce_after_ms` None: nobody asked for this event. `result` is as stored.

    `asked` says whether the upstream was asked in this step, with or without an answer.
    `carry_on` goes on with the callback under the same token, if the destination has a permit, and is not to leave the
    worker's slots to others: `slots` is what `TakenSlots.told_by` says of them, or nothing, and they are not shared.
    `result_of` is the job whose result it shares.
    """
    fields: dict[str, Any] = {}
    if credits_used is not None and not math.isfinite(credits_used):
        # Nothing can be counted with it, and the script would stop half-way.
        credits_used = None
    if error is not None:
        fields |= {"ec": error.code.value, "em": error.message}
    if result_url is not None:
        fields["ru"] = result_url
    if credits_used is not None:
        fields["cr"] = str(credits_used)
    body: dict[str, Any] = {"set": fields, "del": ["amb", "last", "fails", "sn"], "s": status.value}
    body |= {"ask": 1} if asked else {}
    if credits_used is not None:
        body["cr"] = str(credits_used)
    if ambiguous:
        body["amb"] = 1
    if result_of is not None:
        body["of"] = result_of
    if announce_after_ms is None:
        body |= {"d": DeliveryStatus.SKIPPED.value, "due": "purge"}
    else:
        body |= {"d": DeliveryStatus.PENDING.value, "due": "deliver", "delay": announce_after_ms}
        if carry_on:
            body["carry"] = dict(slots or {})
    return Save(lease, body, result or b"")


def saved_attempt(
    claim: DeliverClaim,
    attempt: Attempt,
    status: DeliveryStatus,
    retry_after_ms: int | None = None,
    *,
    free_slots: int | None = None,
    at: int | None = None,
) -> Save:
    """An attempt has ended, and with it the delivery unless `retry_after_ms` says when the next one follows.

    With few `free_slots`, and `at` attempts there under way, the worker releases fewer of those that wait for it.
    """
    body: dict[str, Any] = {
        "att": records.encode_attempt(attempt).decode(),
        "how": _HEALTH[attempt.outcome],
        "gen": claim.generation,
        "d": status.value,
    }
    if free_slots is not None:
        body |= {"left": free_slots} | ({} if at is None else {"at": at})
    if retry_after_ms is None:
        body["due"] = "purge"
    else:
        body |= {"due": "deliver", "delay": retry_after_ms}
    return Save(claim.lease, body)


class WorkStore(Intake):
    """What a worker does to the store. One per process: its boot id makes tokens globally unique."""

    def __init__(self, db: Connection, settings: Settings) -> None:
        super().__init__(db, round(settings.submit_window_s * 1000), settings.events_kept)
        self.boot_id = secrets.token_hex(6)
        self._next_number = 1
        #: Claims that had no answer, by what they were for: their first number, and how many they were of.
        self._unanswered: dict[str, tuple[int, int]] = {}
        #: For each of these one claim at a time, so that their numbers come in order.
        self._claiming: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._lease_ms = round(settings.lease_s * 1000)
        self._permits = settings.callback_concurrency
        self._poll_floor_ms = round(settings.poll_min_interval_s * 1000)
        self._rules = records.pack(_delivery_rules(settings))

    @classmethod
    async def connect(cls, settings: Settings) -> "WorkStore":
        """Connect and check the store. Raises ConfigurationError, StoreUnavailable."""
        db = Connection(settings)
        store = cls(db, settings)
        try:
            await db.check()
        except BaseException:
            await db.close()
            raise
        return store

    async def close(self) -> None:
        """Close all connections."""
        await self._db.close()

    def now_ms(self) -> int:
        """The store's time, estimated."""
        return self._db.now_ms()

    async def look(self, keys: Mapping[ClientName, str]) -> Look:
        """What is due; also says that this worker lives. `keys` names each client's upstream key for its pause.

        Raises StoreUnavailable.
        """
        pairs = [part for pair in keys.items() for part in pair]
        now, counts, rows, unresponsive, paused, oldest = await self._db.run("look", self.boot_id, *pairs)
        self._db.saw_time(int(now))
        clients = {
            name: ClientLook(row[0], row[1], int(row[2]), Trouble(row[3].decode()) if row[3] else None, int(row[4]))
            for name, row in zip(keys, rows, strict=True)
        }
        poll, deliver, enlist, purge = counts
        since = {f"{kind}_since_ms": int(ms) for kind, ms in zip(_LOOKED_AT, oldest, strict=True)}
        return Look(int(now), poll, deliver, enlist, purge, clients, unresponsive, paused, **since)

    async def known_clients(self) -> set[ClientName]:
        """Every client that ever had a job here, configured or not. Raises StoreUnavailable."""
        names = await self._db.call(lambda: self._db.redis.smembers(self._db.key("clients")))
        return {ClientName(name.decode()) for name in names}

    async def pause(self, key_name: str, length_ms: int, why: Trouble) -> None:
        """Hold back every submit under an upstream key, on all workers. Raises StoreUnavailable."""
        await self._db.run("pause", key_name, length_ms, why.value)

    # Claiming. A call that had no answer is made again under its number by the next one for the same, and gets what it
    # claimed, as long as nobody else does: what was not begun must not look as if it had been.

    def unanswered(self, kind: str) -> list[str]:
        """What claims of this kind had no answer for: the clients of submits, or the kind itself."""
        return [where.partition(":")[2] or where for where in self._unanswered if where.partition(":")[0] == kind]

    async def begin_submit(self, client: ClientName, count: int, *, overdue: bool = False) -> list[SubmitClaim]:
        """Claim up to `count` due submits of a client. Raises StoreUnavailable.

        `overdue` claims those whose submit window or deadline has ended instead, whatever holds the others back.
        """
        where = f"{'overdue' if overdue else 'submit'}:{client}"
        answer = await self._begin(where, "begin_submit", count, client, int(overdue))
        rows = (answer[i : i + 9] for i in range(1, len(answer), 9))
        return _readable(rows, lambda row: _submit_claim(client, row))

    async def begin_poll(self, count: int) -> list[PollClaim]:
        """Claim up to `count` due polls. Raises StoreUnavailable."""
        limits = (self._poll_floor_ms, DEADLINE_SLACK_MS)
        answer = await self._begin("poll", "begin_poll", count, self._submit_window_ms, self._events_kept, *limits)
        return _readable((answer[i : i + 13] for i in range(1, len(answer), 13)), _poll_claim)

    async def begin_deliver(self, count: int, *, slots: Mapping[str, Any] | None = None) -> list[DeliverClaim]:
        """Claim up to `count` due callbacks, as their destinations have permits; none only where there are none.

        Clients and destinations share this worker's slots: `slots` is what `TakenSlots.told` says of them. Without it
        there is no bound to them. Raises StoreUnavailable.
        """
        told = records.pack(slots) if slots is not None else ""
        while True:
            _, more, *rows = await self._begin("deliver", "begin_deliver", count, self._rules, _CLAIM_BYTES, told)
            # A large backlog is parked some at a time, so that the store's other clients get their turn.
            if rows or not more:
                return _readable(rows, _deliver_claim)

    async def _begin(self, where: str, script: str, count: int, *args: bytes | str | int) -> list[Any]:
        async with self._claiming[where]:
            claim = self._unanswered.pop(where, None)
            if claim is None:
                # One more than there are jobs, for a claim of none.
                claim = self._next_number, count
                self._next_number += count + 1
            number, numbers = claim
            try:
                answer: list[Any] = await self._db.run(
                    script, min(count, numbers), self.boot_id, number, self._lease_ms, *args
                )
            except BaseException:
                self._unanswered[where] = claim
                raise
        self._db.saw_time(int(answer[0]))
        return answer

    # Saving and giving back.

    async def save(self, saves: Sequence[Save]) -> list[SaveAnswer]:
        """Apply transitions; each stands alone, and a repeat of the same Save does nothing. Raises StoreUnavailable."""
        answers = await self._db.run(
            "save",
            self._rules,
            *(part for save in saves for part in (save.packed(), save.result)),
        )
        return [_save_answer(answer) for answer in answers]

    async def renew(self, leases: Iterable[Lease]) -> list[Lease]:
        """Make leases longer; returns those that are lost. Raises StoreUnavailable."""
        held = list(leases)
        lost: list[Lease] = []
        for start in range(0, len(held), CHUNK):
            chunk = held[start : start + CHUNK]
            args = [part for lease in chunk for part in (lease.id, lease.token)]
            answers = await self._db.run("renew", self._lease_ms, *args)
            lost += [lease for lease, alive in zip(chunk, answers, strict=True) if not alive]
        return lost

    async def release(self, releases: Sequence[Release]) -> list[None]:
        """Give claims back; a repeat does nothing. Returns an answer for each. Raises StoreUnavailable."""
        args = [part for one in releases for part in (one.lease.id, one.lease.token, one.delay_ms, int(one.patient))]
        if args:
            await self._db.run("release", self._permits, *args)
        return [None] * len(releases)

    # Learning.

    async def learn(self, kind: str, fresh: LatencyHistogram) -> LatencyHistogram:
        """Add what was seen of a kind of job, let what was known fade as much; returns all. Raises StoreUnavailable."""
        keep = math.exp(-fresh.jobs / MEMORY_JOBS)
        fields = [part for field, weight in fresh.to_fields().items() for part in (field, f"{weight:.7g}")]
        # A reply that is lost counts a few jobs twice, which harms less than to lose them.
        flat = await self._db.run("learn", kind, f"{keep:.9f}", _LEARNED_TTL_MS, *fields)
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return LatencyHistogram.from_fields({name.decode(): float(weight) for name, weight in pairs})

    # Housekeeping.

    async def due_batches(self) -> list[BatchId]:
        """Committed batches whose relay did not enlist them. Raises StoreUnavailable."""
        now = self._db.now_ms()
        ids = await self._db.call(
            lambda: self._db.redis.zrangebyscore(self._db.key("due:enlist"), "-inf", now, start=0, num=10)
        )
        return [BatchId(i.decode()) for i in ids]

    async def purge(self, count: int) -> int:
        """Delete up to `count` records that have been kept long enough; returns how many. Raises StoreUnavailable."""
        answer = await self._db.run("purge", count, _PURGE_LATER_MS)
        for i in range(1, len(answer), 3):
            batch_id, first, n = answer[i : i + 3]
            await self._drop_staged(batch_id.decode(), records.consecutive(JobId(first.decode()), int(n)))
        return int(answer[0])


def _delivery_rules(settings: Settings) -> dict[str, Any]:
    """What the scripts that deliver go by; save.lua and destination.lua name them."""
    longest_s = max(settings.callback_schedule)
    # Holding back must not change a schedule out of recognition, whatever that is.
    longest_closed_s = min(settings.destination_closed_s, longest_s * _CLOSED_SHARE)
    return {
        "kept": settings.events_kept,
        "ttl": round(settings.result_ttl_s * 1000),
        "undelivered": round(settings.undelivered_ttl_s * 1000),
        "lease": round(settings.lease_s * 1000),
        "permits": settings.callback_concurrency,
        "slots": settings.deliver_slots,
        "attempts": len(settings.callback_schedule),
        "first": round(settings.callback_schedule[0] * 1000),
        "trip": settings.destination_closes_after,
        "closed": round(min(_FIRST_CLOSED_S, longest_closed_s) * 1000),
        "longest_closed": round(longest_closed_s * 1000),
        "pause_after": round(settings.destination_pauses_after_s * 1000),
        "paused_try": round(settings.destination_paused_try_s * 1000),
    }


def _save_answer(answer: Sequence[Any]) -> SaveAnswer:
    match answer[0]:
        case b"saved":
            return Saved(News(answer[2].decode()) if len(answer) > 2 else None)
        case b"again":
            return Saved()
        case b"carried":
            return Carried(_deliver_claim(answer[2]))
        case _:
            return Refused()


def _readable(rows: Iterable[Sequence[Any]], read: Callable[[Sequence[Any]], C]) -> list[C]:
    """The claims that can be read. One that cannot, as another version wrote it, must not cost the others theirs."""
    claims: list[C] = []
    for row in rows:
        try:
            claims.append(read(row))
        except (ValueError, LookupError, msgspec.MsgspecError, zlib.error) as error:
            why = type(error).__name__
            log.error("a record cannot be read: its lease runs out", id=row[0].decode(), error=why)  # noqa: TRY400 - what it says may quote the record
    return claims


def _submit_claim(client: ClientName, row: Sequence[Any]) -> SubmitClaim:
    job_id, token, spec, created, deadline, ambiguous, submits, last, trace = row
    return SubmitClaim(
        lease=Lease(job_id.decode(), token.decode()),
        client=client,
        spec=records.decode_spec(spec),
        created_ms=int(created),
        deadline_ms=int(deadline),
        was_ambiguous=bool(ambiguous),
        is_counted=ambiguous == b"0",
        tries=int(submits) + 1,
        last=Trouble(last.decode()) if last else None,
        trace=TraceContext.unpack(trace.decode()),
    )


def _poll_claim(row: Sequence[Any]) -> PollClaim:
    job_id, token, client, upstream, submitted, deadline, failures, wishes, kind, seen, polls, trace, shared = row
    events, thin = records.decode_wishes(wishes.decode())
    return PollClaim(
        lease=Lease(job_id.decode(), token.decode()),
        client=ClientName(client.decode()),
        upstream_job_id=upstream.decode(),
        submitted_ms=int(submitted or 0),
        deadline_ms=int(deadline),
        failures=int(failures),
        kind=kind.decode(),
        seen_ms=int(seen or 0),
        polls=int(polls),
        events=events,
        thin=thin,
        shared=_shared_outcome(shared) if shared else None,
        trace=TraceContext.unpack(trace.decode()),
    )


def _shared_outcome(row: Sequence[bytes]) -> SharedOutcome:
    job_id, status, code, message = row
    error = JobError(ErrorCode(code.decode()), message.decode()) if code else None
    return SharedOutcome(JobId(job_id.decode()), JobStatus(status.decode()), error)


def _deliver_claim(row: Sequence[Any]) -> DeliverClaim:
    thing_id, token, values, stored_result, doubt = row
    client, status, spec, created, deadline, batch, upstream, submitted, completed = values[:9]
    error_code, error_message, result_url, generation, attempts, turn, count, final, trace = values[9:18]
    subject: Job | Batch
    if thing_id.startswith(b"batch_"):
        numbers = records.decode_numbers(final)
        subject = Batch(
            id=BatchId(thing_id.decode()),
            client=ClientName(client.decode()),
            count=int(count),
            statuses={s: numbers.get(f"s:{s}", 0) for s in JobStatus},
            deliveries={d: numbers.get(f"d:{d}", 0) for d in DeliveryStatus},
            created_ms=int(created),
            completed_ms=int(completed),
            callback=records.decode_callback(spec),
            delivery=None,
        )
    else:
        subject = Job(
            id=JobId(thing_id.decode()),
            client=ClientName(client.decode()),
            spec=records.decode_spec(spec),
            status=JobStatus(status.decode()),
            created_ms=int(created),
            deadline_ms=int(deadline),
            delivery=Delivery(DeliveryStatus.PENDING, int(attempts)),
            batch_id=BatchId(batch.decode()) if batch else None,
            upstream_job_id=upstream.decode() if upstream else None,
            submitted_ms=int(submitted) if submitted else None,
            completed_ms=int(completed),
            error=JobError(ErrorCode(error_code.decode()), error_message.decode()) if error_code else None,
            result_url=result_url.decode() if result_url else None,
            result=records.unpack_result(stored_result) if stored_result is not None else None,
        )
    return DeliverClaim(
        lease=Lease(thing_id.decode(), token.decode()),
        client=subject.client,
        subject=subject,
        generation=int(generation or 0),
        attempt=int(attempts),
        turn=int(turn),
        doubt=Doubt(doubt),
        trace=TraceContext.unpack(trace.decode()) if trace else None,
    )
