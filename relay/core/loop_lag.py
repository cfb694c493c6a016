"""How late the event loop is: what blocks it keeps everything else waiting."""

import asyncio
import time

from prometheus_client import CollectorRegistry, Histogram

from relay.core.observability import NAMESPACE

_EVERY_S = 0.25
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


def loop_lag(registry: CollectorRegistry) -> Histogram:
    """The metric."""
    return Histogram(
        "event_loop_lag_seconds",
        "How much later than it was due the event loop ran a timer; four times a second.",
        namespace=NAMESPACE,
        buckets=_BUCKETS_S,
        registry=registry,
    )


async def watch_loop(lag: Histogram) -> None:
    """Measure, until cancelled."""
    while True:
        due_s = time.monotonic() + _EVERY_S
        await asyncio.sleep(_EVERY_S)
        lag.observe(max(0.0, time.monotonic() - due_s))
