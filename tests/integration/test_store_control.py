"""What clients may do to what they have: cancel, redeliver, list; and what happens to it in the end."""

import itertools
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from relay.core.errors import Conflict, NotFound, NotRedeliverable
from relay.core.model import BatchId, Delivery, DeliveryStatus, Job, JobId, JobStatus
from relay.core.store.queries import COMBINATIONS
from relay.core.store.records import pack_result
from relay.core.store.work import Refused, Release, saved_attempt, saved_outcome, saved_submission
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
    make_spec,
)

pytestmark = pytest.mark.store

LEASE_S = 16
NOBODYS = JobId("job_00000000000000000000000000")


@pytest.fixture(name="bench")
async def fixture_bench(store_url: str) -> AsyncIterator[Bench]:
    """An empty store."""
    async with Bench.open(store_url) as bench:
        yield bench


async def everything(bench: Bench) -> dict[tuple[JobStatus, DeliveryStatus], str]:
    """One job in every combination of statuses that there can be, by that."""
    jobs: dict[tuple[JobStatus, DeliveryStatus], str] = {}
    for status, delivery in COMBINATIONS:
        if status.is_outcome and status is not JobStatus.CANCELLED:
            job = await bench.accept()
            await bench.submit_all()
            await bench.finish_all(status, announce=delivery is not DeliveryStatus.SKIPPED)
            if delivery is DeliveryStatus.RETRYING:
                [claim] = await bench.work.begin_deliver(10)
                await bench.work.save([failed(claim, 3_600_000)])
            elif delivery is not DeliveryStatus.SKIPPED:
                [claim] = await bench.work.begin_deliver(10)
                if delivery.is_ended:
                    await bench.work.save([saved_attempt(claim, attempt_of(claim), delivery)])
            jobs[status, delivery] = job.id
    jobs[JobStatus.CANCELLED, DeliveryStatus.SKIPPED] = (await bench.accept()).id
    await bench.store.cancel(ACME, JobId(jobs[JobStatus.CANCELLED, DeliveryStatus.SKIPPED]))
    jobs[JobStatus.PENDING, DeliveryStatus.WAITING] = (await bench.accept()).id
    await bench.submit_all()
    jobs[JobStatus.QUEUED, DeliveryStatus.WAITING] = (await bench.accept()).id
    for (status, delivery), job_id in jobs.items():
        assert await bench.state(job_id) == (status, delivery)
    assert jobs.keys() == set(COMBINATIONS)
    return jobs


class TestCancel:
    """A job without an outcome ends at once; a token that is out is void."""

    async def test_a_queued_job(self, bench: Bench) -> None:
        """It leaves the due set, is kept for a while, and is announced to nobody."""
        job = await bench.accept()
        cancelled = await bench.store.cancel(ACME, job.id)
        assert (cancelled.status, cancelled.delivery.status) == (JobStatus.CANCELLED, DeliveryStatus.SKIPPED)
        assert cancelled.completed_ms is not None
        assert await bench.places(job.id) == ["due:purge"]
        assert await bench.work.begin_submit(ACME, 10) == []
        assert await bench.work.begin_submit(ACME, 10, overdue=True) == []

    async def test_again_is_fine_and_changes_nothing(self, bench: Bench) -> None:
        """A second cancel answers with the job as the first one left it."""
        job = await bench.accept()
        first = await bench.store.cancel(ACME, job.id)
        before = await bench.snapshot()
        assert await bench.store.cancel(ACME, job.id) == first
        assert await bench.snapshot() == before

    async def test_under_a_submit(self, bench: Bench) -> None:
        """The late submit is refused; its id and its cost are kept for the account, once."""
        job = await bench.accept()
        [claim] = await bench.work.begin_submit(ACME, 10)
        await bench.store.cancel(ACME, job.id)
        assert await bench.work.renew([claim.lease]) == [claim.lease]
        late = saved_submission(claim.lease, "up-1", 0)
        assert await bench.work.save([late]) == [Refused()]
        assert await bench.work.save([late]) == [Refused()]
        now = await bench.job(job.id)
        assert (now.status, now.upstream_job_id) == (JobStatus.CANCELLED, "up-1")
        account = await bench.work.account(ACME)
        assert (account["submitted"], account["orphans"]) == (1, 1)

    async def test_under_a_poll(self, bench: Bench) -> None:
        """The late result is dropped; its credits are counted, once."""
        job = await bench.accept()
        await bench.submit_all()
        [claim] = await bench.work.begin_poll(10)
        await bench.store.cancel(ACME, job.id)
        late = saved_outcome(
            claim.lease, JobStatus.DONE, None, announce_after_ms=0, result=pack_result(RESULT, 0), credits_used=3
        )
        assert await bench.work.save([late]) == [Refused()]
        assert await bench.work.save([late]) == [Refused()]
        now = await bench.job(job.id)
        assert (now.status, now.result) == (JobStatus.CANCELLED, None)
        assert await bench.work.account(ACME) == {"submitted": 1, "credits": 3}

    async def test_under_a_release(self, bench: Bench) -> None:
        """Giving a claim back does not bring a cancelled job back."""
        job = await bench.accept()
        [claim] = await bench.work.begin_submit(ACME, 10)
        await bench.store.cancel(ACME, job.id)
        await bench.work.release([Release(claim.lease, patient=True)])
        assert await bench.places(job.id) == ["due:purge"]

    async def test_an_outcome_stands(self, bench: Bench) -> None:
        """A job with another outcome cannot be cancelled, whatever its delivery."""
        for (status, _), job_id in (await everything(bench)).items():
            if status in (JobStatus.DONE, JobStatus.FAILED, JobStatus.TIMED_OUT):
                with pytest.raises(Conflict):
                    await bench.store.cancel(ACME, JobId(job_id))

    async def test_nobody_elses(self, bench: Bench) -> None:
        """Another client's job is not found, as one that does not exist."""
        job = await bench.accept()
        for client, job_id in ((UMBRELLA, job.id), (ACME, NOBODYS)):
            with pytest.raises(NotFound):
                await bench.store.cancel(client, job_id)


