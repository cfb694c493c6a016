"""What happens next to a job: pure decisions over what was seen, the time and a given jitter.

Knows the rules of retrying, waiting and giving up; does nothing itself. Delays and moments are milliseconds by the
store's clock; `jitter` is a number in [0, 1) that the caller draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from relay.core.model import EVENT_OF_STATUS, AttemptOutcome, ErrorCode, EventType, JobError, JobStatus

#: A job ends at most this long after its deadline (docs/api.md says 10 s); what is left is for the save.
DEADLINE_SLACK_MS = 8_000
#: A submit may take this long past it: what it came to is still polled in time.
_SUBMIT_SLACK_MS = 5_000
_JITTER_SHARE = 0.2
_BACKOFF_FIRST_MS = 1_000
_BACKOFF_CAP_MS = 60_000
#: A credit limit lifts when somebody pays or a billing cycle ends: trying every minute is soon enough, and a part of
#: the submit window where that is short, so that what has come back before its end is noticed.
_CREDIT_PAUSE_MS = 60_000
_CREDIT_TRIES_PER_WINDOW = 15
_RETRY_AFTER_CAP_MS = 300_000


class Trouble(StrEnum):
    """Why a submit did not go through, where another try may."""

    RATE_LIMITED = "rate_limited"
    CREDITS = "credits"
    #: The upstream answered that it cannot now.
    UNAVAILABLE = "unavailable"
    #: Nothing was sent.
    UNSENT = "unsent"
    #: The answer was lost: the upstream may have the job, and may have charged for it.
    AMBIGUOUS = "ambiguous"


@dataclass(frozen=True, slots=True)
class Rules:
    """The part of the settings that decisions depend on."""

    poll_interval_ms: int
    poll_min_interval_ms: int
    submit_window_ms: int
    resubmit_ambiguous: bool
    schedule_ms: Sequence[int]


@dataclass(frozen=True, slots=True)
class Finish:
    """The job has its outcome."""

    status: JobStatus
    error: JobError | None = None


@dataclass(frozen=True, slots=True)
class SubmitNow:
    """Send the submit."""


@dataclass(frozen=True, slots=True)
class SubmitAfter:
    """Try the submit again. `pause_ms` is how long every submit of this upstream key holds back; 0 for none."""

    delay_ms: int
    pause_ms: int = 0


@dataclass(frozen=True, slots=True)
class PollAfter:
    """Poll (again) after this long."""

    delay_ms: int


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver has it."""


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """Try the callback again after this long."""

    delay_ms: int


@dataclass(frozen=True, slots=True)
class Exhausted:
    """The schedule is used up."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The receiver asked never to be called again."""


SubmitDecision = Finish | SubmitAfter
PollDecision = Finish | PollAfter
DeliveryDecision = Delivered | RetryAfter | Exhausted | Gone

TIMED_OUT = Finish(JobStatus.TIMED_OUT, JobError(ErrorCode.DEADLINE_EXCEEDED, "the job's deadline passed"))


def submit_window_end_ms(rules: Rules, created_ms: int, deadline_ms: int) -> int:
    """The moment from which a job that the upstream does not have is given up: its window's end or its deadline."""
    return min(created_ms + rules.submit_window_ms, deadline_ms)


def before_submit(
    rules: Rules, *, now_ms: int, created_ms: int, deadline_ms: int, was_ambiguous: bool, last: Trouble | None
) -> Finish | SubmitNow:
    """Whether a claimed job is submitted at all.

    `was_ambiguous`: an earlier submit of this job was begun and never accounted for. `last`: what kept it from going
    through so far, its own trouble or that of its upstream key; None where nothing did.
    """
    if now_ms >= deadline_ms:
        return TIMED_OUT
    if was_ambiguous and not rules.resubmit_ambiguous:
        return _ambiguous()
    if last is not None and now_ms >= created_ms + rules.submit_window_ms:
        return _window_over(last)
    return SubmitNow()


