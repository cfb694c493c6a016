"""Submits of equal jobs that are cut off, cancelled or handed on: made again only where needed, and counted once."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from relay.core.model import ErrorCode, JobError, JobId, JobStatus
from relay.core.policy import Trouble
from relay.core.store.work import (
    Release,
    SubmitClaim,
    saved_outcome,
    saved_submission,
    saved_submit_retry,
)
from tests.integration.coalesce_harness import equal, finish_leader, later, statuses, take_over
from tests.integration.store_harness import ACME, FAILURE, Bench

pytestmark = pytest.mark.store

LEASE_S = 16
Lose = Callable[[Bench], Awaitable[None]]


@pytest.fixture(name="bench")
async def fixture_bench(store_url: str) -> AsyncIterator[Bench]:
    """An empty store."""
    async with Bench.open(store_url) as bench:
        yield bench


async def ambiguous(bench: Bench) -> int:
    """How many submits are counted as never accounted for."""
    return int((await bench.work.account(ACME)).get("ambiguous", 0))


async def next_submit(bench: Bench) -> SubmitClaim:
    """The follower that leads now, claimed for its submit."""
    assert await take_over(bench) == []
    [claim] = await bench.work.begin_submit(ACME, 10)
    return claim


async def lose_and_time_out(bench: Bench) -> None:
    """A leader's submit is not heard of again, and then its deadline comes."""
    await equal(bench, 1, deadline_s=20)
    await equal(bench, 2, deadline_s=500)
    await bench.work.begin_submit(ACME, 1)
    await bench.let_pass(21)
    [claim] = await bench.work.begin_submit(ACME, 1, overdue=True)
    await bench.work.save([saved_outcome(claim.lease, JobStatus.TIMED_OUT, FAILURE, announce_after_ms=0)])


async def time_out_during_submit(bench: Bench) -> None:
    """The answer to a leader's submit is lost, at its deadline."""
    await equal(bench, 1, deadline_s=20)
    await equal(bench, 2, deadline_s=500)
    [claim] = await bench.work.begin_submit(ACME, 1)
    save = saved_outcome(claim.lease, JobStatus.TIMED_OUT, FAILURE, announce_after_ms=0, ambiguous=True)
    await bench.work.save([save])


async def cancel_during_submit(bench: Bench) -> None:
    """A leader is cancelled during its submit, whose answer is lost then."""
    jobs = await equal(bench, 3, deadline_s=500)
    [claim] = await bench.work.begin_submit(ACME, 1)
    await bench.store.cancel(ACME, jobs[0].id)
    await bench.work.save([saved_submit_retry(claim.lease, Trouble.AMBIGUOUS, 1_000)])


async def cancel_and_lose(bench: Bench) -> None:
    """A leader is cancelled during its submit, which is not heard of again."""
    jobs = await equal(bench, 3, deadline_s=500)
    await bench.work.begin_submit(ACME, 1)
    await bench.store.cancel(ACME, jobs[0].id)
    await bench.let_pass(LEASE_S)


async def lose_and_cancel_before_it_fails(bench: Bench) -> None:
    """A leader's submit is not heard of again; it is about to fail for that, and is cancelled just before."""
    jobs = await equal(bench, 3, deadline_s=500)
    await bench.work.begin_submit(ACME, 1)
    await bench.let_pass(LEASE_S)
    [claim] = await bench.work.begin_submit(ACME, 1)
    await bench.store.cancel(ACME, jobs[0].id)
    error = JobError(ErrorCode.SUBMIT_AMBIGUOUS, "lost")
    await bench.work.save([saved_outcome(claim.lease, JobStatus.FAILED, error, announce_after_ms=0)])


LOSSES = (
    lose_and_time_out,
    time_out_during_submit,
    cancel_during_submit,
    cancel_and_lose,
    lose_and_cancel_before_it_fails,
)


@pytest.mark.parametrize("lose", LOSSES, ids=lambda lose: lose.__name__)
class TestLost:
    """A submit that was never accounted for is handed on, however its job ended."""

    async def test_it_is_known_and_counted_once(self, bench: Bench, lose: Lose) -> None:
        """The follower that comes next is told of it, and it is one."""
        await lose(bench)
        claim = await next_submit(bench)
        assert claim.was_ambiguous
        assert await ambiguous(bench) == 1

    async def test_it_stays_known(self, bench: Bench, lose: Lose) -> None:
        """Given back, claimed again or handed on once more, it is still known, and still one."""
        await lose(bench)
        claim = await next_submit(bench)
        await bench.work.release([Release(claim.lease)])
        again = await next_submit(bench)
        assert (again.lease.id, again.was_ambiguous) == (claim.lease.id, True)
        await bench.work.release([Release(again.lease)])
        await bench.store.cancel(ACME, JobId(again.lease.id))
        last = await next_submit(bench)
        assert (last.lease.id != again.lease.id, last.was_ambiguous) == (True, True)
        assert await ambiguous(bench) == 1

    async def test_the_next_one_is_another(self, bench: Bench, lose: Lose) -> None:
        """When the follower's own submit is lost as well, those are two."""
        await lose(bench)
        await next_submit(bench)
        await bench.let_pass(LEASE_S)
        claim = await next_submit(bench)
        assert claim.was_ambiguous
        assert await ambiguous(bench) == 2


