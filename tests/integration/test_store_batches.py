"""Batches: staged unseen, live at once, enlisted by whoever comes first, counted to the end."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from relay.core.errors import (
    IdempotencyKeyReused,
    JobExpired,
    NotFound,
    NotRedeliverable,
    RateLimited,
    StoreUnavailable,
    TooManyUnfinished,
)
from relay.core.model import BatchId, DeliveryStatus, EventType, JobId, JobSpec, JobStatus
from relay.core.store import records
from relay.core.store.intake import CHUNK, STAGED_TTL_MS, Admission
from relay.core.store.records import encode_spec, encode_wishes
from relay.core.store.work import saved_attempt, saved_outcome
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

OWN = make_callback("batches.example:443", events=[EventType.BATCH_COMPLETED])
GRACE_S = 6


@pytest.fixture(name="bench")
async def fixture_bench(store_url: str) -> AsyncIterator[Bench]:
    """An empty store."""
    async with Bench.open(store_url) as bench:
        yield bench


class HalfWay:
    """A relay that accepts a batch and dies somewhere on the way."""

    def __init__(self, bench: Bench, count: int, admission: Admission | None = None) -> None:
        now_ms = bench.store.now_ms()
        self.bench = bench
        self.admission = admission or make_admission()
        self.batch_id = records.batch_id(now_ms)
        self.ids = records.job_ids(now_ms, count)
        self.specs: Sequence[JobSpec] = [make_spec(prompt=f"number {i}") for i in range(count)]

    async def stage(self, start: int = 0, end: int | None = None, *, client: str = ACME) -> None:
        """Write some of the records."""
        rows: list[str | bytes | int] = []
        for job_id, spec in list(zip(self.ids, self.specs, strict=True))[start:end]:
            rows += [job_id, encode_spec(spec), encode_wishes(spec.callback), spec.callback.destination, 960_000, ""]
        head = (self.batch_id, client, STAGED_TTL_MS, len(self.ids), self.ids[0])
        await self.bench.store._db.run("stage", *head, encode_spec(OWN), OWN.destination, "", *rows)

    async def commit(self) -> list[bytes]:
        """Make the batch live."""
        admission = self.admission
        answer: list[bytes] = await self.bench.store._db.run(
            "commit_batch",
            *(admission.client, self.batch_id, admission.idempotency_key or "", admission.body_hash, 86_400_000),
            *(admission.max_unfinished_jobs, admission.jobs_per_minute, 10_000, 5_000, 2**52, 2**52),
        )
        return answer

    async def enlist(self, position: int, count: int) -> int:
        """Make some of the jobs live."""
        chunk = self.ids[position : position + count]
        return int(await self.bench.store._db.run("enlist", self.batch_id, position, 900_000, 10_000, *chunk))


async def accept_batch(bench: Bench, count: int = 3, *, own: bool = True) -> tuple[BatchId, list[JobId]]:
    """A batch is accepted."""
    specs = [make_spec(prompt=f"number {i}") for i in range(count)]
    accepted = await bench.store.accept_batch(make_admission(), specs, OWN if own else None)
    return accepted.batch_id, accepted.job_ids


async def test_an_accepted_batch_is_whole_and_in_order(bench: Bench) -> None:
    """All jobs of a batch are live, in the order given, over more than one chunk, and counted."""
    count = CHUNK + 7
    accepted = await bench.store.accept_batch(
        make_admission(), [make_spec(prompt=f"number {i}") for i in range(count)], OWN
    )
    assert (accepted.count, accepted.replayed) == (count, False)
    assert accepted.job_ids == sorted(accepted.job_ids)
    for i in (0, CHUNK - 1, CHUNK, count - 1):
        job = await bench.job(accepted.job_ids[i])
        assert (job.spec.prompt, job.batch_id) == (f"number {i}", accepted.batch_id)
    batch = await bench.store.batch(ACME, accepted.batch_id)
    assert (batch.count, batch.statuses[JobStatus.QUEUED], batch.deliveries[DeliveryStatus.WAITING]) == (count,) * 3
    assert batch.completed_ms is None
    assert batch.callback == OWN
    assert await bench.raw.get("relay:unlisted:acme") == "0"
    with pytest.raises(NotFound):
        await bench.store.batch(UMBRELLA, accepted.batch_id)


async def test_staged_jobs_are_invisible(bench: Bench) -> None:
    """Until its batch is live nothing of it is seen, counted, cancelled, claimed or redelivered."""
    half = HalfWay(bench, 3)
    await half.stage()
    with pytest.raises(NotFound):
        await bench.job(half.ids[0])
    with pytest.raises(NotFound):
        await bench.store.cancel(ACME, half.ids[0])
    with pytest.raises(NotFound):
        await bench.store.redeliver(ACME, half.ids[0])
    with pytest.raises(NotFound):
        await bench.store.batch(ACME, half.batch_id)
    with pytest.raises(NotFound):
        await bench.store.redeliver_batch(ACME, half.batch_id)
    assert (await bench.store.jobs(ACME)).jobs == []
    assert (await bench.store.jobs(ACME, batch_id=half.batch_id)).jobs == []
    assert await bench.store.enlist(half.batch_id) == 0
    assert await bench.work.begin_submit(ACME, 10) == []
    await bench.store.accept(make_admission(max_unfinished_jobs=1), make_spec())
    assert "ev:acme" in (await bench.snapshot()).streams


async def test_commit_makes_a_batch_live_once(bench: Bench) -> None:
    """A commit that is asked for again takes no second token and announces nothing twice."""
    half = HalfWay(bench, 3, make_admission(idempotency_key="k"))
    await half.stage()
    await half.stage()
    assert (await half.commit())[0] == b"accepted"
    rate = await bench.raw.hgetall("relay:rate:acme")
    assert (await half.commit())[0] == b"accepted"
    assert await bench.raw.hgetall("relay:rate:acme") == rate
    assert await bench.raw.get("relay:unlisted:acme") == "3"
    assert len((await bench.snapshot()).streams["ev:acme"]) == 1


async def test_an_incomplete_batch_does_not_get_live(bench: Bench) -> None:
    """A commit is refused while a record is missing."""
    half = HalfWay(bench, 3)
    await half.stage(0, 2)
    assert (await half.commit())[0] == b"incomplete"
    await half.stage(0, 2)
    assert (await half.commit())[0] == b"incomplete"
    await half.stage(2, 3)
    assert (await half.commit())[0] == b"accepted"


async def test_a_worker_enlists_what_the_relay_did_not(bench: Bench) -> None:
    """The relay died after some of the jobs: soon the batch is due for a worker, who enlists the rest."""
    half = HalfWay(bench, 5)
    await half.stage()
    await half.commit()
    assert await half.enlist(0, 2) == 2
    await bench.check()
    assert await bench.work.due_batches() == []
    assert (await bench.store.batch(ACME, half.batch_id)).statuses[JobStatus.QUEUED] == 5
    await bench.let_pass(GRACE_S)
    assert await bench.work.due_batches() == [half.batch_id]
    assert await bench.work.enlist(half.batch_id) == 5
    assert await bench.work.due_batches() == []
    assert len(await bench.work.begin_submit(ACME, 10)) == 5


async def test_many_may_enlist_at_once(bench: Bench) -> None:
    """Two relays and a worker enlist the same batch at once, and each job gets live once."""
    half = HalfWay(bench, 3 * CHUNK)
    await half.stage()
    await half.commit()
    answers = await asyncio.gather(*(store.enlist(half.batch_id) for store in (bench.store, bench.work, bench.other)))
    assert answers == [3 * CHUNK] * 3
    assert await bench.raw.zcard("relay:due:submit:acme") == 3 * CHUNK
    assert len((await bench.snapshot()).streams["ev:acme"]) == 1 + 3 * CHUNK


async def test_a_late_chunk_is_enlisted_once(bench: Bench) -> None:
    """A chunk whose turn has passed or has not come changes nothing, and says where to go on."""
    half = HalfWay(bench, 4)
    await half.stage()
    await half.commit()
    assert await half.enlist(2, 2) == 0
    assert await half.enlist(0, 2) == 2
    assert await half.enlist(0, 2) == 2
    assert await half.enlist(2, 2) == 4
    assert await half.enlist(2, 2) == 4


async def test_a_job_is_there_before_its_turn(bench: Bench) -> None:
    """A job of a live batch can be read and cancelled before it is enlisted, and is enlisted by that."""
    half = HalfWay(bench, 3)
    await half.stage()
    await half.commit()
    read = await bench.job(half.ids[2])
    assert (read.status, read.spec.prompt) == (JobStatus.QUEUED, "number 2")
    cancelled = await bench.store.cancel(ACME, half.ids[1])
    assert cancelled.status is JobStatus.CANCELLED
    await bench.check()
    assert await bench.work.enlist(half.batch_id) == 3
    assert await bench.state(half.ids[1]) == (JobStatus.CANCELLED, DeliveryStatus.SKIPPED)
    assert len(await bench.work.begin_submit(ACME, 10)) == 2


async def test_a_batch_that_ends_before_it_is_enlisted(bench: Bench) -> None:
    """All jobs were cancelled one by one before anybody enlisted them: the batch is complete, and purged in the end."""
    half = HalfWay(bench, 2)
    await half.stage()
    await half.commit()
    for job_id in half.ids:
        await bench.store.cancel(ACME, job_id)
    assert (await bench.store.batch(ACME, half.batch_id)).completed_ms is not None
    await bench.deliver_all()
    await bench.let_pass(86_400 + 61)
    assert await bench.work.purge(10) == 3
    assert await bench.raw.exists("relay:due:enlist", "relay:due:purge") == 0


async def test_what_is_not_committed_is_purged(bench: Bench) -> None:
    """A batch that never got live leaves nothing behind, and cannot get live while it is dropped."""
    half = HalfWay(bench, CHUNK + 3)
    await half.stage()
    assert await bench.work.purge(10) == 0
    await bench.let_pass(STAGED_TTL_MS / 1000 + 1)
    await bench.work.purge(10)
    left = await bench.snapshot()
    assert ({*left.records} - {"acct:acme"}, left.sets, left.logs) == (set(), {}, {})


async def test_a_purge_that_stopped_half_way_goes_on(bench: Bench) -> None:
    """A worker died while it dropped a batch: the batch cannot get live, and the next purge drops the rest."""
    half = HalfWay(bench, 3)
    await half.stage()
    await bench.let_pass(STAGED_TTL_MS / 1000 + 1)
    await bench.work._db.run("purge", 10, 60_000)
    await bench.work._db.run("drop_staged", half.batch_id, 0, half.ids[0])
    assert (await half.commit())[0] == b"incomplete"
    with pytest.raises(NotFound):
        await bench.store.redeliver_batch(ACME, half.batch_id)
    await bench.let_pass(61)
    await bench.work.purge(10)
    assert (await bench.snapshot()).records == {}


class TestAdmission:
    """A batch is one request, and its jobs count whole or not at all."""

    async def test_the_quota_counts_jobs_that_are_not_enlisted_yet(self, bench: Bench) -> None:
        """From the commit on all jobs of a batch count as unfinished, once."""
        half = HalfWay(bench, 4)
        await half.stage()
        await half.commit()
        await half.enlist(0, 2)
        admission = make_admission(max_unfinished_jobs=5)
        await bench.store.accept(admission, make_spec())
        with pytest.raises(TooManyUnfinished):
            await bench.store.accept(admission, make_spec())
        await bench.work.enlist(half.batch_id)
        with pytest.raises(TooManyUnfinished):
            await bench.store.accept(admission, make_spec())
        await bench.store.cancel(ACME, half.ids[0])
        await bench.store.accept(admission, make_spec())

    async def test_a_batch_over_the_quota_is_refused_whole(self, bench: Bench) -> None:
        """One job too many refuses the whole batch, stores nothing and takes neither key nor token."""
        admission = make_admission(max_unfinished_jobs=2, idempotency_key="k", jobs_per_minute=1)
        with pytest.raises(TooManyUnfinished):
            await bench.store.accept_batch(admission, [make_spec()] * 3, None)
        snapshot = await bench.snapshot()
        assert (snapshot.records, snapshot.strings) == ({}, {})
        accepted = await bench.store.accept_batch(admission, [make_spec()] * 2, None)
        assert not accepted.replayed

    async def test_a_batch_takes_one_token(self, bench: Bench) -> None:
        """However many jobs it has, a batch is one request against the rate."""
        admission = make_admission(jobs_per_minute=2)
        await bench.store.accept_batch(admission, [make_spec()] * 5, None)
        await bench.store.accept_batch(admission, [make_spec()] * 5, None)
        with pytest.raises(RateLimited):
            await bench.store.accept_batch(admission, [make_spec()] * 5, None)

    async def test_a_refusal_at_the_commit_leaves_nothing_live(self, bench: Bench) -> None:
        """Another request took the last of the quota while the batch was staged."""
        half = HalfWay(bench, 3, make_admission(max_unfinished_jobs=3, idempotency_key="k"))
        await half.stage()
        await bench.accept()
        assert (await half.commit())[0] == b"full"
        assert (await bench.store.jobs(ACME, batch_id=half.batch_id)).jobs == []
        assert await bench.raw.exists("relay:idem:acme:k", "relay:unlisted:acme") == 0

    async def test_replays(self, bench: Bench) -> None:
        """The same key gives the same batch, in order; another body is refused; a purged batch is expired."""
        admission = make_admission(idempotency_key="k")
        first = await bench.store.accept_batch(admission, [make_spec()] * 3, None)
        again = await bench.store.accept_batch(admission, [make_spec()] * 3, None)
        assert (again.batch_id, again.job_ids, again.count) == (first.batch_id, first.job_ids, 3)
        assert again.replayed
        with pytest.raises(IdempotencyKeyReused):
            await bench.store.accept_batch(
                make_admission(idempotency_key="k", body_hash="1" * 64), [make_spec()] * 3, None
            )
        for job_id in first.job_ids:
            await bench.store.cancel(ACME, job_id)
        for _ in range(2):
            for thing_id in await bench.raw.zrange("relay:due:purge", 0, -1):
                await bench.raw.zadd("relay:due:purge", {thing_id: 0})
            await bench.work.purge(10)
        with pytest.raises(JobExpired):
            await bench.store.accept_batch(admission, [make_spec()] * 3, None)

    async def test_fifty_at_once_make_one_batch(self, bench: Bench) -> None:
        """Identical batches at once make one; what the others had staged is never live."""
        admission = make_admission(idempotency_key="k")
        answers = await asyncio.gather(
            *(bench.store.accept_batch(admission, [make_spec()] * 2, None) for _ in range(50))
        )
        assert len({answer.batch_id for answer in answers}) == 1
        assert len((await bench.store.jobs(ACME)).jobs) == 2
        assert [answer.replayed for answer in answers].count(False) == 1

    async def test_a_batch_that_lost_a_record_is_unavailable(self, bench: Bench) -> None:
        """A store that forgot a part of what was staged gets no 202."""
        original = bench.store._db.run

        async def forgetful(name: str, *args: bytes | str | float, repeat: bool = True) -> object:
            if name == "stage":
                args = args[:-6]
            return await original(name, *args, repeat=repeat)

        bench.store._db.run = forgetful  # type: ignore[method-assign]  # stands for a store that lost a write
        with pytest.raises(StoreUnavailable):
            await bench.store.accept_batch(make_admission(), [make_spec()] * 3, None)


class TestCompletion:
    """The last outcome completes a batch, once."""

    async def test_outcomes_in_one_save_complete_it_once(self, bench: Bench) -> None:
        """All jobs end in one trip: the batch is complete, and its callback due exactly once."""
        batch_id, _ = await accept_batch(bench)
        await bench.submit_all()
        await bench.finish_all()
        batch = await bench.store.batch(ACME, batch_id)
        assert (batch.statuses[JobStatus.DONE], batch.deliveries[DeliveryStatus.PENDING]) == (3, 3)
        assert batch.completed_ms is not None
        assert batch.delivery is not None
        assert batch.delivery.status is DeliveryStatus.PENDING
        claims = [claim for claim in await bench.work.begin_deliver(10) if claim.lease.id == batch_id]
        assert len(claims) == 1
        assert await bench.work.begin_deliver(10) == []

    async def test_a_cancel_can_be_the_last_outcome(self, bench: Bench) -> None:
        """Cancelled jobs count as ended, and the last one completes the batch."""
        batch_id, ids = await accept_batch(bench)
        await bench.store.cancel(ACME, ids[0])
        await bench.submit_all()
        claims = await bench.work.begin_poll(10)
        await bench.work.save(
            [saved_outcome(claims[0].lease, JobStatus.FAILED, FAILURE, announce_after_ms=None)],
        )
        assert (await bench.store.batch(ACME, batch_id)).completed_ms is None
        await bench.store.cancel(ACME, JobId(claims[1].lease.id))
        batch = await bench.store.batch(ACME, batch_id)
        assert batch.completed_ms is not None
        assert (batch.statuses[JobStatus.CANCELLED], batch.statuses[JobStatus.FAILED]) == (2, 1)
        [claim] = await bench.work.begin_deliver(10)
        assert claim.lease.id == batch_id

    async def test_a_batch_without_a_callback_is_kept_and_purged(self, bench: Bench) -> None:
        """Without an address there is no delivery, and none to repeat; the batch goes after its jobs."""
        batch_id, ids = await accept_batch(bench, own=False)
        for job_id in ids:
            await bench.store.cancel(ACME, job_id)
        batch = await bench.store.batch(ACME, batch_id)
        assert (batch.callback, batch.delivery) == (None, None)
        assert batch.completed_ms is not None
        with pytest.raises(NotRedeliverable):
            await bench.store.redeliver_batch(ACME, batch_id)

    async def test_the_body_is_frozen_at_completion(self, bench: Bench) -> None:
        """Every attempt and redelivery of `batch.completed` tells the counts as they were at completion."""
        batch_id, _ = await accept_batch(bench)
        await bench.submit_all()
        await bench.finish_all()
        claims = await bench.work.begin_deliver(10)
        first = next(claim for claim in claims if claim.lease.id == batch_id)
        await bench.work.save([delivered(claim) for claim in claims if claim is not first])
        await bench.work.save([failed(first, 0)])
        [second] = await bench.work.begin_deliver(10)
        assert second.subject == first.subject
        assert (second.attempt, second.turn) == (2, 2)
        await bench.work.save([saved_attempt(second, attempt_of(second), DeliveryStatus.GONE)])
        now = await bench.store.redeliver_batch(ACME, batch_id)
        assert now.deliveries[DeliveryStatus.DELIVERED] == 3
        assert now.delivery is not None
        assert now.delivery.status is DeliveryStatus.PENDING
        [third] = await bench.work.begin_deliver(10)
        assert third.subject == first.subject
        assert (third.attempt, third.turn) == (3, 1)
        with pytest.raises(NotRedeliverable):
            await bench.store.redeliver_batch(ACME, batch_id)
        with pytest.raises(NotFound):
            await bench.store.redeliver_batch(UMBRELLA, batch_id)

    async def test_redelivery_of_a_job_never_reopens_its_batch(self, bench: Bench) -> None:
        """A redelivered job moves the batch's delivery counts, and nothing else of it."""
        batch_id, ids = await accept_batch(bench, 1)
        await bench.submit_all()
        await bench.finish_all()
        await bench.deliver_all()
        before = await bench.store.batch(ACME, batch_id)
        await bench.store.redeliver(ACME, ids[0])
        after = await bench.store.batch(ACME, batch_id)
        assert (after.completed_ms, after.statuses) == (before.completed_ms, before.statuses)
        assert after.deliveries[DeliveryStatus.PENDING] == 1

    async def test_a_batch_is_purged_after_its_jobs(self, bench: Bench) -> None:
        """While one of its jobs is kept, a batch is."""
        batch_id, ids = await accept_batch(bench)
        await bench.submit_all()
        await bench.finish_all()
        claims = await bench.work.begin_deliver(10)
        await bench.work.save(
            [failed(claim, None) if claim.lease.id == ids[0] else delivered(claim) for claim in claims]
        )
        await bench.let_pass(86_400 + 1)
        await bench.work.purge(10)
        assert (await bench.store.batch(ACME, batch_id)).count == 3
        await bench.check()
        await bench.let_pass(6 * 86_400)
        assert await bench.work.purge(10) == 1
        await bench.let_pass(61)
        assert await bench.work.purge(10) == 1
        with pytest.raises(NotFound):
            await bench.store.batch(ACME, batch_id)
        left = await bench.snapshot()
        assert not left.jobs()
        assert not left.batches()
        assert set(left.sets) == {"dests:acme"}
        assert left.logs == {}
