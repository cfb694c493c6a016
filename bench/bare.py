"""`python -m bench.bare PORT STORE_URL`: the least that a service could do with a job: read it, store it, say so.

An aiohttp handler with one round trip to the store, and nothing else: no key, no validation, no quota, no record that
can be found again, no due entry, no log line, no metrics.
"""

import asyncio
import sys
import time

import redis.asyncio as redis
import uvloop
from aiohttp import web

_REDIS = web.AppKey("redis", redis.Redis)


async def _take(request: web.Request) -> web.Response:
    job = await request.json()
    number = time.monotonic_ns()
    await request.app[_REDIS].set(f"bare:{number}", await request.read())
    return web.json_response({"id": number, "prompt": job["prompt"], "status": "queued"}, status=202)


async def _ready(_request: web.Request) -> web.Response:
    return web.Response()


async def main(port: int, store_url: str) -> None:
    """Serve until ended."""
    app = web.Application()
    app[_REDIS] = redis.Redis.from_url(store_url)
    app.add_routes([web.post("/v1/jobs", _take), web.get("/ready", _ready)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2]))
