"""How background tasks are ended."""

import asyncio
import contextlib

from relay.core.ending import end


async def test_a_task_that_loses_a_cancellation_is_ended() -> None:
    """A cancellation that got lost on its way is asked for again, so that the process exits."""
    lost = asyncio.Event()

    async def stubborn() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        lost.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await end([task])
    assert lost.is_set()
    assert task.cancelled()
