"""What a callback says: its event, id, headers and body.

The body is a pure function of the record, so that every attempt and redelivery of one event sends the same bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from relay.core import signing
from relay.core.model import (
    BATCH_PREFIX,
    EVENT_OF_STATUS,
    JOB_PREFIX,
    Batch,
    Callback,
    CallbackFormat,
    EventType,
    Job,
)
from relay.core.trace_context import HEADERS, TraceContext
from relay.core.wire import batch_document, encode, iso, job_document

_CONTENT_TYPES = {
    CallbackFormat.STANDARD: "application/json",
    CallbackFormat.CLOUDEVENTS: "application/cloudevents+json",
}


@dataclass(frozen=True, slots=True)
class Message:
    """One event for one receiver."""

    webhook_id: str
    event: EventType
    callback: Callback
    content_type: str
    body: bytes = field(repr=False)


def message_of(subject: Job | Batch) -> Message:
    """The message that announces an outcome. `subject` must have one, and a callback."""
    callback = subject.spec.callback if isinstance(subject, Job) else subject.callback
    assert callback is not None  # noqa: S101 - a batch without a callback is never due for delivery
    if isinstance(subject, Job):
        # A skipped delivery can be asked for, whatever the events; a cancelled job has no event and cannot.
        event = EVENT_OF_STATUS[subject.status]
        data = job_document(subject, with_delivery=False, with_result=True)
    else:
        event = EventType.BATCH_COMPLETED
        data = batch_document(subject)
    webhook_id = webhook_id_of(subject.id)
    timestamp = iso(subject.completed_ms)
    if callback.format is CallbackFormat.CLOUDEVENTS:
        document: dict[str, object] = {
            "specversion": "1.0",
            "id": webhook_id,
            "source": f"/clients/{subject.client}",
            "type": f"com.scrapellm.relay.{event}",
            "subject": subject.id,
            "time": timestamp,
            "datacontenttype": "application/json",
            "data": data,
        }
    else:
        document = {"type": event, "timestamp": timestamp, "data": data}
    return Message(webhook_id, event, callback, _CONTENT_TYPES[callback.format], encode(document))


def webhook_id_of(subject_id: str) -> str:
    """The `webhook-id` of the one event of a job or batch: the same for all attempts and redeliveries."""
    kind = "job" if subject_id.startswith(JOB_PREFIX) else "batch"
    return f"msg_{kind}_{subject_id.removeprefix(JOB_PREFIX).removeprefix(BATCH_PREFIX)}"


def headers_of(
    message: Message, secrets: Sequence[str], *, attempt: int, now_s: int, trace: TraceContext | None = None
) -> dict[str, str]:
    """The request headers of one attempt, the client's extra ones included; the event's own cannot be overridden.

    `trace` is what the attempt belongs to. Where the extra headers have something to say of that, they alone do.
    """
    sent = dict(message.callback.headers)
    if trace is not None and not any(name.lower() in HEADERS for name in sent):
        sent |= trace.headers()
    return sent | own_headers_of(message, secrets, attempt=attempt, now_s=now_s)


def own_headers_of(message: Message, secrets: Sequence[str], *, attempt: int, now_s: int) -> dict[str, str]:
    """The same without the client's extra ones, which are secret: these can be shown."""
    return {
        "Content-Type": message.content_type,
        "webhook-id": message.webhook_id,
        "webhook-timestamp": str(now_s),
        "webhook-signature": signing.sign(secrets, message.webhook_id, now_s, message.body),
        "relay-attempt": str(attempt),
    }
