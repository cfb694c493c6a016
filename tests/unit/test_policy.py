"""What happens next: the pure decisions, case by case."""

import pytest

from relay.core import policy
from relay.core.model import AttemptOutcome, ErrorCode, EventType, JobStatus
from relay.core.policy import (
    TIMED_OUT,
    Delivered,
    Exhausted,
    Finish,
    Gone,
    PollAfter,
    RetryAfter,
    Rules,
    SubmitAfter,
    SubmitNow,
    Trouble,
)

RULES = Rules(
    poll_interval_ms=3_000,
    poll_min_interval_ms=1_000,
    submit_window_ms=900_000,
    resubmit_ambiguous=True,
    schedule_ms=(0, 5_000, 300_000),
)
CAREFUL = Rules(3_000, 1_000, 900_000, resubmit_ambiguous=False, schedule_ms=(0,))


def code_of(decision: object) -> ErrorCode | None:
    """The error code of a decision that ends the job."""
    assert isinstance(decision, Finish)
    return decision.error.code if decision.error else None


@pytest.mark.parametrize(
    ("rules", "now_ms", "was_ambiguous", "last", "expected"),
    [
        (RULES, 0, False, None, None),
        (RULES, 0, True, None, None),
        (CAREFUL, 0, True, None, ErrorCode.SUBMIT_AMBIGUOUS),
        (RULES, 899_999, False, Trouble.CREDITS, None),
        (RULES, 900_000, False, Trouble.CREDITS, ErrorCode.UPSTREAM_CREDITS_EXHAUSTED),
        (RULES, 900_000, False, Trouble.UNAVAILABLE, ErrorCode.UPSTREAM_UNREACHABLE),
        # Nothing has kept it from going through but the queue: it still goes.
        (RULES, 900_000, False, None, None),
        (RULES, 960_000, False, Trouble.CREDITS, ErrorCode.DEADLINE_EXCEEDED),
        (CAREFUL, 960_000, True, None, ErrorCode.DEADLINE_EXCEEDED),
    ],
)
def test_before_submit(
    rules: Rules, now_ms: int, was_ambiguous: bool, last: Trouble | None, expected: ErrorCode | None
) -> None:
    """A claimed job is sent unless its deadline, its window or an unaccounted submit speaks against it."""
    decision = policy.before_submit(
        rules, now_ms=now_ms, created_ms=0, deadline_ms=960_000, was_ambiguous=was_ambiguous, last=last
    )
    if expected is None:
        assert decision == SubmitNow()
    else:
        assert code_of(decision) is expected


def trouble(
    kind: Trouble,
    *,
    rules: Rules = RULES,
    now_ms: int = 1_000,
    deadline_ms: int = 960_000,
    tries: int = 1,
    retry_after_ms: int | None = None,
    jitter: float = 0.0,
    refusals: int = 1,
) -> policy.SubmitDecision:
    """The decision after a submit with trouble, of a job created at 0."""
    return policy.after_submit_trouble(
        rules,
        kind,
        now_ms=now_ms,
        created_ms=0,
        deadline_ms=deadline_ms,
        tries=tries,
        retry_after_ms=retry_after_ms,
        jitter=jitter,
        refusals=refusals,
    )


@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        (trouble(Trouble.UNAVAILABLE), SubmitAfter(1_000)),
        (trouble(Trouble.UNAVAILABLE, tries=3), SubmitAfter(4_000)),
        (trouble(Trouble.UNAVAILABLE, tries=3, jitter=0.5), SubmitAfter(4_400)),
        (trouble(Trouble.UNSENT, tries=500), SubmitAfter(60_000)),
        (trouble(Trouble.RATE_LIMITED, tries=9), SubmitAfter(1_000, 1_000)),
        (trouble(Trouble.RATE_LIMITED, refusals=3), SubmitAfter(4_000, 4_000)),
        (trouble(Trouble.RATE_LIMITED, refusals=6, retry_after_ms=2_000), SubmitAfter(2_000, 2_000)),
        (trouble(Trouble.UNAVAILABLE, retry_after_ms=7_000), SubmitAfter(7_000)),
        (trouble(Trouble.UNAVAILABLE, retry_after_ms=10**9), SubmitAfter(300_000)),
        (trouble(Trouble.RATE_LIMITED, retry_after_ms=7_000), SubmitAfter(7_000, pause_ms=7_000)),
        (trouble(Trouble.CREDITS), SubmitAfter(60_000, pause_ms=60_000)),
        (trouble(Trouble.AMBIGUOUS), SubmitAfter(1_000)),
        # Never past the window's end or the deadline, so that the end is noticed in time.
        (trouble(Trouble.CREDITS, now_ms=880_000), SubmitAfter(20_000, pause_ms=60_000)),
        (trouble(Trouble.CREDITS, now_ms=1_000, deadline_ms=5_000), SubmitAfter(4_000, pause_ms=60_000)),
    ],
)
def test_submit_trouble_is_tried_again(decision: policy.SubmitDecision, expected: SubmitAfter) -> None:
    """Trouble with a submit leads to another try, later each time and never past the last moment."""
    assert decision == expected


