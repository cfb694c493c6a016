"""How jobs, batches and attempts are written into the store and read from it. Alone knows the encodings."""

import secrets
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from ulid import ULID

from relay.core.model import (
    BATCH_PREFIX,
    JOB_PREFIX,
    Attempt,
    Batch,
    BatchId,
    Callback,
    ClientName,
    Delivery,
    DeliveryStatus,
    Destination,
    DestinationState,
    ErrorCode,
    EventType,
    Job,
    JobError,
    JobId,
    JobSpec,
    JobStatus,
    PayloadKind,
)

#: The fields of a job's record that a Job is made of, in the order in which rows have them.
JOB_FIELDS = (
    *("c", "s", "d", "spec", "t", "dl", "b", "up", "st", "ct", "ec", "em", "ru", "a", "nx", "dt", "ro", "sub", "po"),
)  # fmt: skip

#: The fields of a destination's health that a Destination is made of, in the order in which rows have them.
HEALTH_FIELDS = ("n", "since", "ok", "bad", "till", "p")

_LETTERS = {
    EventType.JOB_COMPLETED: "c",
    EventType.JOB_FAILED: "f",
    EventType.JOB_TIMED_OUT: "t",
    EventType.BATCH_COMPLETED: "b",
}
_EVENTS = {letter: event for event, letter in _LETTERS.items()}
_THIN = "T"
_PLAIN, _DEFLATED = b"r", b"z"
#: Crockford's base 32, as ULIDs are written, in lower case: each two digits.
_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
_TWO_DIGITS = [high + low for high in _DIGITS for low in _DIGITS]
#: The scripts read it too.
_LENGTH_BYTES = 4

_spec_decoder = msgspec.json.Decoder(JobSpec)
_callback_decoder = msgspec.json.Decoder(Callback)
_attempt_decoder = msgspec.json.Decoder(Attempt)
_numbers_decoder = msgspec.json.Decoder(dict[str, int])


def job_ids(now_ms: int, count: int) -> list[JobId]:
    """`count` fresh ids that sort in their order, and after those of earlier milliseconds.

    Consecutive ULIDs from a random start: their first and number name them all.
    """
    first = _random_ulid(now_ms)
    return [_job_id(first + i) for i in range(count)]


def batch_id(now_ms: int) -> BatchId:
    """A fresh id of a batch."""
    return BatchId(BATCH_PREFIX + _text(_random_ulid(now_ms)))


def consecutive(first: JobId, count: int) -> list[JobId]:
    """The `count` ids of a batch whose first is `first`."""
    start = int(ULID.from_str(first.removeprefix(JOB_PREFIX).upper()))
    return [_job_id(start + i) for i in range(count)]


def _random_ulid(now_ms: int) -> int:
    # One bit less than a ULID has room for, so that counting on never carries into the time.
    return (now_ms << 80) | secrets.randbits(79)


def _text(number: int) -> str:
    # What `str(ULID.from_int(number)).lower()` gives, sooner: batches need ten thousand of them.
    return "".join([_TWO_DIGITS[number >> shift & 1023] for shift in range(120, -10, -10)])


def _job_id(number: int) -> JobId:
    return JobId(JOB_PREFIX + _text(number))


def encode_spec(spec: JobSpec | Callback) -> bytes:
    """A job's or a batch's immutable part."""
    return msgspec.json.encode(spec)


def decode_spec(data: bytes) -> JobSpec:
    """The reverse of `encode_spec` for a job."""
    return _spec_decoder.decode(data)


def decode_callback(data: bytes) -> Callback:
    """The reverse of `encode_spec` for a batch."""
    return _callback_decoder.decode(data)


def decode_numbers(data: bytes) -> dict[str, int]:
    """The numbers of a batch's jobs by status and delivery, as they were when it was completed."""
    return _numbers_decoder.decode(data)


def encode_wishes(callback: Callback) -> str:
    """The events asked for and the payload, short enough to travel with every poll."""
    return "".join(_LETTERS[e] for e in callback.events) + (_THIN if callback.payload is PayloadKind.THIN else "")


def decode_wishes(text: str) -> tuple[tuple[EventType, ...], bool]:
    """The reverse of `encode_wishes`: the events, and whether the payload is thin."""
    return tuple(_EVENTS[letter] for letter in text if letter != _THIN), _THIN in text


