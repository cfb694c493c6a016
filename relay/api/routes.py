"""Which handler answers what."""

from collections.abc import Iterable

from aiohttp import web

from relay.api import batches, deliveries, destinations, docs, events, health, jobs, results
from relay.api.answers import Handler, for_client
from relay.api.middleware import expect

#: `redeliver` is a call of its own, not somebody's job.
_JOB = r"/v1/jobs/{id:(?!redeliver$)[^/]+}"

ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("POST", "/v1/jobs", for_client(jobs.submit)),
    ("GET", "/v1/jobs", for_client(jobs.find)),
    ("POST", "/v1/jobs/redeliver", for_client(deliveries.redeliver_many)),
    ("GET", _JOB, for_client(jobs.read)),
    ("POST", "/v1/jobs/{id}/cancel", for_client(jobs.cancel)),
    ("GET", "/v1/jobs/{id}/attempts", for_client(deliveries.attempts)),
    ("POST", "/v1/jobs/{id}/redeliver", for_client(deliveries.redeliver)),
    ("POST", "/v1/batches", for_client(batches.submit)),
    ("GET", "/v1/batches/{id}", for_client(batches.read)),
    ("POST", "/v1/batches/{id}/redeliver", for_client(batches.redeliver)),
    ("GET", "/v1/destinations", for_client(destinations.find)),
    ("GET", "/v1/destinations/{destination}", for_client(destinations.read)),
    ("POST", "/v1/destinations/{destination}/resume", for_client(destinations.resume)),
    ("GET", "/v1/events", for_client(events.stream)),
    ("GET", "/v1/results/{token}", results.read),
    ("GET", "/healthz", health.alive),
    ("GET", "/readyz", health.ready),
    ("GET", "/metrics", health.metrics),
    ("GET", "/openapi.json", docs.document),
    ("GET", "/docs", docs.page),
    ("GET", "/docs/{file}", docs.asset),
)


def add_routes(app: web.Application, routes: Iterable[tuple[str, str, Handler]] = ROUTES) -> None:
    """Add `routes`; what can be read by GET can be asked for by HEAD."""
    for method, path, handler in routes:
        resource = app.router.add_resource(path)
        resource.add_route(method, handler, expect_handler=expect)
        if method == "GET":
            resource.add_route("HEAD", handler, expect_handler=expect)
