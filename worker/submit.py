"""The submit step: hand one job to the upstream, once, and save what came of it."""

from typing import assert_never

import structlog

from relay.core import policy
from relay.core.errors import StoreUnavailable
from relay.core.model import ClientName, ErrorCode, JobError, JobStatus
from relay.core.policy import Finish, SubmitAfter, SubmitNow, Trouble
from relay.core.store.work import (
    Lease,
    PollClaim,
    Refused,
    Save,
    SubmitClaim,
    saved_outcome,
    saved_submission,
    saved_submit_retry,
)
from worker.context import Context
from worker.gates import Pause
from worker.learning import kind_of
from worker.runner import Kind
from worker.upstream import UpstreamClient
from worker.upstream_answers import (
    Ambiguous,
    CreditsExhausted,
    RateLimited,
    Rejected,
    SubmitOutcome,
    Submitted,
    Unauthorized,
    Unavailable,
    Unsent,
)

log = structlog.get_logger("worker.submit")


def overdue_decision(context: Context, claim: SubmitClaim, paused_by: Trouble | None) -> Finish | SubmitNow:
    """What becomes of a claimed job before anything is sent. `paused_by` is what holds its upstream key back."""
    return policy.before_submit(
        context.rules,
        now_ms=context.store.now_ms(),
        created_ms=claim.created_ms,
        deadline_ms=claim.deadline_ms,
        was_ambiguous=claim.was_ambiguous,
        # What holds the key back now is the later answer.
        last=paused_by or claim.last,
    )


def count_unaccounted(context: Context, claim: SubmitClaim) -> None:
    """Count and log that an earlier submit of a claimed job was begun and never accounted for."""
    if claim.was_ambiguous and not claim.is_counted:
        context.metrics.ambiguous.inc()
        log.warning("submit was not accounted for", id=claim.lease.id, client=claim.client)


async def submit_step(context: Context, upstream: UpstreamClient, claim: SubmitClaim) -> None:
    """Submit one claimed job."""
    count_unaccounted(context, claim)
    decision = overdue_decision(context, claim, None)
    if isinstance(decision, Finish):
        await finish_unsubmitted(context, claim, decision)
        return
    if claim.tries == 1:
        context.metrics.submit_wait_seconds.observe(max(0, context.store.now_ms() - claim.created_ms) / 1000)
    timeout_ms = policy.submit_timeout_ms(
        round(context.settings.upstream_timeout_s * 1000),
        now_ms=context.store.now_ms(),
        deadline_ms=claim.deadline_ms,
    )
    outcome = await upstream.submit(claim.spec, context.upstream_key(claim.client), timeout_s=timeout_ms / 1000)
    context.metrics.submitted(outcome)
    await _carry_out(context, claim, outcome)


async def _carry_out(context: Context, claim: SubmitClaim, outcome: SubmitOutcome) -> None:
    match outcome:
        case Submitted():
            await _submitted(context, claim, outcome)
        case Rejected():
            await _fail(context, claim, ErrorCode.UPSTREAM_REJECTED, outcome.detail)
        case Unauthorized():
            log.error("the upstream refused the API key: check RELAY_UPSTREAM_API_KEY", client=claim.client)
            await _fail(context, claim, ErrorCode.UPSTREAM_UNAUTHORIZED, outcome.detail)
        case RateLimited():
            await _trouble(context, claim, Trouble.RATE_LIMITED, "rate limit", outcome.retry_after_s)
        case CreditsExhausted():
            await _trouble(context, claim, Trouble.CREDITS, "credits used up", None)
        case Unavailable():
            await _trouble(context, claim, Trouble.UNAVAILABLE, outcome.reason, outcome.retry_after_s)
        case Unsent():
            await _trouble(context, claim, Trouble.UNSENT, outcome.reason, None)
        case Ambiguous():
            await _trouble(context, claim, Trouble.AMBIGUOUS, outcome.reason, None)
        case _:
            assert_never(outcome)


