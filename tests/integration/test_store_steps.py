"""Claims and saves: one step at a time, under a token, and nothing twice."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from relay.core.errors import NotFound
from relay.core.model import (
    AttemptOutcome,
    DeliveryStatus,
    ErrorCode,
    EventType,
    Job,
    JobError,
    JobId,
    JobStatus,
    PayloadKind,
)
from relay.core.policy import Trouble
from relay.core.store.records import pack_result
from relay.core.store.work import (
    Carried,
    DeliverClaim,
    Lease,
    Refused,
    Release,
    Save,
    Saved,
    saved_outcome,
    saved_poll,
    saved_submission,
    saved_submit_retry,
)
from relay.core.trace_context import TraceContext
from tests.integration.store_harness import (
    ACME,
    FAILURE,
    RESULT,
    UMBRELLA,
    Bench,
    attempt_of,
    delivered,
    failed,
    make_admission,
    make_callback,
    make_spec,
)

pytestmark = pytest.mark.store

LEASE_S = 16


@pytest.fixture(name="bench")
async def fixture_bench(store_url: str) -> AsyncIterator[Bench]:
    """An empty store."""
    async with Bench.open(store_url) as bench:
        yield bench


async def account(bench: Bench) -> dict[str, float]:
    """What the client has used up."""
    return await bench.work.account(ACME)


class TestClaimingSubmits:
    """begin_submit: what is due, under a lease, with a note before anything is sent."""

    async def test_the_claim_says_all_that_is_needed(self, bench: Bench) -> None:
        """A claim has what the submit needs, and its token is the record's."""
        job = await bench.accept(prompt="ü", params={"mode": "X"})
        [claim] = await bench.work.begin_submit(ACME, 10)
        assert (claim.lease.id, claim.client, claim.spec) == (job.id, ACME, job.spec)
        assert (claim.created_ms, claim.deadline_ms) == (job.created_ms, job.deadline_ms)
        assert (claim.was_ambiguous, claim.tries, claim.last) == (False, 1, None)
        assert (await bench.record(job.id))["tok"] == claim.lease.token
        assert "What is" not in repr(claim)

    async def test_no_more_than_asked_for_and_nobody_elses(self, bench: Bench) -> None:
        """The oldest come first, a client's claims are its own, and tokens differ between jobs and workers."""
        jobs = [await bench.accept() for _ in range(5)]
        await bench.accept(UMBRELLA)
        for i, job in enumerate(jobs):
            await bench.raw.zadd("relay:due:submit:acme", {job.id: 1_000 + i})
        first = await bench.work.begin_submit(ACME, 2)
        second = await bench.other.begin_submit(ACME, 10)
        assert [claim.lease.id for claim in first] == [job.id for job in jobs[:2]]
        assert [claim.lease.id for claim in second] == [job.id for job in jobs[2:]]
        assert len({claim.lease.token for claim in [*first, *second]}) == 5
        assert [claim.client for claim in await bench.work.begin_submit(UMBRELLA, 10)] == [UMBRELLA]

    async def test_what_is_not_due_is_left(self, bench: Bench) -> None:
        """A retry is claimed when its delay is over, and knows what kept it back."""
        await bench.accept()
        [claim] = await bench.work.begin_submit(ACME, 10)
        await bench.work.save([saved_submit_retry(claim.lease, Trouble.RATE_LIMITED, 5_000)])
        assert await bench.work.begin_submit(ACME, 10) == []
        await bench.let_pass(5)
        [again] = await bench.work.begin_submit(ACME, 10)
        assert (again.tries, again.last, again.was_ambiguous) == (2, Trouble.RATE_LIMITED, False)

    async def test_a_lease_that_ran_out_is_claimed_again_as_ambiguous(self, bench: Bench) -> None:
        """A worker that died during a submit leaves the note; each such submit is counted once."""
        await bench.accept()
        [dead] = await bench.work.begin_submit(ACME, 10)
        assert await bench.other.begin_submit(ACME, 10) == []
        await bench.let_pass(LEASE_S)
        [claim] = await bench.other.begin_submit(ACME, 10)
        assert (claim.was_ambiguous, claim.tries) == (True, 2)
        assert claim.lease.token != dead.lease.token
        assert (await account(bench))["ambiguous"] == 1
        await bench.let_pass(LEASE_S)
        [third] = await bench.work.begin_submit(ACME, 10)
        assert third.was_ambiguous
        assert (await account(bench))["ambiguous"] == 2

    async def test_a_submit_known_to_be_lost_or_unsent_is_no_note(self, bench: Bench) -> None:
        """A trouble that was saved clears the note; only the ambiguous one is counted."""
        await bench.accept()
        for trouble, counted in ((Trouble.UNSENT, 0), (Trouble.AMBIGUOUS, 1)):
            [claim] = await bench.work.begin_submit(ACME, 10)
            assert not claim.was_ambiguous
            await bench.work.save([saved_submit_retry(claim.lease, trouble, 0)])
            assert (await account(bench)).get("ambiguous", 0) == counted

    async def test_the_overdue_are_claimed_whatever_their_turn(self, bench: Bench) -> None:
        """At the end of its submit window a job is claimed though its next try is later; under a lease it is not."""
        job = await bench.accept(deadline_s=3_600)
        await bench.accept(deadline_s=3_600)
        claims = await bench.work.begin_submit(ACME, 10)
        mine = next(claim for claim in claims if claim.lease.id == job.id)
        await bench.work.save([saved_submit_retry(mine.lease, Trouble.CREDITS, 60_000)])
        assert await bench.work.begin_submit(ACME, 10, overdue=True) == []
        await bench.let_pass(890)
        await bench.work.renew(claim.lease for claim in claims if claim is not mine)
        await bench.work.begin_submit(ACME, 10)
        await bench.let_pass(11)
        assert (await bench.work.look({ACME: "key"})).clients[ACME].overdue == 2
        assert await bench.work.begin_submit(ACME, 10, overdue=True) == []
        await bench.let_pass(LEASE_S)
        assert len(await bench.work.begin_submit(ACME, 10, overdue=True)) == 2

    async def test_a_patient_job_is_overdue_again_at_its_deadline(self, bench: Bench) -> None:
        """A job that only a queue kept back may wait past its window, and is looked at again at its deadline."""
        await bench.accept(deadline_s=3_600)
        await bench.let_pass(901)
        [claim] = await bench.work.begin_submit(ACME, 10, overdue=True)
        await bench.work.release([Release(claim.lease, patient=True)])
        assert await bench.work.begin_submit(ACME, 10, overdue=True) == []
        [due] = await bench.work.begin_submit(ACME, 10)
        assert (due.tries, due.was_ambiguous) == (1, False)
        await bench.work.release([Release(due.lease)])
        await bench.let_pass(2_700)
        assert len(await bench.work.begin_submit(ACME, 10, overdue=True)) == 1


