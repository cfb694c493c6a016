"""Equal jobs that share one upstream job: who leads, who follows, and what becomes of them when somebody leaves."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from relay.core.model import ErrorCode, Job, JobError, JobId, JobStatus
from relay.core.policy import Trouble
from relay.core.store.records import pack_result
from relay.core.store.work import (
    Carried,
    Refused,
    Release,
    SharedOutcome,
    saved_outcome,
    saved_poll,
    saved_submission,
    saved_submit_retry,
)
from tests.integration.coalesce_harness import equal, finish_leader, statuses, take_over, taken
from tests.integration.store_harness import (
    ACME,
    FAILURE,
    RESULT,
    UMBRELLA,
    Bench,
    attempt_of,
    delivered,
    make_admission,
    make_spec,
)

pytestmark = pytest.mark.store

LEASE_S = 16


@pytest.fixture(name="bench")
async def fixture_bench(store_url: str) -> AsyncIterator[Bench]:
    """An empty store; its results may go soon."""
    async with Bench.open(store_url, result_ttl_s=60) as bench:
        yield bench


class TestJoining:
    """accept and enlist: who follows whom."""

    async def test_one_submit_for_all(self, bench: Bench) -> None:
        """Only the first of several equal jobs is due for submission."""
        jobs = await equal(bench, 5)
        claims = await bench.work.begin_submit(ACME, 10)
        assert [claim.lease.id for claim in claims] == [jobs[0].id]
        assert await statuses(bench, jobs) == ["queued"] * 5
        await bench.check()

    @pytest.mark.parametrize(
        "changes",
        [
            {"prompt": "Another?"},
            {"scraper": "grok"},
            {"country": "DE"},
            {"timeout_s": 60},
            {"params": {"mode": "fast"}},
            {"bypass_cache": True},
            {"coalesce": False},
        ],
        ids=lambda changes: next(iter(changes)),
    )
    async def test_what_differs_is_submitted_by_itself(self, bench: Bench, changes: dict[str, Any]) -> None:
        """Jobs share only what is asked for in the same way, by jobs that all want to share."""
        await equal(bench, 2)
        await bench.accept(**{"coalesce": True} | changes)
        assert len(await bench.work.begin_submit(ACME, 10)) == 2

    async def test_what_may_differ(self, bench: Bench) -> None:
        """Callback, deadline, metadata, and the way in which a number is written keep nobody from sharing."""
        await equal(bench, 1, timeout_s=60)
        await equal(bench, 1, timeout_s=60.0, metadata={"n": 1}, deadline_s=100, destination="other.example:443")
        assert len(await bench.work.begin_submit(ACME, 10)) == 1

    async def test_clients_share_nothing(self, bench: Bench) -> None:
        """Another client's equal job is its own."""
        await equal(bench, 1)
        await equal(bench, 1, UMBRELLA)
        assert len(await bench.work.begin_submit(UMBRELLA, 10)) == 1

    async def test_at_most_500_follow(self, bench: Bench) -> None:
        """The 502nd equal job leads a new group."""
        await equal(bench, 502)
        assert len(await bench.work.begin_submit(ACME, 10)) == 2
        await bench.check()

    async def test_jobs_of_a_batch(self, bench: Bench) -> None:
        """Equal jobs of a batch share, with each other and with jobs beside it."""
        [first] = await equal(bench, 1)
        specs = [make_spec(coalesce=True) for _ in range(300)]
        batch = await bench.store.accept_batch(make_admission(), specs, None)
        assert [claim.lease.id for claim in await bench.work.begin_submit(ACME, 1_000)] == [first.id]
        assert (await bench.store.batch(ACME, batch.batch_id)).statuses[JobStatus.QUEUED] == 300
        await bench.check()

    async def test_who_comes_later_catches_up(self, bench: Bench) -> None:
        """A job that follows one at the upstream is pending as soon as it is looked at."""
        await equal(bench, 1)
        await bench.submit_all()
        await bench.work.save([])
        [late] = await equal(bench, 1)
        await bench.work.begin_poll(10)
        job = await bench.job(late.id)
        assert (job.status, job.upstream_job_id is not None, job.submitted_ms is not None) == (
            JobStatus.PENDING,
            True,
            True,
        )

    async def test_nobody_follows_what_has_ended(self, bench: Bench) -> None:
        """After the outcome an equal job is a new one: asked again, the answer may be another."""
        await equal(bench, 1)
        await bench.submit_all()
        await finish_leader(bench)
        await equal(bench, 1)
        assert len(await bench.work.begin_submit(ACME, 10)) == 1


