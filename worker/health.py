"""The worker's small HTTP server: health, readiness and metrics, for probes and Prometheus."""

from collections.abc import Callable

from aiohttp import web

from relay.core.observability import METRICS_CONTENT_TYPE, render
from worker.metrics import WorkerMetrics


async def serve(host: str, port: int, metrics: WorkerMetrics, is_ready: Callable[[], bool]) -> web.AppRunner:
    """Serve `/healthz`, `/readyz` (503 unless `is_ready()`) and `/metrics`. Raises OSError where it cannot listen."""

    async def healthz(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(_request: web.Request) -> web.Response:
        if is_ready():
            return web.json_response({"status": "ready"})
        return web.json_response({"status": "unavailable", "detail": "the store is not reached"}, status=503)

    async def scrape(_request: web.Request) -> web.Response:
        return web.Response(body=render(metrics.registry), headers={"Content-Type": METRICS_CONTENT_TYPE})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", scrape)])
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except BaseException:
        await runner.cleanup()
        raise
    return runner
