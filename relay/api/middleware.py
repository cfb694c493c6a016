"""Around every request: errors become problem details, one log line and one count each, and common headers.

Alone knows what an unexpected exception turns into.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from relay.api import framing
from relay.api.context import CLIENT, HELD, METRICS, RUNNING, SUBJECT
from relay.api.problems import Problem, not_found, of_core
from relay.core.errors import RelayError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_UNMATCHED = "unmatched"
#: What proxies log for a client that hung up before its answer.
_HUNG_UP = 499
_READING = frozenset({"GET", "HEAD"})
log = structlog.get_logger(component="http")

#: What every answer has.
HEADERS = {
    "Server": "scrapellm-relay",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}
#: What an answer has that says nothing else.
DEFAULT_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


@web.middleware
async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer, log and count. The line has the route's template and which job or batch: no tokens and no query."""
    started_s = time.monotonic()
    status = _HUNG_UP
    try:
        response = await _answer_fully(request, handler)
        status = response.status
        return response
    finally:
        duration_s = time.monotonic() - started_s
        resource = request.match_info.route.resource
        route = _UNMATCHED if resource is None else resource.canonical
        held = request.get(HELD, False)
        request.app[METRICS].answered(request.method, route, status, duration_s, held=held)
        log.info(
            "request",
            method=request.method[:16],
            route=route,
            status=status,
            duration_ms=round(duration_s * 1000, 1),
            client=request.get(CLIENT),
            id=request.get(SUBJECT),
        )


async def _answer_fully(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.method in _READING:
        return await _answer(request, handler)
    # A client that hangs up cancels its request; what changes the store is finished all the same, so that a
    # connection to the store is never given up in the middle of a command.
    running = request.app[RUNNING]
    task = asyncio.ensure_future(_answer(request, handler))
    running.add(task)
    task.add_done_callback(running.discard)
    return await asyncio.shield(task)


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        framing.check(request)
        return await handler(request)
    except web.HTTPException as error:
        return _of_aiohttp(request, error)
    except Exception as error:  # noqa: BLE001 - logged there
        return problem_of(request, error).response()


def problem_of(request: web.Request, error: Exception) -> Problem:
    """What an exception is to the client. One that nobody expects is logged, and says nothing of its reason."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, RelayError):
        return of_core(error)
    request.app[METRICS].faults.inc()
    client, subject = request.get(CLIENT), request.get(SUBJECT)
    log.error("request_failed", exc_info=error, method=request.method[:16], client=client, id=subject)
    return Problem("internal_error", "The request failed for a reason that is ours; it has been logged.")


def _of_aiohttp(request: web.Request, error: web.HTTPException) -> web.Response:
    if isinstance(error, web.HTTPMethodNotAllowed):
        allow = ", ".join(sorted(error.allowed_methods | {"OPTIONS"}))
        if request.method == "OPTIONS":
            return web.Response(status=204, headers={"Allow": allow})
        return Problem(
            "method_not_allowed", f"Use one of: {', '.join(sorted(error.allowed_methods))}.", headers={"Allow": allow}
        ).response()
    if isinstance(error, web.HTTPNotFound):
        return not_found().response()
    raise error


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Put the headers of every answer on `response`; a signal of the application."""
    if framing.is_last(request):
        response.force_close()
        response.headers["Connection"] = "close"
    response.headers.update(HEADERS)
    for name, value in DEFAULT_HEADERS.items():
        response.headers.setdefault(name, value)


async def expect(_request: web.Request) -> web.StreamResponse | None:
    """Let the handler see the request before its body: what reads the body asks for it (`relay.api.body`).

    Expectations other than `100-continue` may be ignored (RFC 9110, section 10.1.1).
    """
    return None
