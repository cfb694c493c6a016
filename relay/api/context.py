"""What the handlers share: the typed keys of the application and of a request, and the service's own limits."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from relay.api.auth import Authenticator
from relay.api.census import CensusGauges
from relay.api.fields import Rules
from relay.api.hub import EventHub
from relay.api.link import StoreLink
from relay.api.metrics import HttpMetrics
from relay.api.pressure import Pressure
from relay.core.egress import CallbackGuard
from relay.core.model import ClientName
from relay.core.settings import Client, Settings
from relay.core.tracing import Span, Tracing


@dataclass(frozen=True, slots=True)
class Limits:
    """Numbers of the wire contract (docs/api.md) and of this service; tests make them small."""

    body_bytes: int = 1024 * 1024
    batch_body_bytes: int = 64 * 1024 * 1024
    #: A body that is not complete after this is 408.
    body_timeout_s: float = 30.0
    #: A long poll looks into the store this often, in case an event was missed.
    reread_s: float = 3.0
    ping_s: float = 15.0
    #: A reader of events that is this many behind is disconnected; it resumes by `Last-Event-ID`.
    events_buffered: int = 1_000
    #: A reader of events that takes nothing for this long is disconnected.
    events_write_s: float = 30.0
    #: `readyz` wants a worker that was seen within this.
    worker_seen_s: float = 30.0
    #: How long a long poll or any other request may take to end after the service was told to stop.
    shutdown_s: float = 20.0


SETTINGS: web.AppKey[Settings] = web.AppKey("settings", Settings)
RULES: web.AppKey[Rules] = web.AppKey("rules", Rules)
CLIENTS: web.AppKey[Mapping[ClientName, Client]] = web.AppKey("clients")
LIMITS: web.AppKey[Limits] = web.AppKey("limits", Limits)
AUTHENTICATOR: web.AppKey[Authenticator] = web.AppKey("authenticator", Authenticator)
STORE: web.AppKey[StoreLink] = web.AppKey("store", StoreLink)
EVENTS: web.AppKey[EventHub] = web.AppKey("events", EventHub)
GUARD: web.AppKey[CallbackGuard] = web.AppKey("guard", CallbackGuard)
METRICS: web.AppKey[HttpMetrics] = web.AppKey("metrics", HttpMetrics)
CENSUS: web.AppKey[CensusGauges] = web.AppKey("census", CensusGauges)
TRACING: web.AppKey[Tracing] = web.AppKey("tracing", Tracing)
PRESSURE: web.AppKey[Pressure] = web.AppKey("pressure", Pressure)
#: The OpenAPI document, as JSON.
OPENAPI: web.AppKey[bytes] = web.AppKey("openapi", bytes)
#: The client of an authenticated request, for the access log.
CLIENT: web.RequestKey[ClientName] = web.RequestKey("client")
#: The span of a request, where traces are on.
SPAN: web.RequestKey[Span] = web.RequestKey("span", Span)
#: The job or batch that a request made or names, for the access log.
SUBJECT: web.RequestKey[str] = web.RequestKey("subject", str)
#: Whether a request was kept waiting on purpose, so that its duration means nothing.
HELD: web.RequestKey[bool] = web.RequestKey("held", bool)
#: Requests that change something and are under way; they are finished before the store is closed.
RUNNING: web.AppKey[set[asyncio.Future[web.StreamResponse]]] = web.AppKey("running")
