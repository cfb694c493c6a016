"""A receiver of callbacks as a Google Cloud Run function.

A function has a CPU only while it answers, so the work is done before the answer. It has 15 s; what fails or takes
longer is sent again, so the relay's schedule is your retry. Longer work belongs into a queue, from here.

pip install -r requirements.txt
SIGNING_SECRET=whsec_… functions-framework --target hook --port 9001
"""

import json
import os
import sys
import time
from typing import Any
from urllib.request import urlopen

import functions_framework
from flask import Request, Response
from standardwebhooks import Webhook, WebhookVerificationError

SECRET = os.environ.get("SIGNING_SECRET") or sys.exit("SIGNING_SECRET is not set: give it the relay's, whsec_…")
webhook = Webhook(SECRET)
#: In production, not here but in your database, under a unique key: each instance of a function has its own memory.
seen: dict[str, None] = {}


@functions_framework.http
def hook(request: Request) -> Response:
    """Take one callback."""
    try:
        event = webhook.verify(request.get_data(), dict(request.headers))
    except (WebhookVerificationError, ValueError):  # ValueError: what is not even shaped like a callback
        return Response("the signature is not good", 401)
    if time.time() > event["data"].get("metadata", {}).get("useful_until", float("inf")):
        return Response(status=410)  # too late: it need not come again
    if request.headers["webhook-id"] not in seen:
        work(event)
        seen[request.headers["webhook-id"]] = None  # afterwards: where the work fails, it comes again
        if len(seen) > 10_000:
            del seen[next(iter(seen))]
    return Response(status=204)


def work(event: dict[str, Any]) -> None:
    """Yours. Raises where it has to come again."""
    data = event["data"]
    match event["type"]:
        case "job.completed":
            # a thin callback has a link in place of the result
            outcome = fetch(data["result_url"]) if "result_url" in data else data["result"]
        case "batch.completed":
            outcome = data["status"]  # how many jobs ended how
        case _:
            outcome = data["error"]
    print(event["type"], data["id"], json.dumps(outcome), flush=True)


def fetch(url: str) -> Any:
    """The result that a thin callback points to."""
    with urlopen(url, timeout=10) as response:
        return json.load(response)