class TestClaimingPolls:
    """begin_poll: what the upstream has."""

    async def test_the_claim_says_all_that_is_needed(self, bench: Bench) -> None:
        """A claim has the upstream's id, the deadline and what the callback wants."""
        callback = make_callback(events=[EventType.JOB_FAILED], payload=PayloadKind.THIN)
        job = await bench.accept(callback=callback)
        await bench.submit_all()
        [claim] = await bench.work.begin_poll(10)
        now = await bench.job(job.id)
        assert (claim.lease.id, claim.client, claim.upstream_job_id) == (job.id, ACME, f"up-{job.id}")
        assert (claim.submitted_ms, claim.deadline_ms) == (now.submitted_ms, job.deadline_ms)
        assert (claim.failures, claim.events, claim.thin) == (0, (EventType.JOB_FAILED,), True)
        assert claim.upstream_job_id not in repr(claim)

    async def test_failures_in_a_row_are_counted_until_an_answer(self, bench: Bench) -> None:
        """The next claim knows how many polls had no answer; a pending answer forgets them."""
        await bench.accept()
        await bench.submit_all()
        for failures in (1, 2, 0):
            [claim] = await bench.work.begin_poll(10)
            await bench.work.save([saved_poll(claim.lease, failures, 0)])
        [claim] = await bench.work.begin_poll(10)
        assert claim.failures == 0
        await bench.work.save([saved_poll(claim.lease, 3, 3_000)])
        assert await bench.work.begin_poll(10) == []
        await bench.let_pass(3)
        assert (await bench.work.begin_poll(10))[0].failures == 3

    async def test_a_lease_that_ran_out_is_claimed_again(self, bench: Bench) -> None:
        """A poll whose worker died is due at the end of the lease, and not before."""
        await bench.accept()
        await bench.submit_all()
        await bench.work.begin_poll(10)
        await bench.let_pass(LEASE_S - 2)
        assert await bench.other.begin_poll(10) == []
        await bench.let_pass(2)
        assert len(await bench.other.begin_poll(10)) == 1


