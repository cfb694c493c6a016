"""The store: every job's record, the due sets, and the scripts that change them.

The only package that knows keys and encodings. One `.lua` file per script lies beside it, in `lua/`.
`Store` is what the HTTP service uses, `WorkStore` what a worker uses.
"""

from typing import Self

from relay.core.model import BatchId, JobId
from relay.core.settings import Settings
from relay.core.store import records
from relay.core.store.connection import Connection
from relay.core.store.control import Control
from relay.core.store.events import EventRecord, Events
from relay.core.store.intake import Accepted, AcceptedBatch, Admission
from relay.core.store.queries import BatchPage, Page
from relay.core.store.search import Search
from relay.core.store.series import Series, Slot, Statistics
from relay.core.store.work import WorkStore


class Store(Control, Search, Events, Statistics):
    """What the HTTP service does to the store."""

    def __init__(self, settings: Settings) -> None:
        Control.__init__(
            self,
            Connection(settings),
            submit_window_ms=round(settings.submit_window_s * 1000),
            events_kept=settings.events_kept,
            result_ttl_ms=round(settings.result_ttl_s * 1000),
            first_delay_ms=round(settings.callback_schedule[0] * 1000),
        )

    @classmethod
    async def connect(cls, settings: Settings) -> Self:
        """Connect and check the store. Raises ConfigurationError, StoreUnavailable."""
        store = cls(settings)
        try:
            await store.check()
        except BaseException:
            await store.close()
            raise
        return store

    async def check(self) -> None:
        """Make sure that the store is one that jobs can be trusted to, and set the clock.

        Raises ConfigurationError, StoreUnavailable.
        """
        await self._db.check()

    async def close(self) -> None:
        """Close all connections."""
        await self._db.close()

    def now_ms(self) -> int:
        """The store's time, estimated."""
        return self._db.now_ms()


__all__ = [
    "Accepted",
    "AcceptedBatch",
    "Admission",
    "BatchId",
    "BatchPage",
    "EventRecord",
    "JobId",
    "Page",
    "Series",
    "Slot",
    "Store",
    "WorkStore",
    "records",
]
