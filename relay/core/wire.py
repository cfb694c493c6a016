"""The wire form of jobs and batches. Alone knows how answers and callbacks spell what the model holds.

Answers of the HTTP service and the bodies of callbacks are made of the same documents: a client reads one shape.
"""

from datetime import UTC, datetime

import msgspec

from relay.core.model import Attempt, Batch, DeliveryStatus, Destination, Job, JobStatus


def iso(ms: int | None) -> str | None:
    """A moment in Unix milliseconds as RFC 3339 in UTC with exactly three decimals; None stays None."""
    if ms is None:
        return None
    # Several times as fast as strftime, and every document has four or five of them.
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def job_document(job: Job, *, with_delivery: bool, with_result: bool) -> dict[str, object]:
    """A job as clients see it, ready for `encode`; never with the callback's extra headers.

    `with_delivery=False` is the form that callbacks carry: it has no `delivery`, and a job that has a `result_url`
    (a thin callback) has that and a null `result`. `with_result=False` leaves `result` out, as lists of jobs do.
    The result's bytes are embedded as they are, so they must be one valid JSON value.
    """
    spec = job.spec
    document: dict[str, object] = {
        "id": job.id,
        "status": job.status,
        "scraper": spec.scraper,
        "prompt": spec.prompt,
        "country": spec.country,
        "timeout": spec.timeout_s,
        "bypass_cache": spec.bypass_cache,
        "params": spec.params,
        "metadata": spec.metadata,
        "batch_id": job.batch_id,
        "coalesce": spec.coalesce,
        "upstream_job_id": job.upstream_job_id,
    }
    linked = not with_delivery and job.result_url is not None
    if with_result:
        document["result"] = msgspec.Raw(job.result) if job.result is not None and not linked else None
    if linked:
        document["result_url"] = job.result_url
    document |= {
        "error": None if job.error is None else {"code": job.error.code, "message": job.error.message},
        "created_at": iso(job.created_ms),
        "deadline_at": iso(job.deadline_ms),
        "submitted_at": iso(job.submitted_ms),
        "completed_at": iso(job.completed_ms),
        "callback_events": spec.callback.events,
        "callback_payload": spec.callback.payload,
        "callback_format": spec.callback.format,
    }
    if with_delivery:
        document["delivery"] = {
            "status": job.delivery.status,
            "callback_url": spec.callback.url,
            "attempts": job.delivery.attempts,
            "next_attempt_at": iso(job.delivery.next_attempt_ms),
            "delivered_at": iso(job.delivery.delivered_ms),
        }
    return document


def batch_document(batch: Batch) -> dict[str, object]:
    """A batch as clients see it, in answers and in its callback, ready for `encode`."""
    return {
        "id": batch.id,
        "count": batch.count,
        "status": {status: batch.statuses.get(status, 0) for status in JobStatus},
        "delivery": {status: batch.deliveries.get(status, 0) for status in DeliveryStatus},
        "created_at": iso(batch.created_ms),
        "completed_at": iso(batch.completed_ms),
    }


def attempt_document(attempt: Attempt) -> dict[str, object]:
    """One attempt as the log of a job shows it, ready for `encode`."""
    return {
        "number": attempt.number,
        "started_at": iso(attempt.started_ms),
        "duration_ms": attempt.duration_ms,
        "outcome": attempt.outcome,
        "http_status": attempt.http_status,
        "response_excerpt": attempt.response_excerpt,
        "error": attempt.error,
    }


def destination_document(destination: Destination) -> dict[str, object]:
    """How a destination fares, ready for `encode`."""
    return {
        "destination": destination.name,
        "state": destination.state,
        "failures": destination.failures,
        "failing_since": iso(destination.failing_since_ms),
        "last_success_at": iso(destination.last_success_ms),
        "last_failure_at": iso(destination.last_failure_ms),
        "next_try_at": iso(destination.next_try_ms),
        "waiting": destination.waiting,
    }


def encode(document: object) -> bytes:
    """Compact UTF-8 JSON. The same document gives the same bytes: keys stay in the order they were put in."""
    return msgspec.json.encode(document)
