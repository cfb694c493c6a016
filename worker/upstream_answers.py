"""What the upstream's answers mean: the outcomes of a submit and of a poll, read from status and body, purely.

Alone knows the upstream's statuses and documents (docs/upstream.md). Nothing that the upstream says raises: what cannot
be read is an outcome too. Upstream ids are in no repr, and neither are the upstream's words, which may repeat a prompt
or an id.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

_DETAIL_CHARACTERS = 500
#: Of a refused key or an id in the upstream's words nothing is passed on; shorter ones are no secrets but accidents.
_SECRET_CHARACTERS = 8
_PERMANENT = frozenset({400, 404, 405, 413, 414, 422, 431})
#: More than this is no price: it would only break the account.
_CREDITS_AT_MOST = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Submitted:
    """The upstream has the job."""

    upstream_job_id: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Rejected:
    """The upstream refuses the request for good."""

    status: int
    detail: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Unauthorized:
    """The upstream refuses the key."""

    detail: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class RateLimited:
    """Too many submits under this key."""

    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class CreditsExhausted:
    """The key's credits are used up."""

    detail: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The upstream answered that it cannot now; it has not taken the job."""

    reason: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Unsent:
    """No connection: nothing was sent."""

    reason: str


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """The answer was lost: the upstream may have the job."""

    reason: str


SubmitOutcome = Submitted | Rejected | Unauthorized | RateLimited | CreditsExhausted | Unavailable | Unsent | Ambiguous


@dataclass(frozen=True, slots=True)
class StillPending:
    """Not done yet."""


@dataclass(frozen=True, slots=True)
class Done:
    """The upstream has the result."""

    #: The `result` as the upstream's own bytes, valid JSON in UTF-8; `null` where there is none.
    result: bytes = field(repr=False)
    #: The upstream's own times, in Unix milliseconds, where it gave them.
    created_ms: int | None
    completed_ms: int | None
    #: Never negative; None where the upstream does not say.
    credits_used: int | float | None


@dataclass(frozen=True, slots=True)
class UpstreamFailed:
    """The upstream gave the job up."""

    message: str = field(repr=False)
    #: As of a job that is done.
    created_ms: int | None = None
    completed_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """The upstream does not know the job (any more)."""

    detail: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class PollUnavailable:
    """No answer that says how the job stands."""

    reason: str
    retry_after_s: float | None = None


PollOutcome = StillPending | Done | UpstreamFailed | Lost | PollUnavailable


class _SubmitAnswer(msgspec.Struct):
    job_id: str


class _PollAnswer(msgspec.Struct):
    status: str
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: object = None
    created_at: object = None
    completed_at: object = None


class _Result(msgspec.Struct):
    credits_used: int | float | None = None


class _Problem(msgspec.Struct):
    detail: object = None


_submit_decoder = msgspec.json.Decoder(_SubmitAnswer)
_poll_decoder = msgspec.json.Decoder(_PollAnswer)
_result_decoder = msgspec.json.Decoder(_Result)
_problem_decoder = msgspec.json.Decoder(_Problem)

#: What the decoders raise: not JSON or another document, not UTF-8, nested too deep. The first two are ValueErrors.
_UNREADABLE = (ValueError, RecursionError)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of the upstream, read to its end or cut short where only the status counts."""

    status: int
    body: bytes = field(repr=False)
    retry_after_s: float | None
    #: What must not be passed on where the upstream repeats it: the key, the job's id.
    secret: str = field(repr=False)

    @property
    def is_success(self) -> bool:
        """Whether the upstream did what it was asked."""
        return is_success(self.status)

    def detail(self) -> str:
        """What the upstream says of its refusal, shortened; the status where it says nothing."""
        try:
            detail = _problem_decoder.decode(self.body).detail
        except _UNREADABLE:
            detail = None
        return self.shown(detail) or f"the upstream answered with status {self.status}"

    def shown(self, detail: object) -> str:
        """The upstream's words as text for the job's client; empty where there are none."""
        text = _text(detail)
        if len(self.secret) >= _SECRET_CHARACTERS:
            text = text.replace(self.secret, "…")
        return text[:_DETAIL_CHARACTERS]


def is_success(status: int) -> bool:
    """Whether a status says yes."""
    return 200 <= status < 300


def read_submit(answer: Answer) -> SubmitOutcome:
    """What came of a submit that was answered."""
    status = answer.status
    if answer.is_success:
        try:
            job_id = _submit_decoder.decode(answer.body).job_id
        except _UNREADABLE:
            job_id = ""
        return Submitted(job_id) if job_id else Ambiguous("accepted without a job id")
    if status in (401, 403):
        return Unauthorized(answer.detail())
    if status == 402:
        return CreditsExhausted(answer.detail())
    if status == 429:
        detail = answer.detail()
        return CreditsExhausted(detail) if "credit" in detail.lower() else RateLimited(answer.retry_after_s)
    if status in _PERMANENT:
        return Rejected(status, answer.detail())
    return Unavailable(f"status {status}", answer.retry_after_s)


def read_poll(answer: Answer) -> PollOutcome:
    """What a poll that was answered says of the job."""
    if answer.status in (404, 410):
        return Lost(answer.detail())
    if not answer.is_success:
        return PollUnavailable(f"status {answer.status}", answer.retry_after_s)
    try:
        # The decoder checks the grammar of what it skips, but not its encoding; the result's is passed on.
        answer.body.decode()
        job = _poll_decoder.decode(answer.body)
    except _UNREADABLE:
        return PollUnavailable("an answer that is not the documented JSON")
    match job.status:
        case "pending" | "queued" | "running" | "processing":
            return StillPending()
        case "done":
            result = bytes(job.result)
            return Done(result, _moment_ms(job.created_at), _moment_ms(job.completed_at), _credits(result))
        case "failed":
            message = answer.shown(job.error) or "failed"
            return UpstreamFailed(message, _moment_ms(job.created_at), _moment_ms(job.completed_at))
        case _:
            return PollUnavailable("an unknown status")


def _text(detail: object) -> str:
    match detail:
        case None:
            return ""
        case str():
            return detail
        case [{"msg": _}, *_]:
            # A list of faults, as FastAPI answers with: without the input, which is the prompt.
            return "; ".join(_fault(fault) for fault in detail if isinstance(fault, Mapping))
        case _:
            return msgspec.json.encode(detail).decode()


def _fault(fault: Mapping[str, object]) -> str:
    place = fault.get("loc")
    where = ".".join(map(str, place)) if isinstance(place, Sequence) and not isinstance(place, str) else ""
    message = str(fault.get("msg") or "refused")
    return f"{where}: {message}" if where else message


def _credits(result: bytes) -> int | float | None:
    try:
        credits_used = _result_decoder.decode(result).credits_used
    except _UNREADABLE:
        return None
    return credits_used if credits_used is not None and 0 <= credits_used <= _CREDITS_AT_MOST else None


def _moment_ms(value: object) -> int | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        # The upstream's times are UTC (docs/upstream.md, "Poll").
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)
