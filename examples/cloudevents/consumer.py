"""A consumer of callbacks in CloudEvents (`"callback_format": "cloudevents"`), as a Knative service or anywhere else.

pip install -r requirements.txt
SIGNING_SECRET=whsec_… gunicorn --preload --bind 127.0.0.1:9001 --threads 8 consumer:app
"""

import json
import os
import sys
import time
from typing import Any
from urllib.request import urlopen

from cloudevents.exceptions import GenericException
from cloudevents.http import CloudEvent, from_http
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
    """Take one callback. The signature is in the headers, which brokers drop: verify in front of them."""
    try:
        webhook.verify(request.get_data(), dict(request.headers))
        event = from_http(dict(request.headers), request.get_data())
    except (WebhookVerificationError, ValueError):  # ValueError: what is not even shaped like a callback
        return Response("the signature is not good", 401)
    except GenericException:
        return Response('no CloudEvent: submit with "callback_format": "cloudevents"', 400)
    if time.time() > event.data.get("metadata", {}).get("useful_until", float("inf")):
        return Response(status=410)  # too late: it need not come again
    response = Response(status=204)
    if event["id"] not in seen:  # the `webhook-id`
        seen[event["id"]] = None
        if len(seen) > 10_000:
            del seen[next(iter(seen))]
        response.call_on_close(lambda: work(event))
    return response


def work(event: CloudEvent) -> None:
    """Yours. Runs after the answer, in the thread that answered: the server's threads bound how much runs at a time."""
    kind, data = event["type"].removeprefix("com.scrapellm.relay."), event.data
    match kind:
        case "job.completed":
            # a thin callback has a link in place of the result
            outcome = fetch(data["result_url"]) if "result_url" in data else data["result"]
        case "batch.completed":
            outcome = data["status"]  # how many jobs ended how
        case _:
            outcome = data["error"]
    print(kind, event["subject"], json.dumps(outcome), flush=True)


def fetch(url: str) -> Any:
    """The result that a thin callback points to."""
    with urlopen(url, timeout=30) as response:
        return json.load(response)
