"""Polls that come when jobs usually end: what workers see is shared, fades, and makes schedules."""

import asyncio

import pytest

from relay.core.latency import LatencyHistogram
from relay.core.model import Job
from tests.integration.store_harness import Bench
from tests.integration.worker_harness import Rig, eventually
from tests.integration.worker_peers import Emulated, emulated

#: As often as that at the fixed interval: five polls and more for each job.
SETTINGS = {"poll_interval_s": 0.3, "poll_min_interval_s": 0.1, "poll_lambda": "thrifty"}
LATENCY_S = 1.5
JOBS = 120


async def polls_of(rig: Rig, upstream: Emulated, count: int, **params: str) -> float:
    """How many polls each of so many jobs took; they don't begin all at once."""
    before = (await upstream.stats())["polls"]
    jobs: list[Job] = []
    for number in range(count):
        jobs.append(await rig.accept(f"[latency={LATENCY_S}] number {number}?", params=params))
        await asyncio.sleep(0.005)
    for job in jobs:
        await rig.ended(job)
    return float((await upstream.stats())["polls"] - before) / count


async def test_a_worker_learns(store_url: str) -> None:
    """After some jobs those like them take fewer polls, on this worker and on one that starts later."""
    async with emulated() as upstream, Rig.open(store_url, upstream.url, **SETTINGS) as rig:
        async with rig.working(measured=True) as worker:
            at_first = await polls_of(rig, upstream, JOBS)
            assert at_first >= 4
            await eventually(lambda: worker.metric("poll_schedule_learned", scraper="chatgpt"), bool)
            assert await polls_of(rig, upstream, 40) <= 0.7 * at_first
            assert await worker.metric("poll_schedule_expected_polls", scraper="chatgpt") < at_first
        async with rig.working(measured=True) as another:
            await polls_of(rig, upstream, 1)
            await eventually(lambda: another.metric("poll_schedule_learned", scraper="chatgpt"), bool)
            assert await polls_of(rig, upstream, 40) <= 0.7 * at_first
            # Another mode is another kind of job.
            assert await polls_of(rig, upstream, 20, mode="SLOW") >= 0.8 * at_first


async def test_the_fixed_interval(store_url: str) -> None:
    """Where learning is turned off, nothing is learned."""
    settings = SETTINGS | {"poll_strategy": "fixed"}
    async with emulated() as upstream, Rig.open(store_url, upstream.url, **settings) as rig, rig.working():
        assert await polls_of(rig, upstream, 20) >= 4
        await asyncio.sleep(6)  # longer than from one look at what was seen to the next
        assert not await rig.bench.raw.exists("relay:latency:1:chatgpt")


@pytest.mark.store
async def test_what_was_seen_adds_up_and_fades(store_url: str) -> None:
    """Workers add to one histogram; what is old counts for a third after 300 more jobs."""
    async with Bench.open(store_url) as bench:
        slow, quick = LatencyHistogram(), LatencyHistogram()
        for _ in range(200):
            slow.add_ended(0, 30.0)
        for _ in range(300):
            quick.add_ended(0, 3.0)
        assert (await bench.work.learn("chatgpt", slow)).jobs == pytest.approx(200)
        both = await bench.other.learn("chatgpt", quick)
        assert both.jobs == pytest.approx(300 + 200 / 2.718, rel=1e-3)
        again = await bench.work.learn("chatgpt", LatencyHistogram())
        assert again.to_fields() == both.to_fields()
        assert (await bench.work.learn("grok", LatencyHistogram())).jobs == 0
        assert await bench.raw.keys("relay:latency:*") == ["relay:latency:1:chatgpt"]
        assert 0 < await bench.raw.ttl("relay:latency:1:chatgpt") <= 30 * 24 * 3600
