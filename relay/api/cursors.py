"""Cursors of lists: where a page begins, sealed together with the client and the filters that it belongs to."""

import base64
import hashlib
import hmac
import re
from collections.abc import Collection

from relay.api.parameters import is_job_id
from relay.core.model import JOB_PREFIX, BatchId, DeliveryStatus, JobId, JobStatus
from relay.core.settings import Client

_INFO = b"scrapellm-relay cursor v1"
#: With the 26 characters of an id a multiple of three: base64 then has one spelling only.
_SEAL_BYTES = 13
_SHAPE = re.compile(r"[A-Za-z0-9_-]{52}")


def seal(
    client: Client,
    statuses: Collection[JobStatus],
    deliveries: Collection[DeliveryStatus],
    batch_id: BatchId | None,
    before: JobId,
) -> str:
    """The cursor of the page that begins after `before`. Valid on every relay that has the same client."""
    bare = before.removeprefix(JOB_PREFIX).encode()
    mac = _mac(client.api_key_hashes[0], _scope(client, statuses, deliveries, batch_id), bare)
    return base64.urlsafe_b64encode(bare + mac).decode()


def unseal(
    client: Client,
    statuses: Collection[JobStatus],
    deliveries: Collection[DeliveryStatus],
    batch_id: BatchId | None,
    cursor: str,
) -> JobId | None:
    """Where the page begins; None for a cursor that is not ours, or belongs to another client or other filters."""
    if not _SHAPE.fullmatch(cursor):
        return None
    raw = base64.urlsafe_b64decode(cursor)
    bare, given = raw[:-_SEAL_BYTES], raw[-_SEAL_BYTES:]
    # Any live key will do, so that a cursor outlives the rotation of the one that sealed it.
    scope = _scope(client, statuses, deliveries, batch_id)
    good = [hmac.compare_digest(_mac(key_hash, scope, bare), given) for key_hash in client.api_key_hashes]
    if not any(good):
        return None
    job_id = JOB_PREFIX + bare.decode("ascii")
    return JobId(job_id) if is_job_id(job_id) else None


def _scope(
    client: Client,
    statuses: Collection[JobStatus],
    deliveries: Collection[DeliveryStatus],
    batch_id: BatchId | None,
) -> bytes:
    """What a cursor is valid for."""
    return "\n".join((client.name, ",".join(sorted(statuses)), ",".join(sorted(deliveries)), batch_id or "")).encode()


def _mac(key_hash: str, scope: bytes, bare: bytes) -> bytes:
    key = hmac.digest(key_hash.encode(), _INFO, hashlib.sha256)
    return hmac.digest(key, scope + b"\n" + bare, hashlib.sha256)[:_SEAL_BYTES]
