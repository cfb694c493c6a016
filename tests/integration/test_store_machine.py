"""Whatever clients, workers, faults and time do to the store, it obeys its rules, and everything ends in the end."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from relay.core import policy
from relay.core.errors import Conflict, NotFound, NotRedeliverable, TooManyUnfinished
from relay.core.model import (
    Attempt,
    AttemptOutcome,
    BatchId,
    DeliveryStatus,
    ErrorCode,
    EventType,
    JobError,
    JobId,
    JobStatus,
)
from relay.core.policy import Delivered, Exhausted, Finish, Gone, PollAfter, RetryAfter, Rules, SubmitAfter, Trouble
from relay.core.store import WorkStore
from relay.core.store.intake import coalesce_hash
from relay.core.store.records import batch_id, encode_spec, encode_wishes, job_ids
from relay.core.store.slots import TakenSlots
from relay.core.store.work import (
    Carried,
    DeliverClaim,
    Lease,
    PollClaim,
    Refused,
    Release,
    Save,
    SaveAnswer,
    Saved,
    SubmitClaim,
    saved_attempt,
    saved_outcome,
    saved_poll,
    saved_submission,
    saved_submit_retry,
)
from tests.integration.store_harness import (
    ACME,
    ENDED_DELIVERIES,
    JOB_EVENTS,
    RESULT,
    Bench,
    Snapshot,
    make_admission,
    make_callback,
    make_spec,
    where_of,
)

pytestmark = pytest.mark.store

T = TypeVar("T")

QUOTA, MANY = 12, 40
PERMITS = 2
#: Of each worker; so few that they are shared all the time.
SLOTS = 5
DESTINATIONS = ("a.example:443", "b.example:443", "c.example:443")
DESTINATION = st.sampled_from(DESTINATIONS)
RULES = Rules(
    poll_interval_ms=3_000,
    poll_min_interval_ms=1_000,
    submit_window_ms=900_000,
    resubmit_ambiguous=True,
    schedule_ms=(0, 5_000, 300_000),
)
LUCK = st.sampled_from(["good", "bad", "worse"])
#: What a worker tells of its slots: nothing; how it is; or what is not true any more, or not yet.
TOLD = st.sampled_from(["nothing", "truth", "truth", "stale"])
RESULT_STORED = b"r" + RESULT


@dataclass(frozen=True, slots=True)
class Held:
    """A claim, and the worker that has it."""

    worker: WorkStore
    claim: SubmitClaim | PollClaim | DeliverClaim


class StoreMachine(RuleBasedStateMachine):
    """Clients and two workers at one store, with all that can go wrong between them.

    Rules that find nothing to do return, and have no preconditions: ids and times differ from run to run, and what is
    drawn must not depend on them.
    """

    #: Set by the test: the loop and the bench that all examples share.
    loop: asyncio.AbstractEventLoop
    bench: Bench

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[JobId] = []
        self.batches: list[BatchId] = []
        self.held: list[Held] = []
        self.sent: list[tuple[WorkStore, Save]] = []
        #: What must never change again, by job or batch.
        self.final: dict[str, tuple[str | None, ...]] = {}
        self.upstream = 0
        #: What the counters must say: submits that the upstream did not take, as the saves tell; each job's polls; and
        #: how each attempt ended that was ever logged, by its job and number.
        self.vain_submits = 0
        self.polls: Counter[str] = Counter()
        self.attempts: dict[tuple[str, int], str] = {}
        self.run(self.bench.raw.flushdb())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Wait for the store."""
        return self.loop.run_until_complete(coroutine)

    # Clients.

    @initialize()
    def begin(self) -> None:
        """There are more callbacks due than permits."""
        self.announce(DESTINATIONS[0], 5)

    @rule(destination=DESTINATION, count=st.integers(3, 6))
    def announce(self, destination: str, count: int) -> None:
        """Several jobs are done, and their callbacks due."""
        if len(self.jobs) >= MANY:
            return
        for _ in range(count):
            self.accept(destination, announced=True, deadline_s=5_000, coalesce=False)
        claims = self.run(self.bench.work.begin_submit(ACME, 50))
        self.save_all(self.bench.work, [Held(self.bench.work, claim) for claim in claims], "good", carry_on=False)
        self.run(self.bench.let_pass(3))
        polls = self.run(self.bench.work.begin_poll(50))
        self.save_all(self.bench.work, [Held(self.bench.work, claim) for claim in polls], "good", carry_on=False)

    @rule(
        destination=DESTINATION,
        announced=st.booleans(),
        deadline_s=st.sampled_from([10, 960, 5_000]),
        coalesce=st.booleans(),
    )
    def accept(self, destination: str, announced: bool, deadline_s: int, coalesce: bool) -> None:
        """A job is accepted, or the quota is used up; all that coalesce are equal."""
        if len(self.jobs) >= MANY:
            return
        events = JOB_EVENTS if announced else (EventType.JOB_FAILED,)
        callback = make_callback(destination, events=list(events))
        spec = make_spec(callback=callback, deadline_s=deadline_s, coalesce=coalesce)
        unfinished = self.unfinished()
        try:
            accepted = self.run(self.bench.store.accept(make_admission(max_unfinished_jobs=QUOTA), spec))
        except TooManyUnfinished:
            assert unfinished >= QUOTA
        else:
            assert unfinished < QUOTA
            self.jobs.append(accepted.job.id)

    @rule(
        count=st.integers(1, 4),
        own=st.booleans(),
        stop_after=st.sampled_from(["stage", "commit", "enlist", ""]),
        coalesce=st.booleans(),
    )
    def accept_batch(self, count: int, own: bool, stop_after: str, coalesce: bool) -> None:
        """A batch is accepted by a relay that may die anywhere on the way."""
        if len(self.jobs) >= MANY:
            return
        db, now_ms = self.bench.store._db, self.bench.store.now_ms()
        ids, new, spec = job_ids(now_ms, count), batch_id(now_ms), make_spec(DESTINATIONS[0], coalesce=coalesce)
        callback = make_callback(DESTINATIONS[1], events=[EventType.BATCH_COMPLETED])
        rows: list[str | bytes | int] = []
        for job_id in ids:
            rows += [job_id, encode_spec(spec), encode_wishes(spec.callback), spec.callback.destination, 960_000]
            rows.append(coalesce_hash(spec))
        told = (encode_spec(callback), callback.destination) if own else ("", "")
        self.run(db.run("stage", new, ACME, 900_000, count, ids[0], *told, "", *rows))
        if stop_after == "stage":
            return
        unfinished = self.unfinished()
        [answer, *_] = self.run(
            db.run("commit_batch", ACME, new, "", "0", 86_400_000, QUOTA, 100_000, 10_000, 5_000, 2**52, 2**52)
        )
        assert (answer == b"accepted") == (unfinished + count <= QUOTA)
        if answer != b"accepted":
            return
        self.batches.append(new)
        self.jobs += ids
        if stop_after == "enlist":
            self.run(db.run("enlist", new, 0, 900_000, 10_000, ids[0]))
        elif not stop_after:
            self.run(self.bench.store.enlist(new))

    @rule(number=st.integers(0), cancel=st.booleans())
    def look_at(self, number: int, cancel: bool) -> None:
        """A client reads a job, which may enlist it, or cancels it."""
        job_id = self.jobs[number % len(self.jobs)]
        with contextlib.suppress(Conflict, NotFound):
            self.run(self.bench.store.cancel(ACME, job_id) if cancel else self.bench.store.job(ACME, job_id))

    @rule(number=st.integers(0), many=st.sampled_from([None, *(d for d in DeliveryStatus if d.is_ended)]))
    def redeliver(self, number: int, many: DeliveryStatus | None) -> None:
        """A client asks for callbacks once more: a job's, a batch's, or all that ended in one way."""
        known = [*self.jobs, *self.batches]
        wanted = known[number % len(known)] if known else JobId("job_" + "0" * 26)
        with contextlib.suppress(NotFound, NotRedeliverable):
            if many is not None:
                self.run(self.bench.store.redeliver_many(ACME, delivery=many))
            elif wanted.startswith("batch_"):
                self.run(self.bench.store.redeliver_batch(ACME, BatchId(wanted)))
            else:
                self.run(self.bench.store.redeliver(ACME, JobId(wanted)))

    @rule(destination=DESTINATION)
    def resume(self, destination: str) -> None:
        """A client has its callbacks to a destination go out again."""
        with contextlib.suppress(NotFound):
            self.run(self.bench.store.resume_destination(ACME, destination))

    # Workers.

    @rule(other=st.booleans(), count=st.integers(1, 5), overdue=st.booleans(), told=TOLD)
    def claim(self, other: bool, count: int, overdue: bool, told: str) -> None:
        """A worker claims what is due of every kind, callbacks as it has slots."""
        worker = self.worker(other)
        slots, wanted = None, count
        if told != "nothing":
            taken, free = self.slots_of(worker, stale=told == "stale")
            slots = taken.told(free)
            wanted = min(count, free) if told == "truth" else count
        callbacks = self.run(worker.begin_deliver(wanted, slots=slots)) if wanted > 0 else []
        self.check_permits(callbacks)
        claims: list[SubmitClaim | PollClaim | DeliverClaim] = [
            *callbacks,
            *self.run(worker.begin_poll(count)),
            *self.run(worker.begin_submit(ACME, count, overdue=overdue)),
        ]
        self.held += [Held(worker, claim) for claim in claims]

    @rule(luck=LUCK, carry_on=st.booleans(), told=TOLD)
    def work(self, luck: str, carry_on: bool, told: str) -> None:
        """A worker does what is due, and what is due by that."""
        for _ in range(20):
            self.claim(other=False, count=50, overdue=False, told=told)
            if not self.held:
                break
            while self.held:
                self.save(0, 50, luck, carry_on=carry_on, lost=False)

    @rule(
        number=st.integers(0),
        together=st.integers(1, 4),
        luck=LUCK,
        carry_on=st.booleans(),
        lost=st.booleans(),
    )
    def save(self, number: int, together: int, luck: str, carry_on: bool, lost: bool) -> None:
        """Steps end, and are saved in one trip, whose reply may be lost and which is then repeated."""
        if not self.held:
            return
        first = number % len(self.held)
        taken, self.held = self.held[first : first + together], self.held[:first] + self.held[first + together :]
        for worker in (self.bench.work, self.bench.other):
            ended = [held for held in taken if held.worker is worker]
            if not ended:
                continue
            saves, answers = self.save_all(worker, ended, luck, carry_on)
            if lost:
                again = self.run(worker.save(saves))
                # The news of a destination are told once, and lost with the reply: they are for the log.
                assert again == [Saved() if isinstance(answer, Saved) else answer for answer in answers]
            self.sent = [*self.sent[-5:], *((worker, save) for save in saves)]
            carried = [answer.claim for answer in answers if isinstance(answer, Carried)]
            self.check_permits(carried)
            self.held += [Held(worker, claim) for claim in carried]

    def save_all(
        self, worker: WorkStore, ended: Sequence[Held], luck: str, carry_on: bool
    ) -> tuple[list[Save], list[SaveAnswer]]:
        """Steps of one worker end, and are saved in one trip; counts what the upstream was asked."""
        saves = [self.outcome_of(held, luck, carry_on) for held in ended]
        answers = self.run(worker.save(saves))
        for held, save, answer in zip(ended, saves, answers, strict=True):
            if "ask" not in save.body or isinstance(answer, Refused):
                continue
            if isinstance(held.claim, PollClaim):
                self.polls[held.claim.lease.id] += 1
            elif "up" not in save.body:
                self.vain_submits += 1
        return saves, answers

    @rule(number=st.integers(0))
    def repeat_late(self, number: int) -> None:
        """A save is repeated long after."""
        if not self.sent:
            return
        worker, save = self.sent[number % len(self.sent)]
        before = self.run(self.bench.snapshot())
        self.run(worker.save([save]))
        assert self.run(self.bench.snapshot()) == before

    @rule(number=st.integers(0))
    def kill(self, number: int) -> None:
        """A worker dies in the middle of a step."""
        if not self.held:
            return
        del self.held[number % len(self.held)]

    @rule(number=st.integers(0), delay_ms=st.sampled_from([0, 30_000]))
    def release(self, number: int, delay_ms: int) -> None:
        """A worker gives back what it has not begun."""
        if not self.held:
            return
        held = self.held.pop(number % len(self.held))
        self.run(held.worker.release([Release(held.claim.lease, delay_ms=delay_ms)]))

    @rule()
    def renew(self) -> None:
        """The workers renew what they hold."""
        for worker in (self.bench.work, self.bench.other):
            lost = set(self.run(worker.renew(held.claim.lease for held in self.held if held.worker is worker)))
            tokens = {record.get("tok") for record in self.run(self.bench.snapshot()).records.values()}
            assert all(lease.token not in tokens for lease in lost)

    @rule()
    def keep_house(self) -> None:
        """A worker purges and enlists what was left."""
        for due in self.run(self.bench.work.due_batches()):
            self.run(self.bench.work.enlist(due))
        self.run(self.bench.work.purge(100))

    @rule(seconds=st.sampled_from([1, 5, 16, 16, 60, 900, 86_401, 604_801]))
    def let_pass(self, seconds: int) -> None:
        """Time passes."""
        self.run(self.bench.let_pass(seconds))

    # The rules.

    @invariant()
    def obeys(self) -> None:
        """Sets, indexes, counters, permits and events agree with the records; what is final stays."""
        # A worker that was paused may renew its lease when its permit has gone to another callback: it holds one again,
        # because its attempt goes on. So the limit is looked at where permits are given: in `check_permits`.
        self.check()

    def check(self) -> Snapshot:
        """Assert all rules; returns what is in the store."""
        snapshot = self.run(self.bench.check(permits=MANY))
        for thing_id, record in snapshot.records.items():
            if "ct" not in record:
                continue
            told = tuple(record.get(field) for field in ("s", "ec", "em", "ru", "final", "spec"))
            assert self.final.setdefault(thing_id, told) == told
        self.check_counters(snapshot)
        return snapshot

    def check_counters(self, snapshot: Snapshot) -> None:
        """What was counted is what was done, whoever did it, and however often it was told."""
        for key, entries in snapshot.logs.items():
            logged = [json.loads(entry) for entry in entries]
            self.attempts |= {(key.removeprefix("att:"), one["number"]): one["outcome"] for one in logged}
        happened = self.run(self.bench.happened())
        assert happened.attempts == len(self.attempts)
        assert happened.attempts_failed == sum(outcome != "delivered" for outcome in self.attempts.values())
        assert happened.polls == self.polls.total()
        for job_id, job in snapshot.jobs().items():
            assert int(job.get("po", 0)) == self.polls[job_id]
        submitted = int(snapshot.records.get(f"acct:{ACME}", {}).get("submitted", 0))
        assert happened.submits == submitted + self.vain_submits

    def teardown(self) -> None:
        """In the end, with a worker that lives, every accepted job has its outcome, and every callback its end."""
        self.held.clear()
        for _ in range(40):
            self.keep_house()
            self.work("good", carry_on=True, told="truth")
            snapshot = self.check()
            if all(_is_over(snapshot, record) for record in snapshot.records.values() if "spec" in record):
                break
            self.run(self.bench.let_pass(310))
        else:
            raise AssertionError("something never ends")
        assert not any(key.startswith(("parked:", "flight:")) for key in snapshot.sets)
        for _ in range(3):
            self.run(self.bench.let_pass(604_801))
            self.work("good", carry_on=True, told="truth")
            self.keep_house()
        left = self.run(self.bench.snapshot())
        assert not left.jobs()
        assert not left.batches()
        # How destinations stand is known for longer than their jobs.
        assert not {key for key in left.sets if key not in {"workers", "paused", f"dests:{ACME}"}}

    def check_permits(self, claims: Sequence[DeliverClaim]) -> None:
        """Whoever has just got a permit did not get one too many."""
        snapshot = self.run(self.bench.snapshot())
        for claim in claims:
            destination = where_of(snapshot.records[claim.lease.id])
            assert len(snapshot.sets[f"flight:{destination}"]) <= PERMITS

    def slots_of(self, worker: WorkStore, *, stale: bool = False) -> tuple[TakenSlots, int]:
        """Who has a worker's slots, and how many are free. Stale: whom the other's have, and how many it has not."""
        taken, count = TakenSlots(), 0
        for held in self.held:
            if isinstance(held.claim, DeliverClaim) and (held.worker is worker) is not stale:
                taken.take(held.claim.client, held.claim.doubt, held.claim.destination)
                count += 1
        return taken, count if stale else SLOTS - count

    def worker(self, other: bool) -> WorkStore:
        """One of the two."""
        return self.bench.other if other else self.bench.work

    def unfinished(self) -> int:
        """How many jobs of live batches, or of none, have no outcome."""
        snapshot = self.run(self.bench.snapshot())
        return sum(
            job["s"] in {"queued", "pending"} or (job["s"] == "staged" and snapshot.records[job["b"]]["live"] == "1")
            for job in snapshot.jobs().values()
        )

    def outcome_of(self, held: Held, luck: str, carry_on: bool) -> Save:
        """What a step comes to, decided by the policy."""
        now_ms = self.bench.work.now_ms()
        taken, free = self.slots_of(held.worker)
        match held.claim:
            case SubmitClaim() as claim:
                return self.after_submit(claim, luck, now_ms)
            case PollClaim() as claim:
                return after_poll(claim, luck, now_ms, taken.told_by(ACME, free) if carry_on else None)
            case DeliverClaim() as claim:
                return after_attempt(claim, luck, free)

    def after_submit(self, claim: SubmitClaim, luck: str, now_ms: int) -> Save:
        """A submit goes through, meets trouble, or is refused."""
        before = policy.before_submit(
            RULES,
            now_ms=now_ms,
            created_ms=claim.created_ms,
            deadline_ms=claim.deadline_ms,
            was_ambiguous=claim.was_ambiguous,
            last=claim.last,
        )
        events = claim.spec.callback.events
        if isinstance(before, Finish):
            return _ended(claim.lease, before, events, asked=False)
        if luck == "good":
            self.upstream += 1
            delay = policy.first_poll(RULES, wait_ms=3_000, now_ms=now_ms, deadline_ms=claim.deadline_ms)
            return saved_submission(claim.lease, f"up-{self.upstream}", delay.delay_ms)
        if luck == "worse":
            # The first says something of equal jobs too, the other does not.
            code = ErrorCode.UPSTREAM_REJECTED if claim.tries == 1 else ErrorCode.UPSTREAM_UNREACHABLE
            return _ended(claim.lease, Finish(JobStatus.FAILED, JobError(code, "no")), events)
        decision = policy.after_submit_trouble(
            RULES,
            Trouble.AMBIGUOUS,
            now_ms=now_ms,
            created_ms=claim.created_ms,
            deadline_ms=claim.deadline_ms,
            tries=claim.tries,
            retry_after_ms=None,
            jitter=0.5,
        )
        if isinstance(decision, SubmitAfter):
            return saved_submit_retry(claim.lease, Trouble.AMBIGUOUS, decision.delay_ms)
        return _ended(claim.lease, decision, events)


