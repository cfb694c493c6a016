"""A receiver of callbacks in Flask: verifies each, drops repeats, answers at once and works afterwards.

pip install -r requirements.txt
SIGNING_SECRET=whsec_… flask run --port 9001
"""

import json
import os
import sys
import time
from typing import Any
from urllib.request import urlopen

from flask import Flask, Response, request
from standardwebhooks import Webhook, WebhookVerificationError

SECRET = os.environ.get("SIGNING_SECRET") or sys.exit("SIGNING_SECRET is not set: give it the relay's, whsec_…")
webhook = Webhook(SECRET)
#: In production, not here but in your database: the id and the body, under a unique key on the id.
seen: dict[str, None] = {}

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = 32 * 1024**2


@app.post("/hook")
def hook() -> Response:
    """Take one callback."""
    try:
        event = webhook.verify(request.get_data(), dict(request.headers))
    except (WebhookVerificationError, ValueError):  # ValueError: what is not even shaped like a callback
        return Response("the signature is not good", 401)
    if time.time() > event["data"].get("metadata", {}).get("useful_until", float("inf")):
        return Response(status=410)  # too late: it need not come again
    response = Response(status=204)
    if request.headers["webhook-id"] not in seen:
        seen[request.headers["webhook-id"]] = None
        if len(seen) > 10_000:
            del seen[next(iter(seen))]
        response.call_on_close(lambda: work(event))
    return response


def work(event: dict[str, Any]) -> None:
    """Yours. Runs after the answer, in the thread that answered: the server's threads bound how much runs at a time."""
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
    with urlopen(url, timeout=30) as response:
        return json.load(response)