@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        (trouble(Trouble.CREDITS, now_ms=900_000), ErrorCode.UPSTREAM_CREDITS_EXHAUSTED),
        (trouble(Trouble.RATE_LIMITED, now_ms=900_000), ErrorCode.UPSTREAM_UNREACHABLE),
        (trouble(Trouble.AMBIGUOUS, rules=CAREFUL), ErrorCode.SUBMIT_AMBIGUOUS),
        (trouble(Trouble.AMBIGUOUS, now_ms=960_000), ErrorCode.DEADLINE_EXCEEDED),
        (trouble(Trouble.CREDITS, now_ms=5_000, deadline_ms=5_000), ErrorCode.DEADLINE_EXCEEDED),
    ],
)
def test_submit_trouble_ends_the_job(decision: policy.SubmitDecision, expected: ErrorCode) -> None:
    """At the end of its window or deadline, or where a second charge is not wanted, the job ends with the reason."""
    assert code_of(decision) is expected


@pytest.mark.parametrize(
    ("now_ms", "deadline_ms", "delay_ms"),
    [(0, 100_000, 3_000), (98_500, 100_000, 1_500), (99_900, 100_000, 1_000), (100_500, 100_000, 1_000)],
)
def test_polls_come_at_the_interval_and_at_the_deadline(now_ms: int, deadline_ms: int, delay_ms: int) -> None:
    """The next poll is due after the interval, at the deadline if that is sooner or past, and never under the floor."""
    assert policy.first_poll(RULES, wait_ms=3_000, now_ms=now_ms, deadline_ms=deadline_ms) == PollAfter(delay_ms)


def test_a_pending_job_times_out_only_by_a_poll_begun_after_the_deadline() -> None:
    """What was paid for is asked for once more after the deadline before it is given up."""
    before = policy.after_pending(RULES, wait_ms=3_000, begun_ms=99_999, now_ms=100_020, deadline_ms=100_000)
    after = policy.after_pending(RULES, wait_ms=3_000, begun_ms=100_000, now_ms=100_020, deadline_ms=100_000)
    assert isinstance(before, PollAfter)
    assert after == TIMED_OUT


@pytest.mark.parametrize(
    ("now_ms", "failures", "retry_after_ms", "expected"),
    [
        (0, 1, None, PollAfter(3_000)),
        (0, 3, None, PollAfter(12_000)),
        (0, 50, None, PollAfter(60_000)),
        (0, 1, 20_000, PollAfter(20_000)),
        (95_000, 5, None, PollAfter(5_000)),
        # After the deadline every second counts, until the contract's last moment.
        (100_000, 9, 60_000, PollAfter(1_000)),
        (107_000, 9, None, PollAfter(1_000)),
        # The next one would come too late.
        (107_001, 9, None, TIMED_OUT),
        (200_000, 1, None, TIMED_OUT),
    ],
)
def test_polls_without_an_answer(
    now_ms: int, failures: int, retry_after_ms: int | None, expected: policy.PollDecision
) -> None:
    """An unanswered poll is repeated, ever later, but never in vain past the deadline's slack."""
    decision = policy.after_poll_trouble(
        RULES, now_ms=now_ms, deadline_ms=100_000, failures=failures, retry_after_ms=retry_after_ms, jitter=0.0
    )
    assert decision == expected