class TestSharing:
    """The leader's outcome is that of all."""

    async def test_a_result(self, bench: Bench) -> None:
        """Followers are pending with the leader, done with its result, and called back; it is paid for once."""
        jobs = await equal(bench, 3)
        await bench.submit_all()
        assert await take_over(bench) != []
        assert await statuses(bench, jobs) == ["pending"] * 3
        await bench.let_pass(LEASE_S)
        await finish_leader(bench)
        assert await take_over(bench) == []
        assert await statuses(bench, jobs) == ["done"] * 3
        for job in jobs:
            found = await bench.job(job.id)
            assert (found.result, found.upstream_job_id) == (RESULT, f"up-{jobs[0].id}")
        callbacks = await bench.work.begin_deliver(10)
        assert {claim.lease.id for claim in callbacks} == {job.id for job in jobs}
        for claim in callbacks:
            assert isinstance(claim.subject, Job)
            assert claim.subject.result == RESULT
        account = await bench.work.account(ACME)
        assert (account["submitted"], account["credits"]) == (1, 3)
        snapshot = await bench.check()
        assert [key for key in snapshot.strings if key.startswith("res:")] == [f"res:{jobs[0].id}"]

    async def test_the_result_stays_with_the_last(self, bench: Bench) -> None:
        """The result is kept until the last of those that share it is purged, and goes with it."""
        jobs = await equal(bench, 2)
        await bench.submit_all()
        await finish_leader(bench)
        await take_over(bench)
        first, second = await bench.work.begin_deliver(10)
        await bench.work.save([delivered(first if first.lease.id == jobs[0].id else second)])
        await bench.let_pass(61)
        assert await bench.work.purge(10) == 1
        assert (await bench.job(jobs[1].id)).result == RESULT
        await bench.check()
        await bench.deliver_all()
        await bench.let_pass(61)
        assert await bench.work.purge(10) == 1
        assert not [key for key in (await bench.check()).strings if key.startswith(("res:", "refs:"))]

    async def test_a_leader_waits_for_its_followers_to_be_purged(self, bench: Bench) -> None:
        """A leader whose followers have not taken its outcome yet is not purged, however old it is."""
        jobs = await equal(bench, 2)
        await bench.submit_all()
        await finish_leader(bench)
        await bench.deliver_all()
        await bench.let_pass(100)
        assert await bench.work.purge(10) == 0
        await take_over(bench)
        assert (await bench.job(jobs[1].id)).result == RESULT
        await bench.let_pass(100)
        assert await bench.work.purge(10) == 1

    @pytest.mark.parametrize(
        "code",
        [ErrorCode.UPSTREAM_FAILED, ErrorCode.UPSTREAM_REJECTED, ErrorCode.UPSTREAM_JOB_LOST],
    )
    async def test_a_failure(self, bench: Bench, code: ErrorCode) -> None:
        """What fails at the upstream fails for all, in the same words."""
        jobs = await equal(bench, 3)
        await bench.submit_all()
        await finish_leader(bench, JobStatus.FAILED, JobError(code, "it said no"))
        await take_over(bench)
        for job in jobs:
            found = await bench.job(job.id)
            assert (found.status, found.error) == (JobStatus.FAILED, JobError(code, "it said no"))
        await bench.check()

    async def test_a_failure_before_the_upstream_took_it(self, bench: Bench) -> None:
        """A submit that is refused fails those that are still queued behind it."""
        jobs = await equal(bench, 2)
        [claim] = await bench.work.begin_submit(ACME, 1)
        error = JobError(ErrorCode.UPSTREAM_REJECTED, "no such country")
        await bench.work.save([saved_outcome(claim.lease, JobStatus.FAILED, error, announce_after_ms=0)])
        await take_over(bench)
        assert await statuses(bench, jobs) == ["failed"] * 2

    async def test_a_killed_worker_leaves_nobody_behind(self, bench: Bench) -> None:
        """Followers that were claimed by a worker that died take the outcome later, once."""
        jobs = await equal(bench, 4)
        await bench.submit_all()
        await finish_leader(bench)
        [first, *_] = claims = await bench.other.begin_poll(10)
        assert {claim.shared for claim in claims} == {SharedOutcome(JobId(jobs[0].id), JobStatus.DONE, None)}
        await bench.other.save([taken(first)])
        await bench.let_pass(LEASE_S)
        await take_over(bench)
        assert await statuses(bench, jobs) == ["done"] * 4
        assert isinstance((await bench.other.save([taken(claims[1])]))[0], Refused)
        await bench.check()

    async def test_a_repeated_save_shares_once(self, bench: Bench) -> None:
        """The repeat after a lost reply counts nothing twice."""
        await equal(bench, 2)
        await bench.submit_all()
        await finish_leader(bench)
        [claim] = await bench.work.begin_poll(10)
        save = taken(claim)
        await bench.work.save([save])
        before = await bench.snapshot()
        await bench.work.save([save])
        assert await bench.snapshot() == before


