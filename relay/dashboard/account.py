"""`/dashboard/account`: what clients may do, and what they have used."""

from aiohttp import web

from relay.api.answers import store_of
from relay.api.context import SETTINGS
from relay.api.parameters import Query
from relay.core.model import ClientName
from relay.core.settings import Client
from relay.dashboard.entrance import page
from relay.dashboard.listing import of_each
from relay.dashboard.render import given, show
from relay.dashboard.viewer import Viewer


@page
async def read(request: web.Request, viewer: Viewer) -> web.StreamResponse:
    """Limits and counters of every client that is shown."""
    Query(given(request), {"client"}).check()
    store = store_of(request)

    async def ask(name: ClientName) -> tuple[Client, int, dict[str, float]]:
        counts = await store.counts(name)
        unfinished = sum(n for (status, _), n in counts.items() if not status.is_outcome)
        return viewer.visible[name], unfinished, await store.account(name)

    return show(
        request,
        viewer,
        "account.html",
        clients=await of_each(viewer.scope, ask),
        settings=request.app[SETTINGS],
    )