class TestUnderWay:
    """The submit of a leader that was cancelled meanwhile."""

    async def test_it_may_take_longer_than_a_lease(self, bench: Bench) -> None:
        """Followers wait for it for as long as its worker says that it is under way."""
        jobs = await equal(bench, 3)
        [claim] = await bench.work.begin_submit(ACME, 1)
        await bench.store.cancel(ACME, jobs[0].id)
        for _ in range(3):
            await bench.let_pass(LEASE_S - 2)
            assert await bench.work.renew([claim.lease]) == []
            assert await take_over(bench) == []
            assert await bench.work.begin_submit(ACME, 10) == []
        await bench.work.save([saved_submission(claim.lease, "up-1", 0)])
        await finish_leader(bench)
        await take_over(bench)
        assert await statuses(bench, jobs) == ["cancelled", "done", "done"]
        account = await bench.work.account(ACME)
        assert (account["submitted"], account.get("orphans", 0), account.get("ambiguous", 0)) == (1, 0, 0)

    async def test_nobody_waits_for_it_any_more(self, bench: Bench) -> None:
        """Once it has been accounted for, its lease is as lost as that of any job that was cancelled."""
        jobs = await equal(bench, 2)
        [claim] = await bench.work.begin_submit(ACME, 1)
        await bench.store.cancel(ACME, jobs[0].id)
        await bench.work.save([saved_submit_retry(claim.lease, Trouble.UNSENT, 1_000)])
        assert await bench.work.renew([claim.lease]) == [claim.lease]

    @pytest.mark.parametrize("how", ["given back", "known to be unsent", "its answer is lost"])
    async def test_an_earlier_one_says_nothing_of_it(self, bench: Bench, how: str) -> None:
        """What a worker says that lost the job long ago is not taken for the end of another worker's submit."""
        jobs = await equal(bench, 2)
        [early] = await bench.other.begin_submit(ACME, 1)
        await bench.let_pass(LEASE_S)
        [claim] = await bench.work.begin_submit(ACME, 1)
        await bench.store.cancel(ACME, jobs[0].id)
        if how == "given back":
            await bench.other.release([Release(early.lease)])
        else:
            trouble = Trouble.UNSENT if how == "known to be unsent" else Trouble.AMBIGUOUS
            await bench.other.save([saved_submit_retry(early.lease, trouble, 0)])
        assert await take_over(bench) == []
        assert await bench.work.begin_submit(ACME, 10) == []
        await bench.work.save([saved_submission(claim.lease, "up-1", 0)])
        assert [poll.upstream_job_id for poll in await take_over(bench)] == ["up-1"]
        assert (await bench.work.account(ACME)).get("orphans", 0) == 0

    async def test_what_an_earlier_one_brought_is_of_use(self, bench: Bench) -> None:
        """An upstream job is an upstream job: followers go on with the first that there is."""
        jobs = await equal(bench, 2)
        [early] = await bench.other.begin_submit(ACME, 1)
        await bench.let_pass(LEASE_S)
        [claim] = await bench.work.begin_submit(ACME, 1)
        await bench.store.cancel(ACME, jobs[0].id)
        await bench.other.save([saved_submission(early.lease, "up-0", 0)])
        assert [poll.upstream_job_id for poll in await take_over(bench)] == ["up-0"]
        await bench.work.save([saved_submission(claim.lease, "up-1", 0)])
        assert (await bench.work.account(ACME))["orphans"] == 1

    @pytest.mark.parametrize("followers", [0, 1])
    async def test_saves_of_both_are_repeated(self, bench: Bench, followers: int) -> None:
        """However late the repeats of two saves come, each upstream job is counted once, and known for what it is."""
        [job, *_] = await equal(bench, 1 + followers)
        [early] = await bench.other.begin_submit(ACME, 1)
        await bench.let_pass(LEASE_S)
        [claim] = await bench.work.begin_submit(ACME, 1)
        await bench.store.cancel(ACME, job.id)
        saves = [saved_submission(early.lease, "up-0", 0), saved_submission(claim.lease, "up-1", 0)]
        answers = await bench.work.save(saves)
        before = await bench.snapshot()
        assert await bench.work.save(saves) == answers
        assert await bench.snapshot() == before
        account = await bench.work.account(ACME)
        assert (account["submitted"], account["orphans"]) == (2, 2 - followers)


async def test_a_follower_whose_worker_died_is_woken(bench: Bench) -> None:
    """A follower that somebody began to end, and that waits again, hears of the next leader's outcome at once."""
    first, early = await equal(bench, 2, deadline_s=5_000)
    await bench.let_pass(901)
    late = await later(bench, early, deadline_s=5_000)
    [claim] = await bench.work.begin_submit(ACME, 1)
    error = JobError(ErrorCode.UPSTREAM_UNREACHABLE, "no")
    await bench.work.save([saved_outcome(claim.lease, JobStatus.FAILED, error, announce_after_ms=0)])
    # It was to share the failure, as its own submit window is over too.
    assert [one.lease.id for one in await bench.other.begin_poll(1)] == [early.id]
    assert (await next_submit(bench)).lease.id == late.id
    await bench.let_pass(LEASE_S)
    assert await take_over(bench) == []
    await bench.check()
    await bench.submit_all()
    await finish_leader(bench)
    await take_over(bench)
    assert await statuses(bench, [first, early, late]) == ["failed", "done", "done"]
