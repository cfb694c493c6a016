"""`python -m bench.peer_arq`: arq with one task for each job, which sleeps between its polls.

What is asked for is in the environment (bench/peers.py).
"""

import asyncio
import json
import logging
import os
from datetime import UTC, datetime
from typing import Any

import aiohttp
import uvloop
from arq.connections import RedisSettings
from arq.worker import Worker
from standardwebhooks import Webhook

log = logging.getLogger("peer")

_UPSTREAM, _SINK, _POLL_S = (os.environ.get(f"PEER_{name}", "0") for name in ("UPSTREAM_URL", "SINK_URL", "POLL_S"))
#: arq's own, unless tuned.
_MAX_JOBS, _POLL_DELAY_S = os.environ.get("PEER_MAX_JOBS", "10"), os.environ.get("PEER_POLL_DELAY_S", "0.5")


async def relay_one(ctx: dict[str, Any], prompt: str) -> None:
    """One job, from submit to callback."""
    session: aiohttp.ClientSession = ctx["session"]
    query = {"prompt": prompt, "country": "US", "timeout": "300", "bypass_cache": "false"}
    async with session.post(f"{_UPSTREAM}/scrapers/chatgpt/jobs", params=query, headers={"X-API-Key": "k"}) as answer:
        job_id = (await answer.json())["job_id"]
    state = {"status": "pending"}
    while state["status"] == "pending":
        await asyncio.sleep(float(_POLL_S))
        async with session.get(f"{_UPSTREAM}/jobs/{job_id}") as answer:
            state = await answer.json()
    now, webhook_id = datetime.now(UTC), f"msg_{job_id}"
    body = json.dumps({"type": "job.completed", "timestamp": now.isoformat(), "data": state})
    headers = {
        "Content-Type": "application/json",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": ctx["webhook"].sign(webhook_id, now, body),
    }
    async with session.post(_SINK, data=body, headers=headers) as answer:
        await answer.read()
        log.info("callback id=%s status=%d", webhook_id, answer.status)


async def _start(ctx: dict[str, Any]) -> None:
    ctx["session"] = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=300), trust_env=False)
    ctx["webhook"] = Webhook(os.environ["PEER_SECRET"])


async def _end(ctx: dict[str, Any]) -> None:
    await ctx["session"].close()


async def main() -> None:
    """Work until ended."""
    worker = Worker(
        functions=[relay_one],
        redis_settings=RedisSettings.from_dsn(os.environ["PEER_STORE_URL"]),
        on_startup=_start,
        on_shutdown=_end,
        max_jobs=int(_MAX_JOBS),
        poll_delay=float(_POLL_DELAY_S),
    )
    await worker.async_run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    uvloop.run(main())
