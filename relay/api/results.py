"""`GET /v1/results/{token}`: the result that a thin callback links to. The token is the permission."""

from aiohttp import web

from relay.api.answers import store_of
from relay.api.context import CLIENTS
from relay.api.problems import Problem, not_found
from relay.core import signing
from relay.core.errors import NotFound
from relay.core.model import ClientName, JobId

_HEADERS = {"Cache-Control": "private, no-store", "Referrer-Policy": "no-referrer"}


async def read(request: web.Request) -> web.StreamResponse:
    """200 with the result's own bytes; 404 for a token that is not ours, 410 once the result is deleted."""
    owner = _owner(request)
    if owner is None:
        raise not_found()
    client, job_id = owner
    try:
        # Asked for as the client whose secret made the token: a client could make tokens for any id with its own.
        job = await store_of(request).job(client, job_id)
    except NotFound:
        job = None
    if job is None or job.result is None:
        raise Problem("result_expired", "The result is kept for a limited time, which is over.")
    return web.Response(body=job.result, content_type="application/json", headers=_HEADERS)


def _owner(request: web.Request) -> tuple[ClientName, JobId] | None:
    token = request.match_info["token"]
    found = None
    # No early exit: the time taken tells nothing about whose token it is.
    for name, client in request.app[CLIENTS].items():
        job_id = signing.job_of_token(client.signing_secrets, token)
        if job_id is not None:
            found = (name, job_id)
    return found