def after_poll(claim: PollClaim, luck: str, now_ms: int, carry_on: Mapping[str, Any] | None) -> Save:
    """A poll finds the result, finds the job pending, or has no answer. `carry_on`: the worker's slots, if it may."""
    decision: policy.PollDecision
    if claim.shared is not None:
        finish = Finish(claim.shared.status, claim.shared.error)
        if claim.shared.status is JobStatus.TIMED_OUT:
            finish = policy.TIMED_OUT
        return _ended(claim.lease, finish, claim.events, asked=False, carry_on=carry_on, result_of=claim.shared.of)
    assert claim.upstream_job_id
    match luck:
        case "good":
            decision = Finish(JobStatus.DONE)
        case "bad":
            decision = policy.after_pending(
                RULES, wait_ms=3_000, begun_ms=now_ms, now_ms=now_ms, deadline_ms=claim.deadline_ms
            )
        case _:
            decision = policy.after_poll_trouble(
                RULES,
                now_ms=now_ms,
                deadline_ms=claim.deadline_ms,
                failures=claim.failures + 1,
                retry_after_ms=None,
                jitter=0.5,
            )
    if isinstance(decision, PollAfter):
        return saved_poll(claim.lease, claim.failures + 1 if luck == "worse" else 0, decision.delay_ms)
    return _ended(claim.lease, decision, claim.events, carry_on=carry_on)


