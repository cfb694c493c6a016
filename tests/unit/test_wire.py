"""The wire form of jobs, batches and attempts."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core import wire
from relay.core.model import (
    Attempt,
    AttemptOutcome,
    Batch,
    BatchId,
    Callback,
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

NEW_YEAR_MS = 1_767_225_600_000
CALLBACK = Callback(
    url="https://example.com/hook",
    destination="example.com:443",
    events=tuple(EventType),
    headers={"X-Secret": "hidden"},
)
JOB = Job(
    id=JobId("job_01jgfj7p00e8a3c5x9z1v7m4kq"),
    client=ClientName("acme"),
    spec=JobSpec(
        scraper="chatgpt",
        prompt="Why?",
        country="US",
        timeout_s=300,
        bypass_cache=False,
        deadline_s=960,
        callback=CALLBACK,
        params={"mode": "fast"},
        metadata={"order": 17},
    ),
    status=JobStatus.QUEUED,
    created_ms=NEW_YEAR_MS,
    deadline_ms=NEW_YEAR_MS + 960_000,
    delivery=Delivery(DeliveryStatus.WAITING),
)


def document(job: Job, *, with_delivery: bool = True, with_result: bool = True) -> Any:
    """The document as a client would parse it."""
    return json.loads(wire.encode(wire.job_document(job, with_delivery=with_delivery, with_result=with_result)))


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (None, None),
        (0, "1970-01-01T00:00:00.000Z"),
        (NEW_YEAR_MS, "2026-01-01T00:00:00.000Z"),
        (NEW_YEAR_MS - 1, "2025-12-31T23:59:59.999Z"),
    ],
)
def test_moments(ms: int | None, text: str | None) -> None:
    """Always UTC, always three decimals."""
    assert wire.iso(ms) == text


def test_a_new_job() -> None:
    """The document has exactly the fields of the contract, in its order."""
    assert list(document(JOB).items()) == [
        ("id", JOB.id),
        ("status", "queued"),
        ("scraper", "chatgpt"),
        ("prompt", "Why?"),
        ("country", "US"),
        ("timeout", 300),
        ("bypass_cache", False),
        ("params", {"mode": "fast"}),
        ("metadata", {"order": 17}),
        ("batch_id", None),
        ("coalesce", False),
        ("upstream_job_id", None),
        ("result", None),
        ("error", None),
        ("created_at", "2026-01-01T00:00:00.000Z"),
        ("deadline_at", "2026-01-01T00:16:00.000Z"),
        ("submitted_at", None),
        ("completed_at", None),
        ("callback_events", ["job.completed", "job.failed", "job.timed_out", "batch.completed"]),
        ("callback_payload", "full"),
        ("callback_format", "standard"),
        (
            "delivery",
            {
                "status": "waiting",
                "callback_url": "https://example.com/hook",
                "attempts": 0,
                "next_attempt_at": None,
                "delivered_at": None,
            },
        ),
    ]


def test_secrets_stay_inside() -> None:
    """The callback's extra headers are in no form of the document."""
    for with_delivery in (True, False):
        assert b"hidden" not in wire.encode(wire.job_document(JOB, with_delivery=with_delivery, with_result=True))


def test_the_result_is_the_upstreams_own_json() -> None:
    """Numbers and escapes of a result come out as the upstream wrote them; lists leave it out."""
    done = replace(JOB, status=JobStatus.DONE, result=b'{"n": 1.10, "big": 12345678901234567890, "e": "\\u00e9"}')
    body = wire.encode(wire.job_document(done, with_delivery=True, with_result=True))
    assert done.result is not None
    assert done.result in body
    assert "result" not in document(done, with_result=False)


def test_callbacks_have_no_delivery() -> None:
    """The callback's form is the same without `delivery`."""
    full = document(JOB)
    del full["delivery"]
    assert document(JOB, with_delivery=False) == full


def test_thin_callbacks_link() -> None:
    """A thin callback has a link in place of the result; the client's own view has the result."""
    thin = replace(
        JOB,
        status=JobStatus.DONE,
        result=b'{"a":1}',
        result_url="https://relay.example/v1/results/x",
        spec=replace(JOB.spec, callback=replace(CALLBACK, payload=PayloadKind.THIN)),
    )
    sent = document(thin, with_delivery=False)
    assert (sent["result"], sent["result_url"]) == (None, "https://relay.example/v1/results/x")
    seen = document(thin)
    assert seen["result"] == {"a": 1}
    assert "result_url" not in seen


def test_a_failed_job() -> None:
    """The error has its code and its message."""
    failed = replace(JOB, status=JobStatus.FAILED, error=JobError(ErrorCode.UPSTREAM_FAILED, "execution failed"))
    assert document(failed)["error"] == {"code": "upstream_failed", "message": "execution failed"}


def test_a_batch() -> None:
    """All six states and all seven delivery states are counted, those with none too."""
    batch = Batch(
        id=BatchId("batch_01jgfj7p00e8a3c5x9z1v7m4kq"),
        client=ClientName("acme"),
        count=3,
        statuses={JobStatus.QUEUED: 3},
        deliveries={DeliveryStatus.WAITING: 3},
        created_ms=NEW_YEAR_MS,
        completed_ms=None,
        callback=CALLBACK,
        delivery=Delivery(DeliveryStatus.WAITING),
    )
    assert json.loads(wire.encode(wire.batch_document(batch))) == {
        "id": batch.id,
        "count": 3,
        "status": {"queued": 3, "pending": 0, "done": 0, "failed": 0, "timed_out": 0, "cancelled": 0},
        "delivery": {
            "waiting": 3,
            "pending": 0,
            "retrying": 0,
            "delivered": 0,
            "exhausted": 0,
            "gone": 0,
            "skipped": 0,
        },
        "created_at": "2026-01-01T00:00:00.000Z",
        "completed_at": None,
    }


def test_an_attempt() -> None:
    """What the log of attempts shows."""
    attempt = Attempt(2, NEW_YEAR_MS, 153, AttemptOutcome.HTTP_ERROR, 500, "oops", None)
    assert json.loads(wire.encode(wire.attempt_document(attempt))) == {
        "number": 2,
        "started_at": "2026-01-01T00:00:00.000Z",
        "duration_ms": 153,
        "outcome": "http_error",
        "http_status": 500,
        "response_excerpt": "oops",
        "error": None,
    }


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_any_text_survives(text: str) -> None:
    """Prompts and metadata come out as they went in, U+0000 and all."""
    job = replace(JOB, spec=replace(JOB.spec, prompt=text, metadata={text: text}))
    seen = document(job)
    assert (seen["prompt"], seen["metadata"]) == (text, {text: text})
