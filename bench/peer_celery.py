"""Celery with one task for each job, which comes back with `retry(countdown=3)` for each poll.

As `celery --app bench.peer_celery worker` it works; as `python -m bench.peer_celery STORE_URL` it starts a task for
each line of its input. What is asked for is in the environment (bench/peers.py).
"""

import json
import os
import sys
from datetime import UTC, datetime
from typing import Any

import requests
from celery import Celery
from celery.utils.log import get_task_logger
from standardwebhooks import Webhook

_UPSTREAM, _SINK, _POLL_S = (os.environ.get(f"PEER_{name}", "0") for name in ("UPSTREAM_URL", "SINK_URL", "POLL_S"))

app = Celery("peer", broker=os.environ.get("PEER_STORE_URL", "") or (sys.argv[1] if len(sys.argv) > 1 else None))
# Nobody reads what tasks return.
app.conf.update(task_ignore_result=True, worker_hijack_root_logger=False)
log = get_task_logger(__name__)
session = requests.Session()
session.trust_env = False


@app.task(name="relay_one", bind=True, max_retries=None)  # type: ignore[untyped-decorator]  # Celery has no types
def relay_one(self: Any, prompt: str, job_id: str = "") -> None:
    """Submit one job, or poll it, and post its callback once it is done."""
    if not job_id:
        query = {"prompt": prompt, "country": "US", "timeout": "300", "bypass_cache": "false"}
        url = f"{_UPSTREAM}/scrapers/chatgpt/jobs"
        answer = session.post(url, params=query, headers={"X-API-Key": "k"}, timeout=10)
        raise self.retry(args=(prompt, answer.json()["job_id"]), countdown=float(_POLL_S))
    state = session.get(f"{_UPSTREAM}/jobs/{job_id}", timeout=10).json()
    if state["status"] == "pending":
        raise self.retry(countdown=float(_POLL_S))
    now, webhook_id = datetime.now(UTC), f"msg_{job_id}"
    body = json.dumps({"type": "job.completed", "timestamp": now.isoformat(), "data": state})
    headers = {
        "Content-Type": "application/json",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(os.environ["PEER_SECRET"]).sign(webhook_id, now, body),
    }
    status = session.post(_SINK, data=body, headers=headers, timeout=15).status_code
    log.info("callback id=%s status=%d", webhook_id, status)


if __name__ == "__main__":
    for line in sys.stdin:
        relay_one.delay(line.rstrip("\n"))
