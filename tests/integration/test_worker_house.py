"""Housekeeping: a worker deletes what was kept long enough, and finishes what a relay left undone."""

import contextlib

import structlog

from relay.core.errors import NotFound
from relay.core.model import Batch, BatchId, DeliveryStatus
from relay.core.store import records
from relay.core.store.intake import IDEMPOTENCY_TTL_MS, STAGED_TTL_MS
from tests.integration.store_harness import make_admission
from tests.integration.worker_harness import DEFAULT, Rig, eventually
from tests.integration.worker_peers import emulated

COUNT = 5


async def leave_half_accepted(rig: Rig) -> BatchId:
    """Accept a batch as a relay does that dies right after: it is live, and none of its jobs is enlisted."""
    now_ms, admission = rig.store.now_ms(), make_admission(DEFAULT)
    batch_id, ids = records.batch_id(now_ms), records.job_ids(now_ms, COUNT)
    rows: list[str | bytes | int] = []
    for job_id in ids:
        spec = rig.spec(f"[latency=0] {job_id}")
        wishes = records.encode_wishes(spec.callback)
        rows += (job_id, records.encode_spec(spec), wishes, spec.callback.destination, 960_000, "")
    run = rig.store._db.run
    await run("stage", batch_id, DEFAULT, STAGED_TTL_MS, COUNT, ids[0], "", "", "", *rows)
    quota = (admission.max_unfinished_jobs, admission.jobs_per_minute)
    key = ("", admission.body_hash, IDEMPOTENCY_TTL_MS)
    assert await run("commit_batch", DEFAULT, batch_id, *key, *quota, 10_000, 5_000, 2**52, 2**52) == [b"accepted"]
    return batch_id


async def test_the_house_is_kept(store_url: str) -> None:
    """What was kept long enough is purged, what did not get through is kept for longer, and half a batch is finished.

    The batch is one whose relay died before it had enlisted the jobs.
    """
    async with emulated() as upstream, Rig.open(store_url, upstream.url, result_ttl_s=100) as rig:
        async with rig.working():
            delivered = await rig.settled(await rig.accept("[latency=0] delivered"))
            exhausted = await rig.settled(await rig.accept("[latency=0] exhausted", f"{rig.inbox_url}/fail/500"))
        batch_id = await leave_half_accepted(rig)
        await rig.bench.let_pass(101)

        async def batch() -> Batch:
            return await rig.store.batch(DEFAULT, batch_id)

        async def is_gone() -> bool:
            with contextlib.suppress(NotFound):
                await rig.now(delivered)
                return False
            return True

        with structlog.testing.capture_logs() as lines:
            async with rig.working():
                await eventually(batch, lambda seen: seen.deliveries[DeliveryStatus.DELIVERED] == COUNT)
                await eventually(is_gone, bool)
        assert (await rig.now(exhausted)).delivery.status is DeliveryStatus.EXHAUSTED
    assert "a batch was left half enlisted" in [line["event"] for line in lines]
