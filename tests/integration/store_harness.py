"""The store by hand: both its sides, time that passes at once, and the rules that everything in it must obey."""

import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import pytest
import redis.asyncio as redis

from relay.core.model import (
    Attempt,
    AttemptOutcome,
    Callback,
    ClientName,
    DeliveryStatus,
    ErrorCode,
    EventType,
    Job,
    JobError,
    JobId,
    JobSpec,
    JobStatus,
)
from relay.core.settings import Settings
from relay.core.store import Admission, Slot, Store, WorkStore
from relay.core.store.records import pack_result
from relay.core.store.work import DeliverClaim, Save, SaveAnswer, saved_attempt, saved_outcome, saved_submission

ACME, UMBRELLA = ClientName("acme"), ClientName("umbrella")
JOB_EVENTS = (EventType.JOB_COMPLETED, EventType.JOB_FAILED, EventType.JOB_TIMED_OUT)
RESULT = b'{"result":"Paris.","credits_used":3}'
FAILURE = JobError(ErrorCode.UPSTREAM_FAILED, "execution failed")
PREFIX = "relay:"
HOUR_MS = 3_600_000

LIVE_DELIVERIES = {"waiting", "pending", "retrying"}
ENDED_DELIVERIES = {"delivered", "exhausted", "gone", "skipped"}
OUTCOMES = {"done", "failed", "timed_out", "cancelled"}


def make_settings(url: str, **changes: Any) -> Settings:
    """Settings that ignore the environment."""
    values = {"callback_schedule": "0,5,300", "callback_concurrency": 50}
    return Settings.load(_env_file=None, redis_url=url, **values | changes)


def make_callback(destination: str = "hooks.example:443", **changes: Any) -> Callback:
    """A callback that asks for every event of a job."""
    fields: dict[str, Any] = {
        "url": f"https://{destination.removesuffix(':443')}/hook",
        "destination": destination,
        "events": list(JOB_EVENTS),
    }
    return Callback(**fields | changes)


def make_spec(destination: str = "hooks.example:443", **changes: Any) -> JobSpec:
    """A job, as the API hands it on."""
    fields: dict[str, Any] = {
        "scraper": "chatgpt",
        "prompt": "What is the capital of France?",
        "country": "US",
        "timeout_s": 300,
        "bypass_cache": False,
        "deadline_s": 960,
        "callback": make_callback(destination),
    }
    return JobSpec(**fields | changes)


def make_admission(client: ClientName = ACME, **changes: Any) -> Admission:
    """What a client may, and asks under."""
    fields: dict[str, Any] = {
        "client": client,
        "max_unfinished_jobs": 1_000,
        "jobs_per_minute": 100_000,
        "max_unfinished_of_all": 100_000,
        "idempotency_key": None,
        "body_hash": "0" * 64,
    }
    return Admission(**fields | changes)


def attempt_of(
    claim: DeliverClaim, outcome: AttemptOutcome = AttemptOutcome.DELIVERED, http_status: int | None = 200
) -> Attempt:
    """How the claimed attempt ended."""
    return Attempt(claim.attempt, 1_700_000_000_000, 12, outcome, http_status, "thanks", None)


def failed(claim: DeliverClaim, retry_after_ms: int | None = 5_000) -> Save:
    """The claimed attempt was answered with a 500; the delivery is exhausted without `retry_after_ms`."""
    status = DeliveryStatus.EXHAUSTED if retry_after_ms is None else DeliveryStatus.RETRYING
    return saved_attempt(claim, attempt_of(claim, AttemptOutcome.HTTP_ERROR, 500), status, retry_after_ms)


def delivered(claim: DeliverClaim) -> Save:
    """The claimed attempt got through."""
    return saved_attempt(claim, attempt_of(claim), DeliveryStatus.DELIVERED)


