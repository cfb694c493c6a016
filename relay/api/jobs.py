"""`/v1/jobs`: submit, read (with long polling), list, cancel."""

import asyncio
import contextlib

from aiohttp import web

from relay.api import cursors, intake
from relay.api.answers import accepted, admission, json_response, store_of
from relay.api.body import read_json
from relay.api.context import EVENTS, GUARD, HELD, LIMITS, METRICS, RULES, SUBJECT
from relay.api.parameters import Query, idempotency_key, job_id
from relay.api.schemas import JobRequest
from relay.api.validation import validate
from relay.core.model import ClientName, DeliveryStatus, Job, JobId, JobStatus
from relay.core.settings import Client
from relay.core.store import Accepted
from relay.core.wire import job_document


async def submit(request: web.Request, client: Client) -> web.StreamResponse:
    """`POST /v1/jobs`."""
    document = await read_json(request, request.app[LIMITS].body_bytes)
    done = await accept(request, client, document, idempotency_key(request))
    return accepted(_document(done.job), f"/v1/jobs/{done.job.id}", replayed=done.replayed)


async def accept(request: web.Request, client: Client, document: object, key: str | None) -> Accepted:
    """Check `document`, and accept what it asks for. Raises Problem, or what the store refuses it with."""
    draft = intake.draft_job(validate(JobRequest, document, request.app[RULES]))
    leads = await intake.judge(request.app[GUARD], client, [draft])
    spec = intake.spec_of(draft, leads)
    # Without a key nothing is ever compared with it.
    body_hash = intake.body_hash("job", [spec]) if key is not None else ""
    done = await store_of(request).accept(await admission(request, client, key, body_hash), spec)
    request[SUBJECT] = done.job.id
    if not done.replayed:
        request.app[METRICS].jobs_accepted.labels(client.name, "job").inc()
    return done


async def read(request: web.Request, client: Client) -> web.StreamResponse:
    """`GET /v1/jobs/{id}`, with `?wait=` held until the outcome."""
    query = Query(request.query, {"wait"})
    wait_s = query.wait_s()
    query.check()
    wanted = job_id(request)
    job = await store_of(request).job(client.name, wanted)
    if wait_s and not job.status.is_outcome:
        request[HELD] = True
        with request.app[METRICS].long_polls.track_inprogress():
            job = await _outcome_within(request, client.name, wanted, wait_s)
    return json_response(_document(job))


async def _outcome_within(request: web.Request, client: ClientName, wanted: JobId, wait_s: float) -> Job:
    """The job as soon as it has an outcome, or as it is after `wait_s` seconds or when the service stops."""
    hub, reread_s = request.app[EVENTS], request.app[LIMITS].reread_s
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + wait_s
    with hub.watch(wanted) as changed:
        while True:
            # Cleared before the store is read: what changes meanwhile sets it again.
            changed.clear()
            job = await store_of(request).job(client, wanted)
            left_s = ends_at - loop.time()
            # A client that hangs up cancels this, but for the rare cancellation that gets lost on its way.
            if job.status.is_outcome or left_s <= 0 or hub.closing or request.transport is None:
                return job
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, reread_s)):
                    await changed.wait()


async def find(request: web.Request, client: Client) -> web.StreamResponse:
    """`GET /v1/jobs`."""
    query = Query(request.query, {"status", "delivery", "batch_id", "limit", "cursor"})
    statuses = query.each("status", JobStatus)
    deliveries = query.each("delivery", DeliveryStatus)
    batch = query.batch_id()
    limit = query.limit()
    cursor = query.single("cursor")
    before = None
    if cursor is not None and not query.faults:
        before = cursors.unseal(client, statuses, deliveries, batch, cursor)
        if before is None:
            query.fault("cursor", "is not a cursor of this client and these filters")
    query.check()
    page = await store_of(request).jobs(
        client.name, statuses=statuses, deliveries=deliveries, batch_id=batch, limit=limit, before=before
    )
    following = None
    if page.next_before is not None:
        following = cursors.seal(client, statuses, deliveries, batch, page.next_before)
    data = [job_document(job, with_delivery=True, with_result=False) for job in page.jobs]
    return json_response({"data": data, "next_cursor": following})


async def cancel(request: web.Request, client: Client) -> web.StreamResponse:
    """`POST /v1/jobs/{id}/cancel`."""
    return json_response(_document(await store_of(request).cancel(client.name, job_id(request))))


def _document(job: Job) -> dict[str, object]:
    return job_document(job, with_delivery=True, with_result=True)