class TestRedeliver:
    """An ended delivery is repeated as a new generation."""

    async def test_a_fresh_schedule_and_numbers_that_count_on(self, bench: Bench) -> None:
        """The same subject is due now, from the schedule's beginning, and `relay-attempt` counts on."""
        [job] = await bench.announced()
        [first] = await bench.work.begin_deliver(10)
        await bench.work.save([failed(first, 0)])
        [second] = await bench.work.begin_deliver(10)
        await bench.work.save([delivered(second)])
        redelivered = await bench.store.redeliver(ACME, job.id)
        assert (redelivered.delivery.status, redelivered.delivery.attempts) == (DeliveryStatus.PENDING, 2)
        assert redelivered.delivery.delivered_ms is None
        assert redelivered.delivery.next_attempt_ms is not None
        [third] = await bench.work.begin_deliver(10)
        assert isinstance(first.subject, Job)
        assert third.subject == replace(first.subject, delivery=Delivery(DeliveryStatus.PENDING, 3))
        assert (third.attempt, third.turn, third.generation) == (3, 1, 1)
        await bench.work.save([delivered(third)])
        assert [entry.number for entry in await bench.store.attempts(ACME, job.id)] == [1, 2, 3]

    async def test_what_can_be_redelivered(self, bench: Bench) -> None:
        """Every ended delivery can, a skipped one too; nothing without an outcome, cancelled or under way can."""
        for (status, delivery), job_id in (await everything(bench)).items():
            if delivery.is_ended and status is not JobStatus.CANCELLED:
                job = await bench.store.redeliver(ACME, JobId(job_id))
                assert (job.status, job.delivery.status) == (status, DeliveryStatus.PENDING)
            else:
                with pytest.raises(NotRedeliverable):
                    await bench.store.redeliver(ACME, JobId(job_id))

    async def test_a_late_save_of_the_old_generation_is_refused(self, bench: Bench) -> None:
        """A paused worker's attempt of before the redelivery does not end the new generation."""
        [job] = await bench.announced()
        [paused] = await bench.work.begin_deliver(10)
        await bench.let_pass(LEASE_S)
        [other] = await bench.other.begin_deliver(10)
        await bench.other.save([failed(other, None)])
        await bench.store.redeliver(ACME, job.id)
        assert await bench.work.save([delivered(paused)]) == [Refused()]
        assert await bench.state(job.id) == (JobStatus.DONE, DeliveryStatus.PENDING)

    async def test_nobody_elses(self, bench: Bench) -> None:
        """Another client's job is not found, as one that does not exist."""
        job = await bench.ended()
        for client, job_id in ((UMBRELLA, job.id), (ACME, NOBODYS)):
            with pytest.raises(NotFound):
                await bench.store.redeliver(client, job_id)
        with pytest.raises(NotFound):
            await bench.store.redeliver_batch(ACME, BatchId("batch_00000000000000000000000000"))

    async def test_it_keeps_the_job_from_being_purged(self, bench: Bench) -> None:
        """A job that was nearly over is kept for its new delivery, and for a while after it."""
        job = await bench.ended()
        await bench.let_pass(86_390)
        await bench.store.redeliver(ACME, job.id)
        await bench.let_pass(86_400)
        assert await bench.work.purge(10) == 0
        await bench.deliver_all()
        await bench.let_pass(86_390)
        assert await bench.work.purge(10) == 0
        await bench.let_pass(20)
        assert await bench.work.purge(10) == 1