@dataclass(slots=True)
class Bench:
    """A store with everything that a test does to it."""

    settings: Settings
    store: Store
    work: WorkStore
    #: A second worker: another boot id.
    other: WorkStore
    raw: Any

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, url: str, **changes: Any) -> AsyncIterator[Self]:
        """A bench over the store at `url`; whatever a test did, the store is consistent at the end."""
        settings = make_settings(url, **changes)
        async with contextlib.AsyncExitStack() as stack:
            store = await Store.connect(settings)
            stack.push_async_callback(store.close)
            work = await WorkStore.connect(settings)
            stack.push_async_callback(work.close)
            other = await WorkStore.connect(settings)
            stack.push_async_callback(other.close)
            raw: Any = redis.Redis.from_url(url, decode_responses=True)
            stack.push_async_callback(raw.aclose)
            bench = cls(settings, store, work, other, raw)
            yield bench
            await bench.check()

    # Clients.

    async def accept(self, client: ClientName = ACME, *, destination: str = "hooks.example:443", **changes: Any) -> Job:
        """One job is accepted."""
        return (await self.store.accept(make_admission(client), make_spec(destination, **changes))).job

    async def job(self, job_id: str, client: ClientName = ACME) -> Job:
        """A job as its client sees it."""
        return await self.store.job(client, JobId(job_id))

    async def state(self, job_id: str) -> tuple[JobStatus, DeliveryStatus]:
        """Both statuses of a job."""
        job = await self.job(job_id)
        return job.status, job.delivery.status

    # A worker that does everything right.

    async def submit_all(self, client: ClientName = ACME) -> None:
        """Every due job of a client is submitted; its poll is due at once."""
        claims = await self.work.begin_submit(client, 1_000)
        await self.work.save([saved_submission(claim.lease, f"up-{claim.lease.id}", 0) for claim in claims])

    async def finish_all(
        self, status: JobStatus = JobStatus.DONE, *, announce: bool = True, carry_on: bool = False
    ) -> list[SaveAnswer]:
        """Every due poll finds an outcome."""
        claims = await self.work.begin_poll(1_000)
        done = status is JobStatus.DONE
        return await self.work.save(
            [
                saved_outcome(
                    claim.lease,
                    status,
                    None if done else FAILURE,
                    announce_after_ms=0 if announce else None,
                    carry_on=carry_on,
                    result=pack_result(RESULT, 16_384) if done else None,
                    credits_used=3.0 if done else None,
                )
                for claim in claims
            ]
        )

    async def deliver_all(self, status: DeliveryStatus = DeliveryStatus.DELIVERED) -> int:
        """Every due callback is attempted once, and ends its delivery; returns how many there were."""
        claims = await self.work.begin_deliver(1_000)
        await self.work.save([saved_attempt(claim, attempt_of(claim), status) for claim in claims])
        return len(claims)

    async def announced(
        self, count: int = 1, *, destination: str = "hooks.example:443", client: ClientName = ACME
    ) -> list[Job]:
        """Jobs that are done, and whose callbacks are due."""
        jobs = [await self.accept(client, destination=destination) for _ in range(count)]
        await self.submit_all(client)
        await self.finish_all()
        return jobs

    async def ended(self, status: DeliveryStatus = DeliveryStatus.DELIVERED, **changes: Any) -> Job:
        """A job that is done, and whose delivery ended as `status`."""
        job = await self.accept(**changes)
        await self.submit_all()
        await self.finish_all(announce=status is not DeliveryStatus.SKIPPED)
        if status is not DeliveryStatus.SKIPPED:
            await self.deliver_all(status)
        return job

    # Time and truth.

    async def let_pass(self, seconds: float) -> None:
        """Let time pass for everything that is in the store, by moving all of it into the past."""
        await self.raw.eval(_LET_PASS, 1, PREFIX, round(seconds * 1000))

    async def places(self, job_id: str) -> list[str]:
        """The due and parked sets that a job or batch is in."""
        return (await self.snapshot()).places(job_id)

    async def record(self, job_id: str) -> dict[str, str]:
        """The record of a job or batch, as it is stored."""
        return dict(await self.raw.hgetall(PREFIX + job_id))

    async def snapshot(self) -> "Snapshot":
        """Everything in the store, at one moment."""
        return Snapshot.read(await self.raw.eval(_DUMP, 1, PREFIX))

    async def check(self, *, permits: int | None = None) -> "Snapshot":
        """Assert that the store obeys its rules; with `permits`, that no destination has more than that taken."""
        snapshot = await self.snapshot()
        limit = self.settings.callback_concurrency if permits is None else permits
        snapshot.check(permits=limit, attempts=len(self.settings.callback_schedule))
        for client in [key.removeprefix("ev:") for key in snapshot.streams]:
            snapshot.check_series(client, await self.happened(ClientName(client)))
        return snapshot

    async def happened(self, client: ClientName = ACME) -> Slot:
        """All that the store has counted of a client."""
        now_ms = self.store.now_ms()
        return (await self.store.series(client, 0, now_ms + HOUR_MS)).total


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything in the store, by the name of its key without the prefix."""

    records: Mapping[str, Mapping[str, str]]
    sets: Mapping[str, Mapping[str, float]]
    logs: Mapping[str, list[str]]
    strings: Mapping[str, str]
    streams: Mapping[str, list[Mapping[str, str]]]
    members: Mapping[str, set[str]]

    @classmethod
    def read(cls, dump: str) -> Self:
        """From what the script returns."""
        parts: dict[str, dict[str, Any]] = {"hash": {}, "zset": {}, "list": {}, "string": {}, "stream": {}, "set": {}}
        for key, kind, value in json.loads(dump) or []:
            parts[kind][key.removeprefix(PREFIX)] = value
        return cls(
            {key: _pairs(flat) for key, flat in parts["hash"].items()},
            {key: {m: float(s) for m, s in _pairs(flat).items()} for key, flat in parts["zset"].items()},
            {key: list(value) for key, value in parts["list"].items()},
            parts["string"],
            {key: [_pairs(fields) for _, fields in entries] for key, entries in parts["stream"].items()},
            {key: set(value) for key, value in parts["set"].items()},
        )

    def jobs(self) -> dict[str, Mapping[str, str]]:
        """The records of jobs."""
        return {key: record for key, record in self.records.items() if key.startswith("job_")}

    def batches(self) -> dict[str, Mapping[str, str]]:
        """The records of batches."""
        return {key: record for key, record in self.records.items() if key.startswith("batch_")}

    def places(self, thing_id: str) -> list[str]:
        """The due and parked sets that something is in."""
        return [
            key
            for key, members in self.sets.items()
            if thing_id in members and key.startswith(("due:", "parked:")) and key != "due:enlist"
        ]

    def check(self, *, permits: int, attempts: int, batches_listed: bool = True) -> None:
        """Assert every invariant of the store; without `batches_listed`, as before there was a list of batches."""
        self._check_places()
        self._check_records(attempts)
        self._check_indexes()
        if batches_listed:
            self._check_batch_index()
        self._check_batches()
        self._check_permits(permits)
        self._check_groups()
        self._check_events()

    def _check_places(self) -> None:
        known = set(self.records)
        for key, members in self.sets.items():
            if key.startswith(("due:", "parked:", "ends:", "ix:")):
                assert set(members) <= known, f"{key} has members without a record"
        for job_id, job in self.jobs().items():
            places = self.places(job_id)
            if job["s"] == "staged":
                assert places == [], (job_id, places)
                continue
            expected = {
                "submit": f"due:submit:{job['c']}",
                "parked": f"parked:{where_of(job)}",
            }.get(job["k"], f"due:{job['k']}")
            assert places == [expected], (job_id, job["s"], job["d"], places, expected)
            assert job["k"] in self._kinds(job_id), (job_id, job["s"], job["d"], job["k"])
            ends = [key for key, members in self.sets.items() if key.startswith("ends:") and job_id in members]
            waits = job["s"] == "queued" and job["k"] == "submit"
            assert ends == ([f"ends:{job['c']}"] if waits else []), (job_id, job["s"], ends)
        for batch_id, batch in self.batches().items():
            places = self.places(batch_id)
            if batch["live"] != "1":
                expected_places = ["due:purge"]
            elif "ct" not in batch:
                expected_places = []
            elif batch["d"] in LIVE_DELIVERIES:
                expected_places = [f"parked:{where_of(batch)}" if batch["k"] == "parked" else "due:deliver"]
            else:
                expected_places = ["due:purge"]
            assert places == expected_places, (batch_id, batch["d"], places)
            waits = batch_id in self.sets.get("due:enlist", {})
            assert waits == (batch["live"] == "1" and batch["enl"] != batch["n"]), (batch_id, waits)

    def _kinds(self, job_id: str) -> set[str]:
        """The due sets that a job can be in by its states."""
        job = self.records[job_id]
        if job["d"] in ENDED_DELIVERIES:
            return {"purge"}
        if job["s"] == "queued":
            return {"poll"} if self.follows(job_id) else {"submit"}
        return {"poll"} if job["s"] == "pending" else {"deliver", "parked"}

    def _check_records(self, attempts: int) -> None:
        for thing_id, record in [*self.jobs().items(), *self.batches().items()]:
            leased = "tok" in record
            assert leased == ("le" in record), (thing_id, "a token without a lease, or the other way round")
            if leased:
                [place] = self.places(thing_id)
                assert self.sets[place][thing_id] == float(record["le"]), (thing_id, "due at another moment")
                assert record["k"] in {"submit", "poll", "deliver"}, (thing_id, record["k"])
            assert ("nx" in record) == (record["d"] in {"pending", "retrying"}), (thing_id, record["d"])
            assert ("dt" in record) == (record["d"] == "delivered"), (thing_id, record["d"])
            begun, open_ = int(record.get("a", 0)), int("oa" in record)
            assert len(self.logs.get(f"att:{thing_id}", [])) == min(200, begun - open_), thing_id
            assert int(record.get("ga", 0)) <= attempts, (thing_id, "more attempts than the schedule has")
            assert not (open_ and not leased), (thing_id, "an attempt is open without a lease")
            if thing_id.startswith("job_"):
                assert int(record.get("sub", 0)) >= 0, thing_id
                assert ("ct" in record) == (record["s"] in OUTCOMES), thing_id
                result = f"res:{record.get('ro', thing_id)}"
                assert (result in self.strings) == (record["s"] == "done"), thing_id
        for key in [*self.strings, *self.logs]:
            kind, _, thing_id = key.partition(":")
            kept = thing_id in self.records or (kind == "res" and f"refs:{thing_id}" in self.strings)
            assert kind not in {"res", "att"} or kept, f"{key} was left behind"

    def follows(self, job_id: str) -> bool:
        """Whether a job waits for another one's outcome."""
        job = self.records[job_id]
        return "co" in job and job_id in self.members.get(f"fol:{job['co']}", set())

    def _check_groups(self) -> None:
        groups = {key.removeprefix("grp:"): g for key, g in self.records.items() if key.startswith("grp:")}
        for group, state in groups.items():
            followers = self.members.get(f"fol:{group}", set())
            assert int(state["n"]) == len(followers), (group, "counted wrongly")
            assert len(followers) <= 500
            assert state["lead"] not in followers
            for job_id in followers:
                job = self.records[job_id]
                assert (job["co"], job["k"]) == (group, "poll"), job_id
                assert job["s"] in {"queued", "pending"}, (job_id, "ended, and follows still")
            live = state["lead"] in self.records and self.records[state["lead"]]["s"] in {"queued", "pending"}
            assert live or followers, (group, "is over, and was left behind")
        assert {key.removeprefix("fol:") for key in self.members if key.startswith("fol:")} <= set(groups)
        assert {group for key, group in self.strings.items() if key.startswith("co:")} <= set(groups)
        for job_id, job in self.jobs().items():
            if "co" in job and job["s"] in {"queued", "pending"}:
                assert job_id == groups[job["co"]]["lead"] or self.follows(job_id), (job_id, "in no group")
        shared = Counter(job["ro"] for job in self.jobs().values() if "ro" in job)
        assert {k.removeprefix("refs:"): int(n) for k, n in self.strings.items() if k.startswith("refs:")} == shared

    def _check_indexes(self) -> None:
        truth: dict[str, set[str]] = {}
        waiting: Counter[str] = Counter()
        for job_id, job in self.jobs().items():
            if job["s"] != "staged":
                truth.setdefault(f"ix:{job['c']}:{job['s']}:{job['d']}", set()).add(job_id)
            elif self.records[job["b"]]["live"] == "1":
                waiting[job["c"]] += 1
        assert {key: set(m) for key, m in self.sets.items() if key.startswith("ix:")} == truth
        counted = {key.removeprefix("unlisted:"): int(n) for key, n in self.strings.items() if "unlisted:" in key}
        assert {client: n for client, n in counted.items() if n} == dict(waiting)
        open_ = sum(job["s"] in {"queued", "pending"} for job in self.jobs().values()) + sum(waiting.values())
        assert int(self.strings.get("unfinished", 0)) == open_

    def _check_batch_index(self) -> None:
        batches: dict[str, set[str]] = {}
        for batch_id, batch in self.batches().items():
            if batch["live"] == "1":
                batches.setdefault(f"batches:{batch['c']}", set()).add(batch_id)
        assert {key: set(m) for key, m in self.sets.items() if key.startswith("batches:")} == batches

    def _check_batches(self) -> None:
        members: dict[str, list[Mapping[str, str]]] = {}
        for job in self.jobs().values():
            if "b" in job:
                members.setdefault(job["b"], []).append(job)
        for batch_id, batch in self.batches().items():
            if batch["live"] != "1":
                continue
            jobs = members.get(batch_id, [])
            open_ = sum(job["s"] in {"staged", "queued", "pending"} for job in jobs)
            assert int(batch["o"]) == open_, (batch_id, batch["o"], open_)
            assert int(batch["left"]) == len(jobs), (batch_id, batch["left"], len(jobs))
            assert ("ct" in batch) == (open_ == 0) == ("final" in batch), batch_id
            for field, place, first in (("s", "s:", "queued"), ("d", "d:", "waiting")):
                counted = {k.removeprefix(place): int(v) for k, v in batch.items() if k.startswith(place)}
                assert sum(counted.values()) == int(batch["n"]), batch_id
                if len(jobs) == int(batch["n"]):
                    truth = Counter(first if job["s"] == "staged" else job[field] for job in jobs)
                    assert {k: v for k, v in counted.items() if v} == dict(truth), batch_id

    def check_series(self, client: str, happened: Slot) -> None:
        """Assert that a client's counters say what its events say, and its account."""
        seen: Counter[str] = Counter()
        before: dict[str, str] = {}
        for entry in self.streams[f"ev:{client}"]:
            had = before.get(entry["i"])
            before[entry["i"]] = entry["d"]
            if entry["k"] == "job" and had is None:
                seen["accepted"] += 1
            elif entry["k"] == "job" and had == "waiting" and entry["s"] in OUTCOMES:
                seen[entry["s"]] += 1
            elif had != entry["d"]:
                seen[entry["d"]] += 1
        # Jobs that wait to be enlisted are accepted, and their event is still to come.
        seen["accepted"] += int(self.strings.get(f"unlisted:{client}", 0))
        for name in ("accepted", *sorted(OUTCOMES), *sorted(ENDED_DELIVERIES - {"skipped"})):
            assert getattr(happened, name) == seen[name], (client, name)
        account = self.records.get(f"acct:{client}", {})
        assert happened.credits == pytest.approx(float(account.get("credits", 0)), abs=0.01), client
        assert happened.submits >= int(account.get("submitted", 0)), client
        assert happened.attempts >= happened.attempts_failed + happened.delivered, client

    def _check_permits(self, permits: int) -> None:
        # Or its gate is closed, and opens by itself; or it waits in line for slots.
        under_way = {where_of(self.records[thing_id]) for thing_id in self.sets.get("due:deliver", {})}
        under_way |= set(self.sets.get("wake", {}))
        under_way |= {where for place in self.sets.get("crowds", {}) for where in self.sets.get(f"crowd:{place}", {})}
        for key, members in self.sets.items():
            kind, _, destination = key.partition(":")
            if kind == "flight":
                assert len(members) <= permits, (key, len(members))
                for thing_id in members:
                    assert thing_id in self.sets.get("due:deliver", {}), (key, thing_id, "holds a permit for nothing")
                    assert where_of(self.records[thing_id]) == destination
            elif kind == "parked":
                assert destination in under_way, f"{key} has nobody to release it"

    def _check_events(self) -> None:
        for key, entries in self.streams.items():
            seen: dict[str, tuple[str, str]] = {}
            for entry in entries:
                state, before = (entry["s"], entry["d"]), seen.get(entry["i"])
                assert _follows(entry["k"], before, state), (key, entry["i"], before, state)
                seen[entry["i"]] = state
            client = key.removeprefix("ev:")
            for job_id, job in self.jobs().items():
                if job["c"] == client and job["s"] != "staged":
                    assert seen.get(job_id) == (job["s"], job["d"]), (job_id, seen.get(job_id))
            for batch_id, batch in self.batches().items():
                if batch["c"] == client and batch["live"] == "1":
                    assert seen.get(batch_id) == ("completed" if "ct" in batch else "open", batch["d"]), batch_id


