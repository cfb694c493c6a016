"""Signatures that others verify, and tokens that cannot be forged."""

import base64
from datetime import UTC, datetime

import pytest
import svix
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from relay.core import signing
from relay.core.model import JobId

SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
OTHER = "whsec_" + base64.b64encode(b"o" * 24).decode()
JOB = JobId("job_01hzy3v9k2m4n6p8q0r1s2t3v4")


def headers(secrets: list[str], body: bytes) -> dict[str, str]:
    """The headers of a message sent now."""
    now_s = int(datetime.now(UTC).timestamp())
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(now_s),
        "webhook-signature": signing.sign(secrets, "msg_1", now_s, body),
    }


@given(st.text().map(str.encode))
def test_standard_libraries_verify(body: bytes) -> None:
    """Whatever the body, both public libraries accept the signature."""
    sent = headers([SECRET], body)
    Webhook(SECRET).verify(body, sent, json_parse=False)
    assert signing.sign([SECRET], "msg_1", 1, body) == svix.Webhook(SECRET).sign(
        "msg_1", datetime.fromtimestamp(1, UTC), body.decode()
    )


def test_every_live_secret_signs() -> None:
    """While secrets rotate, a receiver with the old and one with the new both accept."""
    sent = headers([SECRET, OTHER], b"{}")
    assert sent["webhook-signature"].count("v1,") == 2
    for secret in (SECRET, OTHER):
        Webhook(secret).verify(b"{}", sent)


def test_a_changed_body_is_refused() -> None:
    """One changed byte breaks the signature."""
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(b'{"a":2}', headers([SECRET], b'{"a":1}'))


def test_new_secrets_are_good_and_differ() -> None:
    """A fresh secret passes the check that configured ones must pass."""
    first, second = signing.new_secret(), signing.new_secret()
    signing.check_secret(first)
    assert first != second


@pytest.mark.parametrize(
    ("secret", "message"),
    [
        ("", "must begin with whsec_"),
        ("sk_" + "A" * 32, "must begin with whsec_"),
        ("whsec_not base64!", "is not base64"),
        ("whsec_" + base64.b64encode(b"x" * 23).decode(), "holds 23 bytes"),
        ("whsec_" + base64.b64encode(b"x" * 65).decode(), "holds 65 bytes"),
    ],
)
def test_bad_secrets_are_named_without_being_shown(secret: str, message: str) -> None:
    """A wrong secret is refused by a reason that does not repeat it."""
    with pytest.raises(ValueError, match=message) as caught:
        signing.check_secret(secret)
    assert not secret or secret not in str(caught.value)


def test_result_tokens_come_back_to_their_job() -> None:
    """A token made with any live secret names its job; after the secret is gone it names nothing."""
    token = signing.result_token(OTHER, JOB)
    assert signing.job_of_token([SECRET, OTHER], token) == JOB
    assert signing.job_of_token([SECRET], token) is None


@pytest.mark.parametrize("token", ["", ".", "x", f"{JOB}.", "01hzy3v9k2m4n6p8q0r1s2t3v4.AAAA", "\ud800.x", "a.b.c"])
def test_forged_tokens_name_nothing(token: str) -> None:
    """What no secret made is no token, however it is spelled."""
    assert signing.job_of_token([SECRET, OTHER], token) is None


def test_a_token_is_bound_to_its_job() -> None:
    """The MAC of one job does not open another."""
    mac = signing.result_token(SECRET, JOB).partition(".")[2]
    assert signing.job_of_token([SECRET], f"01hzy3v9k2m4n6p8q0r1s2t3v5.{mac}") is None