class TestLeaving:
    """Each job keeps its deadline, and may be cancelled."""

    async def test_a_follower_is_cancelled(self, bench: Bench) -> None:
        """It goes, and the others stay."""
        jobs = await equal(bench, 3)
        await bench.submit_all()
        await bench.store.cancel(ACME, JobId(jobs[1].id))
        await bench.check()
        await finish_leader(bench)
        await take_over(bench)
        assert await statuses(bench, jobs) == ["done", "cancelled", "done"]

    async def test_a_queued_leader_is_cancelled(self, bench: Bench) -> None:
        """A follower is submitted in its place, and the rest follow that one."""
        jobs = await equal(bench, 3)
        await bench.store.cancel(ACME, JobId(jobs[0].id))
        assert await take_over(bench) == []
        await bench.check()
        await bench.submit_all()
        await finish_leader(bench)
        await take_over(bench)
        assert await statuses(bench, jobs) == ["cancelled", "done", "done"]
        assert (await bench.work.account(ACME))["submitted"] == 1

    async def test_a_pending_leader_is_cancelled(self, bench: Bench) -> None:
        """A follower goes on with its upstream job: nothing is submitted again, and it is charged once."""
        jobs = await equal(bench, 3)
        await bench.submit_all()
        await bench.store.cancel(ACME, JobId(jobs[0].id))
        await finish_leader(bench)
        await take_over(bench)
        assert await statuses(bench, jobs) == ["cancelled", "done", "done"]
        account = await bench.work.account(ACME)
        assert (account["submitted"], account["credits"]) == (1, 3)
        assert await bench.work.begin_submit(ACME, 10) == []

    async def test_a_leader_is_cancelled_during_its_last_poll(self, bench: Bench) -> None:
        """The credits of a result that came too late for its own job are counted with the one that takes over."""
        await equal(bench, 2)
        await bench.submit_all()
        [claim] = await take_over(bench)
        await bench.store.cancel(ACME, JobId(claim.lease.id))
        late = saved_outcome(
            claim.lease, JobStatus.DONE, None, announce_after_ms=0, result=pack_result(RESULT, 0), credits_used=3
        )
        assert isinstance((await bench.work.save([late]))[0], Refused)
        assert await take_over(bench) == [], "it was polled just now"
        await bench.let_pass(1)
        await finish_leader(bench)
        assert (await bench.work.account(ACME))["credits"] == 3

    async def test_a_leader_is_cancelled_during_its_submit(self, bench: Bench) -> None:
        """Its followers wait for what the submit comes to, and go on with that: it is paid for once."""
        jobs = await equal(bench, 3)
        [claim] = await bench.work.begin_submit(ACME, 1)
        await bench.store.cancel(ACME, JobId(jobs[0].id))
        assert await take_over(bench) == []
        assert await bench.work.begin_submit(ACME, 10) == []
        await bench.work.save([saved_submission(claim.lease, "up-1", 0)])
        await finish_leader(bench)
        await take_over(bench)
        assert await statuses(bench, jobs) == ["cancelled", "done", "done"]
        account = await bench.work.account(ACME)
        assert (account["submitted"], account.get("orphans", 0), account.get("ambiguous", 0)) == (1, 0, 0)

    async def test_and_that_submit_fails(self, bench: Bench) -> None:
        """A submit that is known to be lost is made again for a follower, at once."""
        jobs = await equal(bench, 2)
        [claim] = await bench.work.begin_submit(ACME, 1)
        await bench.store.cancel(ACME, JobId(jobs[0].id))
        await bench.work.save([saved_submit_retry(claim.lease, Trouble.UNSENT, 1_000)])
        assert await take_over(bench) == []
        [again] = await bench.work.begin_submit(ACME, 10)
        assert (again.lease.id, again.was_ambiguous) == (jobs[1].id, False)

    async def test_and_nothing_is_heard_of_that_submit(self, bench: Bench) -> None:
        """When its lease has run out, a follower is submitted, and the lost one counts as ambiguous."""
        jobs = await equal(bench, 2)
        await bench.work.begin_submit(ACME, 1)
        await bench.store.cancel(ACME, JobId(jobs[0].id))
        await bench.let_pass(LEASE_S)
        assert await take_over(bench) == []
        [again] = await bench.work.begin_submit(ACME, 10)
        assert (again.lease.id, again.was_ambiguous) == (jobs[1].id, True)

    async def test_a_leader_times_out_in_the_queue(self, bench: Bench) -> None:
        """The deadline of the leader is not that of the others."""
        [short] = await equal(bench, 1, deadline_s=5)
        [long] = await equal(bench, 1, deadline_s=500)
        await bench.let_pass(6)
        [claim] = await bench.work.begin_submit(ACME, 10, overdue=True)
        assert claim.lease.id == short.id
        await bench.work.save([saved_outcome(claim.lease, JobStatus.TIMED_OUT, FAILURE, announce_after_ms=0)])
        await take_over(bench)
        assert [claim.lease.id for claim in await bench.work.begin_submit(ACME, 10)] == [long.id]

    async def test_a_leader_times_out_at_the_upstream(self, bench: Bench) -> None:
        """A follower with time left goes on with the upstream job."""
        [short] = await equal(bench, 1, deadline_s=5)
        [long] = await equal(bench, 1, deadline_s=500)
        await bench.submit_all()
        await bench.let_pass(6)
        [claim] = await take_over(bench)
        assert claim.lease.id == short.id
        await bench.work.save([saved_outcome(claim.lease, JobStatus.TIMED_OUT, FAILURE, announce_after_ms=0)])
        assert await take_over(bench) == [], "it was polled just now"
        await bench.let_pass(1)
        [claim] = await take_over(bench)
        assert (claim.lease.id, claim.upstream_job_id) == (long.id, f"up-{short.id}")

    async def test_a_leader_that_could_not_be_submitted(self, bench: Bench) -> None:
        """A submit window is a job's own: when the leader's is over, the next one tries for as long as it may."""
        jobs = await equal(bench, 2)
        [claim] = await bench.work.begin_submit(ACME, 1)
        error = JobError(ErrorCode.UPSTREAM_UNREACHABLE, "no")
        await bench.work.save([saved_outcome(claim.lease, JobStatus.FAILED, error, announce_after_ms=0)])
        await take_over(bench)
        assert await statuses(bench, jobs) == ["failed", "queued"]
        assert [claim.lease.id for claim in await bench.work.begin_submit(ACME, 10)] == [jobs[1].id]

    async def test_followers_deadlines_at_the_upstream(self, bench: Bench) -> None:
        """When followers' deadlines come, their leader asks once more for all of them; then they time out."""
        [long] = await equal(bench, 1, deadline_s=500)
        short = await equal(bench, 20, deadline_s=5)
        await bench.submit_all()
        [claim] = await take_over(bench)
        await bench.work.save([saved_poll(claim.lease, 0, 60_000, seen_ms=0)])
        await bench.let_pass(6)
        [claim] = await take_over(bench)
        assert claim.lease.id == long.id
        assert await statuses(bench, short) == ["pending"] * 20
        await bench.let_pass(1)
        assert await take_over(bench) == [], "it is being asked"
        await bench.work.save([saved_poll(claim.lease, 0, 60_000, seen_ms=6_000)])
        await bench.let_pass(1)
        assert await take_over(bench) == []
        assert await statuses(bench, [long, *short]) == ["pending"] + ["timed_out"] * 20

    async def test_what_is_found_at_their_deadlines(self, bench: Bench) -> None:
        """What the leader finds when it asks once more is the followers' result, past their deadlines or not."""
        jobs = [*await equal(bench, 1, deadline_s=500), *await equal(bench, 3, deadline_s=5)]
        await bench.submit_all()
        await bench.let_pass(6)
        await finish_leader(bench)
        await bench.let_pass(1)
        await take_over(bench)
        assert await statuses(bench, jobs) == ["done"] * 4

    async def test_a_leader_that_cannot_ask(self, bench: Bench) -> None:
        """Followers end some seconds after their deadlines, whatever becomes of the question."""
        await equal(bench, 1, deadline_s=500)
        short = await equal(bench, 3, deadline_s=5)
        await bench.submit_all()
        assert len(await take_over(bench)) == 1
        await bench.let_pass(12)
        assert await take_over(bench) == []
        assert await statuses(bench, short) == ["pending"] * 3
        await bench.let_pass(2)
        await take_over(bench)
        assert await statuses(bench, short) == ["timed_out"] * 3

    async def test_all_deadlines_at_once(self, bench: Bench) -> None:
        """When a leader and its followers run out of time together, one more question is enough for all."""
        jobs = await equal(bench, 5, deadline_s=5)
        await bench.submit_all()
        await bench.let_pass(6)
        [claim] = await take_over(bench)
        await bench.work.save([saved_outcome(claim.lease, JobStatus.TIMED_OUT, FAILURE, announce_after_ms=0)])
        await bench.let_pass(1)
        assert await take_over(bench) == []
        assert await statuses(bench, jobs) == ["timed_out"] * 5

    async def test_a_follower_s_deadline_in_the_queue(self, bench: Bench) -> None:
        """Where nothing was submitted at its deadline, there is nothing to ask for."""
        await equal(bench, 1, deadline_s=500)
        short = await equal(bench, 2, deadline_s=5)
        assert await take_over(bench) == []
        await bench.let_pass(6)
        assert await take_over(bench) == []
        assert await statuses(bench, short) == ["timed_out"] * 2

    async def test_submit_windows_end_together(self, bench: Bench) -> None:
        """Followers whose own windows are over when their leader's is have its failure, and are not submitted."""
        jobs = await equal(bench, 3)
        [claim] = await bench.work.begin_submit(ACME, 1)
        await bench.let_pass(901)
        error = JobError(ErrorCode.UPSTREAM_CREDITS_EXHAUSTED, "no credits")
        await bench.work.save([saved_outcome(claim.lease, JobStatus.FAILED, error, announce_after_ms=0)])
        assert await take_over(bench) == []
        assert await statuses(bench, jobs) == ["failed"] * 3
        assert await bench.work.begin_submit(ACME, 10) == []

    async def test_a_follower_runs_out_while_a_submit_is_under_way(self, bench: Bench) -> None:
        """It times out, and the others wait on for the submit of the leader that was cancelled."""
        first, short, long = [(await equal(bench, 1, deadline_s=deadline_s))[0] for deadline_s in (500, 5, 500)]
        [claim] = await bench.work.begin_submit(ACME, 1)
        await bench.store.cancel(ACME, JobId(first.id))
        await bench.let_pass(6)
        assert await take_over(bench) == []
        assert await statuses(bench, [short, long]) == ["timed_out", "queued"]
        assert await bench.work.begin_submit(ACME, 10) == []
        await bench.work.save([saved_submission(claim.lease, "up-1", 0, "chatgpt")])
        [poll] = await take_over(bench)
        assert (poll.lease.id, poll.upstream_job_id, poll.kind) == (long.id, "up-1", "chatgpt")
        assert (await bench.work.account(ACME)).get("orphans", 0) == 0

    async def test_a_late_submit_that_is_of_no_use(self, bench: Bench) -> None:
        """When a follower was submitted meanwhile, what a cancelled leader's submit brought is an orphan."""
        jobs = await equal(bench, 2)
        [claim] = await bench.work.begin_submit(ACME, 1)
        await bench.store.cancel(ACME, JobId(jobs[0].id))
        await bench.let_pass(LEASE_S)
        await take_over(bench)
        assert len(await bench.work.begin_submit(ACME, 10)) == 1
        assert isinstance((await bench.work.save([saved_submission(claim.lease, "up-1", 0)]))[0], Refused)
        assert (await bench.work.account(ACME))["orphans"] == 1

    @pytest.mark.parametrize("how", ["its answer is lost", "its worker is dead", "it was given back"])
    async def test_notes_are_handed_on(self, bench: Bench, how: str) -> None:
        """Whether a submit may have been taken is known to the follower that comes next."""
        jobs = await equal(bench, 2)
        [claim] = await bench.work.begin_submit(ACME, 1)
        if how == "its worker is dead":
            await bench.let_pass(LEASE_S)
        await bench.store.cancel(ACME, JobId(jobs[0].id))
        if how == "its answer is lost":
            await bench.work.save([saved_submit_retry(claim.lease, Trouble.AMBIGUOUS, 1_000)])
        elif how == "it was given back":
            await bench.work.release([Release(claim.lease)])
        await take_over(bench)
        [again] = await bench.work.begin_submit(ACME, 10)
        assert (again.lease.id, again.was_ambiguous) == (jobs[1].id, how != "it was given back")

    async def test_a_leader_that_times_out_with_a_note(self, bench: Bench) -> None:
        """A leader that was submitted to who knows what end hands that on, too."""
        [short] = await equal(bench, 1, deadline_s=20)
        [long] = await equal(bench, 1, deadline_s=500)
        await bench.work.begin_submit(ACME, 1)
        await bench.let_pass(21)
        [claim] = await bench.work.begin_submit(ACME, 10, overdue=True)
        assert (claim.lease.id, claim.was_ambiguous) == (short.id, True)
        await bench.work.save([saved_outcome(claim.lease, JobStatus.TIMED_OUT, FAILURE, announce_after_ms=0)])
        await take_over(bench)
        [again] = await bench.work.begin_submit(ACME, 10)
        assert (again.lease.id, again.was_ambiguous) == (long.id, True)

    async def test_credits_once_however_late(self, bench: Bench) -> None:
        """The result that a cancelled leader's poll brings after all is over is not charged again."""
        await equal(bench, 2)
        await bench.submit_all()
        [claim] = await take_over(bench)
        await bench.store.cancel(ACME, JobId(claim.lease.id))
        await bench.let_pass(1)
        await finish_leader(bench)
        await bench.deliver_all()
        late = saved_outcome(
            claim.lease, JobStatus.DONE, None, announce_after_ms=0, result=pack_result(RESULT, 0), credits_used=3
        )
        await bench.work.save([late])
        assert (await bench.work.account(ACME))["credits"] == 3

    async def test_between_two_leaders(self, bench: Bench) -> None:
        """While a group waits for its next leader, equal jobs join it."""
        jobs = await equal(bench, 2)
        await bench.store.cancel(ACME, JobId(jobs[0].id))
        await equal(bench, 1)
        await take_over(bench)
        assert len(await bench.work.begin_submit(ACME, 10)) == 1

    async def test_an_upstream_job_that_hangs_is_not_joined(self, bench: Bench) -> None:
        """What takes longer than the upstream says that it may is nothing to hope for."""
        await equal(bench, 1, timeout_s=30, deadline_s=5_000)
        await bench.submit_all()
        await bench.let_pass(140)
        await equal(bench, 1, timeout_s=30)
        assert await bench.work.begin_submit(ACME, 10) == []
        await bench.let_pass(20)
        await equal(bench, 1, timeout_s=30)
        assert len(await bench.work.begin_submit(ACME, 10)) == 1

    async def test_large_results_are_not_carried_on_all_at_once(self, bench: Bench) -> None:
        """One answer of the store brings some megabytes of results at most; the other callbacks are due."""
        jobs = await equal(bench, 12)
        await bench.submit_all()
        [claim] = await take_over(bench)
        large = pack_result(b'{"a":"' + b"x" * 1_000_000 + b'"}', 16_384)
        done = saved_outcome(claim.lease, JobStatus.DONE, None, announce_after_ms=0, result=large)
        await bench.work.save([done])
        claims = await bench.work.begin_poll(100)
        answers = await bench.work.save([taken(claim, carry_on=True) for claim in claims])
        carried = [answer for answer in answers if isinstance(answer, Carried)]
        assert len(claims) == 11
        assert 1 <= len(carried) <= 5
        assert len(carried) + len(await bench.work.begin_deliver(100)) + len(await bench.work.begin_deliver(100)) >= 11
        assert await statuses(bench, jobs) == ["done"] * 12

    async def test_the_last_turns_out_the_light(self, bench: Bench) -> None:
        """When all have gone, nothing is left of the group."""
        jobs = await equal(bench, 3)
        for job in reversed(jobs):
            await bench.store.cancel(ACME, JobId(job.id))
        snapshot = await bench.check()
        assert not [key for key in [*snapshot.records, *snapshot.strings] if key.startswith(("grp:", "co:", "fol:"))]

    async def test_one_cancelled_after_the_other(self, bench: Bench) -> None:
        """However many leaders go, the last job is still submitted."""
        jobs = await equal(bench, 4)
        for job in jobs[:3]:
            await bench.store.cancel(ACME, JobId(job.id))
            await take_over(bench)
            await bench.check()
        assert [claim.lease.id for claim in await bench.work.begin_submit(ACME, 10)] == [jobs[3].id]

    async def test_redelivered(self, bench: Bench) -> None:
        """A follower's callback can be repeated, with the result that it shares."""
        jobs = await equal(bench, 2)
        await bench.submit_all()
        await finish_leader(bench)
        await take_over(bench)
        await bench.deliver_all()
        await bench.store.redeliver(ACME, JobId(jobs[1].id))
        [claim] = await bench.work.begin_deliver(10)
        assert isinstance(claim.subject, Job)
        assert (claim.lease.id, claim.subject.result, attempt_of(claim).number) == (jobs[1].id, RESULT, 2)
