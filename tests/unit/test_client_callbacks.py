"""Callbacks as the client verifies and types them: exactly what the relay sends."""

import json
import time
from collections.abc import Mapping, Sequence

import pytest

from relay.client import Misconfigured, Unverified, verify
from relay.core.callback import Message, headers_of, message_of
from relay.core.model import Batch, CallbackFormat, JobStatus, PayloadKind
from relay.core.signing import new_secret, sign
from tests.unit.test_callback import batch, job

SECRET, OTHER = new_secret(), new_secret()


def headers(message: Message, secrets: Sequence[str] = (SECRET,)) -> Mapping[str, str]:
    """As they are sent."""
    return headers_of(message, secrets, attempt=3, now_s=int(time.time()))


@pytest.mark.parametrize("form", list(CallbackFormat))
@pytest.mark.parametrize(
    ("status", "event"),
    [
        (JobStatus.DONE, "job.completed"),
        (JobStatus.FAILED, "job.failed"),
        (JobStatus.TIMED_OUT, "job.timed_out"),
    ],
)
def test_a_job_is_typed(form: CallbackFormat, status: JobStatus, event: str) -> None:
    """In both forms: the event, the moment, the attempt, the job, and what to de-duplicate by."""
    message = message_of(job(status, kind=form))
    callback = verify(message.body, headers(message), SECRET)
    assert (callback.type, callback.attempt, callback.webhook_id) == (event, 3, message.webhook_id)
    assert callback.timestamp.isoformat() == "2026-01-01T00:00:12.345000+00:00"
    assert callback.job is not None
    assert (callback.job.status, callback.job.metadata, callback.batch) == (status, {"order": 7}, None)
    assert (callback.job.result is not None) is (status is JobStatus.DONE)
    assert callback.document == json.loads(message.body)
    assert "hello" not in repr(callback)


def test_a_thin_callback_has_a_link() -> None:
    """The result is behind it, and it is a secret."""
    message = message_of(job(payload=PayloadKind.THIN))
    callback = verify(message.body, headers(message), SECRET)
    assert callback.job is not None
    assert (callback.job.result, callback.job.result_url) == (None, "https://relay.example/v1/results/t")
    assert "results/t" not in repr(callback.job)


def test_a_batch_is_typed() -> None:
    """`batch.completed` has the batch."""
    subject: Batch = batch()
    message = message_of(subject)
    callback = verify(message.body, headers(message), SECRET)
    assert (callback.type, callback.job) == ("batch.completed", None)
    assert callback.batch is not None
    assert (callback.batch.id, callback.batch.count) == (subject.id, subject.count)


def test_two_secrets_while_one_is_replaced() -> None:
    """Either side may have the new one first."""
    message = message_of(job())
    assert verify(message.body, headers(message, [OTHER, SECRET]), SECRET)
    assert verify(message.body, headers(message, [OTHER]), SECRET, OTHER)
    upper = {name.upper(): value for name, value in headers(message).items()}
    assert verify(message.body, upper, SECRET).attempt == 3


def test_what_is_not_genuine_is_refused() -> None:
    """Another secret, another body, no headers, an old time."""
    message = message_of(job())
    old = headers_of(message, [SECRET], attempt=1, now_s=int(time.time()) - 600)
    for body, sent in (
        (message.body, headers(message, [OTHER])),
        (message.body + b" ", headers(message)),
        (b"\xff", headers(message)),
        (message.body, {}),
        (message.body, old),
    ):
        with pytest.raises(Unverified):
            verify(body, sent, SECRET)


@pytest.mark.parametrize("body", [b"", b"[]", b"7", b"{}", b'{"type": "job.completed", "data": {}}', b"[" * 100_000])
def test_what_is_signed_and_no_callback_is_refused(body: bytes) -> None:
    """Somebody else signs with the same secret."""
    now_s = int(time.time())
    sent = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(now_s),
        "webhook-signature": sign([SECRET], "msg_1", now_s, body),
    }
    with pytest.raises(Unverified):
        verify(body, sent, SECRET)


def test_an_event_of_a_newer_relay_is_no_error() -> None:
    """It has its type and its document, and nothing else that is typed."""
    body = b'{"type": "batch.started", "timestamp": "2026-01-01T00:00:00.000Z", "data": {"id": "batch_1"}}'
    now_s = int(time.time())
    sent = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(now_s),
        "webhook-signature": sign([SECRET], "msg_1", now_s, body),
    }
    callback = verify(body, sent, SECRET)
    assert (callback.type, callback.job, callback.batch, callback.attempt) == ("batch.started", None, None, 0)


@pytest.mark.parametrize("secrets", [[], ["whsec_short"], [SECRET, ""]])
def test_a_secret_that_is_none_is_told_without_it(secrets: list[str]) -> None:
    """It is our own mistake then, and not the sender's."""
    message = message_of(job())
    with pytest.raises(Misconfigured) as caught:
        verify(message.body, headers(message), *secrets)
    assert "short" not in str(caught.value)
