"""A receiver of callbacks: verifies each, keeps the last ones, and tells whoever listens.

What a developer would write first, in one piece: under `dev` and `demo`, as `listen`, and in tests.
"""

import asyncio
import json
import re
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook

from relay.client import Unverified
from relay.client.callbacks import check_signature
from relay.core.signing import check_secret

#: The largest callback that is taken; results of 16 MiB fit.
_BODY_BYTES = 32 * 1024 * 1024
#: Bodies that are kept, together: a thousand of the largest would not fit anywhere.
_KEPT_BYTES = 128 * 1024 * 1024
_SLOW_PATH = re.compile(r"/slow/([0-9]{1,3}(?:\.[0-9]{1,3})?)")
_FAIL_PATH = re.compile(r"/fail/([2-5][0-9]{2})(?:/([0-9]{1,6}))?")
_LIMIT = re.compile(r"[0-9]{1,6}")
_ATTEMPT = re.compile(r"[0-9]{1,9}")
#: The headers that say something about the callback. Those that a client has added are its secrets.
_TELLING = (
    "content-type",
    "user-agent",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "relay-attempt",
)


@dataclass(frozen=True, slots=True)
class Received:
    """One attempt at a callback, as it came."""

    webhook_id: str
    #: The event, such as `job.completed`; also of a CloudEvent. Empty where the body names none.
    event: str
    #: Empty where it is no JSON object.
    body: dict[str, Any] = field(repr=False)
    #: The bytes that were signed.
    raw: bytes = field(repr=False)
    verified: bool
    #: Why it was not verified; empty where it was.
    reason: str
    #: The `relay-attempt` header; 0 where it is missing.
    attempt: int
    received_ms: int
    path: str
    content_type: str
    #: Whether an attempt with the same `webhook-id` came before.
    repeated: bool
    #: Those that every callback has, by their names in lower case; none that the client added.
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


#: Answers in the inbox' place: takes the headers and the body as they came.
Forward = Callable[[Mapping[str, str], bytes], Awaitable[web.Response]]


class Inbox:
    """Receives callbacks on any path.

    Answers 204 where a signature by one of `secrets` is good, 401 where not. `/fail/503` always answers 503, and
    `/fail/503/2` the first two times for each event, so that retries can be seen; `/slow/1.5` takes its time.

    Keeps the last `keep` callbacks, less where they are larger than 128 MiB together. `on_callback` is called in the
    loop, for each callback, before it is answered, and `on_answer` afterwards, with the status and the milliseconds
    that it took. `forward` answers in place of the rules above. Raises ValueError for a secret that is none.
    """

    def __init__(
        self,
        secrets: Sequence[str],
        on_callback: Callable[[Received], None] | None = None,
        *,
        on_answer: Callable[[Received, int, float], None] | None = None,
        forward: Forward | None = None,
        keep: int = 1_000,
    ) -> None:
        for secret in secrets:
            check_secret(secret)
        self._webhooks = [Webhook(secret) for secret in secrets]
        self._on_callback = on_callback
        self._on_answer = on_answer
        self._forward = forward
        #: The last callbacks, oldest first.
        self.received: deque[Received] = deque()
        self._kept_bytes = 0
        self._keep = keep
        self._times: OrderedDict[str, int] = OrderedDict()

    def build_app(self) -> web.Application:
        """The inbox as an application: GET /?limit= lists what was kept, GET /{webhook-id} one event, POST receives."""
        app = web.Application(client_max_size=_BODY_BYTES)
        app.add_routes(
            [
                web.get("/", self._list),
                web.get("/healthz", self._health),
                web.get("/{webhook_id}", self._one),
                web.post("/{path:.*}", self._receive),
            ]
        )
        return app

    def times(self, webhook_id: str) -> int:
        """How often this event has come, as far as is remembered."""
        return self._times.get(webhook_id, 0)

    async def _receive(self, request: web.Request) -> web.Response:
        began_s = time.monotonic()
        received = self._read(await request.read(), request)
        self._keep_one(received)
        if self._on_callback is not None:
            self._on_callback(received)
        if self._forward is None:
            answer = await self._answer(request, received)
        else:
            answer = await self._forward(request.headers, received.raw)
        if self._on_answer is not None:
            self._on_answer(received, answer.status, (time.monotonic() - began_s) * 1000)
        return answer

    async def _answer(self, request: web.Request, received: Received) -> web.Response:
        times = self.times(received.webhook_id)
        slow = _SLOW_PATH.fullmatch(request.path)
        if slow is not None:
            await asyncio.sleep(float(slow[1]))
        failing = _FAIL_PATH.fullmatch(request.path)
        if failing is not None and (failing[2] is None or times <= int(failing[2])):
            return web.Response(status=int(failing[1]), text="answering as the path asks")
        return web.Response(status=204 if received.verified else 401)

    def _read(self, raw: bytes, request: web.Request) -> Received:
        verified, reason = self._verify(raw, request)
        body = _object(raw)
        event = body.get("type")
        attempt = request.headers.get("relay-attempt", "")
        webhook_id = request.headers.get("webhook-id", "")
        return Received(
            webhook_id=webhook_id,
            event=event.removeprefix("com.scrapellm.relay.") if isinstance(event, str) else "",
            body=body,
            raw=raw,
            verified=verified,
            reason=reason,
            attempt=int(attempt) if _ATTEMPT.fullmatch(attempt) else 0,
            received_ms=round(time.time() * 1000),
            path=request.path,
            content_type=request.content_type,
            repeated=self.times(webhook_id) > 0,
            headers={name: request.headers[name] for name in _TELLING if name in request.headers},
        )

    def _verify(self, raw: bytes, request: web.Request) -> tuple[bool, str]:
        try:
            check_signature(raw, request.headers, self._webhooks)
        except Unverified as error:
            return False, str(error)
        return True, ""

    def _keep_one(self, received: Received) -> None:
        self.received.append(received)
        self._kept_bytes += len(received.raw)
        while len(self.received) > self._keep or (self._kept_bytes > _KEPT_BYTES and len(self.received) > 1):
            self._kept_bytes -= len(self.received.popleft().raw)
        if received.webhook_id:
            self._times[received.webhook_id] = self.times(received.webhook_id) + 1
            self._times.move_to_end(received.webhook_id)
            while len(self._times) > max(self._keep, 1):
                self._times.popitem(last=False)

    async def _list(self, request: web.Request) -> web.Response:
        limit = request.query.get("limit", "")
        newest = islice(reversed(self.received), int(limit) if _LIMIT.fullmatch(limit) else None)
        return web.json_response({"data": [_document(received) for received in newest]})

    async def _one(self, request: web.Request) -> web.Response:
        wanted = request.match_info["webhook_id"]
        found = [_document(received) for received in self.received if received.webhook_id == wanted]
        return web.json_response({"data": found}, status=200 if found else 404)

    async def _health(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})


def _object(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _document(received: Received) -> dict[str, Any]:
    return {
        "webhook_id": received.webhook_id,
        "type": received.event,
        "attempt": received.attempt,
        "verified": received.verified,
        "reason": received.reason,
        "received_ms": received.received_ms,
        "path": received.path,
        "repeated": received.repeated,
        "headers": dict(received.headers),
        "body": received.body,
    }
