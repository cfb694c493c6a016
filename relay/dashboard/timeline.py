"""What happened to a job, step by step, and what will: a pure function of the record and the log of attempts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from relay.core.model import Attempt, AttemptOutcome, DeliveryStatus, Job, JobStatus
from relay.dashboard.formats import duration, plural, words

Tone = Literal["good", "bad", "warning", "neutral", "running"]

_TONES: dict[JobStatus, Tone] = {
    JobStatus.DONE: "good",
    JobStatus.FAILED: "bad",
    JobStatus.TIMED_OUT: "bad",
    JobStatus.CANCELLED: "neutral",
}
_ENDS: dict[DeliveryStatus, tuple[str, Tone, str]] = {
    DeliveryStatus.EXHAUSTED: (
        "Callback not delivered",
        "bad",
        "The schedule is used up. Redeliver when the receiver works again.",
    ),
    DeliveryStatus.GONE: ("Callback stopped", "bad", "The receiver answered 410: it wants no more of it."),
    DeliveryStatus.SKIPPED: ("No callback", "neutral", "This event was not asked for."),
}


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened, happens or will happen."""

    title: str
    tone: Tone
    at_ms: int | None = None
    detail: str = ""
    #: What the receiver said.
    excerpt: str = ""
    #: Whether the distance from now says more than the time.
    is_ahead: bool = False


def steps_of(job: Job, attempts: Sequence[Attempt]) -> list[Step]:
    """The steps, in the order in which they happened."""
    return [Step("Accepted", "neutral", job.created_ms), *_upstream(job), *_delivery(job, attempts)]


def _upstream(job: Job) -> Iterator[Step]:
    if job.submitted_ms is not None:
        waited = f"{job.spec.scraper} took it after {duration(job.submitted_ms - job.created_ms)}"
        tries = f", at submit {job.submits}" if job.submits > 1 else ""
        yield Step("Submitted", "neutral", job.submitted_ms, waited + tries)
    if job.polls:
        yield Step(f"Polled {plural(job.polls, 'time')}", "neutral", None)
    if job.status is JobStatus.QUEUED:
        yield Step("Waiting to be submitted", "running", job.deadline_ms, "must end", is_ahead=True)
    elif job.status is JobStatus.PENDING:
        yield Step("Waiting for the outcome", "running", job.deadline_ms, "must end", is_ahead=True)
    else:
        took = "" if job.completed_ms is None else f"{duration(job.completed_ms - job.created_ms)} after acceptance"
        why = "" if job.error is None else f"{words(job.error.code)}: {job.error.message}"
        title = words(job.status).capitalize()
        yield Step(title, _TONES[job.status], job.completed_ms, "; ".join(filter(None, (took, why))))


def _delivery(job: Job, attempts: Sequence[Attempt]) -> Iterator[Step]:
    missing = job.delivery.attempts - len(attempts)
    if attempts and attempts[0].number > 1:
        yield Step(plural(attempts[0].number - 1, "earlier attempt"), "neutral", None, "not kept any more")
    for attempt in attempts:
        yield _attempt(attempt)
    if attempts and attempts[-1].number < job.delivery.attempts:
        yield Step(f"Attempt {job.delivery.attempts}", "running", None, "under way")
    elif not attempts and missing > 0:
        yield Step("Attempt 1", "running", None, "under way")
    status = job.delivery.status
    if job.delivery.next_attempt_ms is not None:
        again = "next" if job.delivery.attempts else "first"
        yield Step(f"The {again} attempt is due", "running", job.delivery.next_attempt_ms, is_ahead=True)
    elif status in _ENDS and job.status is not JobStatus.CANCELLED:
        title, tone, detail = _ENDS[status]
        yield Step(title, tone, None, detail)


def _attempt(attempt: Attempt) -> Step:
    good = attempt.outcome is AttemptOutcome.DELIVERED
    said = f"HTTP {attempt.http_status}" if attempt.http_status is not None else words(attempt.outcome)
    detail = f"{said} after {duration(attempt.duration_ms)}"
    if attempt.error and attempt.error != said:
        detail += f": {attempt.error}"
    return Step(
        f"Attempt {attempt.number} {'delivered' if good else 'failed'}",
        "good" if good else "bad",
        attempt.started_ms,
        detail,
        attempt.response_excerpt or "",
    )
