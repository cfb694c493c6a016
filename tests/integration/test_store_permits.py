"""Permits at a destination, parked callbacks, and attempts that were cut off: nothing waits for ever."""

from collections.abc import AsyncIterator

import pytest

from relay.core.model import AttemptOutcome, BatchId, DeliveryStatus, EventType, Job, JobStatus
from relay.core.store.work import Carried, Release, Saved, saved_attempt, saved_outcome
from tests.integration.store_harness import (
    ACME,
    FAILURE,
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
DEAD, HEALTHY = "dead.example:443", "healthy.example:443"


@pytest.fixture(name="bench")
async def fixture_bench(store_url: str) -> AsyncIterator[Bench]:
    """An empty store whose destinations have two permits each."""
    async with Bench.open(store_url, callback_concurrency=2) as bench:
        yield bench


async def parked(bench: Bench, destination: str = DEAD) -> int:
    """How many callbacks are parked."""
    return int(await bench.raw.zcard(f"relay:parked:acme/{destination}"))


async def under_way(bench: Bench, destination: str = DEAD) -> int:
    """How many permits are taken, or kept for somebody."""
    return int(await bench.raw.zcard(f"relay:flight:acme/{destination}"))


async def drain(bench: Bench) -> int:
    """Deliver until nothing is due; returns how many attempts that took."""
    attempts = 0
    while claims := await bench.work.begin_deliver(100):
        assert len(claims) <= bench.settings.callback_concurrency * 2
        attempts += len(claims)
        await bench.work.save([delivered(claim) for claim in claims])
    return attempts


async def test_no_more_than_the_permits(bench: Bench) -> None:
    """A destination gets as many attempts at once as it has permits, over all workers; the rest is parked."""
    await bench.announced(5, destination=DEAD)
    assert len(await bench.work.begin_deliver(10)) == 2
    assert (await parked(bench), await under_way(bench)) == (3, 2)
    assert await bench.other.begin_deliver(10) == []
    assert (await bench.work.look({})).deliver == 0
    await bench.check()


async def test_permits_that_come_back_release_one_each(bench: Bench) -> None:
    """However many attempts end before the next claim, as many are released, not more: they are parked once."""
    await bench.announced(9, destination=DEAD)
    first, second = await bench.work.begin_deliver(10)
    await bench.work.save([delivered(first)])
    assert (await parked(bench), await under_way(bench)) == (6, 2)
    await bench.work.save([delivered(second)])
    assert (await parked(bench), await under_way(bench)) == (5, 2)
    assert len(await bench.work.begin_deliver(10)) == 2
    assert (await parked(bench), await under_way(bench)) == (5, 2)


async def test_the_oldest_are_released_first_and_all_in_the_end(bench: Bench) -> None:
    """What is parked keeps its place in the line, and all of it is delivered."""
    await bench.announced(7, destination=DEAD)
    await bench.work.begin_deliver(1)
    await bench.let_pass(LEASE_S)
    line = await bench.raw.zrange(f"relay:parked:acme/{DEAD}", 0, -1)
    assert await drain(bench) == 7
    assert await bench.raw.exists(f"relay:parked:acme/{DEAD}", f"relay:flight:acme/{DEAD}") == 0
    snapshot = await bench.snapshot()
    assert all(job["d"] == "delivered" for job in snapshot.jobs().values())
    order = sorted(line, key=lambda job_id: int(snapshot.records[job_id]["dt"]))
    assert line == order


async def test_other_destinations_are_unaffected(bench: Bench) -> None:
    """A backlog at one destination, due before the others' callbacks, hides none of them from a single claim."""
    await bench.announced(40, destination=DEAD)
    [healthy] = await bench.announced(1, destination=HEALTHY)
    claims = await bench.work.begin_deliver(5)
    assert len(claims) == 3
    assert claims[-1].lease.id == healthy.id
    assert await parked(bench) == 38


async def test_a_backlog_larger_than_one_look(bench: Bench) -> None:
    """However long the line at one destination is, a claim goes on until it has found what can be claimed."""
    accepted = await bench.store.accept_batch(
        make_admission(max_unfinished_jobs=5_000), [make_spec(DEAD)] * 2_500, None
    )
    while claims := await bench.work.begin_submit(ACME, 1_000):
        await bench.work.save([saved_outcome(c.lease, JobStatus.FAILED, FAILURE, announce_after_ms=0) for c in claims])
    await bench.announced(1, destination=HEALTHY)
    assert len(await bench.work.begin_deliver(10)) == 2
    [healthy] = await bench.work.begin_deliver(10)
    assert healthy.subject.id not in accepted.job_ids
    assert await parked(bench) == 2_498


async def test_a_retry_waits_for_a_permit_too(bench: Bench) -> None:
    """A failed attempt gives its permit back while it waits, and needs one when it is due again."""
    await bench.announced(3, destination=DEAD)
    claims = await bench.work.begin_deliver(10)
    await bench.work.save([failed(claims[0], 5_000)])
    assert (await parked(bench), await under_way(bench)) == (0, 2)
    [third] = await bench.work.begin_deliver(10)
    await bench.let_pass(5)
    assert await bench.work.begin_deliver(10) == []
    assert await parked(bench) == 1
    await bench.work.save([delivered(third)])
    [retry] = await bench.work.begin_deliver(10)
    assert (retry.lease.id, retry.turn) == (claims[0].lease.id, 2)


async def test_a_killed_workers_permits_come_back(bench: Bench) -> None:
    """At the end of the lease the permits of a dead worker are free, and its callbacks are the first to have them."""
    await bench.announced(4, destination=DEAD)
    dead = await bench.work.begin_deliver(10)
    await bench.let_pass(LEASE_S)
    again = await bench.other.begin_deliver(10)
    assert {claim.lease.id for claim in again} == {claim.lease.id for claim in dead}
    assert await parked(bench) == 2
    await bench.other.save([delivered(claim) for claim in again])
    assert await drain(bench) == 2


async def test_a_permit_kept_for_a_job_is_not_kept_for_ever(bench: Bench) -> None:
    """While no worker lives the kept permits run out; afterwards everything goes on, within the limit."""
    await bench.announced(6, destination=DEAD)
    claims = await bench.work.begin_deliver(10)
    await bench.work.save([delivered(claim) for claim in claims])
    await bench.let_pass(60)
    await bench.announced(1, destination=DEAD)
    assert len(await bench.other.begin_deliver(10)) == 2
    await bench.check()
    await bench.let_pass(LEASE_S)
    assert await drain(bench) == 5


async def test_released_claims_give_way(bench: Bench) -> None:
    """A claim that is given back, for a while as for an unknown client, lets parked ones go before it."""
    await bench.announced(4, destination=DEAD)
    claims = await bench.work.begin_deliver(10)
    await bench.work.release([Release(claim.lease, delay_ms=30_000) for claim in claims])
    assert await parked(bench) == 0
    others = await bench.work.begin_deliver(10)
    assert len(others) == 2
    await bench.work.release([Release(claim.lease, delay_ms=30_000) for claim in others])
    await bench.check()
    assert await bench.work.begin_deliver(10) == []
    await bench.let_pass(30)
    assert await drain(bench) == 4


async def test_a_lease_lost_with_a_permit_that_ran_out(bench: Bench) -> None:
    """A paused worker's late save or release gives back nothing that is not its own, and parks nobody for ever."""
    await bench.announced(4, destination=DEAD)
    paused = await bench.work.begin_deliver(10)
    await bench.let_pass(LEASE_S)
    assert len(await bench.other.begin_deliver(10)) == 2
    await bench.work.release([Release(paused[0].lease)])
    await bench.work.save([delivered(paused[1])])
    assert (await parked(bench), await under_way(bench)) == (2, 2)
    await bench.let_pass(LEASE_S)
    assert await drain(bench) == 4


async def test_carrying_on_needs_a_permit(bench: Bench) -> None:
    """Without a free permit a finished poll only saves, and its callback waits with the others."""
    await bench.announced(2, destination=DEAD)
    holders = await bench.work.begin_deliver(10)
    await bench.accept(destination=DEAD)
    await bench.submit_all()
    assert await bench.finish_all(carry_on=True) == [Saved()]
    assert await bench.work.begin_deliver(10) == []
    await bench.work.save([delivered(holders[0])])
    await bench.accept(destination=HEALTHY)
    await bench.submit_all()
    [answer] = await bench.finish_all(carry_on=True)
    assert isinstance(answer, Carried)
    assert len(await bench.work.begin_deliver(10)) == 1


async def test_a_redelivery_is_parked_and_released(bench: Bench) -> None:
    """Redelivered callbacks stand in the same line."""
    jobs = [await bench.ended(destination=DEAD) for _ in range(4)]
    for job in jobs:
        await bench.store.redeliver(ACME, job.id)
    assert len(await bench.work.begin_deliver(10)) == 2
    assert await parked(bench) == 2
    await bench.let_pass(LEASE_S)
    await drain(bench)
    assert all(job["d"] == "delivered" for job in (await bench.snapshot()).jobs().values())


async def test_a_batchs_callback_is_parked_and_released(bench: Bench) -> None:
    """A batch's own callback needs a permit like any other."""
    await bench.announced(2, destination=DEAD)
    holders = await bench.work.begin_deliver(10)
    own = make_callback(DEAD, events=[EventType.BATCH_COMPLETED])
    accepted = await bench.store.accept_batch(make_admission(), [make_spec(HEALTHY)], own)
    await bench.store.cancel(ACME, accepted.job_ids[0])
    assert await bench.work.begin_deliver(10) == []
    assert await bench.places(accepted.batch_id) == [f"parked:acme/{DEAD}"]
    await bench.work.save([delivered(claim) for claim in holders])
    [claim] = await bench.work.begin_deliver(10)
    assert claim.lease.id == accepted.batch_id
    await bench.work.save([saved_attempt(claim, attempt_of(claim), DeliveryStatus.DELIVERED)])
    batch = await bench.store.batch(ACME, accepted.batch_id)
    assert batch.delivery is not None
    assert (batch.delivery.status, batch.delivery.attempts) == (DeliveryStatus.DELIVERED, 1)


async def test_a_limit_that_was_changed(store_url: str) -> None:
    """Workers with a higher or lower limit release and respect what others have parked."""
    async with Bench.open(store_url, callback_concurrency=1) as narrow:
        await narrow.announced(6, destination=DEAD)
        [claim] = await narrow.work.begin_deliver(10)
        async with Bench.open(store_url, callback_concurrency=3) as wide:
            await wide.work.save([delivered(claim)])
            claims = await wide.work.begin_deliver(10)
            assert len(claims) == 3
            await wide.work.save([delivered(claim) for claim in claims[:1]])
            await narrow.work.save([delivered(claim) for claim in claims[1:]])
        while claims := await narrow.work.begin_deliver(10):
            await narrow.work.save([delivered(claim) for claim in claims])
        await narrow.let_pass(LEASE_S)
        while claims := await narrow.work.begin_deliver(10):
            assert len(claims) == 1
            await narrow.work.save([delivered(claim) for claim in claims])
        assert all(job["d"] == "delivered" for job in (await narrow.snapshot()).jobs().values())


async def test_a_killed_workers_permits_are_there_to_carry_on(bench: Bench) -> None:
    """A permit whose lease ran out is free at once, whoever asks first."""
    await bench.announced(2, destination=DEAD)
    await bench.work.begin_deliver(10)
    await bench.let_pass(LEASE_S)
    await bench.accept(destination=DEAD)
    await bench.submit_all()
    [answer] = await bench.finish_all(carry_on=True)
    assert isinstance(answer, Carried)
    assert len(await bench.work.begin_deliver(10)) == 1
    assert await parked(bench) == 1


async def test_one_look_gives_no_permit_twice(store_url: str) -> None:
    """A permit that comes back in the middle of a claim, and is kept for what was parked, goes to nobody else."""
    async with Bench.open(store_url, callback_concurrency=2, callback_schedule="0") as bench:
        cut_off = await bench.announced(2, destination=DEAD)
        assert len(await bench.work.begin_deliver(10)) == 2
        await bench.announced(1, destination=DEAD)
        assert await bench.work.begin_deliver(10) == []
        [early] = await bench.announced(1, destination=DEAD)
        await bench.let_pass(LEASE_S)
        await bench.announced(1, destination=DEAD)
        claims = await bench.work.begin_deliver(10)
        assert early.id in {claim.lease.id for claim in claims}
        assert (len(claims), await under_way(bench), await parked(bench)) == (2, 2, 1)
        for job in cut_off:
            assert await bench.state(job.id) == (JobStatus.DONE, DeliveryStatus.EXHAUSTED)


class TestCutOff:
    """Attempts whose worker stopped."""

    async def test_they_are_closed_by_the_next_claim(self, bench: Bench) -> None:
        """The log says that the worker stopped, attempt numbers count on, and the delivery is retrying."""
        [job] = await bench.announced()
        [first] = await bench.work.begin_deliver(10)
        await bench.let_pass(LEASE_S)
        [second] = await bench.other.begin_deliver(10)
        assert (first.attempt, second.attempt, second.turn) == (1, 2, 2)
        [entry] = await bench.store.attempts(ACME, job.id)
        assert (entry.number, entry.outcome, entry.http_status) == (1, AttemptOutcome.CONNECTION_ERROR, None)
        assert entry.error == "worker stopped"
        assert entry.duration_ms >= 15_000
        assert await bench.state(job.id) == (JobStatus.DONE, DeliveryStatus.RETRYING)

    async def test_a_job_that_kills_its_workers_is_exhausted(self, bench: Bench) -> None:
        """After as many cut-off attempts as the schedule has, the delivery ends, and what was parked goes on."""
        jobs = await bench.announced(3, destination=DEAD)
        begun = 0
        for _ in range(3):
            begun += len(await bench.work.begin_deliver(10))
            await bench.let_pass(LEASE_S)
        assert begun == 6
        [third] = await bench.work.begin_deliver(10)
        assert third.attempt == 1
        ended = [job for job in jobs if job.id != third.lease.id]
        for job in ended:
            now = await bench.job(job.id)
            assert (now.delivery.status, now.delivery.attempts) == (DeliveryStatus.EXHAUSTED, 3)
            assert [entry.number for entry in await bench.store.attempts(ACME, job.id)] == [1, 2, 3]
        redelivered = await bench.store.redeliver(ACME, ended[0].id)
        assert redelivered.delivery.status is DeliveryStatus.PENDING
        [again] = await bench.work.begin_deliver(10)
        assert (again.attempt, again.turn, again.generation) == (4, 1, 1)

    async def test_a_batch_that_kills_its_workers_is_exhausted(self, bench: Bench) -> None:
        """The same for a batch's own callback."""
        own = make_callback(DEAD, events=[EventType.BATCH_COMPLETED])
        accepted = await bench.store.accept_batch(make_admission(), [make_spec()], own)
        await bench.store.cancel(ACME, accepted.job_ids[0])
        for _ in range(3):
            assert len(await bench.work.begin_deliver(10)) == 1
            await bench.let_pass(LEASE_S)
        assert await bench.work.begin_deliver(10) == []
        batch = await bench.store.batch(ACME, BatchId(accepted.batch_id))
        assert batch.delivery is not None
        assert (batch.delivery.status, batch.delivery.attempts) == (DeliveryStatus.EXHAUSTED, 3)

    async def test_a_shorter_schedule_ends_what_is_beyond_it(self, bench: Bench, store_url: str) -> None:
        """A delivery that has had more attempts than a changed schedule has is exhausted without another."""
        [job] = await bench.announced()
        for _ in range(2):
            [claim] = await bench.work.begin_deliver(10)
            await bench.work.save([failed(claim, 0)])
        async with Bench.open(store_url, callback_concurrency=2, callback_schedule="0,5") as shorter:
            assert await shorter.work.begin_deliver(10) == []
        assert await bench.state(job.id) == (JobStatus.DONE, DeliveryStatus.EXHAUSTED)

    async def test_the_log_keeps_the_last_two_hundred(self, bench: Bench) -> None:
        """However often a callback is redelivered, its log stays bounded, and its numbers count on."""
        job = await bench.ended()
        for _ in range(205):
            await bench.store.redeliver(ACME, job.id)
            await bench.deliver_all()
        log = await bench.store.attempts(ACME, job.id)
        assert (len(log), log[0].number, log[-1].number) == (200, 7, 206)


async def test_what_is_released_does_not_go_before_others(bench: Bench) -> None:
    """A callback that was parked takes its turn among those that became due meanwhile."""
    await bench.announced(4, destination=DEAD)
    holders = await bench.work.begin_deliver(10)
    await bench.announced(1, destination=HEALTHY)
    await bench.let_pass(1)
    await bench.work.save([failed(claim) for claim in holders])
    claims = await bench.work.begin_deliver(1)
    assert [claim.subject.spec.callback.destination for claim in claims if isinstance(claim.subject, Job)] == [HEALTHY]
