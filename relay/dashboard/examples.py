"""Commands and code to copy: how to submit a first job, how to send a callback again by hand, how to verify one."""

import json
import shlex
from collections.abc import Mapping

from aiohttp import web

from relay.core.settings import Settings

_PYTHON = """\
# pip install standardwebhooks
import os
from standardwebhooks import Webhook

webhook = Webhook(os.environ["RELAY_SIGNING_SECRET"])

def verified(body: bytes, headers: dict[str, str]) -> dict:
    # The bytes as they came: JSON that was parsed and written again has another signature.
    return webhook.verify(body, headers)  # raises WebhookVerificationError
"""
_JAVASCRIPT = """\
// npm install standardwebhooks
import { Webhook } from "standardwebhooks";

const webhook = new Webhook(process.env.RELAY_SIGNING_SECRET);

export function verified(body, headers) {
  // The body as it came: JSON that was parsed and written again has another signature.
  return webhook.verify(body, headers); // throws WebhookVerificationError
}
"""
#: How a receiver verifies callbacks, by language.
VERIFYING: Mapping[str, str] = {"Python": _PYTHON, "JavaScript": _JAVASCRIPT}


def base_url(settings: Settings, request: web.Request) -> str:
    """The relay's own address, as the reader can use it."""
    return settings.public_url or f"{request.scheme}://{request.host}"


def curl_for(settings: Settings, request: web.Request) -> str:
    """A command that submits a first job. The key is for the reader to put in."""
    return _post(settings, request, "/v1/jobs", {"scraper": settings.scrapers[0], "prompt": "Why is the sky blue?"})


def curl_for_batch(settings: Settings, request: web.Request) -> str:
    """The same for a first batch."""
    prompts = ["What is the capital of France?", "What is the capital of Peru?"]
    return _post(settings, request, "/v1/batches", {"prompts": prompts, "scrapers": list(settings.scrapers[:2])})


def _post(settings: Settings, request: web.Request, path: str, document: Mapping[str, object]) -> str:
    inbox = settings.dev_inbox_url
    callback_url = f"{inbox}/hook" if inbox else "https://example.com/your-receiver"
    return " \\\n  ".join(
        (
            f"curl -sS {base_url(settings, request)}{path}",
            '-H "Authorization: Bearer $RELAY_API_KEY"',
            "-H 'Content-Type: application/json'",
            f"-d {shlex.quote(json.dumps({**document, 'callback_url': callback_url}))}",
        )
    )


def curl_callback(url: str, headers: Mapping[str, str], body: bytes | None) -> str:
    """A command that sends a callback once more by hand; without `body` it is read from the file `callback.json`.

    Brackets and braces of the URL are sent as they are: curl would take them for a pattern, and send many.
    """
    data = "@callback.json" if body is None else shlex.quote(body.decode())
    return " \\\n  ".join(
        (
            f"curl -sS -i --globoff {shlex.quote(url)}",
            *(f"-H {shlex.quote(f'{name}: {value}')}" for name, value in headers.items()),
            f"--data-binary {data}",
        )
    )
