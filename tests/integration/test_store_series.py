"""Counters by client and time, beside the records and in step with them."""

from collections.abc import AsyncIterator

import pytest

from relay.core.model import AttemptOutcome, DeliveryStatus, EventType, JobStatus
from relay.core.policy import Trouble
from relay.core.store import Series, Slot
from relay.core.store.queries import COMBINATIONS
from relay.core.store.work import (
    Refused,
    saved_attempt,
    saved_outcome,
    saved_poll,
    saved_submission,
    saved_submit_retry,
)
from tests.integration.store_harness import (
    ACME,
    FAILURE,
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

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
NOTHING = {"accepted": 0, "done": 0, "delivered": 0, "attempts": 0, "late_p50_ms": None, "late_p99_ms": None}


@pytest.fixture(name="bench")
async def fixture_bench(store_url: str) -> AsyncIterator[Bench]:
    """An empty store."""
    async with Bench.open(store_url) as bench:
        yield bench


async def last(bench: Bench, length_ms: int) -> Series:
    """The client's series of the time until now, and a little longer, so that all that has just happened is in it."""
    until_ms = bench.store.now_ms() + 1_000
    return await bench.store.series(ACME, until_ms - length_ms, until_ms)


async def made_older(bench: Bench, kind: str, by: int) -> None:
    """Whatever was counted was counted that many hours (`m`) or days (`h`) earlier."""
    for key in await bench.raw.keys(f"relay:ser:1:*:{kind}:*"):
        name, _, number = key.rpartition(":")
        await bench.raw.rename(key, f"{name}:{int(number) - by}")


def seen(series: Series) -> list[Slot]:
    """The slots in which jobs were accepted."""
    return [slot for slot in series.slots if slot.accepted]


class TestCounting:
    """What each transition adds."""

    async def test_a_job_from_end_to_end(self, bench: Bench) -> None:
        """Each step of a job is counted once, in the slot of its time."""
        await bench.ended()
        happened = await bench.happened()
        assert (happened.accepted, happened.submits, happened.polls, happened.attempts) == (1, 1, 1, 1)
        assert (happened.done, happened.delivered, happened.credits) == (1, 1, 3.0)
        assert (happened.failed, happened.attempts_failed, happened.exhausted, happened.cancelled) == (0, 0, 0, 0)
        assert happened.late_p50_ms is not None

    async def test_every_outcome_and_end(self, bench: Bench) -> None:
        """Outcomes and ends of deliveries have a number each, skipped ones have none."""
        for status in (JobStatus.FAILED, JobStatus.TIMED_OUT):
            await bench.accept()
            await bench.submit_all()
            await bench.finish_all(status, announce=False)
        await bench.store.cancel(ACME, (await bench.accept()).id)
        for delivery in (DeliveryStatus.EXHAUSTED, DeliveryStatus.GONE, DeliveryStatus.SKIPPED):
            await bench.ended(delivery)
        happened = await bench.happened()
        assert (happened.failed, happened.timed_out, happened.cancelled, happened.done) == (1, 1, 1, 3)
        assert (happened.exhausted, happened.gone, happened.delivered) == (1, 1, 0)

    async def test_a_batch_is_accepted_as_its_jobs(self, bench: Bench) -> None:
        """A batch counts for as many jobs as it has, at once, and its own callback among the deliveries."""
        own = make_callback("batches.example:443", events=[EventType.BATCH_COMPLETED])
        await bench.store.accept_batch(make_admission(), [make_spec() for _ in range(250)], own)
        assert (await bench.happened()).accepted == 250
        await bench.submit_all()
        await bench.finish_all(announce=False)
        assert await bench.deliver_all() == 1
        happened = await bench.happened()
        assert (happened.accepted, happened.done, happened.attempts, happened.delivered) == (250, 250, 1, 1)

    async def test_asking_the_upstream(self, bench: Bench) -> None:
        """Submits and polls count with or without an answer, in the job too."""
        job = await bench.accept()
        for trouble in (Trouble.UNSENT, Trouble.AMBIGUOUS):
            [submit] = await bench.work.begin_submit(ACME, 1)
            await bench.work.save([saved_submit_retry(submit.lease, trouble, 0)])
        await bench.submit_all()
        for failures in (0, 1):
            [poll] = await bench.work.begin_poll(1)
            await bench.work.save([saved_poll(poll.lease, failures, 0)])
        await bench.finish_all()
        now, happened = await bench.job(job.id), await bench.happened()
        assert (now.submits, now.polls) == (3, 3)
        assert (happened.submits, happened.polls) == (3, 3)

    async def test_what_was_claimed_and_not_asked(self, bench: Bench) -> None:
        """A submit whose window had ended before it was sent is none, nor is one that was given back."""
        job = await bench.accept()
        [submit] = await bench.work.begin_submit(ACME, 1)
        assert (await bench.job(job.id)).submits == 1
        await bench.work.save(
            [saved_outcome(submit.lease, JobStatus.FAILED, FAILURE, announce_after_ms=None, asked=False)]
        )
        assert (await bench.job(job.id)).submits == 0
        assert (await bench.happened()).submits == 0

    async def test_what_nobody_waits_for_any_more(self, bench: Bench) -> None:
        """An upstream job that belongs to no job was submitted all the same, once, however often that is told."""
        job = await bench.accept()
        [submit] = await bench.work.begin_submit(ACME, 1)
        await bench.store.cancel(ACME, job.id)
        late = saved_submission(submit.lease, "up-late", 0)
        for _ in range(2):
            assert await bench.work.save([late]) == [Refused()]
        assert (await bench.happened()).submits == 1
        assert (await bench.store.account(ACME))["orphans"] == 1

    async def test_followers_ask_nothing(self, bench: Bench) -> None:
        """Of equal jobs that share one upstream job, the leader has the submits and polls."""
        leader, follower = [await bench.accept(coalesce=True) for _ in range(2)]
        await bench.submit_all()
        await bench.finish_all()
        [poll] = await bench.work.begin_poll(1)
        assert poll.shared is not None
        outcome = saved_outcome(
            poll.lease, JobStatus.DONE, None, announce_after_ms=0, asked=False, result_of=poll.shared.of
        )
        await bench.work.save([outcome])
        jobs = [await bench.job(job.id) for job in (leader, follower)]
        assert [(job.status, job.submits, job.polls) for job in jobs] == [
            (JobStatus.DONE, 1, 1),
            (JobStatus.DONE, 0, 0),
        ]
        happened = await bench.happened()
        assert (happened.done, happened.submits, happened.polls, happened.credits) == (2, 1, 1, 3.0)

    async def test_attempts(self, bench: Bench) -> None:
        """Failed attempts count as such, and so does one whose worker never ended it."""
        await bench.announced()
        [claim] = await bench.work.begin_deliver(1)
        await bench.work.save([failed(claim, 0)])
        await bench.work.begin_deliver(1)
        await bench.let_pass(bench.settings.lease_s + 1)
        [claim] = await bench.other.begin_deliver(1)
        await bench.other.save([delivered(claim)])
        happened = await bench.happened()
        assert (happened.attempts, happened.attempts_failed, happened.delivered) == (3, 2, 1)

    async def test_gone_is_a_failed_attempt(self, bench: Bench) -> None:
        """A receiver that says 410 has answered, and not with a 2xx."""
        await bench.announced()
        [claim] = await bench.work.begin_deliver(1)
        await bench.work.save([saved_attempt(claim, attempt_of(claim, AttemptOutcome.GONE, 410), DeliveryStatus.GONE)])
        happened = await bench.happened()
        assert (happened.attempts_failed, happened.gone) == (1, 1)

    async def test_a_number_beyond_all_measure(self, bench: Bench) -> None:
        """Credits that no counter can hold stop at its end, and the job has its outcome."""
        job = await bench.accept()
        await bench.submit_all()
        [poll] = await bench.work.begin_poll(1)
        done = saved_outcome(
            poll.lease, JobStatus.DONE, None, announce_after_ms=None, result=b"r{}", credits_used=1e300
        )
        await bench.work.save([done])
        assert (await bench.job(job.id)).status is JobStatus.DONE
        assert (await bench.happened()).credits == pytest.approx(2**32 / 1000)
        # The account holds more, so the two differ here.
        await bench.raw.flushdb()


class TestLateness:
    """How long after the outcome a callback gets through."""

    @pytest.mark.parametrize("seconds", [0.05, 1, 10, 75, 3_600, 100_000])
    async def test_it_is_told_to_within_a_quarter(self, bench: Bench, seconds: float) -> None:
        """Half and nearly all of the callbacks were at most about so late."""
        await bench.announced(3)
        await bench.let_pass(seconds)
        before_ms = bench.store.now_ms()
        await bench.deliver_all()
        happened = await bench.happened()
        assert happened.late_p50_ms is not None
        assert happened.late_p99_ms is not None
        # And what the test itself took: a loaded machine may be slow.
        most_ms = seconds * 1000 + (bench.store.now_ms() - before_ms) + 2_000
        assert seconds * 800 <= happened.late_p50_ms <= happened.late_p99_ms <= most_ms * 1.25

    async def test_the_slowest_show(self, bench: Bench) -> None:
        """One late callback in ten is not seen by half of them, and is by 99 %."""
        await bench.announced(1)
        await bench.let_pass(600)
        await bench.announced(9)
        await bench.deliver_all()
        happened = await bench.happened()
        assert happened.late_p50_ms is not None
        assert happened.late_p99_ms is not None
        assert happened.late_p50_ms < 300_000
        assert happened.late_p99_ms == pytest.approx(600_000, rel=0.25)

    async def test_redelivered_ones_do_not_count(self, bench: Bench) -> None:
        """A callback that is sent once more a day later was delivered twice, and is not a day late."""
        job = await bench.ended()
        await bench.let_pass(80_000)
        await bench.store.redeliver(ACME, job.id)
        await bench.deliver_all()
        happened = await bench.happened()
        assert happened.delivered == 2
        assert happened.late_p99_ms is not None
        assert happened.late_p99_ms < 40_000_000


class TestRanges:
    """Slots of a length that fits the range."""

    @pytest.mark.parametrize(
        ("range_ms", "slot_ms", "most"),
        [
            (MINUTE_MS, MINUTE_MS, 2),
            (3 * HOUR_MS, MINUTE_MS, 181),
            (3 * HOUR_MS + 90_000, 10 * MINUTE_MS, 20),
            (DAY_MS, 10 * MINUTE_MS, 145),
            (DAY_MS + 90_000, HOUR_MS, 26),
            (30 * DAY_MS, HOUR_MS, 721),
            (3_000 * DAY_MS, HOUR_MS, 721),
        ],
    )
    async def test_slots(self, bench: Bench, range_ms: int, slot_ms: int, most: int) -> None:
        """Slots follow each other without a gap, those without anything are zeros, and all together are the total."""
        await bench.ended()
        now_ms = bench.store.now_ms()
        series = await bench.store.series(ACME, now_ms + 1_000 - range_ms, now_ms + 1_000)
        assert series.slot_ms == slot_ms
        assert most - 2 < len(series.slots) <= most
        starts = [slot.start_ms for slot in series.slots]
        assert starts == [starts[0] + i * slot_ms for i in range(len(starts))]
        assert starts[0] % slot_ms == 0
        assert starts[-1] <= now_ms + 1_000 < starts[-1] + 2 * slot_ms
        [slot] = seen(series)
        assert (slot.accepted, series.total.accepted, series.total.delivered) == (1, 1, 1)
        for other in series.slots:
            assert other is slot or all(getattr(other, name) == value for name, value in NOTHING.items())

    async def test_minutes_of_some_hours(self, bench: Bench) -> None:
        """What happened two hours ago is 120 slots away, or twelve of ten minutes."""
        await bench.accept()
        await made_older(bench, "m", 2)
        await bench.accept()
        await bench.accept()
        for length_ms, slot_ms in ((3 * HOUR_MS, MINUTE_MS), (20 * HOUR_MS, 10 * MINUTE_MS)):
            series = await last(bench, length_ms)
            before, now = seen(series)
            assert (before.accepted, now.accepted, series.total.accepted) == (1, 2, 3)
            # The clock may have gone on by a slot meanwhile.
            assert (now.start_ms - before.start_ms) in (2 * HOUR_MS, 2 * HOUR_MS + slot_ms)

    async def test_hours_of_some_days(self, bench: Bench) -> None:
        """What happened three days ago is there by the hour, also where only that hour is asked for."""
        await bench.accept()
        await made_older(bench, "h", 3)
        await bench.accept()
        before, now = seen(await last(bench, 7 * DAY_MS))
        assert (now.start_ms - before.start_ms) in (3 * DAY_MS, 3 * DAY_MS + HOUR_MS)
        alone = await bench.store.series(ACME, before.start_ms, before.start_ms + HOUR_MS)
        assert (alone.slot_ms, alone.slots) == (HOUR_MS, [before])

    async def test_an_empty_range(self, bench: Bench) -> None:
        """A range that ends before it begins has no slots."""
        now_ms = bench.store.now_ms()
        series = await bench.store.series(ACME, now_ms, now_ms - DAY_MS)
        assert (series.slots, series.total.accepted) == ([], 0)

    async def test_of_all_clients(self, bench: Bench) -> None:
        """Several clients' numbers are added up; each has its own; nobody has none."""
        await bench.accept()
        await bench.accept(UMBRELLA)
        await bench.accept(UMBRELLA)
        now_ms = bench.store.now_ms()
        window = (now_ms - HOUR_MS, now_ms + 1_000)
        for client, clients, accepted in (
            (ACME, (), 1),
            (UMBRELLA, (), 2),
            (None, (ACME, UMBRELLA), 3),
            (None, (UMBRELLA,), 2),
            (None, (), 0),
        ):
            series = await bench.store.series(client, *window, clients=clients)
            assert series.total.accepted == accepted
            assert len(series.slots) in (61, 62)


class TestKeeping:
    """What the counters cost."""

    async def test_counters_end_by_themselves(self, bench: Bench) -> None:
        """Minutes are kept for a day and hours for a month, and both end, however often they are written."""
        await bench.ended()
        await bench.ended()
        for kind, kept_ms in (("m", DAY_MS), ("h", 30 * DAY_MS)):
            keys = await bench.raw.keys(f"relay:ser:1:acme:{kind}:*")
            assert keys
            for key in keys:
                assert kept_ms < await bench.raw.pttl(key) <= kept_ms + DAY_MS

    async def test_their_size_does_not_depend_on_traffic(self, bench: Bench) -> None:
        """A client takes 256 bytes for a slot, at most."""
        await bench.announced(100)
        await bench.deliver_all()
        for kind, slots in (("m", 60), ("h", 24)):
            for key in await bench.raw.keys(f"relay:ser:1:acme:{kind}:*"):
                assert await bench.raw.strlen(key) <= slots * 256


async def test_records_of_the_version_before(bench: Bench) -> None:
    """A record that was written when polls were not counted has none, and goes on from there."""
    job = await bench.accept()
    assert (await bench.job(job.id)).polls == 0
    await bench.submit_all()
    [claim] = await bench.work.begin_poll(1)
    await bench.work.save([saved_poll(claim.lease, 0, 0)])
    await bench.raw.hdel(f"relay:{job.id}", "po")
    assert (await bench.job(job.id)).polls == 0
    await bench.finish_all()
    assert (await bench.job(job.id)).polls == 1


async def test_numbers_of_each_kind(bench: Bench) -> None:
    """Jobs are counted by status and delivery, of one client, and every kind that can be is there."""
    for _ in range(2):
        await bench.ended(DeliveryStatus.EXHAUSTED)
    await bench.accept()
    await bench.accept(UMBRELLA)
    counts = await bench.store.counts(ACME)
    assert set(counts) == set(COMBINATIONS)
    assert {kind: count for kind, count in counts.items() if count} == {
        (JobStatus.DONE, DeliveryStatus.EXHAUSTED): 2,
        (JobStatus.QUEUED, DeliveryStatus.WAITING): 1,
    }


async def test_the_account_is_readable_to_the_service(bench: Bench) -> None:
    """What a client has used up, as workers count it."""
    assert await bench.store.account(ACME) == {}
    await bench.ended()
    assert await bench.store.account(ACME) == {"submitted": 1, "credits": 3}
