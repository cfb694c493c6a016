"""Accepting jobs: together with everything that follows from them, once, or not at all."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from relay.core.errors import (
    IdempotencyKeyReused,
    JobExpired,
    NotFound,
    RateLimited,
    StoreUnavailable,
    TooManyUnfinished,
)
from relay.core.model import CallbackFormat, DeliveryStatus, EventType, JobStatus, PayloadKind
from relay.core.store.records import encode_spec, encode_wishes, job_ids
from tests.integration.store_harness import ACME, UMBRELLA, Bench, make_admission, make_callback, make_spec

pytestmark = pytest.mark.store


@pytest.fixture(name="bench")
async def fixture_bench(store_url: str) -> AsyncIterator[Bench]:
    """An empty store."""
    async with Bench.open(store_url) as bench:
        yield bench


async def test_an_accepted_job_is_there_with_every_field(bench: Bench) -> None:
    """What was accepted is read again as it was given, and its submit is due."""
    callback = make_callback(
        "[2606:4700::1111]:8443",
        url="https://[2606:4700::1111]:8443/hook?x=1",
        events=[EventType.JOB_FAILED, EventType.JOB_COMPLETED],
        payload=PayloadKind.THIN,
        format=CallbackFormat.CLOUDEVENTS,
        headers={"X-Secret": 'visible "ASCII"\t'},
    )
    spec = make_spec(
        scraper="grok",
        prompt="🦊 \u202ewohin?\n\t",
        country="DE",
        timeout_s=12.5,
        bypass_cache=True,
        deadline_s=3600,
        callback=callback,
        params={"mode": "MODEL_MODE_FAST", "depth": 3, "heat": 0.5, "safe": True},
        metadata={"a": [1, {"b": None}], "ü": 2**53, "f": 1e300},
        coalesce=True,
    )
    accepted = await bench.store.accept(make_admission(), spec)
    assert not accepted.replayed
    job = await bench.job(accepted.job.id)
    assert job == accepted.job
    assert job.spec == spec
    assert (job.status, job.delivery.status) == (JobStatus.QUEUED, DeliveryStatus.WAITING)
    assert job.deadline_ms == job.created_ms + 3_600_000
    assert (job.batch_id, job.upstream_job_id, job.result, job.error) == (None, None, None, None)
    assert await bench.places(job.id) == ["due:submit:acme"]


async def test_asking_again_for_the_same_id_changes_nothing(bench: Bench) -> None:
    """The script is idempotent by the id: the repeat of a lost reply finds what the first one did."""
    [job_id] = job_ids(bench.store.now_ms(), 1)
    spec = make_spec()
    args = (ACME, job_id, encode_spec(spec), encode_wishes(spec.callback), "hooks.example:443", 960_000, 900_000)
    first = await bench.store._db.run("accept", *args, "key", "hash", 1000, 10, 1, 1000, 2**52, 2**52, "", "")
    again = await bench.store._db.run("accept", *args, "key", "hash", 1000, 10, 1, 1000, 2**52, 2**52, "", "")
    assert first[:2] == again[:2]
    assert len((await bench.snapshot()).streams["ev:acme"]) == 1


async def test_clients_do_not_see_each_other(bench: Bench) -> None:
    """Another client's job is not found, and keys of two clients never meet."""
    job = (await bench.store.accept(make_admission(idempotency_key="same"), make_spec())).job
    theirs = await bench.store.accept(make_admission(UMBRELLA, idempotency_key="same", body_hash="1" * 64), make_spec())
    assert not theirs.replayed
    with pytest.raises(NotFound):
        await bench.store.job(UMBRELLA, job.id)
    with pytest.raises(NotFound):
        await bench.store.attempts(UMBRELLA, job.id)


