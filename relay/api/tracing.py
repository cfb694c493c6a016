"""Which trace a request belongs to, and the span of answering it."""

import structlog
from aiohttp import web

from relay.api.context import SPAN, TRACING
from relay.api.middleware import Handler
from relay.core.trace_context import HEADERS, TraceContext

#: What clients ask; probes and pages are not worth a trace.
_TRACED = "/v1/"


@web.middleware
async def trace(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Note a client's request, and have the log lines name its trace. In the way only where traces are on."""
    resource = request.match_info.route.resource
    if resource is None or not resource.canonical.startswith(_TRACED):
        return await handler(request)
    with request.app[TRACING].serving(request.method, resource.canonical, _given(request)) as span:
        if span.trace is None:
            return await handler(request)
        request[SPAN] = span
        with structlog.contextvars.bound_contextvars(trace_id=span.trace.trace_id):
            response = await handler(request)
        span.answered(response.status)
        return response


def trace_of(request: web.Request) -> TraceContext | None:
    """What a job that this request makes belongs to: as the client gave it, or, where traces are on, this request."""
    span = request.get(SPAN)
    return span.trace if span is not None else _given(request)


def _given(request: web.Request) -> TraceContext | None:
    parents, states = (request.headers.getall(name, ()) for name in HEADERS)
    return TraceContext.read(tuple(parents), tuple(states))
