"""Signatures: Standard Webhooks on callbacks, and the tokens of thin results. Alone knows what is done with secrets."""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

from standardwebhooks import Webhook

from relay.core.model import JOB_PREFIX, JobId

SECRET_PREFIX = "whsec_"  # noqa: S105 - the public prefix of Standard Webhooks secrets
_TOKEN_INFO = b"scrapellm-relay result token v1"
_MAC_BYTES = 16


def new_secret() -> str:
    """A fresh signing secret: `whsec_` and 32 random bytes (Standard Webhooks, "Signature scheme": 24 to 64)."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def check_secret(secret: str) -> None:
    """Raise ValueError, without the secret in it, unless `secret` is `whsec_` and 24 to 64 bytes in base64."""
    if not secret.startswith(SECRET_PREFIX):
        raise ValueError("must begin with whsec_")
    try:
        size = len(base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True))
    except binascii.Error:
        raise ValueError("is not base64 after whsec_") from None
    if not 24 <= size <= 64:
        raise ValueError(f"holds {size} bytes; 24 to 64 are allowed")


def sign(secrets_: Sequence[str], webhook_id: str, timestamp_s: int, body: bytes) -> str:
    """The `webhook-signature` header: one `v1,<base64>` per live secret, space-separated, in their order.

    `timestamp_s` is the attempt's time in Unix seconds and travels as `webhook-timestamp`; `body` is UTF-8.
    """
    moment = datetime.fromtimestamp(timestamp_s, UTC)
    text = body.decode()
    return " ".join([_webhook(secret).sign(webhook_id, moment, text) for secret in secrets_])


@lru_cache(1024)
def _webhook(secret: str) -> Webhook:
    return Webhook(secret)


def result_token(secret: str, job_id: JobId) -> str:
    """The token under which the result of `job_id` can be read without a key: the id and a MAC over it.

    The MAC key is derived from the signing secret, so that neither can stand in for the other.
    """
    return f"{job_id.removeprefix(JOB_PREFIX)}.{_mac(secret, job_id)}"


def job_of_token(secrets_: Sequence[str], token: str) -> JobId | None:
    """The job whose token this is, or None where no live secret made it."""
    bare, _, mac = token.partition(".")
    job_id = JobId(JOB_PREFIX + bare)
    given = mac.encode("utf-8", "surrogatepass")
    # No early exit: the time taken tells nothing about which secret matched.
    matches = [hmac.compare_digest(_mac(secret, job_id).encode(), given) for secret in secrets_]
    return job_id if any(matches) else None


def derived_key(secret: str, purpose: bytes) -> bytes:
    """A key of 32 bytes for one purpose, which tells nothing about `secret` nor about the key of another purpose."""
    return hmac.digest(secret.encode(), purpose, hashlib.sha256)


def _mac(secret: str, job_id: str) -> str:
    key = derived_key(secret, _TOKEN_INFO)
    mac = hmac.digest(key, job_id.encode("utf-8", "surrogatepass"), hashlib.sha256)[:_MAC_BYTES]
    return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
