"""`/v1/destinations`: how the receivers of a client fare, and sending again to one that was given a rest."""

from aiohttp import web

from relay.api.answers import json_response, store_of
from relay.api.parameters import Query, destination_name
from relay.core.model import DestinationState
from relay.core.settings import Client
from relay.core.wire import destination_document


async def find(request: web.Request, client: Client) -> web.StreamResponse:
    """`GET /v1/destinations`."""
    query = Query(request.query, {"state", "limit"})
    states = query.each("state", DestinationState)
    limit = query.limit()
    query.check()
    found = await store_of(request).destinations(client.name, states, limit)
    return json_response({"data": [destination_document(destination) for destination in found]})


async def read(request: web.Request, client: Client) -> web.StreamResponse:
    """`GET /v1/destinations/{destination}`."""
    return json_response(
        destination_document(await store_of(request).destination(client.name, destination_name(request)))
    )


async def resume(request: web.Request, client: Client) -> web.StreamResponse:
    """`POST /v1/destinations/{destination}/resume`."""
    resumed = await store_of(request).resume_destination(client.name, destination_name(request))
    return json_response(destination_document(resumed))
