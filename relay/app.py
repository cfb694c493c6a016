"""The HTTP service as one application: what it is made of, and in which order that comes and goes."""

import asyncio
from collections.abc import AsyncIterator, Mapping

from aiohttp import web

from relay.api.auth import Authenticator
from relay.api.census import CensusGauges
from relay.api.context import (
    AUTHENTICATOR,
    CENSUS,
    CLIENTS,
    EVENTS,
    GUARD,
    LIMITS,
    METRICS,
    OPENAPI,
    PRESSURE,
    RULES,
    RUNNING,
    SETTINGS,
    STORE,
    TRACING,
    Limits,
)
from relay.api.fields import Rules
from relay.api.hub import EventHub
from relay.api.link import StoreLink
from relay.api.metrics import HttpMetrics
from relay.api.middleware import add_headers, observe
from relay.api.openapi import build
from relay.api.pressure import Pressure
from relay.api.routes import add_routes
from relay.api.server import HANDLER_ARGS
from relay.api.tracing import trace
from relay.core.egress import CallbackGuard
from relay.core.ending import end
from relay.core.loop_lag import watch_loop
from relay.core.model import ClientName
from relay.core.settings import Client, Settings
from relay.core.tracing import start_tracing
from relay.core.wire import encode
from relay.dashboard.routes import add_dashboard


def build_app(
    settings: Settings, clients: Mapping[ClientName, Client] | None = None, *, limits: Limits | None = None
) -> web.Application:
    """The application; it connects to the store when it starts.

    `clients` are those of the settings unless given. Raises ConfigurationError; starting raises it too, where the
    store is one that would drop jobs. A store that cannot be reached is no reason not to start.
    """
    known = settings.clients() if clients is None else clients
    middlewares = [trace, observe] if settings.otel else [observe]
    app = web.Application(middlewares=middlewares, handler_args=dict(HANDLER_ARGS))
    app[SETTINGS] = settings
    app[LIMITS] = limits or Limits()
    app[CLIENTS] = known
    app[AUTHENTICATOR] = Authenticator(known.values())
    app[RULES] = Rules(scrapers=settings.scrapers, thin=settings.public_url is not None)
    app[METRICS] = HttpMetrics(known)
    app[CENSUS] = CensusGauges(settings, known, worker_seen_s=app[LIMITS].worker_seen_s)
    app[METRICS].registry.register(app[CENSUS])
    app[TRACING] = start_tracing(settings, "relay")
    app[PRESSURE] = Pressure(settings.store_full_share, app[METRICS])
    app[OPENAPI] = encode(build(settings))
    app[RUNNING] = set()
    app[EVENTS] = EventHub(app[LIMITS].events_buffered)
    app.on_response_prepare.append(add_headers)
    app.on_shutdown.append(_release_waiting)
    app.cleanup_ctx.extend([_tracing, _store, _callback_guard, _event_reader, _pressure, _loop_watch])
    add_routes(app)
    add_dashboard(app, settings, known)
    return app


async def _tracing(app: web.Application) -> AsyncIterator[None]:
    yield
    await app[TRACING].close()


async def _store(app: web.Application) -> AsyncIterator[None]:
    link = app[STORE] = StoreLink(app[SETTINGS])
    await link.open()
    yield
    running = app[RUNNING]
    if running:
        # What was being accepted when its client hung up.
        await asyncio.wait(running, timeout=app[LIMITS].shutdown_s)
    await link.close()


async def _callback_guard(app: web.Application) -> AsyncIterator[None]:
    guard = app[GUARD] = CallbackGuard(app[SETTINGS])
    yield
    await guard.close()


async def _event_reader(app: web.Application) -> AsyncIterator[None]:
    clients = app[CLIENTS]
    reader = asyncio.create_task(app[EVENTS].run(app[STORE], list(clients)), name="event-reader")
    yield
    await end([reader])


async def _pressure(app: web.Application) -> AsyncIterator[None]:
    watcher = asyncio.create_task(app[PRESSURE].run(app[STORE]), name="pressure")
    yield
    await end([watcher])


async def _loop_watch(app: web.Application) -> AsyncIterator[None]:
    watcher = asyncio.create_task(watch_loop(app[METRICS].loop_lag), name="loop-watch")
    yield
    await end([watcher])


async def _release_waiting(app: web.Application) -> None:
    """Let long polls and event streams end, which the server would otherwise wait for."""
    app[EVENTS].close()
