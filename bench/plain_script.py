"""What the relay replaces: a plain asyncio script that submits, polls, signs, posts and logs, and keeps nothing.

Usage: python -m bench.plain_script UPSTREAM SINK SECRET JOBS LATENCY_S POLL_S
Prints its CPU seconds and polls as JSON.
"""

import asyncio
import json
import logging
import sys
import time
from datetime import UTC, datetime

import aiohttp
import uvloop
from standardwebhooks import Webhook

log = logging.getLogger("plain")


async def relay_one(
    session: aiohttp.ClientSession, upstream: str, sink: str, webhook: Webhook, job: tuple[str, float]
) -> int:
    """One job from submit to callback; returns the number of polls."""
    prompt, poll_s = job
    query = {"prompt": prompt, "country": "US", "timeout": "300", "bypass_cache": "false"}
    async with session.post(f"{upstream}/scrapers/chatgpt/jobs", params=query, headers={"X-API-Key": "k"}) as answer:
        job_id = (await answer.json())["job_id"]
    polls = 0
    while True:
        await asyncio.sleep(poll_s)
        polls += 1
        async with session.get(f"{upstream}/jobs/{job_id}") as answer:
            state = await answer.json()
        if state["status"] != "pending":
            break
    now = datetime.now(UTC)
    body = json.dumps({"type": "job.completed", "timestamp": now.isoformat(), "data": state})
    webhook_id = f"msg_{job_id}"
    headers = {
        "Content-Type": "application/json",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": webhook.sign(webhook_id, now, body),
    }
    async with session.post(sink, data=body, headers=headers) as answer:
        await answer.read()
        log.info("callback id=%s polls=%d status=%d", webhook_id, polls, answer.status)
    return polls


async def main(upstream: str, sink: str, secret: str, *, jobs: int, latency_s: float, poll_s: float) -> None:
    """Relay `jobs` jobs at once."""
    webhook = Webhook(secret)
    connector = aiohttp.TCPConnector(limit=300)
    async with aiohttp.ClientSession(connector=connector, trust_env=False) as session:
        # Not what starting Python and importing cost: the relay's processes run already.
        began_s, name = time.process_time(), time.time_ns()
        work = ((f"[latency={latency_s}] plain {name} {n}", poll_s) for n in range(jobs))
        polls = await asyncio.gather(*(relay_one(session, upstream, sink, webhook, job) for job in work))
    sys.stdout.write(json.dumps({"cpu_s": time.process_time() - began_s, "polls": sum(polls)}) + "\n")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    url, hook, key, *numbers = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(url, hook, key, jobs=int(numbers[0]), latency_s=float(numbers[1]), poll_s=float(numbers[2])))
