"""JSON answers, and what handlers need to know about the request before they do anything."""

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from relay.api.context import AUTHENTICATOR, CLIENT, PRESSURE, SETTINGS, STORE
from relay.api.problems import Problem
from relay.api.tracing import trace_of
from relay.core.settings import Client
from relay.core.store import Admission, Store
from relay.core.wire import encode

_FULL_RETRY_AFTER = "10"
ClientHandler = Callable[[web.Request, Client], Awaitable[web.StreamResponse]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def for_client(handler: ClientHandler) -> Handler:
    """Make `handler` one that only clients reach: the key is checked before anything else of the request."""

    async def authenticated(request: web.Request) -> web.StreamResponse:
        client = request.app[AUTHENTICATOR].client(request.headers)
        request[CLIENT] = client.name
        return await handler(request, client)

    return authenticated


def store_of(request: web.Request) -> Store:
    """The store. Raises StoreUnavailable while it was never reached."""
    return request.app[STORE].store


async def admission(request: web.Request, client: Client, idempotency_key: str | None, body_hash: str) -> Admission:
    """What the store checks besides the job itself.

    Raises Problem (503) while the store is nearly full: what was accepted before needs the rest of its memory.
    """
    if await request.app[PRESSURE].still_high(store_of(request)):
        raise Problem(
            "store_unavailable",
            "The store is nearly full. Try again later.",
            headers={"Retry-After": _FULL_RETRY_AFTER},
        )
    return Admission(
        client=client.name,
        max_unfinished_jobs=client.max_unfinished_jobs,
        jobs_per_minute=client.jobs_per_minute,
        max_unfinished_of_all=request.app[SETTINGS].max_unfinished_jobs,
        idempotency_key=idempotency_key,
        body_hash=body_hash,
        trace=trace_of(request),
    )


def json_response(document: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer with `document` as its body."""
    return web.Response(status=status, body=encode(document), content_type="application/json", headers=headers)


def accepted(document: object, location: str, *, replayed: bool) -> web.Response:
    """202: it is in the store. `replayed` says that it has been since an earlier request with the same key."""
    headers = {"Location": location}
    if replayed:
        headers["Idempotency-Replayed"] = "true"
    return json_response(document, status=202, headers=headers)
