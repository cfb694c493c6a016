"""What became of callbacks: the log of a job's attempts, and sending again."""

from aiohttp import web

from relay.api.answers import json_response, store_of
from relay.api.body import read_optional_json
from relay.api.context import LIMITS, RULES
from relay.api.parameters import job_id
from relay.api.schemas import RedeliverRequest, epoch_ms
from relay.api.validation import validate
from relay.core.model import DeliveryStatus
from relay.core.settings import Client
from relay.core.wire import attempt_document, job_document


async def attempts(request: web.Request, client: Client) -> web.StreamResponse:
    """`GET /v1/jobs/{id}/attempts`."""
    found = await store_of(request).attempts(client.name, job_id(request))
    return json_response({"data": [attempt_document(attempt) for attempt in found]})


async def redeliver(request: web.Request, client: Client) -> web.StreamResponse:
    """`POST /v1/jobs/{id}/redeliver`."""
    job = await store_of(request).redeliver(client.name, job_id(request))
    return json_response(job_document(job, with_delivery=True, with_result=True), status=202)


async def redeliver_many(request: web.Request, client: Client) -> web.StreamResponse:
    """`POST /v1/jobs/redeliver`."""
    document = await read_optional_json(request, request.app[LIMITS].body_bytes)
    wanted = validate(RedeliverRequest, document, request.app[RULES])
    host = wanted.callback_host
    count = await store_of(request).redeliver_many(
        client.name,
        delivery=DeliveryStatus(wanted.delivery or DeliveryStatus.EXHAUSTED),
        since_ms=None if wanted.since is None else epoch_ms(wanted.since),
        until_ms=None if wanted.until is None else epoch_ms(wanted.until),
        # Hosts are kept in lower case, IPv6 addresses without their brackets.
        callback_host=None if host is None else host.lower().removeprefix("[").removesuffix("]"),
    )
    return json_response({"count": count}, status=202)
