"""The stream of changes, held over broken connections. Alone knows where it goes on, and when something was missed."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator

from relay.client.errors import Unreachable
from relay.client.sse import Change, ChangeKind, FrameReader, change_of
from relay.client.transport import Transport, pause_before


async def follow(transport: Transport, after: str | None, patience_s: float) -> AsyncGenerator[Change, None]:
    """Changes, without end; those after the event `after` first, or else a reset.

    Raises Unreachable when the relay has been away for longer than `patience_s`, and Refused and Unexpected at once.
    """
    last_id = after
    lost_s: float | None = None
    repeat = 0
    while True:
        trouble: Unreachable | None = None
        try:
            async with transport.stream("v1/events", {"Last-Event-ID": last_id} if last_id else {}) as chunks:
                reader = FrameReader()
                if last_id is None:
                    # The relay notes what comes from now on, and what came before is not known.
                    yield Change(ChangeKind.RESET)
                async for chunk in chunks:
                    lost_s, repeat = None, 0
                    for frame in reader.feed(chunk):
                        last_id = frame.id or last_id
                        change = change_of(frame)
                        if change is not None:
                            yield change
        except Unreachable as error:
            trouble = error
        # Otherwise it ended in peace: the relay is being replaced.
        repeat += 1
        lost_s = time.monotonic() if lost_s is None else lost_s
        pause_s = pause_before(repeat, None if trouble is None else trouble.retry_after_s, random.random())  # noqa: S311 - spreads load
        if trouble is not None and time.monotonic() + pause_s - lost_s > patience_s:
            raise trouble
        await asyncio.sleep(pause_s)