def after_attempt(claim: DeliverClaim, luck: str, free: int) -> Save:
    """An attempt gets through, fails, or is told that the receiver is gone."""
    outcome = {
        "good": AttemptOutcome.DELIVERED,
        "bad": AttemptOutcome.TIMEOUT,
        "worse": AttemptOutcome.GONE if claim.turn == 2 else AttemptOutcome.HTTP_ERROR,
    }[luck]
    assert 1 <= claim.turn <= len(RULES.schedule_ms)
    attempt = Attempt(claim.attempt, 1, 1, outcome)
    decision = policy.after_attempt(
        RULES, outcome=outcome, http_status=None, retry_after_ms=None, attempt=claim.turn, jitter=0.5
    )
    match decision:
        case Delivered():
            return saved_attempt(claim, attempt, DeliveryStatus.DELIVERED, free_slots=free)
        case Exhausted():
            return saved_attempt(claim, attempt, DeliveryStatus.EXHAUSTED, free_slots=free)
        case Gone():
            return saved_attempt(claim, attempt, DeliveryStatus.GONE, free_slots=free)
        case RetryAfter():
            return saved_attempt(claim, attempt, DeliveryStatus.RETRYING, decision.delay_ms, free_slots=free)


def _ended(
    lease: Lease,
    finish: Finish,
    events: Sequence[EventType],
    *,
    asked: bool = True,
    carry_on: Mapping[str, Any] | None = None,
    result_of: JobId | None = None,
) -> Save:
    announced = policy.is_announced(finish.status, events)
    done = finish.status is JobStatus.DONE
    return saved_outcome(
        lease,
        finish.status,
        finish.error,
        announce_after_ms=0 if announced else None,
        asked=asked,
        carry_on=carry_on is not None and announced,
        slots=carry_on,
        result=RESULT_STORED if done and result_of is None else None,
        credits_used=3 if done and result_of is None else None,
        result_of=result_of if done else None,
    )