class TestRedeliverMany:
    """All ended deliveries that match."""

    async def test_by_delivery_status(self, bench: Bench) -> None:
        """Those whose delivery ended as asked for, of any outcome but cancelled, and of this client."""
        jobs = await everything(bench)
        theirs = await bench.accept(UMBRELLA)
        await bench.submit_all(UMBRELLA)
        await bench.finish_all(announce=False)
        for delivery in (DeliveryStatus.EXHAUSTED, DeliveryStatus.GONE, DeliveryStatus.DELIVERED):
            assert await bench.store.redeliver_many(ACME, delivery=delivery) == 3
            assert await bench.store.redeliver_many(ACME, delivery=delivery) == 0
            await bench.check()
        assert await bench.store.redeliver_many(ACME, delivery=DeliveryStatus.SKIPPED) >= 3
        cancelled = jobs[JobStatus.CANCELLED, DeliveryStatus.SKIPPED]
        assert await bench.state(cancelled) == (JobStatus.CANCELLED, DeliveryStatus.SKIPPED)
        other = await bench.store.job(UMBRELLA, theirs.id)
        assert other.delivery.status is DeliveryStatus.SKIPPED

    async def test_by_time(self, bench: Bench) -> None:
        """`since` is included, `until` is not."""
        job = await bench.ended(DeliveryStatus.EXHAUSTED)
        at = (await bench.job(job.id)).completed_ms
        assert at is not None
        redeliver = bench.store.redeliver_many
        assert await redeliver(ACME, since_ms=at + 1) == 0
        assert await redeliver(ACME, until_ms=at) == 0
        assert await redeliver(ACME, since_ms=at - 1, until_ms=at) == 0
        assert await redeliver(ACME, since_ms=at, until_ms=at + 1) == 1

    async def test_by_host(self, bench: Bench) -> None:
        """The host is compared exactly, without the port, and literals without brackets."""
        for destination in ("a.example:443", "a.example:8443", "b.a.example:443", "[2606:4700::1111]:443"):
            await bench.ended(DeliveryStatus.EXHAUSTED, destination=destination)
        redeliver = bench.store.redeliver_many
        assert await redeliver(ACME, callback_host="example") == 0
        assert await redeliver(ACME, callback_host="a.example") == 2
        assert await redeliver(ACME, callback_host="2606:4700::1111") == 1
        assert await redeliver(ACME, callback_host="%.") == 0

    async def test_more_than_a_chunk(self, bench: Bench) -> None:
        """Many are redelivered some at a time, each of them once."""
        accepted = await bench.store.accept_batch(
            make_admission(max_unfinished_jobs=2_000), [make_spec()] * 1_100, None
        )
        await bench.submit_all()
        await bench.submit_all()
        await bench.finish_all(announce=False)
        await bench.finish_all(announce=False)
        assert await bench.store.redeliver_many(ACME, delivery=DeliveryStatus.SKIPPED) == accepted.count
        assert await bench.raw.zcard("relay:due:deliver") == accepted.count


class TestPurge:
    """What has been kept long enough goes, and nothing of it stays."""

    async def test_everything_of_a_job_goes(self, bench: Bench) -> None:
        """Record, result, attempts and index entries are gone, and the job is not found."""
        job = await bench.ended()
        await bench.let_pass(86_400 + 1)
        assert await bench.work.purge(10) == 1
        with pytest.raises(NotFound):
            await bench.job(job.id)
        with pytest.raises(NotFound):
            await bench.store.attempts(ACME, job.id)
        left = await bench.snapshot()
        assert set(left.records) <= {"acct:acme", "rate:acme", "health:acme/hooks.example:443"}
        strings = {key: value for key, value in left.strings.items() if not key.startswith("ser:")}
        assert (set(left.sets), left.logs, strings) == ({"dests:acme"}, {}, {"unfinished": "0"})

    async def test_no_more_than_asked_for(self, bench: Bench) -> None:
        """A purge is bounded, and says how many it deleted."""
        for _ in range(3):
            job = await bench.accept()
            await bench.store.cancel(ACME, job.id)
        await bench.let_pass(86_400 + 1)
        assert await bench.work.purge(2) == 2
        assert await bench.work.purge(2) == 1

    async def test_what_is_alive_is_never_purged(self, bench: Bench) -> None:
        """However much time passes, jobs and deliveries that have not ended stay."""
        await everything(bench)
        await bench.let_pass(30 * 86_400)
        await bench.work.purge(100)
        left = {(job["s"], job["d"]) for job in (await bench.snapshot()).jobs().values()}
        assert left == {(s.value, d.value) for s, d in COMBINATIONS if not d.is_ended}


