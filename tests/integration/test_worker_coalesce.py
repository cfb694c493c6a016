"""Equal jobs on a running worker: one is submitted, all are called back."""

import asyncio
import json

from relay.core.model import DeliveryStatus, EventType, Job, JobStatus, PayloadKind
from relay.core.store.intake import Admission
from tests.integration.store_harness import make_admission
from tests.integration.worker_harness import DEFAULT, FAST, Rig, callback_to, eventually
from tests.integration.worker_peers import emulated

JOBS = 40


def admission() -> Admission:
    """The one client may have many jobs."""
    return make_admission(DEFAULT, max_unfinished_jobs=100_000)


async def test_one_submit_and_a_callback_for_each(store_url: str) -> None:
    """Equal jobs are submitted and charged once, and each is called back with the result and its own metadata."""
    async with emulated() as upstream, Rig.open(store_url, upstream.url) as rig, rig.working():
        jobs = [await rig.accept("[latency=0.5] Same?", coalesce=True, metadata={"n": n}) for n in range(JOBS)]
        other = await rig.accept("[latency=0.5] Same?", metadata={"n": -1})
        ended = [await rig.settled(job) for job in [*jobs, other]]
        assert {job.status for job in ended} == {JobStatus.DONE}
        assert len({job.upstream_job_id for job in ended[:-1]}) == 1
        assert (await upstream.stats())["submits"] == 2
        account = await rig.account()
        assert (account["submitted"], account["credits"]) == (2, 6)
        for number, job in enumerate(jobs):
            [received] = rig.received(job)
            data = json.loads(received.raw)["data"]
            assert received.verified
            assert (data["id"], data["metadata"], data["coalesce"]) == (job.id, {"n": number}, True)
            assert data["result"] == json.loads(ended[number].result or b"")


async def test_thin_and_unasked_events(store_url: str) -> None:
    """How each is announced is its own: with the result, with a link of its own, or not at all."""
    async with emulated() as upstream, Rig.open(store_url, upstream.url, public_url="https://relay.example") as rig:
        hook = f"{rig.inbox_url}/hook"
        async with rig.working():
            full = await rig.accept("[latency=0.3] Same?", coalesce=True)
            thin = await rig.accept(
                "[latency=0.3] Same?", coalesce=True, callback=callback_to(hook, payload=PayloadKind.THIN)
            )
            quiet = await rig.accept(
                "[latency=0.3] Same?", coalesce=True, callback=callback_to(hook, events=[EventType.JOB_FAILED])
            )
            for job, delivery in ((full, "delivered"), (thin, "delivered"), (quiet, "skipped")):
                assert (await rig.settled(job)).delivery.status == DeliveryStatus(delivery)
        [received] = rig.received(thin)
        data = json.loads(received.raw)["data"]
        assert data["result"] is None
        assert data["result_url"].startswith("https://relay.example/v1/results/")
        assert (await rig.now(quiet)).result == (await rig.now(full)).result is not None


async def test_ten_thousand_in_a_batch(store_url: str) -> None:
    """Ten thousand equal jobs cost twenty submits, and the batch is complete."""
    async with (
        emulated() as upstream,
        Rig.open(store_url, upstream.url, events_kept=100_000) as rig,
        rig.working(),
    ):
        spec = rig.spec("[latency=6] Same?", coalesce=True, callback=callback_to(f"{rig.inbox_url}/hook", events=[]))
        accepted = await rig.store.accept_batch(admission(), [spec] * 10_000, None)
        async with asyncio.timeout(60):
            while (await rig.store.batch(DEFAULT, accepted.batch_id)).completed_ms is None:
                await asyncio.sleep(0.1)
        batch = await rig.store.batch(DEFAULT, accepted.batch_id)
        assert batch.statuses[JobStatus.DONE] == 10_000
        assert (await upstream.stats())["submits"] == 20
        assert (await rig.account())["credits"] == 60


async def test_cancelled_one_after_the_other(store_url: str) -> None:
    """Leaders that are cancelled while they are submitted and polled lose nothing for those that are left."""
    async with emulated(answer_delay_s=0.2) as upstream, Rig.open(store_url, upstream.url) as rig, rig.working():
        jobs: list[Job] = [await rig.accept("[latency=2] Same?", coalesce=True) for _ in range(10)]
        for number in range(8):
            await asyncio.sleep(0.15)
            await rig.store.cancel(DEFAULT, jobs[number].id)
        ended = [await rig.settled(job) for job in jobs]
        assert [job.status for job in ended] == [JobStatus.CANCELLED] * 8 + [JobStatus.DONE] * 2
        assert (await upstream.stats())["submits"] == 1
        account = await rig.account()
        assert (account["submitted"], account["credits"], account.get("ambiguous", 0)) == (1, 3, 0)


async def test_deadlines_apart(store_url: str) -> None:
    """Each ends at its own deadline, whoever was submitted."""
    async with emulated() as upstream, Rig.open(store_url, upstream.url) as rig, rig.working():
        short = await rig.accept("[latency=4] Same?", coalesce=True, deadline_s=1)
        others = [await rig.accept("[latency=4] Same?", coalesce=True, deadline_s=s) for s in (60, 2)]
        ended = [await rig.settled(job) for job in (short, *others)]
        assert [job.status for job in ended] == [JobStatus.TIMED_OUT, JobStatus.DONE, JobStatus.TIMED_OUT]
        assert (await upstream.stats())["submits"] == 1


async def test_a_cancelled_leader_s_submit_takes_long(store_url: str) -> None:
    """A submit that takes longer than a lease is waited for all the same, and paid for once."""
    async with emulated(answer_delay_s=4.5) as upstream, Rig.open(store_url, upstream.url) as rig, rig.working():
        assert FAST["lease_s"] < 4
        jobs = [await rig.accept("[latency=0] Same?", coalesce=True) for _ in range(3)]
        await eventually(upstream.stats, lambda stats: stats["submits"] > 0)
        await rig.store.cancel(DEFAULT, jobs[0].id)
        ended = [await rig.settled(job) for job in jobs]
        assert [job.status for job in ended] == [JobStatus.CANCELLED, JobStatus.DONE, JobStatus.DONE]
        assert (await upstream.stats())["submits"] == 1
        assert await rig.account() == {"submitted": 1, "credits": 3}


async def test_a_lost_submit_is_counted_once(store_url: str) -> None:
    """A submit whose answer is lost at its leader's deadline counts as one, though another goes on with the note."""
    async with (
        emulated(fault_sequence=("submit_stall",), hang_s=5) as upstream,
        Rig.open(store_url, upstream.url, upstream_timeout_s=1.5) as rig,
        rig.working(measured=True) as worker,
    ):
        short = await rig.accept("[latency=0] Same?", coalesce=True, deadline_s=1)
        long = await rig.accept("[latency=0] Same?", coalesce=True)
        ended = [await rig.settled(job) for job in (short, long)]
        assert [job.status for job in ended] == [JobStatus.TIMED_OUT, JobStatus.DONE]
        assert (await upstream.stats())["submits"] == 2
        assert await rig.account() == {"submitted": 1, "credits": 3, "ambiguous": 1}
        assert await worker.metric("ambiguous_submits_total") == 1