class TestTransitions:
    """save: one transition each, as the state machine allows."""

    async def test_a_submission(self, bench: Bench) -> None:
        """The upstream has the job: it is pending, and its poll due after the delay."""
        job = await bench.accept()
        [claim] = await bench.work.begin_submit(ACME, 10)
        assert await bench.work.save([saved_submission(claim.lease, "up-1", 3_000)]) == [Saved()]
        now = await bench.job(job.id)
        assert (now.status, now.upstream_job_id) == (JobStatus.PENDING, "up-1")
        assert now.submitted_ms is not None
        assert await bench.places(job.id) == ["due:poll"]
        assert await bench.work.begin_poll(10) == []
        record = await bench.record(job.id)
        assert not {"amb", "last", "fails", "tok", "le"} & record.keys()
        assert (await account(bench))["submitted"] == 1

    @pytest.mark.parametrize("result", [RESULT, b'{"result":"' + b"long " * 10_000 + b'"}', b"{}"])
    async def test_a_result(self, bench: Bench, result: bytes) -> None:
        """A result is kept byte for byte, compressed or not, and the callback brings it."""
        job = await bench.accept()
        await bench.submit_all()
        [claim] = await bench.work.begin_poll(10)
        save = saved_outcome(
            claim.lease,
            JobStatus.DONE,
            None,
            announce_after_ms=0,
            result=pack_result(result, 16_384),
            result_url="https://relay.example/v1/results/x",
            credits_used=2.5,
        )
        await bench.work.save([save])
        now = await bench.job(job.id)
        assert (now.status, now.delivery.status) == (JobStatus.DONE, DeliveryStatus.PENDING)
        assert now.result == result
        assert (await bench.store.job(ACME, job.id, with_result=False)).result is None
        assert now.completed_ms is not None
        assert now.delivery.next_attempt_ms == now.completed_ms
        assert await account(bench) == {"submitted": 1, "credits": 2.5}
        [callback] = await bench.work.begin_deliver(10)
        assert await told(bench, callback)
        assert (callback.generation, callback.attempt, callback.turn) == (0, 1, 1)
        assert result.decode() not in repr(callback)

    @pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.TIMED_OUT])
    @pytest.mark.parametrize("pending", [False, True])
    async def test_an_error(self, bench: Bench, status: JobStatus, pending: bool) -> None:
        """A job fails or times out with its error, submitted or not, and is announced."""
        job = await bench.accept()
        if pending:
            await bench.submit_all()
            lease = (await bench.work.begin_poll(10))[0].lease
        else:
            lease = (await bench.work.begin_submit(ACME, 10))[0].lease
        error = JobError(ErrorCode.UPSTREAM_REJECTED, 'the upstream said: "ü"')
        await bench.work.save([saved_outcome(lease, status, error, announce_after_ms=0)])
        now = await bench.job(job.id)
        assert (now.status, now.error, now.result) == (status, error, None)
        [callback] = await bench.work.begin_deliver(10)
        assert await told(bench, callback)

    async def test_an_outcome_that_nobody_asked_for(self, bench: Bench) -> None:
        """The delivery of an event that was not asked for is skipped, and the job is kept for a while."""
        job = await bench.accept()
        await bench.submit_all()
        await bench.finish_all(announce=False)
        assert await bench.state(job.id) == (JobStatus.DONE, DeliveryStatus.SKIPPED)
        assert await bench.places(job.id) == ["due:purge"]
        assert (await bench.job(job.id)).result == RESULT

    async def test_attempts_up_to_the_delivery(self, bench: Bench) -> None:
        """A delivery goes from pending over retrying to delivered, and every attempt is in the log."""
        [job] = await bench.announced()
        [first] = await bench.work.begin_deliver(10)
        await bench.work.save([failed(first, 5_000)])
        now = await bench.job(job.id)
        assert now.delivery.status is DeliveryStatus.RETRYING
        assert now.delivery.next_attempt_ms is not None
        assert await bench.work.begin_deliver(10) == []
        await bench.let_pass(5)
        [second] = await bench.work.begin_deliver(10)
        assert (second.attempt, second.turn) == (2, 2)
        await bench.work.save([delivered(second)])
        done = await bench.job(job.id)
        assert (done.delivery.status, done.delivery.attempts) == (DeliveryStatus.DELIVERED, 2)
        assert (done.delivery.next_attempt_ms, done.delivery.delivered_ms is None) == (None, False)
        log = await bench.store.attempts(ACME, job.id)
        assert log == [attempt_of(first, AttemptOutcome.HTTP_ERROR, 500), attempt_of(second)]

    @pytest.mark.parametrize("status", [DeliveryStatus.EXHAUSTED, DeliveryStatus.GONE])
    async def test_a_delivery_that_is_given_up_is_kept_longer(self, bench: Bench, status: DeliveryStatus) -> None:
        """What did not get through is kept for a week, what did for a day."""
        lost = await bench.ended(status)
        kept = await bench.ended()
        assert await bench.state(lost.id) == (JobStatus.DONE, status)
        await bench.let_pass(86_400 - 10)
        assert await bench.work.purge(10) == 0
        await bench.let_pass(20)
        assert await bench.work.purge(10) == 1
        with pytest.raises(NotFound):
            await bench.job(kept.id)
        assert (await bench.job(lost.id)).result == RESULT
        await bench.let_pass(6 * 86_400)
        assert await bench.work.purge(10) == 1

    async def test_credits_that_are_no_number_are_not_counted(self, bench: Bench) -> None:
        """An upstream that reports infinite credits does not stop the save, nor those beside it."""
        await bench.accept()
        await bench.accept()
        await bench.submit_all()
        claims = await bench.work.begin_poll(10)
        amounts = (float("inf"), 3.0)
        answers = await bench.work.save(
            [
                saved_outcome(c.lease, JobStatus.DONE, None, announce_after_ms=0, result=b"r{}", credits_used=amount)
                for c, amount in zip(claims, amounts, strict=True)
            ]
        )
        assert answers == [Saved(), Saved()]
        assert (await account(bench))["credits"] == 3


