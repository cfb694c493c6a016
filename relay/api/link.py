"""The connection to the store over the life of the service, which starts and answers also while there is none."""

import asyncio

import structlog

from relay.core.ending import end
from relay.core.errors import ConfigurationError, StoreUnavailable
from relay.core.settings import Settings
from relay.core.store import Store

_RETRY_S = 1.0
log = structlog.get_logger(component="store_link")


class StoreLink:
    """Holds the store once it was reached; until then asking for it raises StoreUnavailable."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store: Store | None = None
        self._connected = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        #: Set once it is clear that this store must not be used, however long one waits.
        self.refused: asyncio.Future[ConfigurationError] = asyncio.get_running_loop().create_future()

    async def open(self) -> None:
        """Try once, and go on trying in the background. Raises ConfigurationError where the store is a wrong one."""
        if not await self._try():
            log.warning("store_unreachable_at_start", retry_s=_RETRY_S)
            self._task = asyncio.create_task(self._keep_trying(), name="store-link")

    @property
    def store(self) -> Store:
        """The store. Raises StoreUnavailable until it was reached for the first time."""
        if self._store is None:
            raise StoreUnavailable("the store was not reachable yet")
        return self._store

    async def connected(self) -> Store:
        """The store, as soon as it was reached."""
        await self._connected.wait()
        return self.store

    async def close(self) -> None:
        """Stop trying, and close all connections."""
        if self._task is not None:
            await end([self._task])
        if self._store is not None:
            await self._store.close()

    async def _try(self) -> bool:
        try:
            self._store = await Store.connect(self._settings)
        except StoreUnavailable:
            return False
        self._connected.set()
        return True

    async def _keep_trying(self) -> None:
        try:
            while True:
                await asyncio.sleep(_RETRY_S)
                if await self._try():
                    break
        except ConfigurationError as error:
            self.refused.set_result(error)
        else:
            log.info("store_reached")
