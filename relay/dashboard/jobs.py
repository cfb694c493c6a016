"""`/dashboard/jobs`: the list, with its filters."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from relay.api.answers import store_of
from relay.api.context import SETTINGS
from relay.api.parameters import Query, is_job_id
from relay.core.model import ClientName, DeliveryStatus, Job, JobId, JobStatus
from relay.dashboard.entrance import page
from relay.dashboard.examples import curl_for
from relay.dashboard.listing import Listed, merge, of_each
from relay.dashboard.render import given, show
from relay.dashboard.viewer import Viewer

_LIMIT = 50
_TEXT_CHARACTERS = 200
#: What people look for most, as filters.
PRESETS: Mapping[str, Mapping[str, list[str]]] = {
    "All": {},
    "Unfinished": {"status": [JobStatus.QUEUED, JobStatus.PENDING]},
    "Failed": {"status": [JobStatus.FAILED, JobStatus.TIMED_OUT]},
    "Retrying": {"delivery": [DeliveryStatus.RETRYING]},
    "Undelivered": {"delivery": [DeliveryStatus.EXHAUSTED, DeliveryStatus.GONE]},
}


@page
async def find(request: web.Request, viewer: Viewer) -> web.StreamResponse:
    """The newest jobs that fit the filters, or that come after `before`."""
    query = Query(given(request), {"client", "status", "delivery", "batch_id", "q", "before"})
    statuses = query.each("status", JobStatus)
    deliveries = query.each("delivery", DeliveryStatus)
    batch = query.batch_id()
    before = query.single("before")
    if before is not None and not is_job_id(before):
        query.fault("before", "is not the id of a job")
    text = query.single("q")
    if text is not None and len(text) > _TEXT_CHARACTERS:
        query.fault("q", f"must have at most {_TEXT_CHARACTERS} characters")
    if text is not None and batch is not None:
        query.fault("q", "cannot be combined with batch_id")
    query.check()
    store = store_of(request)
    after = None if before is None else JobId(before)

    async def ask(client: ClientName) -> Listed[Job]:
        how: Mapping[str, Any] = {"statuses": statuses, "deliveries": deliveries, "limit": _LIMIT, "before": after}
        found = await (store.jobs(client, batch_id=batch, **how) if text is None else store.search(client, text, **how))
        return found.jobs, found.next_before

    jobs, older = merge(await of_each(viewer.scope, ask), _LIMIT)
    counts: Counter[tuple[JobStatus, DeliveryStatus]] = Counter()
    for some in await of_each(viewer.scope, store.counts):
        counts.update(some)
    filters: dict[str, list[str]] = {"status": sorted(statuses), "delivery": sorted(deliveries)}
    if batch is not None:
        filters["batch_id"] = [batch]
    if text is not None:
        filters["q"] = [text]
    return show(
        request,
        viewer,
        "jobs.html",
        jobs=jobs,
        older=older,
        before=before,
        filters={name: values for name, values in filters.items() if values},
        presets=[
            (name, {kind: sorted(values) for kind, values in wanted.items()}, _count(counts, wanted))
            for name, wanted in PRESETS.items()
        ],
        statuses=list(JobStatus),
        deliveries=list(DeliveryStatus),
        batch=batch,
        text=text,
        several=len(viewer.scope) > 1,
        example=curl_for(request.app[SETTINGS], request),
    )


def _count(counts: Counter[tuple[JobStatus, DeliveryStatus]], wanted: Mapping[str, list[str]]) -> int:
    return sum(
        n
        for (status, delivery), n in counts.items()
        if status in wanted.get("status", [status]) and delivery in wanted.get("delivery", [delivery])
    )