def _is_over(snapshot: Snapshot, record: Mapping[str, str]) -> bool:
    """Whether nothing more will be done for a job or batch; what never got live does not matter."""
    if "b" in record and snapshot.records[record["b"]]["live"] != "1":
        return True
    return record["d"] in ENDED_DELIVERIES or (record.get("k") == "purge" and "ct" in record)


@pytest.fixture(name="machine")
def fixture_machine(store_url: str) -> Iterator[type[StoreMachine]]:
    """The machine, on a store."""
    with asyncio.Runner() as runner:
        opened = Bench.open(
            store_url,
            deliver_slots=SLOTS,
            callback_concurrency=PERMITS,
            destination_closes_after=2,
            destination_pauses_after_s=1_000,
        )
        StoreMachine.loop = runner.get_loop()
        StoreMachine.bench = runner.run(opened.__aenter__())
        yield StoreMachine
        runner.run(opened.__aexit__(None, None, None))


# Shrinking a failure takes a while.
@pytest.mark.timeout(300)
def test_the_store_obeys_its_rules(machine: type[StoreMachine]) -> None:
    """Any sequence of calls, faults and waiting leaves the store consistent, and everything comes to its end."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=30,
            stateful_step_count=50,
            deadline=None,
            # An example of before is no use with a store that has changed; what failed is printed.
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )
