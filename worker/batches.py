"""Batches of due jobs: claim as many as there are free slots for, start their steps, and again, for about a second.

The claim happens here, when the work begins, and never in what arq carries.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping

import structlog

from relay.core.errors import StoreUnavailable
from relay.core.model import ClientName
from relay.core.policy import Finish, Trouble
from relay.core.store.work import ClientLook, Lease, Look, SubmitClaim
from worker.context import Context
from worker.deliver import Deliverer
from worker.gates import allowances, with_pauses
from worker.poll import poll_step
from worker.runner import Kind
from worker.submit import count_unaccounted, finish_unsubmitted, overdue_decision, submit_step
from worker.upstream import UpstreamClient

log = structlog.get_logger("worker.batches")

#: An arq task lasts about this long, so that its slots and keys are held for short.
_TASK_S = 1.0
_PAUSE_S = 0.05
#: The most that one claim takes: more would stall the store's other clients.
_CLAIM = 200
_PURGE = 500
#: Housekeeping is not repeated sooner, however often it is asked for.
_HOUSE_PAUSE_S = 1.0


class Batches:
    """What arq's tasks do."""

    def __init__(self, context: Context, upstream: UpstreamClient, deliverer: Deliverer) -> None:
        self._context = context
        self._upstream = upstream
        self._deliverer = deliverer
        self._look: Look | None = None
        self._turn = 0
        self._claims: set[asyncio.Task[int]] = set()
        self._housed_s = float("-inf")
        self.stopping = False

    def saw(self, look: Look) -> None:
        """Take note of what the pump has seen: the gates are judged by it."""
        self._look = look

    async def run(self, task: str) -> None:
        """One batch, by the name of its task."""
        match task:
            case Kind.SUBMIT:
                await self.submit()
            case Kind.POLL:
                await self.poll()
            case Kind.DELIVER:
                await self.deliver()
            case _:
                await self.keep_house()

    async def submit(self) -> None:
        """Submit what is due, and end what waited too long."""
        # Side by side: what waits too long must end in time, however busy or closed everything else is.
        await asyncio.gather(self._end_overdue(), self._repeat(Kind.SUBMIT, self._claim_submits))

    async def poll(self) -> None:
        """Poll what is due."""
        await self._repeat(Kind.POLL, self._claim_polls)

    async def deliver(self) -> None:
        """Attempt the callbacks that are due."""
        await self._repeat(Kind.DELIVER, self._claim_callbacks)

    async def keep_house(self) -> None:
        """Purge what has been kept long enough, and enlist batches whose relay did not."""
        now_s = asyncio.get_running_loop().time()
        if self.stopping or now_s - self._housed_s < _HOUSE_PAUSE_S:
            return
        self._housed_s = now_s
        try:
            for batch_id in await self._context.store.due_batches():
                log.warning("a batch was left half enlisted", id=batch_id)
                await self._context.store.enlist(batch_id)
            while not self.stopping and await self._context.store.purge(_PURGE) == _PURGE:
                pass
        except StoreUnavailable as error:
            log.warning("housekeeping waits for the store", reason=str(error))

    async def settle(self, timeout_s: float) -> None:
        """Wait until no claim is under way any more, at most `timeout_s`."""
        if self._claims:
            await asyncio.wait(self._claims, timeout=timeout_s)

    async def give_back_unanswered(self, timeout_s: float) -> None:
        """While stopping, ask once more for claims that had no answer, and give back what they hold.

        Nobody works on that here, and elsewhere it would be taken for something that was begun.
        """
        store = self._context.store
        try:
            async with asyncio.timeout(timeout_s):
                for client in store.unanswered(Kind.SUBMIT):
                    await self._given_back(claim.lease for claim in await store.begin_submit(ClientName(client), 0))
                for client in store.unanswered("overdue"):
                    again = await store.begin_submit(ClientName(client), 0, overdue=True)
                    await self._given_back(claim.lease for claim in again)
                if store.unanswered(Kind.POLL):
                    await self._given_back(claim.lease for claim in await store.begin_poll(0))
                if store.unanswered(Kind.DELIVER):
                    await self._given_back(claim.lease for claim in await store.begin_deliver(0))
        except (StoreUnavailable, TimeoutError) as error:
            log.warning("claims not given back", reason=str(error) or "it took too long")

    async def _repeat(self, kind: Kind, claim: Callable[[int], Coroutine[None, None, int]]) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + _TASK_S
        try:
            while not self.stopping and (left_s := until - loop.time()) > 0:
                free = self._context.runner.free(kind)
                # A claim keeps its slots until the store has answered. Polls that end meanwhile find the other half.
                wanted = min((free + 1) // 2 if kind is Kind.DELIVER else free, _CLAIM)
                if wanted <= 0:
                    await self._context.runner.wait_free(kind, left_s)
                    continue
                started = await self._whole(claim(wanted))
                if started == 0:
                    return
                if started < wanted:
                    await asyncio.sleep(_PAUSE_S)
        except StoreUnavailable as error:
            log.warning("nothing claimed: the store is out of reach", kind=kind.value, reason=str(error))

    async def _whole(self, claim: Coroutine[None, None, int]) -> int:
        """Claim, and let that come to its end even where arq cancels the task that asked for it.

        What the store has given would be under a lease that nobody works on otherwise, and its submits would look as if
        they had been sent.
        """
        task = asyncio.create_task(claim)
        self._claims.add(task)
        task.add_done_callback(self._claims.discard)
        return await asyncio.shield(task)

    async def _claim_submits(self, slots: int) -> int:
        context = self._context
        self._turn += 1
        started = 0
        now_ms = context.store.now_ms()
        # Those that are not configured any more have no key to submit with.
        known = {name: seen for name, seen in self._clients().items() if name in context.clients}
        # Those whose last claim had no answer are asked for at any rate: they may hold some already.
        shares = {ClientName(name): 0 for name in context.store.unanswered(Kind.SUBMIT)}
        shares |= allowances(known, now_ms=now_ms, slots=slots, first=self._turn)
        for client, share in shares.items():
            with context.runner.reserved(Kind.SUBMIT, share):
                claims = await context.store.begin_submit(client, share)
            if await self._given_back(claim.lease for claim in claims):
                break
            for claim in claims:
                context.runner.start(Kind.SUBMIT, claim.lease, submit_step(context, self._upstream, claim), claim.trace)
            started += len(claims)
        return started

    async def _claim_polls(self, slots: int) -> int:
        context = self._context
        with context.runner.reserved(Kind.POLL, slots):
            claims = await context.store.begin_poll(slots)
        if await self._given_back(claim.lease for claim in claims):
            return 0
        for claim in claims:
            step = poll_step(context, self._upstream, self._deliverer, claim)
            context.runner.start(Kind.POLL, claim.lease, step, claim.trace)
        return len(claims)

    async def _claim_callbacks(self, slots: int) -> int:
        if self._deliverer.is_resting():
            return 0
        context = self._context
        told = self._deliverer.slots_for_claim()
        with self._deliverer.claiming(slots):
            claims = await context.store.begin_deliver(slots, slots=told)
        if await self._given_back(claim.lease for claim in claims):
            return 0
        for claim in claims:
            self._deliverer.start(claim)
        return len(claims)

    async def _end_overdue(self) -> None:
        """End the jobs whose submit window or deadline is over while a gate or a queue held them back."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _TASK_S
        try:
            claimed = 1
            while claimed and not self.stopping and loop.time() < until:
                claimed = 0
                for client, seen in self._clients().items():
                    if seen.overdue:
                        claimed += await self._whole(self._claim_overdue(client, seen))
                if claimed:
                    await asyncio.sleep(_PAUSE_S)
        except StoreUnavailable as error:
            log.warning("overdue jobs wait for the store", reason=str(error))

    async def _claim_overdue(self, client: ClientName, seen: ClientLook) -> int:
        context = self._context
        # A rate limit is no reason to give up what it has not let try: that may go on until its deadline.
        out_of_credits = seen.paused_by is Trouble.CREDITS and seen.paused_until_ms > context.store.now_ms()
        paused_by = Trouble.CREDITS if out_of_credits else None
        claims = await context.store.begin_submit(client, _CLAIM, overdue=True)
        if await self._given_back(claim.lease for claim in claims):
            return 0
        patient: list[SubmitClaim] = []
        for claim in claims:
            decision = overdue_decision(context, claim, paused_by)
            if isinstance(decision, Finish):
                count_unaccounted(context, claim)
                # Nothing is sent for these, so they need no free slot.
                step = finish_unsubmitted(context, claim, decision)
                context.runner.start(Kind.SUBMIT, claim.lease, step, claim.trace)
            else:
                patient.append(claim)
        await asyncio.gather(*(context.saver.release(claim.lease, patient=True) for claim in patient))
        return len(claims)

    async def _given_back(self, leases: Iterable[Lease]) -> bool:
        """Whether the worker stops: then what was claimed is given back, for others to begin."""
        if self.stopping:
            await asyncio.gather(*(self._context.saver.release(lease) for lease in leases))
        return self.stopping

    def _clients(self) -> Mapping[ClientName, ClientLook]:
        return with_pauses(self._look.clients, self._context.noted_pauses()) if self._look is not None else {}