class TestCarryingOn:
    """A poll that finds an outcome may go on to the callback under the same token."""

    async def test_the_answer_is_the_claim(self, bench: Bench) -> None:
        """The attempt is numbered, the permit taken and the lease made longer in the save itself."""
        await bench.accept()
        await bench.submit_all()
        [carried] = await bench.finish_all(carry_on=True)
        assert isinstance(carried, Carried)
        assert await told(bench, carried.claim)
        assert (carried.claim.attempt, carried.claim.turn) == (1, 1)
        assert await bench.raw.zcard("relay:flight:acme/hooks.example:443") == 1
        assert await bench.work.begin_deliver(10) == []
        assert await bench.work.renew([carried.claim.lease]) == []
        assert await bench.work.save([delivered(carried.claim)]) == [Saved()]
        assert await bench.raw.exists("relay:flight:acme/hooks.example:443") == 0

    async def test_a_repeat_after_a_lost_reply_is_the_same_claim(self, bench: Bench) -> None:
        """The repeated save opens no second attempt; after another has taken over, it only says that it is saved."""
        await bench.accept()
        await bench.submit_all()
        [poll] = await bench.work.begin_poll(10)
        save = saved_outcome(
            poll.lease, JobStatus.DONE, None, announce_after_ms=0, carry_on=True, result=b"r" + RESULT, credits_used=3
        )
        [first] = await bench.work.save([save])
        [again] = await bench.work.save([save])
        assert isinstance(first, Carried)
        assert first == again
        assert (await account(bench))["credits"] == 3
        await bench.let_pass(LEASE_S)
        [other] = await bench.other.begin_deliver(10)
        assert other.attempt == 2
        assert await bench.work.save([save]) == [Saved()]
        assert await bench.work.save([delivered(first.claim)]) == [Refused()]
        assert await bench.other.save([delivered(other)]) == [Saved()]

    async def test_a_worker_that_dies_on_the_way(self, bench: Bench) -> None:
        """The callback is due at the lease's end, and the attempt that was carried on to is in the log."""
        job = await bench.accept()
        await bench.submit_all()
        await bench.finish_all(carry_on=True)
        await bench.let_pass(LEASE_S)
        [claim] = await bench.other.begin_deliver(10)
        assert (claim.attempt, claim.turn) == (2, 2)
        [entry] = await bench.store.attempts(ACME, job.id)
        assert (entry.number, entry.outcome, entry.error) == (1, "connection_error", "worker stopped")


