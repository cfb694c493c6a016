"""The deliver step: one attempt at one callback, and what follows from how it ended."""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, assert_never

import structlog

from relay.core import policy
from relay.core.callback import Message, headers_of, message_of
from relay.core.egress import (
    Answered,
    CallbackSession,
    NotAnswered,
    OutOfResources,
    Reply,
    post_callback,
)
from relay.core.model import Attempt, AttemptOutcome, ClientName, DeliveryStatus
from relay.core.policy import Delivered, Exhausted, Gone, RetryAfter
from relay.core.retry_after import parse_retry_after
from relay.core.settings import Client
from relay.core.store.slots import Doubt, TakenSlots
from relay.core.store.work import DeliverClaim, News, Refused, Save, Saved, saved_attempt
from worker.context import Context
from worker.runner import Kind

log = structlog.get_logger("worker.deliver")

#: How long callbacks of a client that is not configured (any more) wait before they are looked at again.
_UNKNOWN_CLIENT_DELAY_MS = 30_000
#: And how long those that this machine has no descriptor for; no others are claimed meanwhile.
_OUT_OF_RESOURCES_S = 1.0


class Deliverer:
    """Attempts callbacks, over one session."""

    def __init__(self, context: Context, session: CallbackSession) -> None:
        self._context = context
        self._session = session
        self._unknown: set[ClientName] = set()
        self._taken = TakenSlots()
        #: Slots that are kept for a claim which the store has not answered yet.
        self._claiming = 0
        self._rests_until_s = float("-inf")
        self.stopping = False

    def is_resting(self) -> bool:
        """Whether this machine had no descriptor for a callback a moment ago: the next would find none either."""
        return asyncio.get_running_loop().time() < self._rests_until_s

    def may_carry_on(self) -> bool:
        """Whether a poll may go on to its callback at once."""
        return not self.stopping and not self.is_resting() and self._context.runner.free(Kind.DELIVER) > 0

    def free_slots(self) -> int:
        """How many slots are shared now. Of those that a claim keeps, most come back."""
        return self._context.runner.free(Kind.DELIVER) + self._claiming

    def slots_for_claim(self) -> Mapping[str, Any]:
        """What a claim goes by."""
        return self._taken.told(self.free_slots())

    def slots_for(self, client: ClientName) -> Mapping[str, Any]:
        """What a client's poll goes by that may carry on. What a claim may be about to get is not given away twice."""
        return self._taken.told_by(client, self.free_slots(), claiming=self._claiming)

    @contextlib.contextmanager
    def claiming(self, count: int) -> Iterator[None]:
        """Keep slots for what is being claimed."""
        self._claiming += count
        try:
            with self._context.runner.reserved(Kind.DELIVER, count):
                yield
        finally:
            self._claiming -= count

    @contextlib.contextmanager
    def reserved(self, client: ClientName, *, wanted: bool) -> Iterator[None]:
        """Keep a slot free for a client's callback that may be carried on to.

        Where that goes is not known here, so it counts as the worst there is, for as long as the save takes.
        """
        if not wanted:
            yield
            return
        self._taken.take(client, Doubt.SILENT)
        try:
            with self._context.runner.reserved(Kind.DELIVER):
                yield
        finally:
            self._taken.give_back(client, Doubt.SILENT)

    def start(self, claim: DeliverClaim) -> None:
        """Make one attempt. Its slot is taken when this returns, so that whatever comes next counts with it."""
        self._taken.take(claim.client, claim.doubt, claim.destination)
        self._context.runner.start(Kind.DELIVER, claim.lease, self._step(claim), claim.trace)

    async def _step(self, claim: DeliverClaim) -> None:
        """Make one attempt, save how it ended, and log that in one line."""
        try:
            await self._deliver(claim)
        finally:
            self._taken.give_back(claim.client, claim.doubt, claim.destination)

    async def _deliver(self, claim: DeliverClaim) -> None:
        context = self._context
        client = context.clients.get(claim.client)
        if client is None:
            if claim.client not in self._unknown:
                log.error("no such client is configured: its callbacks wait", client=claim.client)
            self._unknown.add(claim.client)
            await context.saver.release(claim.lease, delay_ms=_UNKNOWN_CLIENT_DELAY_MS)
            return
        await self._attempt(claim, client, message_of(claim.subject))

    async def _attempt(self, claim: DeliverClaim, client: Client, message: Message) -> None:
        context = self._context
        started_ms = context.store.now_ms()
        if claim.attempt == 1 and claim.subject.completed_ms is not None:
            context.metrics.lateness_seconds.observe(max(0, started_ms - claim.subject.completed_ms) / 1000)
        try:
            reply = await self._post(claim, client, message, now_s=started_ms // 1000)
        except OutOfResources as error:
            # Neither an attempt nor a word on the receiver's health.
            log.error("callback not attempted", id=claim.lease.id, reason=str(error))  # noqa: TRY400 - the reason is all
            self._rests_until_s = asyncio.get_running_loop().time() + _OUT_OF_RESOURCES_S
            await context.saver.release(claim.lease, delay_ms=round(_OUT_OF_RESOURCES_S * 1000))
            return
        attempt, retry_after_ms = _read(reply, claim.attempt, started_ms, context.store.now_ms())
        save = self._decide(claim, attempt, retry_after_ms, message)
        context.metrics.attempts(attempt.outcome.value).inc()
        context.metrics.attempt_seconds.observe(attempt.duration_ms / 1000)
        match await context.saver.save(save):
            case Refused():
                context.note_refused(Kind.DELIVER, claim.lease)
            case Saved(news=News() as news):
                self._announce(news, claim, message.callback.destination)

    async def _post(self, claim: DeliverClaim, client: Client, message: Message, *, now_s: int) -> Reply:
        with self._context.tracing.sending("POST", message.callback.destination, attempt=claim.attempt) as span:
            trace = span.trace or claim.trace
            reply = await post_callback(
                self._session,
                message.callback.url,
                headers_of(message, client.signing_secrets, attempt=claim.attempt, now_s=now_s, trace=trace),
                message.body,
                self._context.settings.callback_timeout_s,
                client=client,
            )
            match reply:
                case Answered():
                    span.answered(reply.status)
                case NotAnswered():
                    span.failed(reply.outcome.value)
        return reply

    def _announce(self, news: News, claim: DeliverClaim, destination: str) -> None:
        self._context.metrics.destination_changes(news.value).inc()
        say = log.info if news is News.RECOVERED else log.warning
        say(f"destination {news.value}", client=claim.client, destination=destination)

    def _decide(self, claim: DeliverClaim, attempt: Attempt, retry_after_ms: int | None, message: Message) -> Save:
        decision = policy.after_attempt(
            self._context.rules,
            outcome=attempt.outcome,
            http_status=attempt.http_status,
            retry_after_ms=retry_after_ms,
            attempt=claim.turn,
            jitter=self._context.jitter.random(),
        )
        delay_ms = None
        match decision:
            case Delivered():
                status = DeliveryStatus.DELIVERED
            case Gone():
                status = DeliveryStatus.GONE
            case Exhausted():
                status = DeliveryStatus.EXHAUSTED
            case RetryAfter():
                status, delay_ms = DeliveryStatus.RETRYING, decision.delay_ms
            case _:
                assert_never(decision)
        log.info(
            "callback attempt",
            id=claim.lease.id,
            client=claim.client,
            webhook_id=message.webhook_id,
            event_type=message.event.value,
            destination=message.callback.destination,
            attempt=claim.attempt,
            outcome=attempt.outcome.value,
            http_status=attempt.http_status,
            duration_ms=attempt.duration_ms,
            error=attempt.error,
            delivery=status.value,
            retry_in_s=delay_ms / 1000 if delay_ms is not None else None,
        )
        here = self._taken.at(claim.client, claim.destination)
        return saved_attempt(claim, attempt, status, delay_ms, free_slots=self.free_slots(), at=here)


def _read(reply: Reply, number: int, started_ms: int, now_ms: int) -> tuple[Attempt, int | None]:
    """The log entry of an attempt, and how long the receiver asked to be left alone."""
    match reply:
        case Answered():
            outcome = policy.classify_status(reply.status)
            wait_s = parse_retry_after(reply.retry_after, now_ms / 1000)
            entry = Attempt(
                number=number,
                started_ms=started_ms,
                duration_ms=reply.duration_ms,
                outcome=outcome,
                http_status=reply.status,
                response_excerpt=reply.excerpt,
                error=None if outcome is AttemptOutcome.DELIVERED else f"HTTP {reply.status}",
            )
            return entry, round(wait_s * 1000) if wait_s is not None else None
        case NotAnswered():
            return Attempt(number, started_ms, reply.duration_ms, reply.outcome, error=reply.error), None
        case _:
            assert_never(reply)
