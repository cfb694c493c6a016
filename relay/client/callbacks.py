"""A callback as its receiver sees it: verified, then typed. Alone knows its envelopes, and how to verify it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
from standardwebhooks import Webhook, WebhookVerificationError

from relay.client.documents import Batch, JobOutcome, read
from relay.client.errors import Misconfigured, Unverified
from relay.core.model import EventType
from relay.core.signing import check_secret

_CLOUDEVENTS_PREFIX = "com.scrapellm.relay."


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """A callback that is genuine."""

    #: The same for all attempts and redeliveries of one event. Delivery is at least once: keep it under a unique key,
    #: in the transaction that has the callback's effect, and drop what is there already.
    webhook_id: str
    #: `job.completed`, `job.failed`, `job.timed_out` or `batch.completed`; a newer relay may have more.
    type: str
    #: When the outcome came.
    timestamp: datetime
    #: From 1 on; 0 where something on the way has taken the header off. More than 1: it may have come before.
    attempt: int
    #: What it is about; the one that is not is None.
    job: JobOutcome | None = field(default=None, repr=False)
    batch: Batch | None = None
    #: The whole body.
    document: Mapping[str, Any] = field(repr=False, compare=False)


def verify(body: bytes, headers: Mapping[str, str], *secrets: str) -> Callback:
    """The callback in a request, once its signature is found to be by one of `secrets` (two while one is replaced).

    `body` is the raw body, byte for byte; `headers` in any case. Raises Unverified: answer 401 or 400 then.

        callback = verify(await request.read(), request.headers, "whsec_…")
    """
    check_signature(body, headers, webhooks(secrets))
    lower = {name.lower(): value for name, value in headers.items()}
    try:
        document = json.loads(body)
        event = _Envelope.of(document)
        is_batch = event.type == EventType.BATCH_COMPLETED
        attempt = lower.get("relay-attempt", "")
        return Callback(
            webhook_id=lower["webhook-id"],
            type=event.type,
            timestamp=event.timestamp,
            attempt=int(attempt) if attempt.isascii() and attempt.isdecimal() else 0,
            job=read(JobOutcome, event.data) if event.type.startswith("job.") else None,
            batch=read(Batch, event.data) if is_batch else None,
            document=document,
        )
    except (ValueError, TypeError, RecursionError) as error:
        raise Unverified("it is signed, but is no callback of a relay") from error


def webhooks(secrets: Sequence[str]) -> list[Webhook]:
    """What verifies signatures by `secrets`. Raises Misconfigured, without the secret in it, for one that is none."""
    if not secrets:
        raise Misconfigured("no secret to verify with: give the client's signing secret, whsec_…")
    for secret in secrets:
        try:
            check_secret(secret)
        except ValueError as error:
            raise Misconfigured(f"the signing secret {error}") from None
    return [Webhook(secret) for secret in secrets]


def check_signature(body: bytes, headers: Mapping[str, str], webhooks: Sequence[Webhook]) -> None:
    """Raise Unverified, with the reason, unless `body` was signed within five minutes of now for one of `webhooks`."""
    reason = "no secret to verify with"
    for webhook in webhooks:
        try:
            webhook.verify(body, dict(headers), json_parse=False)
        except (WebhookVerificationError, ValueError) as error:
            # A ValueError is the library's way to stumble over headers that are no signature at all.
            reason = str(error) if isinstance(error, WebhookVerificationError) else "Invalid Signature Headers"
        else:
            return
    raise Unverified(reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Envelope:
    type: str
    timestamp: datetime
    data: dict[str, Any]

    @staticmethod
    def of(document: Any) -> "_Envelope":
        """What both forms of a callback have in common. Raises ValueError, TypeError."""
        if "specversion" in document:
            document = document | {"timestamp": document.get("time")}
        envelope = msgspec.convert(document, _Envelope)
        return _Envelope(
            type=envelope.type.removeprefix(_CLOUDEVENTS_PREFIX), timestamp=envelope.timestamp, data=envelope.data
        )
