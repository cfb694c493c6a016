"""`/dashboard`: how much there is, and how it went over time."""

from collections import Counter
from collections.abc import Mapping, Sequence

from aiohttp import web

from relay.api.answers import store_of
from relay.api.context import SETTINGS
from relay.api.parameters import Query
from relay.core.model import DeliveryStatus, DestinationState, JobStatus
from relay.core.store import Series
from relay.dashboard.charts import Chart, Line, curved, stacked
from relay.dashboard.entrance import page
from relay.dashboard.examples import curl_for
from relay.dashboard.listing import of_each
from relay.dashboard.render import given, show
from relay.dashboard.viewer import Viewer

_HOUR_MS = 3_600_000
RANGES: Mapping[str, int] = {
    "1h": _HOUR_MS,
    "24h": 24 * _HOUR_MS,
    "7d": 7 * 24 * _HOUR_MS,
    "30d": 30 * 24 * _HOUR_MS,
}
_AILING = frozenset({DestinationState.FAILING, DestinationState.UNRESPONSIVE, DestinationState.PAUSED})
_AILING_SHOWN = 6

_OUTCOMES = (
    Line("done", "done", lambda slot: slot.done),
    Line("failed", "failed", lambda slot: slot.failed),
    Line("timed out", "timed_out", lambda slot: slot.timed_out),
    Line("cancelled", "cancelled", lambda slot: slot.cancelled),
)
_ATTEMPTS = (
    Line("got through", "delivered", lambda slot: slot.attempts - slot.attempts_failed),
    Line("failed", "failed", lambda slot: slot.attempts_failed),
)
_LATENESS = (
    Line("half of them within", "p50", lambda slot: slot.late_p50_ms),
    Line("99 % within", "p99", lambda slot: slot.late_p99_ms),
)
_UPSTREAM = (
    Line("submits", "submits", lambda slot: slot.submits),
    Line("polls", "polls", lambda slot: slot.polls),
)


@page
async def show_overview(request: web.Request, viewer: Viewer) -> web.StreamResponse:
    """Numbers, and charts over the chosen range."""
    query = Query(given(request), {"client", "range"})
    chosen = query.single("range") or "1h"
    if chosen not in RANGES:
        query.fault("range", f"must be one of: {', '.join(RANGES)}")
    query.check()
    store = store_of(request)
    now_ms = store.now_ms()
    series = await store.series(viewer.chosen, now_ms - RANGES[chosen], now_ms, clients=viewer.scope)
    counts: Counter[tuple[JobStatus, DeliveryStatus]] = Counter()
    for some in await of_each(viewer.scope, store.counts):
        counts.update(some)
    account: Counter[str] = Counter()
    for numbers in await of_each(viewer.scope, store.account):
        account.update(numbers)
    ailing = await of_each(viewer.scope, lambda client: store.destinations(client, _AILING, _AILING_SHOWN))
    return show(
        request,
        viewer,
        "overview.html",
        ranges={name: f"{name[:-1]} {name[-1]}" for name in RANGES},
        chosen=chosen,
        total=series.total,
        charts=_charts(series),
        by_days=series.slot_ms >= _HOUR_MS,
        kept=sum(counts.values()),
        unfinished=sum(n for (status, _), n in counts.items() if not status.is_outcome),
        retrying=sum(n for (_, delivery), n in counts.items() if delivery is DeliveryStatus.RETRYING),
        undelivered=sum(
            n for (_, delivery), n in counts.items() if delivery in (DeliveryStatus.EXHAUSTED, DeliveryStatus.GONE)
        ),
        account=account,
        ailing=[
            (client, destination) for client, some in zip(viewer.scope, ailing, strict=True) for destination in some
        ][:_AILING_SHOWN],
        several=len(viewer.scope) > 1,
        example=curl_for(request.app[SETTINGS], request),
    )


def _charts(series: Series) -> Sequence[Chart]:
    slots, slot_ms = series.slots, series.slot_ms
    return (
        stacked("Outcomes", "Jobs that ended, by how they ended.", _OUTCOMES, slots, slot_ms),
        curved(
            "Lateness of callbacks",
            "From the outcome until the callback got through, on a scale of powers of ten.",
            _LATENESS,
            slots,
            slot_ms,
        ),
        stacked("Attempts", "Callbacks sent, first ones and repeated ones.", _ATTEMPTS, slots, slot_ms),
        stacked("Requests to ScrapeLLM", "Submits and polls.", _UPSTREAM, slots, slot_ms),
    )
