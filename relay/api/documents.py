"""What answers and callbacks look like, for the OpenAPI document. `relay.core.wire` makes the bytes."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from relay.api.problems import CODES
from relay.core.model import (
    AttemptOutcome,
    CallbackFormat,
    DeliveryStatus,
    DestinationState,
    ErrorCode,
    EventType,
    JobStatus,
    PayloadKind,
)

_ULID = "[0-7][0-9a-hjkmnp-tv-z]{25}"
JobIdText = Annotated[str, Field(pattern=f"^job_{_ULID}$", examples=["job_01jgfj7p00e8a3c5x9z1v7m4kq"])]
BatchIdText = Annotated[str, Field(pattern=f"^batch_{_ULID}$", examples=["batch_01jgfj7p00e8a3c5x9z1v7m4kq"])]
Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"}, examples=["2026-01-01T00:00:00.000Z"])]
_ParamValue = str | int | float | bool


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")


class JobErrorDocument(_Document):
    """Why a job ended without a result."""

    code: ErrorCode
    message: str


class DeliveryDocument(_Document):
    """How far the callback has come."""

    status: DeliveryStatus
    callback_url: str
    attempts: Annotated[int, Field(ge=0, description="Attempts begun, redeliveries included.")]
    next_attempt_at: Moment | None
    delivered_at: Moment | None


class _JobDocument(_Document):
    id: JobIdText
    status: JobStatus
    scraper: str
    prompt: str
    country: str
    timeout: float
    bypass_cache: bool
    params: dict[str, _ParamValue]
    metadata: dict[str, Any]
    batch_id: BatchIdText | None
    coalesce: bool
    upstream_job_id: str | None
    error: JobErrorDocument | None
    created_at: Moment
    deadline_at: Moment
    submitted_at: Moment | None
    completed_at: Moment | None
    callback_events: list[EventType]
    callback_payload: PayloadKind
    callback_format: CallbackFormat


class JobInList(_JobDocument):
    """A job, without its result."""

    delivery: DeliveryDocument


class Job(JobInList):
    """A job. `result` is the upstream's own object, null until the job is done."""

    result: Annotated[dict[str, Any] | None, Field(examples=[{"status": "done", "result": "Paris."}])]


class JobInCallback(_JobDocument):
    """A job as its callback carries it."""

    result: dict[str, Any] | None
    result_url: Annotated[
        str | None, Field(description="Thin callbacks: where the result can be read, for a limited time.")
    ] = None


class JobPage(_Document):
    """Some jobs, newest first."""

    data: list[JobInList]
    next_cursor: Annotated[str | None, Field(description="What to send as `cursor` for the next page.")]


class AttemptDocument(_Document):
    """One POST to the callback URL."""

    number: Annotated[int, Field(ge=1)]
    started_at: Moment
    duration_ms: Annotated[int, Field(ge=0)]
    outcome: AttemptOutcome
    http_status: int | None
    response_excerpt: Annotated[str | None, Field(description="At most 1 KiB of what the receiver said.")]
    error: str | None


class AttemptList(_Document):
    """The attempts of a job, oldest first."""

    data: list[AttemptDocument]


class Count(_Document):
    """How many callbacks will be sent again."""

    count: Annotated[int, Field(ge=0)]


class AcceptedBatch(_Document):
    """A batch that is in the store. `job_ids` are in the order in which the jobs were given."""

    id: BatchIdText
    count: Annotated[int, Field(ge=1)]
    job_ids: list[JobIdText]


class StatusCounts(_Document):
    """How many jobs of a batch stand where."""

    queued: int
    pending: int
    done: int
    failed: int
    timed_out: int
    cancelled: int


class DeliveryCounts(_Document):
    """How many callbacks of a batch's jobs stand where."""

    waiting: int
    pending: int
    retrying: int
    delivered: int
    exhausted: int
    gone: int
    skipped: int


class Batch(_Document):
    """A batch. It is completed when its last job has an outcome, whatever became of the callbacks."""

    id: BatchIdText
    count: Annotated[int, Field(ge=1)]
    status: StatusCounts
    delivery: DeliveryCounts
    created_at: Moment
    completed_at: Moment | None


class DestinationDocument(_Document):
    """How the callbacks to one host and port fare."""

    destination: Annotated[str, Field(description="`host:port`.", examples=["hooks.example.com:443"])]
    state: Annotated[
        DestinationState,
        Field(
            description="`unresponsive`: nobody answers, callbacks wait and one is tried now and then. "
            "`paused`: it has failed for days, the same but seldom. Nothing is dropped meanwhile."
        ),
    ]
    failures: Annotated[int, Field(ge=0, description="Failed attempts since the last success.")]
    failing_since: Moment | None
    last_success_at: Moment | None
    last_failure_at: Moment | None
    next_try_at: Annotated[Moment | None, Field(description="When one of the callbacks that wait is tried.")]
    waiting: Annotated[int, Field(ge=0, description="Callbacks that are due and wait for the destination.")]


class DestinationList(_Document):
    """Destinations, the one that was tried last first."""

    data: list[DestinationDocument]


class Health(_Document):
    """The service's own state."""

    status: Literal["ok", "ready"]


class FaultDocument(_Document):
    """One thing that is wrong with the request. One of `pointer`, `parameter` and `header` says where."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"oneOf": [{"required": ["pointer"]}, {"required": ["parameter"]}, {"required": ["header"]}]},
    )

    detail: str
    pointer: Annotated[str, Field(description="RFC 6901, into the body.", examples=["/jobs/17/country"])] = ""
    parameter: str = ""
    header: str = ""


class ProblemDocument(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: Annotated[str, Field(json_schema_extra={"enum": list(CODES)})]
    errors: list[FaultDocument] = []


class JobEvent(_Document):
    """The body of a job's callback."""

    type: Literal[EventType.JOB_COMPLETED, EventType.JOB_FAILED, EventType.JOB_TIMED_OUT]
    timestamp: Annotated[Moment, Field(description="When the outcome came.")]
    data: JobInCallback


class BatchEvent(_Document):
    """The body of a batch's callback."""

    type: Literal[EventType.BATCH_COMPLETED]
    timestamp: Annotated[Moment, Field(description="When the last job of the batch got its outcome.")]
    data: Batch


class _CloudEvent(_Document):
    specversion: Literal["1.0"]
    id: Annotated[str, Field(description="The same as `webhook-id`.")]
    source: Annotated[str, Field(examples=["/clients/acme"])]
    subject: str
    time: Moment
    datacontenttype: Literal["application/json"]


class JobCloudEvent(_CloudEvent):
    """The same as a CloudEvent 1.0 in structured mode."""

    type: Annotated[str, Field(pattern=r"^com\.scrapellm\.relay\.job\.(completed|failed|timed_out)$")]
    data: JobInCallback


class BatchCloudEvent(_CloudEvent):
    """The same as a CloudEvent 1.0 in structured mode."""

    type: Literal["com.scrapellm.relay.batch.completed"]
    data: Batch


DOCUMENTS: tuple[type[BaseModel], ...] = (
    *(Job, JobPage, AttemptList, Count, AcceptedBatch, Batch, Health, ProblemDocument),
    *(DestinationDocument, DestinationList),
    *(JobEvent, BatchEvent, JobCloudEvent, BatchCloudEvent),
)
