"""What a callback says, and that it says the same every time."""

import json
from dataclasses import replace

import pytest

from relay.core.callback import headers_of, message_of, webhook_id_of
from relay.core.model import (
    Batch,
    BatchId,
    Callback,
    CallbackFormat,
    ClientName,
    Delivery,
    DeliveryStatus,
    ErrorCode,
    EventType,
    Job,
    JobError,
    JobId,
    JobSpec,
    JobStatus,
    PayloadKind,
)
from relay.core.signing import new_secret
from relay.core.trace_context import TraceContext

ULID = "01hzy3v9k2m4n6p8q0r1s2t3v4"


def job(
    status: JobStatus = JobStatus.DONE,
    *,
    kind: CallbackFormat = CallbackFormat.STANDARD,
    payload: PayloadKind = PayloadKind.FULL,
    delivery: DeliveryStatus = DeliveryStatus.PENDING,
) -> Job:
    """A job with an outcome."""
    callback = Callback(
        "https://a.example/h", "a.example:443", list(EventType), payload, kind, {"Authorization": "Basic c2VjcmV0"}
    )
    done = status is JobStatus.DONE
    return Job(
        id=JobId(f"job_{ULID}"),
        client=ClientName("acme"),
        spec=JobSpec("chatgpt", "hello", "US", 300, False, 960, callback, {"mode": "fast"}, {"order": 7}),
        status=status,
        created_ms=1_767_225_600_000,
        deadline_ms=1_767_225_600_000 + 960_000,
        delivery=Delivery(delivery, 3),
        upstream_job_id="upstream",
        completed_ms=1_767_225_612_345,
        error=None if done else JobError(ErrorCode.UPSTREAM_FAILED, "execution failed"),
        result=b'{"result":"x","big":1.10}' if done else None,
        result_url="https://relay.example/v1/results/t" if payload is PayloadKind.THIN else None,
    )


def batch() -> Batch:
    """A batch whose jobs all have an outcome."""
    return Batch(
        id=BatchId(f"batch_{ULID}"),
        client=ClientName("acme"),
        count=2,
        statuses={JobStatus.DONE: 2},
        deliveries={DeliveryStatus.PENDING: 2},
        created_ms=1_767_225_600_000,
        completed_ms=1_767_225_601_000,
        callback=Callback("https://a.example/h", "a.example:443", list(EventType)),
        delivery=None,
    )


@pytest.mark.parametrize(
    ("status", "event"),
    [
        (JobStatus.DONE, "job.completed"),
        (JobStatus.FAILED, "job.failed"),
        (JobStatus.TIMED_OUT, "job.timed_out"),
    ],
)
def test_the_standard_body(status: JobStatus, event: str) -> None:
    """The body is type, moment of the outcome, and the job without its delivery and its callback headers."""
    message = message_of(job(status))
    body = json.loads(message.body)
    assert list(body) == ["type", "timestamp", "data"]
    assert (body["type"], body["timestamp"]) == (event, "2026-01-01T00:00:12.345Z")
    assert "delivery" not in body["data"]
    assert body["data"]["metadata"] == {"order": 7}
    assert b"c2VjcmV0" not in message.body


def test_the_result_is_passed_on_byte_by_byte() -> None:
    """The upstream's JSON is embedded as it came."""
    assert b'"result":{"result":"x","big":1.10}' in message_of(job()).body


def test_a_thin_body_links_to_the_result() -> None:
    """A thin callback has a null result and the address of it."""
    data = json.loads(message_of(job(payload=PayloadKind.THIN)).body)["data"]
    assert data["result"] is None
    assert data["result_url"] == "https://relay.example/v1/results/t"


def test_the_cloudevent() -> None:
    """The structured CloudEvents form has the attributes that the contract names."""
    message = message_of(job(kind=CallbackFormat.CLOUDEVENTS))
    body = json.loads(message.body)
    assert message.content_type == "application/cloudevents+json"
    assert body["specversion"] == "1.0"
    assert body["id"] == message.webhook_id
    assert body["type"] == "com.scrapellm.relay.job.completed"
    assert body["source"] == "/clients/acme"
    assert body["subject"] == f"job_{ULID}"
    assert body["time"] == "2026-01-01T00:00:12.345Z"
    assert body["data"]["id"] == f"job_{ULID}"


def test_the_body_does_not_depend_on_the_delivery() -> None:
    """Attempts and redeliveries of one event send the same bytes under the same id."""
    first, later = message_of(job()), message_of(job(delivery=DeliveryStatus.RETRYING))
    assert first == later


def test_a_batch_message() -> None:
    """A batch announces its counters."""
    body = json.loads(message_of(batch()).body)
    assert body["type"] == "batch.completed"
    assert body["data"]["status"]["done"] == 2
    assert len(body["data"]["status"]) == 6
    assert len(body["data"]["delivery"]) == 7


def test_ids_of_jobs_and_batches_do_not_meet() -> None:
    """A job and a batch with the same ULID have different webhook ids."""
    assert webhook_id_of(f"job_{ULID}") != webhook_id_of(f"batch_{ULID}")


def test_headers_of_an_attempt() -> None:
    """An attempt carries the client's headers, the event's, its own number and time."""
    message = message_of(job())
    headers = headers_of(message, [new_secret(), new_secret()], attempt=4, now_s=1_767_225_613)
    assert headers["Authorization"] == "Basic c2VjcmV0"
    assert headers["webhook-id"] == message.webhook_id
    assert headers["webhook-timestamp"] == "1767225613"
    assert headers["webhook-signature"].count("v1,") == 2
    assert headers["relay-attempt"] == "4"
    assert headers["Content-Type"] == "application/json"


def test_headers_of_a_traced_attempt() -> None:
    """What the attempt belongs to goes along, unless the client's own headers say something of that."""
    trace = TraceContext("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "rojo=1")
    headers = headers_of(message_of(job()), [new_secret()], attempt=1, now_s=0, trace=trace)
    assert {name: headers[name] for name in trace.headers()} == trace.headers()
    message = message_of(job())
    own = replace(message, callback=replace(message.callback, headers={"TraceState": "mine"}))
    headers = headers_of(own, [new_secret()], attempt=1, now_s=0, trace=trace)
    assert (headers["TraceState"], "traceparent" in headers, "tracestate" in headers) == ("mine", False, False)
