"""The callbacks that a demo must see, and those that it saw. Alone decides whether all came as they should."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from relay.core.errors import RelayError
from relay.dev.inbox import Received


class DemoFailed(RelayError):
    """Not everything came as it should. The message says what did not."""


@dataclass(frozen=True, slots=True)
class Expected:
    """A callback that must arrive."""

    subject: str
    what: str
    event: str
    attempt: int = 1

    def is_met_by(self, received: Received) -> bool:
        """Whether this is it, and its signature is good."""
        data = received.body.get("data")
        return (
            received.verified
            and isinstance(data, dict)
            and data.get("id") == self.subject
            and received.event == self.event
            and received.attempt >= self.attempt
        )


class Collected:
    """What has arrived, and what must."""

    def __init__(self, show: Callable[[Received], None]) -> None:
        self._show = show
        self.received: list[Received] = []
        self.expected: list[Expected] = []
        self._news = asyncio.Event()

    def add(self, received: Received) -> None:
        """Take a callback, and show it."""
        self.received.append(received)
        self._show(received)
        self._news.set()

    def expect(self, expected: Expected) -> None:
        """Have `complete` wait for one more."""
        self.expected.append(expected)

    def missing(self) -> list[Expected]:
        """What has not arrived."""
        return [e for e in self.expected if not any(e.is_met_by(r) for r in self.received)]

    async def complete(self) -> None:
        """Wait until everything has arrived.

        Raises DemoFailed at once for a callback that is not signed as it should, and for another outcome than the
        expected one: what is missing will not come then.
        """
        while True:
            self._news.clear()
            for received in self.received:
                self._check(received)
            if not self.missing():
                return
            await self._news.wait()

    def _check(self, received: Received) -> None:
        if not received.verified:
            raise DemoFailed(f"a callback's signature is not good: {received.reason}")
        data = received.body.get("data")
        subject = data.get("id") if isinstance(data, dict) else None
        for expected in self.expected:
            if expected.subject == subject and expected.event != received.event:
                error = data.get("error") if isinstance(data, dict) else None
                why = f": {error.get('message')}" if isinstance(error, dict) else ""
                raise DemoFailed(f"{received.event} came for {expected.what}, not {expected.event}{why}")
