"""Ends background tasks for certain."""

import asyncio

_ASK_AGAIN_S = 0.2


async def end(task: "asyncio.Task[None]") -> None:
    """Cancel `task` and return once it has ended, however it ended.

    One `cancel()` is not enough: `asyncio.wait_for`, which redis-py writes with, loses a cancellation that comes in the
    moment in which what it waits for is done (CPython before 3.12).
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_ASK_AGAIN_S)