class TestFencing:
    """Only the holder of the token saves, and each save counts once."""

    async def test_a_repeated_save_does_nothing(self, bench: Bench) -> None:
        """The repeat of every kind of save is answered as done, and changes nothing."""
        job = await bench.accept()
        [submit] = await bench.work.begin_submit(ACME, 10)
        await self._twice(bench, job.id, saved_submit_retry(submit.lease, Trouble.AMBIGUOUS, 0))
        [submit] = await bench.work.begin_submit(ACME, 10)
        await self._twice(bench, job.id, saved_submission(submit.lease, "up-1", 0))
        [poll] = await bench.work.begin_poll(10)
        await self._twice(bench, job.id, saved_poll(poll.lease, 1, 0))
        [poll] = await bench.work.begin_poll(10)
        outcome = saved_outcome(
            poll.lease, JobStatus.DONE, None, announce_after_ms=0, result=b"r" + RESULT, credits_used=3
        )
        await self._twice(bench, job.id, outcome)
        [attempt] = await bench.work.begin_deliver(10)
        await self._twice(bench, job.id, failed(attempt, 0))
        [attempt] = await bench.work.begin_deliver(10)
        await self._twice(bench, job.id, delivered(attempt))
        assert await account(bench) == {"submitted": 1, "credits": 3, "ambiguous": 1}

    async def _twice(self, bench: Bench, job_id: str, save: Save) -> None:
        assert await bench.work.save([save]) == [Saved()]
        before = await bench.snapshot()
        assert await bench.work.save([save, save]) == [Saved(), Saved()]
        assert await bench.snapshot() == before, job_id

    async def test_a_worker_that_was_paused_is_refused(self, bench: Bench) -> None:
        """After another has claimed the job, the first one's save changes neither state nor result."""
        job = await bench.accept()
        await bench.submit_all()
        [paused] = await bench.work.begin_poll(10)
        await bench.let_pass(LEASE_S)
        [other] = await bench.other.begin_poll(10)
        await bench.other.save([saved_outcome(other.lease, JobStatus.FAILED, FAILURE, announce_after_ms=0)])
        late = saved_outcome(
            paused.lease, JobStatus.DONE, None, announce_after_ms=0, result=b"r" + RESULT, credits_used=3
        )
        before = await bench.snapshot()
        assert await bench.work.save([late]) == [Refused()]
        assert await bench.snapshot() == before
        assert (await bench.job(job.id)).result is None

    async def test_a_lease_that_nobody_took_over_still_saves(self, bench: Bench) -> None:
        """Save compares the token, not the time."""
        job = await bench.accept()
        [claim] = await bench.work.begin_submit(ACME, 10)
        await bench.let_pass(10 * LEASE_S)
        assert await bench.work.save([saved_submission(claim.lease, "up-1", 0)]) == [Saved()]
        assert (await bench.job(job.id)).upstream_job_id == "up-1"

    async def test_an_orphan_is_counted_once(self, bench: Bench) -> None:
        """A submit that is saved too late is refused, and its cost counted once, however often it is repeated."""
        job = await bench.accept()
        [late] = await bench.work.begin_submit(ACME, 10)
        await bench.let_pass(LEASE_S)
        [other] = await bench.other.begin_submit(ACME, 10)
        await bench.other.save([saved_submission(other.lease, "up-other", 0)])
        orphan = saved_submission(late.lease, "up-late", 0)
        assert await bench.work.save([orphan]) == [Refused()]
        assert await bench.work.save([orphan, orphan]) == [Refused(), Refused()]
        assert await account(bench) == {"submitted": 2, "ambiguous": 1, "orphans": 1}
        assert (await bench.job(job.id)).upstream_job_id == "up-other"

    async def test_a_repeat_that_others_have_overtaken_is_no_orphan(self, bench: Bench) -> None:
        """The reply to a submission was lost, and its poll was saved before the repeat: nothing is counted twice."""
        await bench.accept()
        [claim] = await bench.work.begin_submit(ACME, 10)
        save = saved_submission(claim.lease, "up-1", 0)
        await bench.work.save([save])
        [poll] = await bench.other.begin_poll(10)
        await bench.other.save([saved_poll(poll.lease, 0, 0)])
        assert await bench.work.save([save]) == [Saved()]
        assert await account(bench) == {"submitted": 1}

    async def test_a_save_of_what_is_gone_is_refused(self, bench: Bench) -> None:
        """A record that was purged cannot come back by a late save."""
        job = await bench.accept()
        [claim] = await bench.work.begin_submit(ACME, 10)
        await bench.store.cancel(ACME, job.id)
        await bench.let_pass(86_400 + 1)
        assert await bench.work.purge(10) == 1
        assert await bench.work.save([saved_submission(claim.lease, "up-1", 0)]) == [Refused()]
        assert (await bench.snapshot()).jobs() == {}

    async def test_saves_of_one_call_stand_alone(self, bench: Bench) -> None:
        """One refused save among others changes nothing for them."""
        jobs = [await bench.accept() for _ in range(3)]
        claims = {claim.lease.id: claim for claim in await bench.work.begin_submit(ACME, 10)}
        saves = [saved_submission(claims[job.id].lease, f"up-{job.id}", 0) for job in jobs]
        saves[1] = saved_submission(Lease(jobs[1].id, "nobody.1"), "up-x", 0)
        assert await bench.work.save(saves) == [Saved(), Refused(), Saved()]
        assert [(await bench.job(job.id)).status for job in jobs] == [
            JobStatus.PENDING,
            JobStatus.QUEUED,
            JobStatus.PENDING,
        ]
        assert await bench.work.save([]) == []

    async def test_a_generation_that_changed_under_an_attempt(self, bench: Bench) -> None:
        """The save of an old generation records its attempt, and the new one is due."""
        [job] = await bench.announced()
        [claim] = await bench.work.begin_deliver(10)
        # A redelivery asks for an ended delivery, so this needs a record that somebody else has changed.
        await bench.raw.hincrby(f"relay:{job.id}", "g", 1)
        await bench.raw.hset(f"relay:{job.id}", "ga", "0")
        assert await bench.work.save([delivered(claim)]) == [Saved()]
        assert await bench.state(job.id) == (JobStatus.DONE, DeliveryStatus.PENDING)
        assert len(await bench.store.attempts(ACME, job.id)) == 1
        [again] = await bench.work.begin_deliver(10)
        assert (again.generation, again.attempt, again.turn) == (1, 2, 1)