def after_submit_trouble(
    rules: Rules,
    trouble: Trouble,
    *,
    now_ms: int,
    created_ms: int,
    deadline_ms: int,
    tries: int,
    retry_after_ms: int | None,
    jitter: float,
    refusals: int = 1,
) -> SubmitDecision:
    """What follows a submit that did not go through; `tries` counts it, from 1.

    `refusals`: how often in a row the upstream key was over a limit, this time included. A limit is the key's, so it is
    that which the pause grows with, and not with the tries of the job that met it.
    """
    if trouble is Trouble.AMBIGUOUS and not rules.resubmit_ambiguous:
        return _ambiguous()
    if now_ms >= deadline_ms:
        return TIMED_OUT
    if now_ms >= created_ms + rules.submit_window_ms:
        return _window_over(trouble)
    shared = trouble in (Trouble.RATE_LIMITED, Trouble.CREDITS)
    delay_ms = _backoff_ms(refusals if shared else tries, _BACKOFF_FIRST_MS, _BACKOFF_CAP_MS)
    if trouble is Trouble.RATE_LIMITED and retry_after_ms is not None:
        # The upstream knows best.
        delay_ms = _BACKOFF_FIRST_MS
    if trouble is Trouble.CREDITS:
        delay_ms = max(delay_ms, min(_CREDIT_PAUSE_MS, rules.submit_window_ms // _CREDIT_TRIES_PER_WINDOW))
    if retry_after_ms is not None:
        delay_ms = max(delay_ms, min(retry_after_ms, _RETRY_AFTER_CAP_MS))
    pause_ms = delay_ms if shared else 0
    until_end_ms = submit_window_end_ms(rules, created_ms, deadline_ms) - now_ms
    return SubmitAfter(min(_jittered(delay_ms, jitter), until_end_ms), pause_ms)


def first_poll(rules: Rules, *, wait_ms: int, now_ms: int, deadline_ms: int) -> PollAfter:
    """When to look after a job that was just submitted: in `wait_ms`, as its schedule says."""
    return PollAfter(_poll_delay_ms(rules, wait_ms, now_ms, deadline_ms))


def after_pending(rules: Rules, *, wait_ms: int, begun_ms: int, now_ms: int, deadline_ms: int) -> PollDecision:
    """What follows a poll, begun at `begun_ms`, that found the job still pending; its schedule says `wait_ms`."""
    if begun_ms >= deadline_ms:
        return TIMED_OUT
    return PollAfter(_poll_delay_ms(rules, wait_ms, now_ms, deadline_ms))


def after_poll_trouble(
    rules: Rules, *, now_ms: int, deadline_ms: int, failures: int, retry_after_ms: int | None, jitter: float
) -> PollDecision:
    """What follows a poll without an answer, the `failures`-th in a row.

    What was submitted has been paid for, so it is asked for until the last moment that the contract allows.
    """
    delay_ms = _jittered(_backoff_ms(failures, rules.poll_interval_ms, _BACKOFF_CAP_MS), jitter)
    if retry_after_ms is not None:
        delay_ms = max(delay_ms, min(retry_after_ms, _RETRY_AFTER_CAP_MS))
    delay_ms = _poll_delay_ms(rules, delay_ms, now_ms, deadline_ms)
    if now_ms + delay_ms > deadline_ms + DEADLINE_SLACK_MS:
        return TIMED_OUT
    return PollAfter(delay_ms)


def is_too_late(begun_ms: int, deadline_ms: int, failures: int) -> bool:
    """Whether a poll is not worth its time any more: the job must have ended, and was asked for in vain before."""
    return failures > 0 and begun_ms >= deadline_ms + DEADLINE_SLACK_MS


def submit_timeout_ms(limit_ms: int, *, now_ms: int, deadline_ms: int) -> int:
    """How long a submit may take, so that what it comes to is still polled before the job must end."""
    return max(1_000, min(limit_ms, deadline_ms + _SUBMIT_SLACK_MS - now_ms))


def poll_timeout_ms(limit_ms: int, *, now_ms: int, deadline_ms: int) -> int:
    """How long a poll may take, so that the job still ends in time; at least a second."""
    return max(1_000, min(limit_ms, deadline_ms + DEADLINE_SLACK_MS - now_ms))


def is_announced(status: JobStatus, events: Sequence[EventType]) -> bool:
    """Whether an outcome is called back, given the events that the client asked for."""
    return EVENT_OF_STATUS.get(status) in events


def after_attempt(
    rules: Rules,
    *,
    outcome: AttemptOutcome,
    http_status: int | None,
    retry_after_ms: int | None,
    attempt: int,
    jitter: float,
) -> DeliveryDecision:
    """What follows the `attempt`-th attempt, from 1, of a generation of a delivery.

    A 429's or 503's `Retry-After` can lengthen the delay up to the schedule's longest; it adds or takes no attempts.
    """
    if outcome is AttemptOutcome.DELIVERED:
        return Delivered()
    if outcome is AttemptOutcome.GONE:
        return Gone()
    if attempt >= len(rules.schedule_ms):
        return Exhausted()
    delay_ms = _jittered(rules.schedule_ms[attempt], jitter)
    if http_status in (429, 503) and retry_after_ms is not None:
        delay_ms = max(delay_ms, min(retry_after_ms, max(rules.schedule_ms)))
    return RetryAfter(delay_ms)


def classify_status(http_status: int) -> AttemptOutcome:
    """How an attempt ended that was answered with `http_status`: any 2xx is success, 410 stops for good."""
    if 200 <= http_status < 300:
        return AttemptOutcome.DELIVERED
    if http_status == 410:
        return AttemptOutcome.GONE
    return AttemptOutcome.HTTP_ERROR


def _ambiguous() -> Finish:
    message = "the answer to the submit was lost; the upstream may have run and charged this job"
    return Finish(JobStatus.FAILED, JobError(ErrorCode.SUBMIT_AMBIGUOUS, message))


def _window_over(last: Trouble) -> Finish:
    if last is Trouble.CREDITS:
        error = JobError(ErrorCode.UPSTREAM_CREDITS_EXHAUSTED, "the upstream's credits were used up")
    else:
        error = JobError(ErrorCode.UPSTREAM_UNREACHABLE, "the upstream took no job within the submit window")
    return Finish(JobStatus.FAILED, error)


def _poll_delay_ms(rules: Rules, delay_ms: int, now_ms: int, deadline_ms: int) -> int:
    """`delay_ms`, but no later than the deadline, where one poll decides, and never below the floor."""
    return max(min(delay_ms, deadline_ms - now_ms), rules.poll_min_interval_ms)


def _backoff_ms(count: int, first_ms: int, cap_ms: int) -> int:
    # The exponent is bounded so that a long outage does not make an astronomical number first.
    return int(min(first_ms * 2 ** min(max(count - 1, 0), 20), max(cap_ms, first_ms)))


def _jittered(delay_ms: int, jitter: float) -> int:
    return round(delay_ms * (1 + _JITTER_SHARE * jitter))
