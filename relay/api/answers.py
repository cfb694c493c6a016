"""JSON answers, and what handlers need to know about the request before they do anything."""

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from relay.api.context import AUTHENTICATOR, CLIENT, STORE
from relay.core.settings import Client
from relay.core.store import Admission, Store
from relay.core.wire import encode

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


def admission(client: Client, idempotency_key: str | None, body_hash: str) -> Admission:
    """What the store checks besides the job itself."""
    return Admission(
        client=client.name,
        max_unfinished_jobs=client.max_unfinished_jobs,
        jobs_per_minute=client.jobs_per_minute,
        idempotency_key=idempotency_key,
        body_hash=body_hash,
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