class TestRenewAndRelease:
    """Longer leases, and claims given back."""

    async def test_renewed_leases_last(self, bench: Bench) -> None:
        """Leases of every kind are made longer, the permit with them; lost ones are named."""
        await bench.announced()
        await bench.accept(UMBRELLA)
        await bench.accept()
        await bench.submit_all()
        await bench.accept()
        leases = [
            (await bench.work.begin_submit(ACME, 1))[0].lease,
            (await bench.work.begin_poll(1))[0].lease,
            (await bench.work.begin_deliver(1))[0].lease,
        ]
        lost = (await bench.work.begin_submit(UMBRELLA, 1))[0].lease
        await bench.let_pass(10)
        await bench.store.cancel(UMBRELLA, JobId(lost.id))
        assert await bench.work.renew([*leases, lost]) == [lost]
        await bench.let_pass(10)
        assert await bench.other.begin_submit(ACME, 1) == []
        assert await bench.other.begin_poll(1) == []
        assert await bench.other.begin_deliver(1) == []

    async def test_a_late_renewal_takes_its_permit_back(self, bench: Bench) -> None:
        """A worker that was slow to renew holds its permit again, unless its job was claimed by another."""
        await bench.announced()
        [claim] = await bench.work.begin_deliver(10)
        await bench.let_pass(LEASE_S)
        await bench.raw.zremrangebyscore("relay:flight:acme/hooks.example:443", "-inf", "+inf")
        assert await bench.work.renew([claim.lease]) == []
        assert await bench.raw.zcard("relay:flight:acme/hooks.example:443") == 1

    async def test_a_released_submit_was_never_begun(self, bench: Bench) -> None:
        """Releasing undoes the note and the count of submits, and the job is due at once."""
        await bench.accept()
        [claim] = await bench.work.begin_submit(ACME, 1)
        await bench.work.release([Release(claim.lease)])
        [again] = await bench.other.begin_submit(ACME, 1)
        assert (again.tries, again.was_ambiguous) == (1, False)
        assert "ambiguous" not in await account(bench)

    async def test_a_note_that_was_there_before_stays(self, bench: Bench) -> None:
        """Releasing a job whose earlier submit is unaccounted for leaves that note, and its count is not doubled."""
        await bench.accept()
        await bench.work.begin_submit(ACME, 1)
        await bench.let_pass(LEASE_S)
        [claim] = await bench.other.begin_submit(ACME, 1)
        await bench.other.release([Release(claim.lease)])
        [again] = await bench.other.begin_submit(ACME, 1)
        assert (again.tries, again.was_ambiguous) == (2, True)
        assert (await account(bench))["ambiguous"] == 1

    async def test_a_released_callback_has_no_attempt(self, bench: Bench) -> None:
        """Releasing undoes the number of the attempt and gives the permit back."""
        [job] = await bench.announced()
        [claim] = await bench.work.begin_deliver(1)
        await bench.work.release([Release(claim.lease, delay_ms=30_000)])
        assert await bench.raw.exists("relay:flight:acme/hooks.example:443") == 0
        assert await bench.work.begin_deliver(1) == []
        await bench.let_pass(30)
        [again] = await bench.work.begin_deliver(1)
        assert (again.attempt, again.turn) == (1, 1)
        assert await bench.store.attempts(ACME, job.id) == []

    async def test_a_lease_that_is_lost_is_not_released(self, bench: Bench) -> None:
        """Releasing twice, or what another holds by now, changes nothing."""
        await bench.accept()
        [claim] = await bench.work.begin_submit(ACME, 1)
        await bench.work.release([Release(claim.lease)])
        [other] = await bench.other.begin_submit(ACME, 1)
        await bench.work.release([Release(claim.lease)])
        await bench.work.release([])
        assert await bench.other.renew([other.lease]) == []


