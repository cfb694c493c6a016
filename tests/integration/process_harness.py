"""Children of a test, and how long it waits for them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from relay.dev.process import Child

#: For what a process does by itself; a test that waits longer has found a bug.
BOUND_S = 10.0


@contextlib.asynccontextmanager
async def watched(child: Child) -> AsyncIterator[None]:
    """Have the child watched for as long as the context lasts."""
    task = asyncio.create_task(child.watch())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
