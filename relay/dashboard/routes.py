"""Which page is where."""

from collections.abc import Mapping, Sequence

from aiohttp import web

from relay.api.answers import Handler
from relay.api.routes import add_routes
from relay.core.model import ClientName
from relay.core.settings import Client, Settings
from relay.dashboard import (
    account,
    assets,
    batches,
    compose,
    destinations,
    entrance,
    inbox,
    job,
    jobs,
    live,
    login,
    overview,
)
from relay.dashboard.render import see
from relay.dashboard.sessions import Sessions
from relay.dashboard.throttle import Throttle


async def root(_request: web.Request) -> web.StreamResponse:
    """`GET /`: leads to the dashboard."""
    return web.Response(status=302, headers={"Location": "/dashboard"})


async def slash(_request: web.Request) -> web.StreamResponse:
    """`GET /dashboard/`: what people type."""
    return see("/dashboard")


ROUTES: Sequence[tuple[str, str, Handler]] = (
    ("GET", "/", root),
    ("GET", "/dashboard/", slash),
    ("GET", "/dashboard/login", login.form),
    ("POST", "/dashboard/login", login.log_in),
    ("POST", "/dashboard/logout", login.log_out),
    ("GET", "/dashboard/static/{version}/{file}", entrance.open_to_all(assets.asset)),
    ("GET", "/dashboard/events", live.stream),
    ("GET", "/dashboard", overview.show_overview),
    ("GET", "/dashboard/jobs", jobs.find),
    ("GET", "/dashboard/jobs/{id}", job.read),
    ("GET", "/dashboard/jobs/{id}/result", job.result),
    ("GET", "/dashboard/jobs/{id}/callback", job.body),
    ("POST", "/dashboard/jobs/{id}/redeliver", job.redeliver),
    ("POST", "/dashboard/jobs/{id}/cancel", job.cancel),
    ("GET", "/dashboard/batches", batches.find),
    ("GET", "/dashboard/batches/{id}", batches.read),
    ("GET", "/dashboard/batches/{id}/callback", batches.body),
    ("POST", "/dashboard/batches/{id}/redeliver", batches.redeliver),
    ("GET", "/dashboard/destinations", destinations.find),
    ("POST", "/dashboard/destinations/{destination}/resume", destinations.resume),
    ("GET", "/dashboard/account", account.read),
    ("GET", "/dashboard/compose", compose.form),
    ("POST", "/dashboard/compose", compose.submit),
    ("GET", "/dashboard/inbox", inbox.read),
    ("GET", "/dashboard/{nowhere:.*}", entrance.nowhere),
)


def add_dashboard(app: web.Application, settings: Settings, clients: Mapping[ClientName, Client]) -> None:
    """Add the dashboard to an application that has the API."""
    app[entrance.SESSIONS] = Sessions(clients, settings.operator_key_sha256, settings.dev_login_sha256)
    app[entrance.THROTTLE] = Throttle()
    add_routes(app, ROUTES)