def where_of(record: Mapping[str, str]) -> str:
    """The destination that a job's or batch's callback goes to, as keys of the store name it."""
    return f"{record['c']}/{record['dest']}"


def _follows(kind: str, before: tuple[str, str] | None, after: tuple[str, str]) -> bool:
    """Whether one event may come after another: the state machine of docs/architecture.md, "A job's way"."""
    status, delivery = after
    if before is None:
        return after == ("queued", "waiting") if kind == "job" else status == "open" and delivery in {"", "waiting"}
    was, had = before
    if kind == "job" and had == "waiting":
        if status == "pending":
            return was == "queued" and delivery == "waiting"
        if status == "cancelled":
            return delivery == "skipped"
        return status in OUTCOMES and delivery in {"pending", "skipped"} and not (was == "queued" and status == "done")
    if was == "open":
        return status == "completed" and (had, delivery) in {("", ""), ("waiting", "pending")}
    if status != was or status == "cancelled" or delivery == "waiting":
        return False
    if had in ENDED_DELIVERIES:
        return delivery == "pending"
    return delivery in ENDED_DELIVERIES - {"skipped"} or (had, delivery) == ("pending", "retrying")


def _pairs(flat: Iterable[str]) -> dict[str, str]:
    values = list(flat)
    return dict(zip(values[::2], values[1::2], strict=True))


