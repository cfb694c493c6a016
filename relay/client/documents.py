"""What the API answers, and what it takes, as types. Alone knows the shape of answers.

A field that a newer relay has added is no error: it is in the `document` of the object, which has the whole answer as
it came. Contents (prompts, results, metadata) appear in no `repr`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NotRequired, TypedDict, TypeVar

import msgspec

from relay.core.model import DeliveryStatus, DestinationState, JobStatus

Param = str | int | float | bool
D = TypeVar("D")


class JobOptions(TypedDict, total=False):
    """The fields of a job that have a default. What each may be is in the description of the API."""

    country: str | None
    bypass_cache: bool | None
    coalesce: bool | None
    #: Seconds that ScrapeLLM may take for one scrape.
    timeout: float | None
    #: Seconds from now after which the job ends in any case.
    deadline: float | None
    params: Mapping[str, Param] | None
    metadata: Mapping[str, Any] | None
    callback_headers: Mapping[str, str] | None
    callback_events: Sequence[str] | None
    callback_payload: str | None
    callback_format: str | None


class JobFields(JobOptions):
    """The fields of one job of a batch; what is missing is taken from the batch."""

    prompt: str
    scraper: NotRequired[str]
    callback_url: NotRequired[str]


class BatchFields(JobOptions, total=False):
    """A batch: `jobs`, or `prompts` and `scrapers`; the others are defaults for its jobs."""

    jobs: Sequence[JobFields]
    prompts: Sequence[str]
    scrapers: Sequence[str]
    scraper: str
    #: Of the jobs that have none, and of the batch itself.
    callback_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    #: The whole answer as it came, with fields that this version does not know.
    document: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFailure:
    """Why a job ended without a result."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How far a callback has come."""

    status: DeliveryStatus
    callback_url: str
    #: Attempts begun, redeliveries included.
    attempts: int
    next_attempt_at: datetime | None
    delivered_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOutcome(_Answer):
    """A job as its callback carries it."""

    id: str
    status: JobStatus
    scraper: str
    prompt: str = field(repr=False)
    country: str
    #: Seconds.
    timeout: int | float
    bypass_cache: bool
    params: Mapping[str, Param] = field(repr=False)
    metadata: Mapping[str, Any] = field(repr=False)
    batch_id: str | None
    coalesce: bool
    upstream_job_id: str | None = field(repr=False)
    error: JobFailure | None
    created_at: datetime
    deadline_at: datetime
    submitted_at: datetime | None
    completed_at: datetime | None
    callback_events: Sequence[str]
    callback_payload: str
    callback_format: str
    #: ScrapeLLM's own object; None until the job is done, in lists, and in thin callbacks.
    result: Mapping[str, Any] | None = field(default=None, repr=False)
    #: Thin callbacks: where the result can be read for some time, without a key. Keep it out of logs.
    result_url: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(JobOutcome):
    """A job as the API answers it."""

    delivery: Delivery


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedBatch(_Answer):
    """A batch that is in the store; `job_ids` are in the order in which the jobs were given."""

    id: str
    count: int
    job_ids: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch(_Answer):
    """A batch: how many of its jobs stand where."""

    id: str
    count: int
    status: Mapping[str, int]
    delivery: Mapping[str, int]
    created_at: datetime
    #: When the last job got its outcome.
    completed_at: datetime | None

    @property
    def ended(self) -> int:
        """How many jobs have an outcome."""
        return sum(n for name, n in self.status.items() if name not in (JobStatus.QUEUED, JobStatus.PENDING))


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt(_Answer):
    """One POST to the callback URL."""

    number: int
    started_at: datetime
    duration_ms: int
    #: `delivered`, `http_error`, `timeout`, `connection_error`, `tls_error`, `blocked_address` or `gone`.
    outcome: str
    http_status: int | None
    #: At most 1 KiB of what the receiver said.
    response_excerpt: str | None = field(repr=False)
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination(_Answer):
    """How the callbacks to one host and port fare."""

    #: `host:port`.
    destination: str
    state: DestinationState
    #: Failed attempts since the last success.
    failures: int
    failing_since: datetime | None
    last_success_at: datetime | None
    last_failure_at: datetime | None
    next_try_at: datetime | None
    #: Callbacks that are due and wait for it.
    waiting: int


def read(kind: type[D], document: object) -> D:
    """`document` as an object of `kind`. Raises ValueError where it is none; the message quotes no content."""
    if not isinstance(document, dict):
        raise ValueError(f"{kind.__name__}: not an object")  # noqa: TRY004 - what came in is wrong, not a caller's type
    try:
        return msgspec.convert(document | {"document": document}, kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"{kind.__name__}: {error}") from None
