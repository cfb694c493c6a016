"""What a job, a batch, a delivery and an attempt are. Alone knows the words of the wire contract.

Times are Unix milliseconds by the store's clock (`_ms`), so that no two machines' clocks are compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NewType

#: `job_` and a ULID in lower case; sorts by time of acceptance.
JobId = NewType("JobId", str)
#: `batch_` and a ULID in lower case.
BatchId = NewType("BatchId", str)
#: The name of a client, as the operator configured it.
ClientName = NewType("ClientName", str)

JOB_PREFIX = "job_"
BATCH_PREFIX = "batch_"


class JobStatus(StrEnum):
    """Where a job stands. The last four are outcomes: final, whatever becomes of the callback."""

    #: Accepted; the upstream does not have it, as far as we know.
    QUEUED = "queued"
    #: The upstream has it, and its id is in the record.
    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"

    @property
    def is_outcome(self) -> bool:
        """Whether the job has ended."""
        return self not in (JobStatus.QUEUED, JobStatus.PENDING)


class DeliveryStatus(StrEnum):
    """Where the obligation to get one callback through stands."""

    #: No outcome yet.
    WAITING = "waiting"
    #: The first attempt of this generation is due.
    PENDING = "pending"
    #: An attempt failed and another will follow.
    RETRYING = "retrying"
    DELIVERED = "delivered"
    #: The schedule is used up.
    EXHAUSTED = "exhausted"
    #: The receiver said 410.
    GONE = "gone"
    #: The event was not asked for, or the job was cancelled.
    SKIPPED = "skipped"

    @property
    def is_ended(self) -> bool:
        """Whether nothing more will be sent unless somebody asks."""
        return self not in (DeliveryStatus.WAITING, DeliveryStatus.PENDING, DeliveryStatus.RETRYING)


class EventType(StrEnum):
    """What a callback announces."""

    JOB_COMPLETED = "job.completed"
    JOB_FAILED = "job.failed"
    JOB_TIMED_OUT = "job.timed_out"
    BATCH_COMPLETED = "batch.completed"


#: The event that announces an outcome; a cancelled job announces nothing.
EVENT_OF_STATUS: Mapping[JobStatus, EventType] = {
    JobStatus.DONE: EventType.JOB_COMPLETED,
    JobStatus.FAILED: EventType.JOB_FAILED,
    JobStatus.TIMED_OUT: EventType.JOB_TIMED_OUT,
}


class ErrorCode(StrEnum):
    """Why a job ended without a result."""

    DEADLINE_EXCEEDED = "deadline_exceeded"
    UPSTREAM_FAILED = "upstream_failed"
    UPSTREAM_REJECTED = "upstream_rejected"
    UPSTREAM_UNAUTHORIZED = "upstream_unauthorized"
    UPSTREAM_CREDITS_EXHAUSTED = "upstream_credits_exhausted"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    UPSTREAM_JOB_LOST = "upstream_job_lost"
    SUBMIT_AMBIGUOUS = "submit_ambiguous"


class AttemptOutcome(StrEnum):
    """How one POST to a callback URL ended."""

    DELIVERED = "delivered"
    HTTP_ERROR = "http_error"
    TIMEOUT = "timeout"
    CONNECTION_ERROR = "connection_error"
    TLS_ERROR = "tls_error"
    BLOCKED_ADDRESS = "blocked_address"
    GONE = "gone"


class PayloadKind(StrEnum):
    """Whether the callback carries the result or a link to it."""

    FULL = "full"
    THIN = "thin"


class CallbackFormat(StrEnum):
    """The shape of the callback's body."""

    STANDARD = "standard"
    CLOUDEVENTS = "cloudevents"


@dataclass(frozen=True, slots=True)
class Callback:
    """Where and how to announce the outcome."""

    url: str
    #: The destination, `host:port`: what permits and health are counted by.
    destination: str
    events: Sequence[EventType]
    payload: PayloadKind = PayloadKind.FULL
    format: CallbackFormat = CallbackFormat.STANDARD
    #: Extra request headers. Secret: never shown, never logged.
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What the client asked for: validated, defaulted, and never changed afterwards."""

    scraper: str
    prompt: str = field(repr=False)
    country: str
    timeout_s: int | float
    bypass_cache: bool
    deadline_s: int | float
    callback: Callback
    params: Mapping[str, str | int | float | bool] = field(default_factory=dict, repr=False)
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)
    coalesce: bool = False


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job ended without a result."""

    code: ErrorCode
    message: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """How far the callback has come."""

    status: DeliveryStatus
    #: Attempts begun, over all generations.
    attempts: int = 0
    next_attempt_ms: int | None = None
    delivered_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the store has it."""

    id: JobId
    client: ClientName
    spec: JobSpec
    status: JobStatus
    created_ms: int
    deadline_ms: int
    delivery: Delivery
    batch_id: BatchId | None = None
    #: A secret of the client's: whoever has it can read the result at the upstream.
    upstream_job_id: str | None = field(default=None, repr=False)
    submitted_ms: int | None = None
    completed_ms: int | None = None
    #: How often the upstream was asked to take it, one that is under way included, and how often how it stands. A job
    #: that follows an equal one asks nothing: it has zeros, and its leader the numbers.
    submits: int = 0
    polls: int = 0
    error: JobError | None = None
    #: Absolute URL of the result, for thin callbacks, fixed when the outcome came.
    result_url: str | None = field(default=None, repr=False)
    #: The upstream's `result` as its own JSON bytes; None until done, and where it was not asked for.
    result: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as the store has it."""

    id: BatchId
    client: ClientName
    count: int
    statuses: Mapping[JobStatus, int]
    deliveries: Mapping[DeliveryStatus, int]
    created_ms: int
    completed_ms: int | None
    #: None for a batch without a callback of its own.
    callback: Callback | None
    delivery: Delivery | None


class DestinationState(StrEnum):
    """How the callbacks to one destination of a client fare."""

    #: The last attempt got through.
    HEALTHY = "healthy"
    #: The last attempt failed; callbacks go out by their schedules.
    FAILING = "failing"
    #: Nobody answers: callbacks wait, and one is tried now and then.
    UNRESPONSIVE = "unresponsive"
    #: It has failed for days: the same, and seldom.
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Destination:
    """How one destination of a client fares."""

    #: `host:port`.
    name: str
    state: DestinationState
    #: Failed attempts since the last success.
    failures: int
    failing_since_ms: int | None
    last_success_ms: int | None
    last_failure_ms: int | None
    #: When callbacks are tried again that wait because of its state.
    next_try_ms: int | None
    #: Callbacks that are due and wait, for that or because as many attempts as may be are under way.
    waiting: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """One POST to a callback URL, as the log has it."""

    number: int
    started_ms: int
    duration_ms: int
    outcome: AttemptOutcome
    http_status: int | None = None
    #: At most 1 KiB of what the receiver said.
    response_excerpt: str | None = None
    error: str | None = None
