"""A receiver of callbacks as an AWS Lambda function behind a function URL, in one file that needs no package.

Lambda freezes the process as soon as the handler returns, so the work is done before the answer. It has 15 s; what
fails or takes longer is sent again, so the relay's schedule is your retry. Longer work belongs into a queue, from here.
"""

import base64
import hmac
import json
import os
import sys
import time
from typing import Any
from urllib.request import urlopen

SECRET = os.environ.get("SIGNING_SECRET") or sys.exit("SIGNING_SECRET is not set: give it the relay's, whsec_…")
KEY = base64.b64decode(SECRET.removeprefix("whsec_"))
#: In production, not here but in a table with the id as its key: each instance of a function has its own memory.
seen: dict[str, None] = {}


def handler(request: dict[str, Any], _context: object) -> dict[str, Any]:
    """Take one callback: an event of payload format 2.0."""
    headers, text = request["headers"], request.get("body", "")
    body = base64.b64decode(text) if request.get("isBase64Encoded") else text.encode()
    if not is_genuine(headers, body):
        return {"statusCode": 401, "body": "the signature is not good"}
    event = json.loads(body)
    if time.time() > event["data"].get("metadata", {}).get("useful_until", float("inf")):
        return {"statusCode": 410}  # too late: it need not come again
    if headers["webhook-id"] not in seen:
        work(event)
        seen[headers["webhook-id"]] = None  # afterwards: where the work fails, it comes again
        if len(seen) > 10_000:
            del seen[next(iter(seen))]
    return {"statusCode": 204}


def is_genuine(headers: dict[str, str], body: bytes) -> bool:
    """Whether one of the signatures is ours, and the attempt not more than five minutes old: Standard Webhooks."""
    timestamp = headers.get("webhook-timestamp", "")
    if not (timestamp.isdecimal() and len(timestamp) <= 12 and abs(time.time() - int(timestamp)) <= 300):
        return False
    signed = f"{headers.get('webhook-id')}.{timestamp}.".encode() + body
    expected = b"v1," + base64.b64encode(hmac.digest(KEY, signed, "sha256"))
    return any(hmac.compare_digest(expected, one.encode()) for one in headers.get("webhook-signature", "").split())


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
