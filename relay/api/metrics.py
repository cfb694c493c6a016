"""The HTTP service's own metrics."""

from collections.abc import Iterable
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from relay.core.loop_lag import loop_lag
from relay.core.model import ClientName
from relay.core.observability import NAMESPACE, new_registry

_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class HttpMetrics:
    """Counts what is asked of the service. Labels are bounded: route templates, not paths.

    `clients` are those that are configured: their counters are there from the start, at 0.
    """

    def __init__(self, clients: Iterable[ClientName] = ()) -> None:
        self.registry: CollectorRegistry = new_registry("relay")
        self._requests = Counter(
            "http_requests",
            "Requests answered, by route template.",
            ("method", "route", "status"),
            namespace=NAMESPACE,
            registry=self.registry,
        )
        self._duration = Histogram(
            "http_request_duration_seconds",
            "Time from the request's head to its answer; long polls and event streams are not in it.",
            ("method", "route"),
            namespace=NAMESPACE,
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self._requests_of, self._duration_of = cache(self._requests.labels), cache(self._duration.labels)
        self.jobs_accepted = Counter(
            "jobs_accepted",
            "Jobs accepted, without idempotent replays.",
            ("client", "call"),
            namespace=NAMESPACE,
            registry=self.registry,
        )
        for client in clients:
            for call in ("job", "batch"):
                self.jobs_accepted.labels(client, call)
        self.faults = Counter(
            "internal_errors",
            "Requests, steps and batches that failed by a fault of ours.",
            namespace=NAMESPACE,
            registry=self.registry,
        )
        self.store_up = self._gauge("store_up", "1 while the store is reached.")
        self.store_used = self._gauge("store_memory_used_bytes", "Memory that the store uses.")
        self.store_limit = self._gauge(
            "store_memory_limit_bytes", "The most memory that the store may use; 0: no limit."
        )
        self.long_polls = self._gauge("long_polls_open", "Requests that wait for an outcome.")
        self.event_streams = self._gauge("event_streams_open", "Event streams being read.")
        self.loop_lag = loop_lag(self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, namespace=NAMESPACE, registry=self.registry)

    def answered(self, method: str, route: str, status: int, duration_s: float, *, held: bool) -> None:
        """Count one request. `held` is one that was kept waiting on purpose; its duration says nothing."""
        label = method if method in _METHODS else "other"
        # Finding a metric by its labels takes longer than counting: each is looked for once.
        self._requests_of(label, route, str(status)).inc()
        if not held:
            self._duration_of(label, route).observe(duration_s)
