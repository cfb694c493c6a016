"""Ends background tasks for certain."""

import asyncio
from collections.abc import Iterable


async def end(tasks: "Iterable[asyncio.Task[None]]", *, ask_again_s: float = 0.2) -> None:
    """Cancel `tasks`, and return once all have ended, however they did.

    One `cancel()` is not enough: `asyncio.wait_for`, which redis-py writes with, loses a cancellation that comes in the
    moment in which what it waits for is done (CPython before 3.12). So each is asked again after `ask_again_s`; give
    more to a task that takes longer to end what it runs itself, which another cancellation would cut short.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=ask_again_s)