@pytest.mark.parametrize(
    ("now_ms", "submit_ms", "poll_ms"), [(0, 10_000, 10_000), (99_000, 6_000, 9_000), (200_000, 1_000, 1_000)]
)
def test_requests_to_the_upstream_end_before_the_job_must(now_ms: int, submit_ms: int, poll_ms: int) -> None:
    """A request near the deadline gets what time is left, a submit less than a poll, and each at least a second."""
    assert policy.submit_timeout_ms(10_000, now_ms=now_ms, deadline_ms=100_000) == submit_ms
    assert policy.poll_timeout_ms(10_000, now_ms=now_ms, deadline_ms=100_000) == poll_ms


def test_credits_are_tried_more_often_in_a_short_window() -> None:
    """Where the submit window is short, credits that come back within it are noticed."""
    hasty = Rules(3_000, 1_000, 30_000, resubmit_ambiguous=True, schedule_ms=(0,))
    assert trouble(Trouble.CREDITS, rules=hasty) == SubmitAfter(2_000, pause_ms=2_000)


@pytest.mark.parametrize(
    ("status", "events", "expected"),
    [
        (JobStatus.DONE, list(EventType), True),
        (JobStatus.DONE, [EventType.JOB_FAILED], False),
        (JobStatus.TIMED_OUT, [EventType.JOB_TIMED_OUT], True),
        (JobStatus.CANCELLED, list(EventType), False),
    ],
)
def test_only_asked_for_events_are_announced(status: JobStatus, events: list[EventType], expected: bool) -> None:
    """A callback is due for the events that the client named, and never for a cancelled job."""
    assert policy.is_announced(status, events) is expected


def attempt(
    outcome: AttemptOutcome, number: int = 1, status: int | None = None, wait_ms: int | None = None, jitter: float = 0.0
) -> policy.DeliveryDecision:
    """The decision after an attempt."""
    return policy.after_attempt(
        RULES, outcome=outcome, http_status=status, retry_after_ms=wait_ms, attempt=number, jitter=jitter
    )


@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        (attempt(AttemptOutcome.DELIVERED), Delivered()),
        (attempt(AttemptOutcome.GONE), Gone()),
        (attempt(AttemptOutcome.HTTP_ERROR, 1, 500), RetryAfter(5_000)),
        (attempt(AttemptOutcome.HTTP_ERROR, 1, 500, jitter=0.999), RetryAfter(5_999)),
        (attempt(AttemptOutcome.TIMEOUT, 2), RetryAfter(300_000)),
        (attempt(AttemptOutcome.TIMEOUT, 3), Exhausted()),
        (attempt(AttemptOutcome.BLOCKED_ADDRESS, 1), RetryAfter(5_000)),
        # A receiver may ask for more time, up to the schedule's longest, and only by 429 and 503.
        (attempt(AttemptOutcome.HTTP_ERROR, 1, 429, 60_000), RetryAfter(60_000)),
        (attempt(AttemptOutcome.HTTP_ERROR, 1, 503, 10**9), RetryAfter(300_000)),
        (attempt(AttemptOutcome.HTTP_ERROR, 1, 429, 10), RetryAfter(5_000)),
        (attempt(AttemptOutcome.HTTP_ERROR, 1, 500, 60_000), RetryAfter(5_000)),
        (attempt(AttemptOutcome.HTTP_ERROR, 3, 429, 60_000), Exhausted()),
    ],
)
def test_after_an_attempt(decision: policy.DeliveryDecision, expected: policy.DeliveryDecision) -> None:
    """Success and 410 end a delivery; all else is retried by the schedule until that is used up."""
    assert decision == expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, AttemptOutcome.DELIVERED),
        (204, AttemptOutcome.DELIVERED),
        (299, AttemptOutcome.DELIVERED),
        (302, AttemptOutcome.HTTP_ERROR),
        (404, AttemptOutcome.HTTP_ERROR),
        (410, AttemptOutcome.GONE),
        (503, AttemptOutcome.HTTP_ERROR),
    ],
)
def test_statuses(status: int, expected: AttemptOutcome) -> None:
    """Any 2xx is success, 410 stops for good, all else is a failure."""
    assert policy.classify_status(status) is expected


@pytest.mark.parametrize(
    ("begun_ms", "failures", "expected"),
    [(967_999, 3, False), (968_000, 1, True), (968_000, 0, False), (999_000, 0, False), (0, 9, False)],
)
def test_a_poll_that_comes_too_late_is_not_made(begun_ms: int, failures: int, expected: bool) -> None:
    """After the last moment only a job that was not asked for in vain before is asked for."""
    assert policy.is_too_late(begun_ms, 960_000, failures) is expected
