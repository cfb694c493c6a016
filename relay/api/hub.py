"""Fans the store's events out to this process' long polls and event streams. Alone reads `Store.follow`."""

import asyncio
import contextlib
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence

import structlog

from relay.api.link import StoreLink
from relay.core.model import ClientName
from relay.core.store import EventRecord

_RESTART_S = 1.0
log = structlog.get_logger(component="event_hub")


class Subscription:
    """What one event stream has not taken yet: bounded, so that a slow reader costs itself its stream and no more."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._records: deque[EventRecord] = deque()
        self._wake = asyncio.Event()
        #: Why nothing more will come: the service stops, or the reader was too slow.
        self.ended = False

    def offer(self, record: EventRecord) -> None:
        """Add an event; one too many ends the subscription."""
        if len(self._records) >= self._limit:
            self.end()
        elif not self.ended:
            self._records.append(record)
            self._wake.set()

    def end(self) -> None:
        """Let nothing more come."""
        self.ended = True
        self._wake.set()

    async def take(self, timeout_s: float) -> list[EventRecord]:
        """All that has come; waits for at most `timeout_s` while that is nothing and more can come."""
        if not self._records and not self.ended:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._wake.wait()
        taken = list(self._records)
        self._records.clear()
        if not self.ended:
            self._wake.clear()
        return taken


class EventHub:
    """One reader of the store, many listeners."""

    def __init__(self, buffered: int) -> None:
        self._buffered = buffered
        self._watchers: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._subscriptions: dict[ClientName, set[Subscription]] = defaultdict(set)
        self.closing = False

    async def run(self, link: StoreLink, clients: Sequence[ClientName]) -> None:
        """Read events and hand them out, until cancelled."""
        store = await link.connected()
        while True:
            try:
                async for record in store.follow(clients):
                    self.publish(record)
            except Exception:
                # Without this reader streams are silent and long polls slow: log it and go on.
                log.exception("event_reader_failed")
            await asyncio.sleep(_RESTART_S)

    def publish(self, record: EventRecord) -> None:
        """Wake who waits for the subject of `record`, and add it to the client's streams."""
        for changed in self._watchers.get(record.subject, ()):
            changed.set()
        for subscription in self._subscriptions.get(record.client, ()):
            subscription.offer(record)

    @contextlib.contextmanager
    def watch(self, subject: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever something about `subject` changes, and when the service stops."""
        changed = asyncio.Event()
        if self.closing:
            changed.set()
        self._watchers[subject].add(changed)
        try:
            yield changed
        finally:
            self._watchers[subject].discard(changed)
            if not self._watchers[subject]:
                del self._watchers[subject]

    @contextlib.contextmanager
    def subscribe(self, *clients: ClientName) -> Iterator[Subscription]:
        """Everything that happens to `clients` from now on."""
        subscription = Subscription(self._buffered)
        if self.closing:
            subscription.end()
        for client in clients:
            self._subscriptions[client].add(subscription)
        try:
            yield subscription
        finally:
            for client in clients:
                self._subscriptions[client].discard(subscription)
                if not self._subscriptions[client]:
                    del self._subscriptions[client]

    def close(self) -> None:
        """Let every long poll answer and every stream end."""
        self.closing = True
        for watchers in self._watchers.values():
            for changed in watchers:
                changed.set()
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                subscription.end()
