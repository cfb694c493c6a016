"""`/dashboard/jobs`: the list, with its filters."""

from collections.abc import Mapping

from aiohttp import web
from multidict import MultiDict

from relay.api.answers import store_of
from relay.api.context import SETTINGS
from relay.api.parameters import Query, is_job_id
from relay.core.model import ClientName, DeliveryStatus, JobId, JobStatus
from relay.core.store import Page
from relay.dashboard.entrance import page
from relay.dashboard.examples import curl_for
from relay.dashboard.listing import over_clients
from relay.dashboard.render import show
from relay.dashboard.viewer import Viewer

_LIMIT = 50
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
    # A form sends the fields that were left empty too.
    given = MultiDict((name, value) for name, value in request.query.items() if value)
    query = Query(given, {"client", "status", "delivery", "batch_id", "before"})
    statuses = query.each("status", JobStatus)
    deliveries = query.each("delivery", DeliveryStatus)
    batch = query.batch_id()
    before = query.single("before")
    if before is not None and not is_job_id(before):
        query.fault("before", "is not the id of a job")
    query.check()
    store = store_of(request)

    async def ask(client: ClientName) -> Page:
        return await store.jobs(
            client,
            statuses=statuses,
            deliveries=deliveries,
            batch_id=batch,
            limit=_LIMIT,
            before=None if before is None else JobId(before),
        )

    found = await over_clients(viewer.scope, _LIMIT, ask)
    filters: dict[str, list[str]] = {"status": sorted(statuses), "delivery": sorted(deliveries)}
    if batch is not None:
        filters["batch_id"] = [batch]
    return show(
        request,
        viewer,
        "jobs.html",
        jobs=found.jobs,
        older=found.next_before,
        before=before,
        filters={name: values for name, values in filters.items() if values},
        presets={name: {k: sorted(v) for k, v in wanted.items()} for name, wanted in PRESETS.items()},
        statuses=list(JobStatus),
        deliveries=list(DeliveryStatus),
        batch=batch,
        several=len(viewer.scope) > 1,
        example=curl_for(request.app[SETTINGS], request),
    )
