"""`/dashboard/jobs/{id}`: one job, what happened to it, and what can be done with it."""

from aiohttp import web

from relay.api.answers import store_of
from relay.api.parameters import Query, job_id
from relay.api.problems import not_found
from relay.core.model import BatchId, DeliveryStatus, JobId, JobStatus
from relay.core.settings import Client
from relay.dashboard.entrance import Form, action, page
from relay.dashboard.examples import VERIFYING
from relay.dashboard.formats import is_cut
from relay.dashboard.preview import announced, preview_of
from relay.dashboard.render import given, linker, said_of, see, show
from relay.dashboard.timeline import steps_of
from relay.dashboard.viewer import Viewer

#: What was just done, by the `did` that the page is led to with.
_DID = {
    "redelivered": "The callback is sent again, on a fresh schedule.",
    "cancelled": "The job is cancelled.",
    "submitted": "The job is accepted.",
    "replayed": "This idempotency key made this job before.",
}


async def owner_of(request: web.Request, viewer: Viewer, thing_id: JobId | BatchId) -> Client:
    """The client whose job or batch this is, if it is one that is shown. Raises Problem (404), StoreUnavailable."""
    name = viewer.chosen or await store_of(request).owner(thing_id)
    return viewer.client(name)


@page
async def read(request: web.Request, viewer: Viewer) -> web.StreamResponse:
    """The page of a job."""
    query = Query(given(request), {"client", "did"})
    said = said_of(query, _DID)
    query.check()
    store = store_of(request)
    client = await owner_of(request, viewer, job_id(request))
    job = await store.job(client.name, job_id(request))
    attempts = await store.attempts(client.name, job.id)
    return show(
        request,
        viewer,
        "job.html",
        job=job,
        steps=steps_of(job, attempts),
        preview=preview_of(job, client, store.now_ms()),
        result_is_cut=job.result is not None and is_cut(job.result),
        verifying=VERIFYING,
        said=said,
        may_cancel=not job.status.is_outcome,
        may_redeliver=job.delivery.status.is_ended and job.status is not JobStatus.CANCELLED,
        was_skipped=job.delivery.status is DeliveryStatus.SKIPPED,
        several=len(viewer.scope) > 1,
    )


@page
async def result(request: web.Request, viewer: Viewer) -> web.StreamResponse:
    """`…/result`: the result as a file, as ScrapeLLM sent it."""
    client = await owner_of(request, viewer, job_id(request))
    job = await store_of(request).job(client.name, job_id(request))
    if job.result is None:
        raise not_found()
    return file(job.result, f"{job.id}.json")


@page
async def body(request: web.Request, viewer: Viewer) -> web.StreamResponse:
    """`…/callback`: the body of the callback as a file, the exact bytes that are signed."""
    client = await owner_of(request, viewer, job_id(request))
    message = announced(await store_of(request).job(client.name, job_id(request)))
    if message is None:
        raise not_found()
    return file(message.body, "callback.json")


@action
async def redeliver(request: web.Request, viewer: Viewer, _form: Form) -> web.StreamResponse:
    """Send the callback again."""
    client = await owner_of(request, viewer, job_id(request))
    job = await store_of(request).redeliver(client.name, job_id(request))
    return see(linker(viewer)(f"/jobs/{job.id}", did="redelivered"))


@action
async def cancel(request: web.Request, viewer: Viewer, _form: Form) -> web.StreamResponse:
    """Cancel the job."""
    client = await owner_of(request, viewer, job_id(request))
    job = await store_of(request).cancel(client.name, job_id(request))
    return see(linker(viewer)(f"/jobs/{job.id}", did="cancelled"))


def file(content: bytes, name: str) -> web.Response:
    """JSON to be saved, and not shown: what strangers wrote is never a page here."""
    headers = {"Cache-Control": "private, no-store", "Content-Disposition": f'attachment; filename="{name}"'}
    return web.Response(body=content, content_type="application/json", headers=headers)