class TestList:
    """A client's jobs, newest first."""

    async def test_newest_first_page_by_page(self, bench: Bench) -> None:
        """Pages follow each other without gap or overlap, whatever ends or comes meanwhile, and say when they end."""
        jobs = [(await bench.accept()).id for _ in range(7)]
        ids = sorted(jobs, reverse=True)
        first = await bench.store.jobs(ACME, limit=3)
        assert [job.id for job in first.jobs] == ids[:3]
        await bench.submit_all()
        await bench.accept()
        second = await bench.store.jobs(ACME, limit=3, before=first.next_before)
        assert [job.id for job in second.jobs] == ids[3:6]
        third = await bench.store.jobs(ACME, limit=3, before=second.next_before)
        assert ([job.id for job in third.jobs], third.next_before) == (ids[6:], None)
        exact = await bench.store.jobs(ACME, limit=4, before=JobId(ids[2]))
        assert ([job.id for job in exact.jobs], exact.next_before) == (ids[3:], None)

    async def test_without_results_and_without_others(self, bench: Bench) -> None:
        """Lists omit results, and never show another client's jobs."""
        job = await bench.ended()
        await bench.accept(UMBRELLA)
        [listed] = (await bench.store.jobs(ACME)).jobs
        assert (listed.id, listed.result) == (job.id, None)
        assert listed.delivery == (await bench.job(job.id)).delivery
        assert listed.spec == job.spec

    async def test_every_filter(self, bench: Bench) -> None:
        """Each combination of statuses and delivery statuses gives the jobs that match both."""
        jobs = await everything(bench)
        sets = [frozenset(s) for n in (0, 1, 2) for s in itertools.combinations(JobStatus, n)]
        for statuses in sets:
            for delivery in (None, *DeliveryStatus):
                deliveries = frozenset({delivery}) if delivery else frozenset()
                page = await bench.store.jobs(ACME, statuses=statuses, deliveries=deliveries, limit=100)
                expected = {
                    job_id
                    for (status, had), job_id in jobs.items()
                    if (not statuses or status in statuses) and (not deliveries or had in deliveries)
                }
                assert {job.id for job in page.jobs} == expected
                assert [job.id for job in page.jobs] == sorted(expected, reverse=True)

    async def test_of_a_batch(self, bench: Bench) -> None:
        """A batch's jobs are listed by themselves, with filters and pages; an unknown batch has none."""
        await bench.accept()
        accepted = await bench.store.accept_batch(make_admission(), [make_spec()] * 5, None)
        other = await bench.store.accept_batch(make_admission(), [make_spec()] * 5, None)
        await bench.accept()
        ids = accepted.job_ids[::-1]
        await bench.store.cancel(ACME, ids[1])
        page = await bench.store.jobs(ACME, batch_id=accepted.batch_id)
        assert [job.id for job in page.jobs] == ids
        first = await bench.store.jobs(ACME, batch_id=accepted.batch_id, limit=3)
        assert [job.id for job in first.jobs] == ids[:3]
        second = await bench.store.jobs(ACME, batch_id=accepted.batch_id, limit=3, before=first.next_before)
        assert ([job.id for job in second.jobs], second.next_before) == (ids[3:], None)
        queued = await bench.store.jobs(
            ACME, batch_id=accepted.batch_id, statuses=frozenset({JobStatus.QUEUED}), limit=10
        )
        assert [job.id for job in queued.jobs] == [ids[0], *ids[2:]]
        for before in (*other.job_ids, ids[-1], NOBODYS):
            page = await bench.store.jobs(ACME, batch_id=accepted.batch_id, before=before)
            assert [job.id for job in page.jobs] == [job_id for job_id in ids if job_id < before]
        nothing = BatchId("batch_00000000000000000000000000")
        assert (await bench.store.jobs(ACME, batch_id=nothing)).jobs == []
        assert (await bench.store.jobs(UMBRELLA, batch_id=accepted.batch_id)).jobs == []
        impossible = await bench.store.jobs(
            ACME, statuses=frozenset({JobStatus.QUEUED}), deliveries=frozenset({DeliveryStatus.GONE})
        )
        assert (impossible.jobs, impossible.next_before) == ([], None)

    async def test_failed_jobs_have_their_error(self, bench: Bench) -> None:
        """A list tells as much of a job as the job itself, but for the result."""
        await bench.accept()
        await bench.submit_all()
        await bench.finish_all(JobStatus.FAILED)
        [listed] = (await bench.store.jobs(ACME)).jobs
        assert listed.error == FAILURE
        assert listed == await bench.job(listed.id)