_DUMP = """
local out = {}
for _, key in ipairs(redis.call('KEYS', KEYS[1] .. '*')) do
  local kind, value = redis.call('TYPE', key).ok, ''
  if kind == 'hash' then value = redis.call('HGETALL', key)
  elseif kind == 'zset' then value = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  elseif kind == 'set' then value = redis.call('SMEMBERS', key)
  elseif kind == 'list' then value = redis.call('LRANGE', key, 0, -1)
  elseif kind == 'stream' then value = redis.call('XRANGE', key, '-', '+')
  elseif string.find(key, ':ser:', 1, true) then value = redis.sha1hex(redis.call('GET', key))
  elseif not string.find(key, ':res:', 1, true) then value = redis.call('GET', key) end
  out[#out + 1] = {key, kind, value}
end
return cjson.encode(out)
"""

_LET_PASS = """#!lua flags=allow-oom
local ms = tonumber(ARGV[1])
local function int(value) return string.format('%.0f', value) end
for _, key in ipairs(redis.call('KEYS', KEYS[1] .. '*')) do
  local name, kind = string.sub(key, #KEYS[1] + 1), redis.call('TYPE', key).ok
  if kind == 'zset' and not string.find(name, '^ix:') and not string.find(name, '^batches:') then
    local members = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    for i = 1, #members, 2 do redis.call('ZADD', key, int(members[i + 1] - ms), members[i]) end
  elseif kind == 'hash' then
    local fields = {'le', 'dl', 'st', 'ct', 'oa', 'nx', 'dt', 'until', 'since', 'ok', 'bad', 'till', 'p',
      'fl', 'lp', 'ap'}
    if not string.find(name, '^acct:') then fields[#fields + 1] = 't' end
    for _, field in ipairs(fields) do
      local value = redis.call('HGET', key, field)
      if value then redis.call('HSET', key, field, int(value - ms)) end
    end
  end
  -- Counters have the time in their keys' names, and stay where they are.
  local ttl = redis.call('PTTL', key)
  if ttl >= 0 and not string.find(name, '^ser:') then redis.call('PEXPIRE', key, int(ttl - ms)) end
end
return 1
"""
