"""What operators and their machines ask: alive, ready, metrics."""

from aiohttp import web

from relay.api.answers import json_response, store_of
from relay.api.context import CENSUS, LIMITS, METRICS, STORE
from relay.api.problems import Problem
from relay.core.observability import METRICS_CONTENT_TYPE, render


async def alive(_request: web.Request) -> web.StreamResponse:
    """`GET /healthz`: the process answers."""
    return json_response({"status": "ok"})


async def ready(request: web.Request) -> web.StreamResponse:
    """`GET /readyz`: the store takes writes, and a worker was seen lately."""
    store = store_of(request)
    await store.check_writable()
    within_s = request.app[LIMITS].worker_seen_s
    if not await store.worker_seen_within(within_s):
        raise Problem(
            "not_ready", f"No worker was seen within {within_s:g} s: jobs wait.", headers={"Retry-After": "5"}
        )
    return json_response({"status": "ready"})


async def metrics(request: web.Request) -> web.StreamResponse:
    """`GET /metrics`, in the text format of Prometheus."""
    await request.app[CENSUS].take(request.app[STORE])
    return web.Response(body=render(request.app[METRICS].registry), headers={"Content-Type": METRICS_CONTENT_TYPE})
