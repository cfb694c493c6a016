"""Time limits for many things at once, watched by one timer."""

import asyncio
from types import TracebackType

#: How late a limit may strike.
_TICK_S = 0.05


class TimeLimits:
    """Hands out what `asyncio.timeout` does, up to 50 ms late, and costs far less than a timer for each."""

    def __init__(self) -> None:
        self._ends_s: dict[asyncio.Timeout, float] = {}
        self._watching = False

    def within(self, seconds: float) -> "_Limit":
        """An asynchronous context whose body is cancelled after `seconds` and ends in TimeoutError then."""
        return _Limit(self, seconds)

    def add(self, timeout: asyncio.Timeout, seconds: float) -> None:
        """Watch over one that was entered."""
        loop = asyncio.get_running_loop()
        self._ends_s[timeout] = loop.time() + seconds
        if not self._watching:
            self._watching = True
            loop.call_later(_TICK_S, self._look, loop)

    def drop(self, timeout: asyncio.Timeout) -> None:
        """Watch over it no longer."""
        self._ends_s.pop(timeout, None)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now_s = loop.time()
        for timeout in [one for one, ends_s in self._ends_s.items() if ends_s <= now_s]:
            del self._ends_s[timeout]
            timeout.reschedule(now_s)
        self._watching = bool(self._ends_s)
        if self._watching:
            loop.call_later(_TICK_S, self._look, loop)


class _Limit:
    __slots__ = ("_limits", "_seconds", "_timeout")

    def __init__(self, limits: TimeLimits, seconds: float) -> None:
        self._limits = limits
        self._seconds = seconds
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._limits.add(self._timeout, self._seconds)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._limits.drop(self._timeout)
        await self._timeout.__aexit__(kind, error, trace)
