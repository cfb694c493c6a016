"""Time limits that share one timer strike as `asyncio.timeout` does."""

import asyncio

import pytest

from relay.core.limits import TimeLimits


async def test_what_ends_in_time_is_left_alone() -> None:
    """And leaves nothing behind that could strike later."""
    limits = TimeLimits()
    async with limits.within(0.1):
        await asyncio.sleep(0)
    await asyncio.sleep(0.3)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_each_ends_at_its_own_time() -> None:
    """Neither with the first nor with the last of those that run beside it."""
    limits, loop = TimeLimits(), asyncio.get_running_loop()
    ended: list[float] = []

    async def wait(seconds: float) -> None:
        began_s = loop.time()
        with pytest.raises(TimeoutError):
            async with limits.within(seconds):
                await asyncio.Event().wait()
        assert loop.time() - began_s >= seconds
        ended.append(seconds)

    await asyncio.gather(*(wait(seconds) for seconds in (0.6, 0.0, 0.3)))
    assert ended == [0.0, 0.3, 0.6]
    # And again, after there was nothing to watch.
    await asyncio.wait_for(wait(0.1), 5)


async def test_a_cancellation_from_outside_stays_one() -> None:
    """Also where the limit has just been added."""
    limits = TimeLimits()

    async def wait() -> None:
        async with limits.within(60):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
