"""What the relay replaces: a plain asyncio script that submits, polls, signs and posts, and keeps nothing.

Usage: python -m bench.plain_script UPSTREAM INBOX SECRET JOBS LATENCY_S POLL_S
Prints its CPU seconds and polls as JSON.
"""

import asyncio
import json
import sys
import time
from datetime import UTC, datetime

import aiohttp
import uvloop
from standardwebhooks import Webhook


async def relay_one(
    session: aiohttp.ClientSession, upstream: str, inbox: str, webhook: Webhook, job: tuple[int, str, float]
) -> int:
    """One job from submit to callback; returns the number of polls."""
    number, prompt, poll_s = job
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
    headers = {
        "Content-Type": "application/json",
        "webhook-id": f"msg_plain_{number}",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": webhook.sign(f"msg_plain_{number}", now, body),
    }
    async with session.post(inbox, data=body, headers=headers) as answer:
        await answer.read()
    return polls


async def main(upstream: str, inbox: str, secret: str, *, jobs: int, latency_s: float, poll_s: float) -> None:
    """Relay `jobs` jobs at once."""
    webhook = Webhook(secret)
    connector = aiohttp.TCPConnector(limit=300)
    async with aiohttp.ClientSession(connector=connector, trust_env=False) as session:
        # Not what starting Python and importing cost: the relay's processes run already.
        began_s = time.process_time()
        work = ((n, f"[latency={latency_s}] plain {n}", poll_s) for n in range(jobs))
        polls = await asyncio.gather(*(relay_one(session, upstream, inbox, webhook, job) for job in work))
    sys.stdout.write(json.dumps({"cpu_s": time.process_time() - began_s, "polls": sum(polls)}) + "\n")


if __name__ == "__main__":
    url, hook, key, *numbers = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(url, hook, key, jobs=int(numbers[0]), latency_s=float(numbers[1]), poll_s=float(numbers[2])))
