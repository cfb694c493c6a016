"""`GET /dashboard/events`: what tells open pages that something has changed."""

import time

from aiohttp import web

from relay.api import events
from relay.dashboard.entrance import page
from relay.dashboard.viewer import Viewer


@page
async def stream(request: web.Request, viewer: Viewer) -> web.StreamResponse:
    """The same frames as those of `GET /v1/events`, of every client that is shown, until the session expires."""
    return await events.serve(request, viewer.scope, lasts_s=viewer.session.expires_s - time.time())