class TestLook:
    """What the pump sees."""

    async def test_it_counts_what_is_due(self, bench: Bench) -> None:
        """Due work is counted by kind and client, leased work is not, and pauses are told with their reason."""
        await bench.accept(UMBRELLA)
        await bench.announced(2)
        await bench.accept()
        await bench.submit_all()
        await bench.accept()
        await bench.work.pause("key", 60_000, Trouble.CREDITS)
        look = await bench.work.look({ACME: "key", UMBRELLA: "other"})
        assert (look.poll, look.deliver, look.enlist, look.purge) == (1, 2, 0, 0)
        acme, umbrella = look.clients[ACME], look.clients[UMBRELLA]
        assert (acme.due, acme.overdue, acme.paused_by) == (1, 0, Trouble.CREDITS)
        assert 59_000 < acme.paused_until_ms - look.now_ms <= 60_000
        assert (umbrella.due, umbrella.paused_until_ms, umbrella.paused_by) == (1, 0, None)
        await bench.work.begin_deliver(1)
        assert (await bench.work.look({})).deliver == 1

    async def test_the_longest_pause_holds(self, bench: Bench) -> None:
        """A shorter pause does not end a longer one."""
        await bench.work.pause("key", 60_000, Trouble.CREDITS)
        await bench.work.pause("key", 1_000, Trouble.RATE_LIMITED)
        assert (await bench.work.look({ACME: "key"})).clients[ACME].paused_by is Trouble.CREDITS
        await bench.let_pass(59.5)
        await bench.work.pause("key", 1_000, Trouble.RATE_LIMITED)
        assert (await bench.work.look({ACME: "key"})).clients[ACME].paused_by is Trouble.RATE_LIMITED

    async def test_it_says_that_a_worker_lives(self, bench: Bench) -> None:
        """A worker is seen by its look, and forgotten after a while."""
        assert not await bench.store.worker_seen_within(30)
        await bench.work.look({})
        assert await bench.store.worker_seen_within(30)
        await bench.let_pass(31)
        assert not await bench.store.worker_seen_within(30)


