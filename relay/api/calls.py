"""Every call as the OpenAPI document describes it: what it takes and what it may answer. Beside `routes`, a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from relay.api import documents as d
from relay.api import schemas as s
from relay.api.parameters import DEFAULT_LIMIT, MAX_LIMIT, MAX_WAIT_S
from relay.core.model import DeliveryStatus, DestinationState, JobStatus

#: What any call of a client's may answer.
_CLIENT = ("unauthorized", "store_unavailable")
_BODY = ("unsupported_media_type", "too_large", "request_timeout", "invalid_json", "invalid_request")
_INTAKE = (
    *_CLIENT,
    *_BODY,
    *("malformed_request", "callback_url_refused", "idempotency_key_invalid", "idempotency_key_reused"),
    *("job_expired", "rate_limited", "too_many_unfinished"),
)


@dataclass(frozen=True, slots=True)
class Success:
    """The answer when all went well."""

    description: str
    model: type[BaseModel] | None = None
    #: For bodies that are not JSON of a model.
    content: Mapping[str, Any] | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Call:
    """One call."""

    method: str
    path: str
    operation: str
    summary: str
    tag: str
    success: Mapping[int, Success]
    problems: Sequence[str] = ()
    parameters: Sequence[Mapping[str, Any]] = ()
    body: type[BaseModel] | None = None
    body_required: bool = True
    public: bool = False
    description: str = ""


def _query(name: str, schema: Mapping[str, Any], description: str) -> Mapping[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


def _header(name: str, schema: Mapping[str, Any], description: str) -> Mapping[str, Any]:
    return {"name": name, "in": "header", "required": False, "schema": schema, "description": description}


def _path(name: str, description: str) -> Mapping[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, "description": description}


def _repeated(values: Sequence[str]) -> Mapping[str, Any]:
    return {"type": "array", "items": {"type": "string", "enum": list(values)}}


_LIMIT = _query(
    "limit",
    {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
    "How many are answered at most.",
)
_DESTINATION = _path("destination", "`host:port`, as in the list.")
_JOB = _path("id", "The job's id.")
_BATCH = _path("id", "The batch's id.")
_KEY = _header(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    "Makes repeating the request safe for 24 hours: the same key and body give the same job or batch.",
)
_TRACE = (
    _header("traceparent", {"type": "string"}, "W3C Trace Context: what the callback belongs to; malformed: ignored."),
    _header("tracestate", {"type": "string"}, "As the standard has it; goes along with `traceparent`."),
)
_TEXT: Mapping[str, Any] = {"schema": {"type": "string"}}
_LOCATION = {
    "Location": {"required": True, "description": "Where to read it.", "schema": {"type": "string"}},
    "Idempotency-Replayed": {
        "description": "`true` where an earlier request with this key made it.",
        "schema": {"type": "string", "const": "true"},
    },
}

CALLS: tuple[Call, ...] = (
    Call(
        *("POST", "/v1/jobs", "submitJob", "Submit a prompt", "Jobs"),
        success={202: Success("The job is in the store.", d.Job, headers=_LOCATION)},
        problems=_INTAKE,
        parameters=[_KEY, *_TRACE],
        body=s.JobRequest,
    ),
    Call(
        *("GET", "/v1/jobs", "listJobs", "List jobs", "Jobs"),
        success={200: Success("A page of jobs, newest first, without their results.", d.JobPage)},
        problems=(*_CLIENT, "invalid_request"),
        parameters=[
            _query("status", _repeated(list(JobStatus)), "Only jobs in one of these states."),
            _query("delivery", _repeated(list(DeliveryStatus)), "Only jobs whose delivery is in one of these states."),
            _query(
                "batch_id",
                {"type": "string", "pattern": "^batch_[0-7][0-9a-hjkmnp-tv-z]{25}$"},
                "Only jobs of this batch.",
            ),
            _LIMIT,
            _query(
                "cursor",
                {"type": "string", "pattern": "^[A-Za-z0-9_-]{52}$"},
                "The `next_cursor` of the page before, with the same filters.",
            ),
        ],
    ),
    Call(
        *("GET", "/v1/jobs/{id}", "getJob", "Read a job", "Jobs"),
        success={200: Success("The job.", d.Job)},
        problems=(*_CLIENT, "not_found", "invalid_request"),
        parameters=[
            _JOB,
            _query(
                "wait",
                {"type": "number", "minimum": 0, "maximum": MAX_WAIT_S, "default": 0},
                "Hold the answer until the job has an outcome, or for so many seconds.",
            ),
        ],
    ),
    Call(
        *("POST", "/v1/jobs/{id}/cancel", "cancelJob", "Cancel a job", "Jobs"),
        success={200: Success("The job is cancelled, by this call or an earlier one.", d.Job)},
        problems=(*_CLIENT, "not_found", "conflict"),
        parameters=[_JOB],
    ),
    Call(
        *("GET", "/v1/jobs/{id}/attempts", "listAttempts", "Read the log of a job's callbacks", "Deliveries"),
        success={200: Success("The attempts.", d.AttemptList)},
        problems=(*_CLIENT, "not_found"),
        parameters=[_JOB],
    ),
    Call(
        *("POST", "/v1/jobs/{id}/redeliver", "redeliverJob", "Send a job's callback again", "Deliveries"),
        success={202: Success("The callback is due.", d.Job)},
        problems=(*_CLIENT, "not_found", "not_redeliverable"),
        parameters=[_JOB],
    ),
    Call(
        *("POST", "/v1/jobs/redeliver", "redeliverJobs", "Send many callbacks again", "Deliveries"),
        success={202: Success("So many callbacks are due.", d.Count)},
        problems=(*_CLIENT, *_BODY, "malformed_request"),
        body=s.RedeliverRequest,
        body_required=False,
    ),
    Call(
        *("POST", "/v1/batches", "submitBatch", "Submit many prompts", "Batches"),
        success={202: Success("All jobs of the batch are in the store.", d.AcceptedBatch, headers=_LOCATION)},
        problems=(*_INTAKE, "batch_too_large"),
        parameters=[_KEY, *_TRACE],
        body=s.BatchRequest,
    ),
    Call(
        *("GET", "/v1/batches/{id}", "getBatch", "Read a batch", "Batches"),
        success={200: Success("The batch.", d.Batch)},
        problems=(*_CLIENT, "not_found"),
        parameters=[_BATCH],
    ),
    Call(
        *("POST", "/v1/batches/{id}/redeliver", "redeliverBatch", "Send `batch.completed` again", "Batches"),
        success={202: Success("The callback is due.", d.Batch)},
        problems=(*_CLIENT, "not_found", "not_redeliverable"),
        parameters=[_BATCH],
    ),
    Call(
        *("GET", "/v1/destinations", "listDestinations", "See how receivers fare", "Deliveries"),
        success={200: Success("Where callbacks went in the last 30 days, the last first.", d.DestinationList)},
        problems=(*_CLIENT, "invalid_request"),
        parameters=[
            _query("state", _repeated(list(DestinationState)), "Only destinations in one of these states."),
            _LIMIT,
        ],
    ),
    Call(
        *("GET", "/v1/destinations/{destination}", "getDestination", "See how one receiver fares", "Deliveries"),
        success={200: Success("The destination.", d.DestinationDocument)},
        problems=(*_CLIENT, "not_found"),
        parameters=[_DESTINATION],
    ),
    Call(
        *("POST", "/v1/destinations/{destination}/resume", "resumeDestination", "Send what waits", "Deliveries"),
        success={200: Success("Its failures are forgotten, and what waits for it is due.", d.DestinationDocument)},
        problems=(*_CLIENT, "not_found"),
        parameters=[_DESTINATION],
    ),
    Call(
        *("GET", "/v1/events", "streamEvents", "Follow changes as they happen", "Events"),
        success={
            200: Success(
                "Server-sent events, without end.",
                content={
                    "text/event-stream": {
                        "schema": {"type": "string"},
                        "example": "id: 1767225600000-0\nevent: job\n"
                        'data: {"id":"job_01jgfj7p00e8a3c5x9z1v7m4kq","status":"done","delivery":"pending",'
                        '"batch_id":null,"at":"2026-01-01T00:00:00.000Z"}\n\n',
                    }
                },
            )
        },
        problems=(*_CLIENT, "invalid_request"),
        parameters=[
            _header("Last-Event-ID", {"type": "string"}, "Resume after this event, which browsers do by themselves.")
        ],
        description="`event` is `job`, `batch` (status `open` or `completed`) or `reset`: what came since "
        "`Last-Event-ID` is not known any more. A comment comes every 15 s.",
    ),
    Call(
        *("GET", "/v1/results/{token}", "getResult", "Read the result that a thin callback links to", "Deliveries"),
        success={
            200: Success("The result.", content={"application/json": {"schema": {"type": "object"}}}),
        },
        problems=("not_found", "result_expired", "store_unavailable"),
        parameters=[_path("token", "What `result_url` ends with.")],
        public=True,
    ),
    Call(
        *("GET", "/healthz", "getHealth", "Is the process alive?", "Operation"),
        success={200: Success("It is.", d.Health)},
        public=True,
    ),
    Call(
        *("GET", "/readyz", "getReadiness", "Can jobs be accepted and moved forward?", "Operation"),
        success={200: Success("They can.", d.Health)},
        problems=("store_unavailable", "not_ready"),
        public=True,
    ),
    Call(
        *("GET", "/metrics", "getMetrics", "Metrics for Prometheus", "Operation"),
        success={200: Success("All metrics.", content={"text/plain": _TEXT})},
        public=True,
    ),
    Call(
        *("GET", "/openapi.json", "getOpenApi", "This document", "Operation"),
        success={200: Success("This document.", content={"application/json": {"schema": {"type": "object"}}})},
        public=True,
    ),
)
