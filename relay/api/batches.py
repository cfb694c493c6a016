"""`/v1/batches`: submit, read, repeat `batch.completed`."""

import asyncio
from collections.abc import Mapping, Sequence

from aiohttp import web

from relay.api import intake
from relay.api.answers import accepted, admission, json_response, store_of
from relay.api.body import read_json
from relay.api.context import GUARD, LIMITS, METRICS, RULES, SUBJECT
from relay.api.fields import Rules
from relay.api.parameters import batch_id, idempotency_key
from relay.api.schemas import BatchRequest
from relay.api.validation import validate
from relay.core.egress import CallbackUrl
from relay.core.model import Callback, JobSpec
from relay.core.settings import Client
from relay.core.wire import batch_document


async def submit(request: web.Request, client: Client) -> web.StreamResponse:
    """`POST /v1/batches`."""
    document = await read_json(request, request.app[LIMITS].batch_body_bytes)
    key = idempotency_key(request)
    # In threads, because even a small body (prompts × scrapers) can ask for thousands of jobs.
    batch = await asyncio.to_thread(_draft, document, request.app[RULES])
    leads = await intake.judge(request.app[GUARD], client, batch.jobs, batch.url)
    specs, callback, body_hash = await asyncio.to_thread(_finish, batch, leads)
    done = await store_of(request).accept_batch(await admission(request, client, key, body_hash), specs, callback)
    request[SUBJECT] = done.batch_id
    if not done.replayed:
        request.app[METRICS].jobs_accepted.labels(client.name, "batch").inc(done.count)
    return accepted(
        {"id": done.batch_id, "count": done.count, "job_ids": done.job_ids},
        f"/v1/batches/{done.batch_id}",
        replayed=done.replayed,
    )


async def read(request: web.Request, client: Client) -> web.StreamResponse:
    """`GET /v1/batches/{id}`."""
    return json_response(batch_document(await store_of(request).batch(client.name, batch_id(request))))


async def redeliver(request: web.Request, client: Client) -> web.StreamResponse:
    """`POST /v1/batches/{id}/redeliver`."""
    batch = await store_of(request).redeliver_batch(client.name, batch_id(request))
    return json_response(batch_document(batch), status=202)


def _draft(document: object, rules: Rules) -> intake.DraftBatch:
    intake.check_batch_size(document)
    return intake.draft_batch(validate(BatchRequest, document, rules))


def _finish(
    batch: intake.DraftBatch, leads: Mapping[str, CallbackUrl]
) -> tuple[Sequence[JobSpec], Callback | None, str]:
    specs = [intake.spec_of(draft, leads) for draft in batch.jobs]
    callback = None if batch.own is None else intake.callback_of(batch.own, leads)
    return specs, callback, intake.body_hash("batch", specs, callback)