async def told(bench: Bench, claim: DeliverClaim) -> bool:
    """Whether a claim tells its job as it is, but for the delivery and what was asked, which no callback tells."""
    assert isinstance(claim.subject, Job)
    job = await bench.job(claim.lease.id)
    return replace(job, delivery=claim.subject.delivery, submits=0, polls=0) == claim.subject


async def test_a_record_that_cannot_be_read_costs_only_itself(bench: Bench) -> None:
    """Of a claim with a record that another version wrote, the others are returned."""
    jobs = [await bench.accept() for _ in range(3)]
    await bench.raw.hset(f"relay:{jobs[1].id}", "spec", "{}")
    assert {claim.lease.id for claim in await bench.work.begin_submit(ACME, 10)} == {jobs[0].id, jobs[2].id}
    await bench.raw.flushdb()
    jobs = await bench.announced(3)
    await bench.raw.hset(f"relay:{jobs[1].id}", "ec", "unheard_of")
    assert {claim.lease.id for claim in await bench.work.begin_deliver(10)} == {jobs[0].id, jobs[2].id}


async def test_a_trace_goes_along(bench: Bench) -> None:
    """Every claim of a job says which trace its asking belonged to; one that belonged to none says none."""
    trace = TraceContext("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "rojo=1,a@b=x y")
    traced = (await bench.store.accept(make_admission(trace=trace), make_spec())).job
    await bench.accept()
    expected = {traced.id: trace}

    submits = await bench.work.begin_submit(ACME, 10)
    assert [claim.trace for claim in submits] == [expected.get(JobId(claim.lease.id)) for claim in submits]
    await bench.work.save([saved_submission(claim.lease, f"up-{claim.lease.id}", 0) for claim in submits])
    polls = await bench.work.begin_poll(10)
    assert {claim.lease.id: claim.trace for claim in polls if claim.trace} == expected
    assert [claim.polls for claim in polls] == [0, 0]
    await bench.work.save([saved_poll(claim.lease, 0, 0) for claim in polls])
    again = await bench.work.begin_poll(10)
    assert [claim.polls for claim in again] == [1, 1]
    await bench.work.save(
        [saved_outcome(claim.lease, JobStatus.DONE, None, announce_after_ms=0, result=b"r{}") for claim in again]
    )
    callbacks = await bench.work.begin_deliver(10)
    assert len(callbacks) == 2
    assert {claim.lease.id: claim.trace for claim in callbacks if claim.trace} == expected
    await bench.work.release([Release(claim.lease) for claim in callbacks])
