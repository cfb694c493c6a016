"""A receiver of callbacks in aiohttp: verifies each, drops repeats, answers at once and works afterwards.

pip install -r requirements.txt
SIGNING_SECRET=whsec_… PORT=9001 python receiver.py
"""

import asyncio
import json
import os
import sys
import time
from typing import Any

from aiohttp import ClientSession, ClientTimeout, web
from standardwebhooks import Webhook, WebhookVerificationError

SECRET = os.environ.get("SIGNING_SECRET") or sys.exit("SIGNING_SECRET is not set: give it the relay's, whsec_…")
webhook = Webhook(SECRET)
#: In production, not here but in your database: the id and the body, under a unique key on the id.
seen: dict[str, None] = {}
#: What is under way; asyncio itself keeps no hold of tasks.
tasks: set[asyncio.Task[None]] = set()


async def hook(request: web.Request) -> web.Response:
    """Take one callback."""
    try:
        event = webhook.verify(await request.read(), dict(request.headers))
    except (WebhookVerificationError, ValueError):  # ValueError: what is not even shaped like a callback
        return web.Response(status=401, text="the signature is not good")
    if time.time() > event["data"].get("metadata", {}).get("useful_until", float("inf")):
        return web.Response(status=410)  # too late: it need not come again
    if request.headers["webhook-id"] not in seen:
        seen[request.headers["webhook-id"]] = None
        if len(seen) > 10_000:
            del seen[next(iter(seen))]
        tasks.add(task := asyncio.create_task(work(event)))
        task.add_done_callback(tasks.discard)
    return web.Response(status=204)


async def work(event: dict[str, Any]) -> None:
    """Yours. Runs after the answer."""
    data = event["data"]
    match event["type"]:
        case "job.completed":
            # a thin callback has a link in place of the result
            outcome = await fetch(data["result_url"]) if "result_url" in data else data["result"]
        case "batch.completed":
            outcome = data["status"]  # how many jobs ended how
        case _:
            outcome = data["error"]
    print(event["type"], data["id"], json.dumps(outcome), flush=True)


async def fetch(url: str) -> Any:
    """The result that a thin callback points to."""
    async with ClientSession(timeout=ClientTimeout(30), raise_for_status=True) as session, session.get(url) as response:
        return await response.json()


app = web.Application(client_max_size=32 * 1024**2)
app.router.add_post("/hook", hook)

if __name__ == "__main__":
    web.run_app(app, host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ.get("PORT", "9001")))