def pack_result(result: bytes, compress_above_bytes: int) -> bytes:
    """A result as it is stored: its own bytes, compressed only where that pays, and then after their number."""
    if len(result) > compress_above_bytes:
        return _DEFLATED + len(result).to_bytes(_LENGTH_BYTES) + zlib.compress(result, 1)
    return _PLAIN + result


def unpack_result(stored: bytes) -> bytes:
    """The reverse of `pack_result`."""
    if stored[:1] != _DEFLATED:
        return stored[1:]
    return zlib.decompress(memoryview(stored)[1 + _LENGTH_BYTES :])


def job_of_row(job_id: JobId, row: Sequence[bytes | None], stored_result: bytes | None = None) -> Job:
    """A Job from the values of `JOB_FIELDS`."""
    (client, status, delivery, spec, created, deadline, batch, upstream, submitted, completed) = row[:10]
    (error_code, error_message, result_url, attempts, next_attempt, delivered, _, submits, polls) = row[10:]
    assert client and status and delivery and spec and created and deadline  # noqa: S101 - every live record has these
    return Job(
        id=job_id,
        client=ClientName(client.decode()),
        spec=decode_spec(spec),
        status=JobStatus(status.decode()),
        created_ms=int(created),
        deadline_ms=int(deadline),
        delivery=_delivery(delivery, attempts, next_attempt, delivered),
        batch_id=BatchId(batch.decode()) if batch else None,
        upstream_job_id=upstream.decode() if upstream else None,
        submits=int(submits or 0),
        polls=int(polls or 0),
        submitted_ms=_int(submitted),
        completed_ms=_int(completed),
        error=JobError(ErrorCode(error_code.decode()), (error_message or b"").decode()) if error_code else None,
        result_url=result_url.decode() if result_url else None,
        result=unpack_result(stored_result) if stored_result is not None else None,
    )


def _delivery(status: bytes, attempts: bytes | None, next_attempt: bytes | None, delivered: bytes | None) -> Delivery:
    parsed = DeliveryStatus(status.decode())
    waits = parsed in (DeliveryStatus.PENDING, DeliveryStatus.RETRYING)
    return Delivery(
        status=parsed,
        attempts=int(attempts or 0),
        next_attempt_ms=_int(next_attempt) if waits else None,
        delivered_ms=_int(delivered),
    )


def batch_of_record(batch_id_: BatchId, record: Mapping[bytes, bytes], *, as_told: bool = False) -> Batch:
    """A Batch from all the fields of its record; `as_told` has the numbers that its callback tells, once it does."""
    spec = record.get(b"spec")
    numbers = {name.decode(): int(value) for name, value in record.items() if name[:2] in (b"s:", b"d:")}
    if as_told and b"final" in record:
        numbers = decode_numbers(record[b"final"])
    return Batch(
        id=batch_id_,
        client=ClientName(record[b"c"].decode()),
        count=int(record[b"n"]),
        statuses={s: numbers.get(f"s:{s}", 0) for s in JobStatus},
        deliveries={d: numbers.get(f"d:{d}", 0) for d in DeliveryStatus},
        created_ms=int(record[b"t"]),
        completed_ms=_int(record.get(b"ct")),
        callback=decode_callback(spec) if spec else None,
        delivery=_delivery(record[b"d"], record.get(b"a"), record.get(b"nx"), record.get(b"dt")) if spec else None,
    )


def destination_of_row(name: str, row: Sequence[bytes | None], waiting: int) -> Destination:
    """A Destination from the values of `HEALTH_FIELDS`."""
    failures, since, ok, bad, till, paused = (_int(value) for value in row)
    state = DestinationState.HEALTHY
    if failures:
        state = DestinationState.FAILING
    if till is not None:
        state = DestinationState.UNRESPONSIVE
    if paused is not None:
        state = DestinationState.PAUSED
    return Destination(
        name=name,
        state=state,
        failures=failures or 0,
        failing_since_ms=since,
        last_success_ms=ok,
        last_failure_ms=bad,
        next_try_ms=till,
        waiting=waiting,
    )


def encode_attempt(attempt: Attempt) -> bytes:
    """An entry of the attempts log."""
    return msgspec.json.encode(attempt)


def decode_attempt(data: bytes) -> Attempt:
    """The reverse of `encode_attempt`."""
    return _attempt_decoder.decode(data)


def pack(fields: Mapping[str, Any]) -> bytes:
    """Named values for a script: it reads MessagePack. Text only, for its reader has no binary type."""
    return msgspec.msgpack.encode(fields)


def _int(value: bytes | None) -> int | None:
    return int(value) if value else None
