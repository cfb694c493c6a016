"""Watches the memory of the store, so that requests are refused while what was accepted still has room to end."""

import asyncio

import structlog

from relay.api.link import StoreLink
from relay.api.metrics import HttpMetrics
from relay.core.errors import StoreUnavailable
from relay.core.store import Store

_LOOK_EVERY_S = 1.0
log = structlog.get_logger(component="pressure")


class Pressure:
    """Whether the store is nearly full. `limit` is the share of its `maxmemory` from which on it is."""

    def __init__(self, limit: float, metrics: HttpMetrics) -> None:
        self._limit = limit
        self._metrics = metrics
        self.is_high = False

    async def run(self, link: StoreLink) -> None:
        """Watch, until cancelled."""
        store = await link.connected()
        while True:
            # A store that is away is told by every request itself.
            try:
                await self._look(store)
                self._metrics.store_up.set(1)
            except StoreUnavailable:
                self._metrics.store_up.set(0)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def still_high(self, store: Store) -> bool:
        """Whether the store is nearly full: looks again where it was. Raises StoreUnavailable."""
        if self.is_high:
            await self._look(store)
        return self.is_high

    async def _look(self, store: Store) -> None:
        used, most = await store.memory()
        self._metrics.store_used.set(used)
        self._metrics.store_limit.set(most)
        is_high = most > 0 and used >= most * self._limit
        if is_high != self.is_high:
            log.warning("store_nearly_full" if is_high else "store_has_room_again", used=used, most=most)
        self.is_high = is_high
