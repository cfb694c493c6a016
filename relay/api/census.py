"""How many jobs the store has, for whoever asks for metrics: counted then, and not kept up to date in between."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from relay.api.link import StoreLink
from relay.core.errors import StoreUnavailable
from relay.core.gauges import gauge, gauges
from relay.core.model import ClientName
from relay.core.settings import Client, Settings
from relay.core.store.queries import Census

#: Who asks again within this gets the same answer: `/metrics` needs no key, and to count costs the store something.
_FRESH_S = 1.0


class CensusGauges(Collector):
    """The whole system's gauges, the same in every relay. Nothing while the store is out of reach."""

    def __init__(self, settings: Settings, clients: Mapping[ClientName, Client], *, worker_seen_s: float) -> None:
        self._limit = settings.max_unfinished_jobs
        self._clients = clients
        self._worker_seen_s = worker_seen_s
        self.census: Census | None = None
        self._taken_s = float("-inf")
        self._lock = asyncio.Lock()

    async def take(self, link: StoreLink) -> None:
        """Count, unless that was done a moment ago."""
        clock = asyncio.get_running_loop().time
        async with self._lock:
            if clock() - self._taken_s < _FRESH_S:
                return
            self.census = None
            with contextlib.suppress(StoreUnavailable):
                self.census = await link.store.census(self._clients, worker_seen_s=self._worker_seen_s)
            # After the answer: those who have waited for a store that hangs don't wait in turn.
            self._taken_s = clock()

    def collect(self) -> Iterator[Metric]:
        """The gauges, made of the last census."""
        census = self.census
        if census is None:
            return
        limits = {(name,): client.max_unfinished_jobs for name, client in self._clients.items()}
        jobs: Counter[tuple[str, str]] = Counter()
        callbacks: Counter[tuple[str, str]] = Counter()
        for name, counts in census.jobs.items():
            for (status, delivery), number in counts.items():
                jobs[name, status.value] += number
                callbacks[name, delivery.value] += number
        yield gauge("workers", "Workers that were seen in the last 30 s.", census.workers)
        yield gauge("unfinished_jobs", "Jobs without an outcome, of all clients together.", census.unfinished)
        yield gauge("unfinished_jobs_limit", "Jobs without an outcome that all clients together may have.", self._limit)
        text = "Jobs without an outcome that a client may have."
        yield gauges("client_unfinished_jobs_limit", text, ("client",), limits.items())
        yield gauges("jobs", "Jobs that are kept, by how they stand.", ("client", "status"), jobs.items())
        text = "Callbacks of jobs that are kept, by how they stand; those of batches are not among them."
        yield gauges("callbacks", text, ("client", "status"), callbacks.items())