class TestIdempotencyKey:
    """The same key with the same body is the same job."""

    async def test_replay_answers_with_the_job_as_it_is_now(self, bench: Bench) -> None:
        """A replay makes no job, and shows how far the first one has come."""
        admission = make_admission(idempotency_key="k")
        first = await bench.store.accept(admission, make_spec())
        await bench.submit_all()
        again = await bench.store.accept(admission, make_spec())
        assert again.replayed
        assert (again.job.id, again.job.status) == (first.job.id, JobStatus.PENDING)
        assert len((await bench.snapshot()).jobs()) == 1

    async def test_another_body_is_refused(self, bench: Bench) -> None:
        """A key stands for one body."""
        await bench.store.accept(make_admission(idempotency_key="k"), make_spec())
        with pytest.raises(IdempotencyKeyReused):
            await bench.store.accept(make_admission(idempotency_key="k", body_hash="1" * 64), make_spec())

    async def test_fifty_at_once_make_one_job(self, bench: Bench) -> None:
        """Fifty identical requests at once make one job, and one of them is no replay."""
        admission = make_admission(idempotency_key="k")
        answers = await asyncio.gather(*(bench.store.accept(admission, make_spec()) for _ in range(50)))
        assert len({answer.job.id for answer in answers}) == 1
        assert [answer.replayed for answer in answers].count(False) == 1
        assert len((await bench.snapshot()).jobs()) == 1

    async def test_a_purged_job_is_expired(self, bench: Bench) -> None:
        """While the key lives longer than the job, a replay says that it is gone."""
        admission = make_admission(idempotency_key="k")
        job = (await bench.store.accept(admission, make_spec())).job
        await bench.store.cancel(ACME, job.id)
        await bench.let_pass(23.5 * 3600)
        await bench.raw.zadd("relay:due:purge", {job.id: 0})
        assert await bench.work.purge(10) == 1
        with pytest.raises(JobExpired):
            await bench.store.accept(admission, make_spec())

    async def test_a_key_is_forgotten_after_a_day(self, bench: Bench) -> None:
        """After 24 hours a key is free again, also for another body."""
        job = (await bench.store.accept(make_admission(idempotency_key="k"), make_spec())).job
        await bench.let_pass(24 * 3600 - 5)
        assert (await bench.store.accept(make_admission(idempotency_key="k"), make_spec())).job.id == job.id
        await bench.let_pass(6)
        other = await bench.store.accept(make_admission(idempotency_key="k", body_hash="1" * 64), make_spec())
        assert not other.replayed

    async def test_a_replay_passes_over_quota_and_rate(self, bench: Bench) -> None:
        """A replay is answered though the client may do nothing new, and a replay does not prolong the key."""
        admission = make_admission(idempotency_key="k", max_unfinished_jobs=1, jobs_per_minute=1)
        await bench.store.accept(admission, make_spec())
        before = await bench.raw.pexpiretime("relay:idem:acme:k")
        assert (await bench.store.accept(admission, make_spec())).replayed
        assert await bench.raw.pexpiretime("relay:idem:acme:k") == before

    async def test_refused_requests_do_not_take_the_key(self, bench: Bench) -> None:
        """After a refusal for quota or rate the key is still free, and no token was taken."""
        await bench.store.accept(make_admission(jobs_per_minute=2), make_spec())
        with pytest.raises(TooManyUnfinished):
            await bench.store.accept(
                make_admission(idempotency_key="k", max_unfinished_jobs=1, jobs_per_minute=2), make_spec()
            )
        await bench.store.accept(make_admission(jobs_per_minute=2), make_spec())
        with pytest.raises(RateLimited):
            await bench.store.accept(make_admission(idempotency_key="k", jobs_per_minute=2), make_spec())
        await bench.let_pass(60)
        other_body = make_admission(idempotency_key="k", jobs_per_minute=2, body_hash="1" * 64)
        assert not (await bench.store.accept(other_body, make_spec())).replayed