async def _submitted(context: Context, claim: SubmitClaim, outcome: Submitted) -> None:
    context.note_success(claim.client)
    kind = kind_of(claim.spec)
    delay = policy.first_poll(
        context.rules,
        wait_ms=context.learner.next_poll_ms(kind, 0),
        now_ms=context.store.now_ms(),
        deadline_ms=claim.deadline_ms,
    )
    log.debug("submitted", id=claim.lease.id, client=claim.client, tries=claim.tries)
    save = saved_submission(claim.lease, outcome.upstream_job_id, delay.delay_ms, kind)
    await _save(context, claim.lease, save, paid=True)


async def _trouble(
    context: Context, claim: SubmitClaim, trouble: Trouble, reason: str, retry_after_s: float | None
) -> None:
    now_ms = context.store.now_ms()
    limited = trouble in (Trouble.RATE_LIMITED, Trouble.CREDITS)
    decision = policy.after_submit_trouble(
        context.rules,
        trouble,
        now_ms=now_ms,
        created_ms=claim.created_ms,
        deadline_ms=claim.deadline_ms,
        tries=claim.tries,
        retry_after_ms=round(retry_after_s * 1000) if retry_after_s is not None else None,
        jitter=context.jitter.random(),
        refusals=context.refusals(claim.client, now_ms) if limited else 1,
    )
    log.warning(
        "submit did not go through",
        id=claim.lease.id,
        client=claim.client,
        trouble=trouble.value,
        reason=reason,
        tries=claim.tries,
        decision=type(decision).__name__,
    )
    match decision:
        case SubmitAfter():
            if decision.pause_ms:
                await _pause(context, claim.client, decision.pause_ms, trouble)
            saved = await _save(context, claim.lease, saved_submit_retry(claim.lease, trouble, decision.delay_ms))
            if saved and trouble is Trouble.AMBIGUOUS:
                context.metrics.ambiguous.inc()
        case Finish():
            await finish_unsubmitted(context, claim, decision, asked=True, ambiguous=trouble is Trouble.AMBIGUOUS)
        case _:
            assert_never(decision)


async def _pause(context: Context, client: ClientName, length_ms: int, trouble: Trouble) -> None:
    """Hold back every submit under the client's upstream key: here at once, on other workers by the store."""
    context.note_pause(client, Pause(context.store.now_ms() + length_ms, trouble))
    try:
        await context.store.pause(context.pause_name(client), length_ms, trouble)
    except StoreUnavailable as error:
        # The save that follows waits for the store and matters more; others run into the limit themselves.
        log.warning("pause not shared: the store is out of reach", client=client, reason=str(error))


async def _fail(context: Context, claim: SubmitClaim, code: ErrorCode, detail: str) -> None:
    await finish_unsubmitted(context, claim, Finish(JobStatus.FAILED, JobError(code, detail)), asked=True)


async def finish_unsubmitted(
    context: Context, claim: SubmitClaim, decision: Finish, *, asked: bool = False, ambiguous: bool = False
) -> None:
    """End a job that the upstream does not have, or is not known to have, whether it was asked now or not."""
    announced = policy.is_announced(decision.status, claim.spec.callback.events)
    save = saved_outcome(
        claim.lease,
        decision.status,
        decision.error,
        announce_after_ms=context.rules.schedule_ms[0] if announced else None,
        asked=asked,
        ambiguous=ambiguous,
    )
    if await _save(context, claim.lease, save):
        if ambiguous:
            context.metrics.ambiguous.inc()
        count_outcome(context, claim, decision)


async def _save(context: Context, lease: Lease, save: Save, *, paid: bool = False) -> bool:
    answer = await context.saver.save(save)
    if isinstance(answer, Refused):
        context.note_refused(Kind.SUBMIT, lease)
        if paid:
            context.metrics.orphans.inc()
            log.error("an upstream job was paid for and belongs to no job: the lease was lost", id=lease.id)
        return False
    return True


def count_outcome(context: Context, claim: SubmitClaim | PollClaim, decision: Finish) -> None:
    """Count and log an outcome that is in the store."""
    code = decision.error.code if decision.error else None
    context.metrics.ended(decision.status, code)
    log.info(
        "job ended", id=claim.lease.id, client=claim.client, status=decision.status.value, code=code and code.value
    )
