"""`/dashboard/destinations`: how the receivers fare."""

from aiohttp import web

from relay.api.answers import store_of
from relay.api.parameters import Query, destination_name
from relay.core.model import ClientName, Destination, DestinationState
from relay.dashboard.entrance import Form, action, page
from relay.dashboard.listing import of_each
from relay.dashboard.render import given, linker, said_of, see, show
from relay.dashboard.viewer import Viewer

_LIMIT = 100
_DID = {"resumed": "What waited is sent now."}


@page
async def find(request: web.Request, viewer: Viewer) -> web.StreamResponse:
    """Where callbacks went in the last 30 days, the last one first."""
    query = Query(given(request), {"client", "state", "did"})
    states = query.each("state", DestinationState)
    said = said_of(query, _DID)
    query.check()
    store = store_of(request)

    async def ask(client: ClientName) -> list[tuple[ClientName, Destination]]:
        return [(client, destination) for destination in await store.destinations(client, states, _LIMIT)]

    found = [pair for some in await of_each(viewer.scope, ask) for pair in some]
    return show(
        request,
        viewer,
        "destinations.html",
        destinations=found,
        states=list(DestinationState),
        wanted=sorted(states),
        is_cut=len(found) >= _LIMIT,
        limit=_LIMIT,
        said=said,
        several=len(viewer.scope) > 1,
    )


@action
async def resume(request: web.Request, viewer: Viewer, form: Form) -> web.StreamResponse:
    """Send what waits, as if the destination had never failed."""
    client = viewer.client(viewer.chosen or ClientName(form.get("owner", "")))
    await store_of(request).resume_destination(client.name, destination_name(request))
    return see(linker(viewer)("/destinations", did="resumed"))