class TestQuotaAndRate:
    """What a client may do at once, and in a minute."""

    async def test_unfinished_jobs_are_counted_until_their_outcome(self, bench: Bench) -> None:
        """Queued and pending jobs count against the quota; an outcome frees it, delivered or not."""
        admission = make_admission(max_unfinished_jobs=2)
        await bench.store.accept(admission, make_spec())
        await bench.submit_all()
        await bench.store.accept(admission, make_spec())
        with pytest.raises(TooManyUnfinished) as refused:
            await bench.store.accept(admission, make_spec())
        assert refused.value.retry_after_s > 0
        await bench.store.accept(make_admission(UMBRELLA, max_unfinished_jobs=1), make_spec())
        await bench.finish_all()
        await bench.store.accept(admission, make_spec())

    @pytest.mark.parametrize(("per_minute", "wait_s"), [(1, 60), (7, 9), (60, 1), (6_000, 1)])
    async def test_the_wait_that_is_told_is_enough(self, bench: Bench, per_minute: int, wait_s: int) -> None:
        """A minute's worth may come at once; after `retry_after_s`, and not a second before, one more may."""
        admission = make_admission(jobs_per_minute=per_minute)
        await bench.raw.hset("relay:rate:acme", mapping={"n": "0", "t": bench.store.now_ms() + 1_000_000})
        with pytest.raises(RateLimited) as refused:
            await bench.store.accept(admission, make_spec())
        assert refused.value.retry_after_s == wait_s
        seconds, micros = await bench.raw.time()
        now_ms = seconds * 1000 + micros // 1000
        if wait_s > 2:
            await bench.raw.hset("relay:rate:acme", mapping={"n": "0", "t": now_ms - (wait_s - 2) * 1000})
            with pytest.raises(RateLimited):
                await bench.store.accept(admission, make_spec())
        await bench.raw.hset("relay:rate:acme", mapping={"n": "0", "t": now_ms - wait_s * 1000})
        await bench.store.accept(admission, make_spec())

    async def test_a_minutes_worth_may_come_at_once(self, bench: Bench) -> None:
        """The bucket holds `jobs_per_minute`, and is full again after a minute, not fuller."""
        admission = make_admission(jobs_per_minute=3)
        await bench.let_pass(3600)
        for _ in range(3):
            await bench.store.accept(admission, make_spec())
        with pytest.raises(RateLimited):
            await bench.store.accept(admission, make_spec())
        await bench.let_pass(3600)
        for _ in range(3):
            await bench.store.accept(admission, make_spec())
        with pytest.raises(RateLimited):
            await bench.store.accept(admission, make_spec())


async def test_a_stalled_store_accepts_nothing_late(bench: Bench) -> None:
    """What its caller has given up, and answered 503 for, is refused when the store comes to it."""
    db, not_after_ms = bench.store._db, bench.store.now_ms() - 1
    args = (ACME, "job_" + "0" * 26, b"{}", "", "hooks.example:443", 960_000, 900_000)
    [answer, _] = await db.run("accept", *args, "", "hash", 1000, 10, 100, 1000, not_after_ms, 100, "", "")
    assert answer == b"late"
    assert not (await bench.snapshot()).jobs()


async def test_a_clock_that_stepped_costs_one_answer(bench: Bench) -> None:
    """After a step of the store's clock the first request is refused, and the next one is accepted."""
    bench.store._db.saw_time(bench.store.now_ms() - 3_600_000)
    with pytest.raises(StoreUnavailable):
        await bench.accept()
    await bench.accept()


async def test_a_batch_that_is_refused_leaves_nothing(bench: Bench) -> None:
    """Of equal requests at once one makes a batch, and the records of the others are gone."""
    admission = make_admission(idempotency_key="k")
    asked = [bench.store.accept_batch(admission, [make_spec()] * 300, None) for _ in range(5)]
    answers = await asyncio.gather(*asked)
    assert len({answer.batch_id for answer in answers}) == 1
    assert len((await bench.snapshot()).jobs()) == 300


async def test_all_clients_together_have_a_limit(bench: Bench) -> None:
    """One client's jobs count against what another one may still have, whole batches or not at all."""
    for client in (ACME, UMBRELLA):
        await bench.store.accept(make_admission(client, max_unfinished_of_all=4), make_spec())
    few = make_admission(UMBRELLA, max_unfinished_of_all=4)
    with pytest.raises(TooManyUnfinished) as caught:
        await bench.store.accept_batch(few, [make_spec()] * 3, None)
    assert caught.value.of_all
    await bench.store.accept_batch(few, [make_spec()] * 2, None)
    with pytest.raises(TooManyUnfinished):
        await bench.store.accept(make_admission(ACME, max_unfinished_of_all=4), make_spec())
    await bench.submit_all()
    await bench.finish_all()
    await bench.store.accept(make_admission(ACME, max_unfinished_of_all=4), make_spec())
