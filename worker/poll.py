"""The poll step: ask the upstream how one job stands, and go on to its callback where it is done."""

import asyncio
from typing import assert_never

import structlog

from relay.core import policy, signing
from relay.core.model import ErrorCode, JobError, JobId, JobStatus
from relay.core.policy import Finish, PollAfter, PollDecision
from relay.core.store import records
from relay.core.store.work import Carried, PollClaim, Refused, SharedOutcome, saved_outcome, saved_poll
from worker.context import Context
from worker.deliver import Deliverer
from worker.runner import Kind
from worker.submit import count_outcome
from worker.upstream import UpstreamClient
from worker.upstream_answers import (
    Done,
    Lost,
    PollOutcome,
    PollUnavailable,
    StillPending,
    UpstreamFailed,
)

log = structlog.get_logger("worker.poll")

#: Compressing more than this takes long enough to be kept off the event loop.
_OFF_LOOP_BYTES = 256 * 1024


async def poll_step(context: Context, upstream: UpstreamClient, deliverer: Deliverer, claim: PollClaim) -> None:
    """Poll one claimed job, or take the outcome that it shares, and carry on with its callback."""
    begun_ms = context.store.now_ms()
    if claim.shared is not None:
        await _finish(context, deliverer, claim, _finish_of(claim.shared), claim.shared)
        return
    if policy.is_too_late(begun_ms, claim.deadline_ms, claim.failures):
        # Asked since its deadline, without an answer: the slots are for those that were not.
        await _finish(context, deliverer, claim, policy.TIMED_OUT, None)
        return
    timeout_ms = policy.poll_timeout_ms(
        round(context.settings.upstream_timeout_s * 1000), now_ms=begun_ms, deadline_ms=claim.deadline_ms
    )
    outcome = await upstream.poll(claim.upstream_job_id, timeout_s=timeout_ms / 1000)
    context.metrics.polled(outcome)
    age_ms = max(0, begun_ms - claim.submitted_ms)
    _learn(context, claim, outcome, age_ms)
    decision, failures = _decide(context, claim, outcome, begun_ms)
    match decision:
        case PollAfter():
            save = saved_poll(claim.lease, failures, decision.delay_ms, age_ms)
            answer = await context.saver.save(save, patient=True)
            if isinstance(answer, Refused):
                context.note_refused(Kind.POLL, claim.lease)
        case Finish():
            await _finish(context, deliverer, claim, decision, outcome)
        case _:
            assert_never(decision)


def _decide(context: Context, claim: PollClaim, outcome: PollOutcome, begun_ms: int) -> tuple[PollDecision, int]:
    """What follows, and how many polls in a row had no answer now."""
    now_ms = context.store.now_ms()
    match outcome:
        case Done():
            return Finish(JobStatus.DONE), 0
        case UpstreamFailed():
            return Finish(JobStatus.FAILED, JobError(ErrorCode.UPSTREAM_FAILED, outcome.message)), 0
        case Lost():
            return Finish(JobStatus.FAILED, JobError(ErrorCode.UPSTREAM_JOB_LOST, outcome.detail)), 0
        case StillPending():
            decision = policy.after_pending(
                context.rules,
                wait_ms=context.learner.next_poll_ms(claim.kind, now_ms - claim.submitted_ms),
                begun_ms=begun_ms,
                now_ms=now_ms,
                deadline_ms=claim.deadline_ms,
            )
            return decision, 0
        case PollUnavailable():
            log.warning("poll had no answer", id=claim.lease.id, reason=outcome.reason, in_a_row=claim.failures + 1)
            retry_after_s = outcome.retry_after_s
            return (
                policy.after_poll_trouble(
                    context.rules,
                    now_ms=now_ms,
                    deadline_ms=claim.deadline_ms,
                    failures=claim.failures + 1,
                    retry_after_ms=round(retry_after_s * 1000) if retry_after_s is not None else None,
                    jitter=context.jitter.random(),
                ),
                claim.failures + 1,
            )
        case _:
            assert_never(outcome)


def _learn(context: Context, claim: PollClaim, outcome: PollOutcome, age_ms: int) -> None:
    match outcome:
        case StillPending():
            context.learner.saw_pending(claim.kind, claim.seen_ms, age_ms)
        case Done() | UpstreamFailed():
            latency_ms = None
            if outcome.created_ms is not None and outcome.completed_ms is not None:
                latency_ms = outcome.completed_ms - outcome.created_ms
            context.learner.saw_end(claim.kind, claim.seen_ms, age_ms, latency_ms)


def _finish_of(shared: SharedOutcome) -> Finish:
    return policy.TIMED_OUT if shared.status is JobStatus.TIMED_OUT else Finish(shared.status, shared.error)


async def _finish(
    context: Context,
    deliverer: Deliverer,
    claim: PollClaim,
    decision: Finish,
    outcome: PollOutcome | SharedOutcome | None,
) -> None:
    announced = policy.is_announced(decision.status, claim.events)
    done = decision.status is JobStatus.DONE
    result, credits_used = None, None
    if isinstance(outcome, Done):
        result = await _packed(outcome.result, context.settings.compress_above_bytes)
        credits_used = outcome.credits_used
    result_url = _result_url(context, claim) if done and claim.thin else None
    # Only a free slot of its own kind lets the callback go on from here: a slow receiver never holds up polls.
    carry_on = announced and context.rules.schedule_ms[0] == 0 and deliverer.may_carry_on()
    slots = deliverer.slots_for(claim.client) if carry_on else None
    with deliverer.reserved(claim.client, wanted=carry_on):
        answer = await context.saver.save(
            saved_outcome(
                claim.lease,
                decision.status,
                decision.error,
                announce_after_ms=context.rules.schedule_ms[0] if announced else None,
                asked=outcome is not None and not isinstance(outcome, SharedOutcome),
                carry_on=carry_on,
                slots=slots,
                result=result,
                result_url=result_url,
                credits_used=credits_used,
                result_of=outcome.of if isinstance(outcome, SharedOutcome) and done else None,
            )
        )
    if isinstance(answer, Refused):
        context.note_refused(Kind.POLL, claim.lease)
        return
    count_outcome(context, claim, decision)
    if isinstance(outcome, Done | UpstreamFailed | Lost):
        context.metrics.polls_per_job.observe(claim.polls + 1)
        context.metrics.upstream_seconds.observe(max(0, context.store.now_ms() - claim.submitted_ms) / 1000)
    if credits_used:
        context.metrics.credits(claim.client).inc(credits_used)
    if isinstance(answer, Carried):
        deliverer.start(answer.claim)


async def _packed(result: bytes, compress_above_bytes: int) -> bytes:
    if len(result) > max(compress_above_bytes, _OFF_LOOP_BYTES):
        return await asyncio.to_thread(records.pack_result, result, compress_above_bytes)
    return records.pack_result(result, compress_above_bytes)


def _result_url(context: Context, claim: PollClaim) -> str | None:
    """Where a thin callback's result is read; None, and the callback carries it, where the relay has no public URL."""
    base, client = context.settings.public_url, context.clients.get(claim.client)
    if base is None or client is None:
        return None
    token = signing.result_token(client.signing_secrets[0], JobId(claim.lease.id))
    return f"{base}/v1/results/{token}"
