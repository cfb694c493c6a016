"""Claims whose reply is lost: asked for again they are the same ones, and nothing looks begun that never was."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from relay.core.errors import StoreUnavailable
from relay.core.model import ErrorCode, JobError, JobStatus
from relay.core.store.work import DeliverClaim, PollClaim, SubmitClaim, WorkStore, saved_outcome, saved_submission
from tests.faults.proxy import Fate, Once, StoreProxy, script
from tests.integration.coalesce_harness import equal, later, take_over
from tests.integration.store_harness import ACME, Bench, delivered, make_settings

pytestmark = pytest.mark.store

LEASE_S = 16
Claims = Sequence[SubmitClaim | PollClaim | DeliverClaim]


@dataclass(frozen=True, slots=True)
class Kind:
    """How jobs come to be due for a kind of step, and how they are claimed."""

    script: str
    due: Callable[[Bench, int], Awaitable[Any]]
    claim: Callable[[WorkStore, int], Awaitable[Claims]]


async def accepted(bench: Bench, count: int) -> None:
    """Jobs whose submits are due."""
    for _ in range(count):
        await bench.accept()


async def submitted(bench: Bench, count: int) -> None:
    """Jobs whose polls are due."""
    await accepted(bench, count)
    await bench.submit_all()


KINDS = {
    "submit": Kind("begin_submit", accepted, lambda work, count: work.begin_submit(ACME, count)),
    "poll": Kind("begin_poll", submitted, lambda work, count: work.begin_poll(count)),
    "deliver": Kind("begin_deliver", Bench.announced, lambda work, count: work.begin_deliver(count)),
}


@pytest.fixture(name="kind", params=KINDS)
def fixture_kind(request: pytest.FixtureRequest) -> Kind:
    """Every kind of step."""
    return KINDS[request.param]


@pytest.fixture(name="bench")
async def fixture_bench(store_url: str) -> AsyncIterator[Bench]:
    """An empty store."""
    async with Bench.open(store_url) as bench:
        yield bench


@pytest.fixture(name="proxy")
async def fixture_proxy(store_url: str) -> AsyncIterator[StoreProxy]:
    """A proxy before the store."""
    async with StoreProxy(urlsplit(store_url).port or 6379).running() as proxy:
        yield proxy


@pytest.fixture(name="far")
async def fixture_far(store_url: str, proxy: StoreProxy) -> AsyncIterator[WorkStore]:
    """A worker that reaches the store through the proxy, and doesn't wait long for it."""
    url = urlsplit(store_url)._replace(netloc=f"127.0.0.1:{proxy.port}").geturl()
    work = await WorkStore.connect(make_settings(url, store_timeout_s=0.2))
    yield work
    await work.close()


async def lost(kind: Kind, far: WorkStore, proxy: StoreProxy, count: int, fate: Fate = Fate.STALL_AFTER) -> None:
    """Claim, with the reply lost and nothing to be had for a while."""
    proxy.rule = Once(script(kind.script), fate)
    with pytest.raises(StoreUnavailable):
        await kind.claim(far, count)
    proxy.heal()


async def test_a_cut_is_asked_again_at_once(kind: Kind, bench: Bench, far: WorkStore, proxy: StoreProxy) -> None:
    """A connection that breaks after the claim was made costs nothing: the repeat is told the same claim."""
    await kind.due(bench, 5)
    rule = proxy.rule = Once(script(kind.script), Fate.CUT_AFTER)
    claims = await kind.claim(far, 3)
    assert rule.seen == 2
    assert len(claims) == 3
    assert len(await kind.claim(bench.other, 5)) == 2


@pytest.mark.parametrize("fate", [Fate.STALL, Fate.STALL_AFTER])
async def test_what_was_lost_is_had_by_the_next_call(
    kind: Kind, bench: Bench, far: WorkStore, proxy: StoreProxy, fate: Fate
) -> None:
    """Whether the claim was made or not, the next call gets its jobs, as if they were claimed only now."""
    await kind.due(bench, 3)
    await lost(kind, far, proxy, 3, fate)
    assert far.unanswered(kind.script.removeprefix("begin_")) != []
    claims = await kind.claim(far, 200)
    assert len(claims) == 3
    assert far.unanswered(kind.script.removeprefix("begin_")) == []
    for claim in claims:
        match claim:
            case SubmitClaim():
                assert (claim.was_ambiguous, claim.tries) == (False, 1)
            case DeliverClaim():
                assert (claim.attempt, claim.turn) == (1, 1)
    assert await kind.claim(far, 200) == []


async def test_no_more_is_claimed_than_the_numbers_allow(
    kind: Kind, bench: Bench, far: WorkStore, proxy: StoreProxy
) -> None:
    """A claim that was never made keeps its numbers: the next one is of no more, so that no token is given twice."""
    await kind.due(bench, 5)
    await lost(kind, far, proxy, 2, Fate.STALL)
    claims = [*await kind.claim(far, 200), *await kind.claim(far, 200)]
    assert len(claims) == 5
    assert len({claim.lease.token for claim in claims}) == 5


async def test_claims_wait_for_each_other(kind: Kind, bench: Bench, far: WorkStore, proxy: StoreProxy) -> None:
    """A claim that comes while another has no answer yet takes that one over: no token is given twice."""
    await kind.due(bench, 4)
    proxy.rule = Once(script(kind.script), Fate.STALL_AFTER)
    first, second = await asyncio.gather(kind.claim(far, 2), kind.claim(far, 200), return_exceptions=True)
    proxy.heal()
    assert isinstance(first, StoreUnavailable)
    assert not isinstance(second, BaseException)
    claims = [*second, *await kind.claim(far, 200)]
    assert len(claims) == 4
    assert len({claim.lease.token for claim in claims}) == 4
    assert all(claim.tries == 1 and not claim.was_ambiguous for claim in claims if isinstance(claim, SubmitClaim))


async def test_a_copy_that_comes_late_claims_nothing(kind: Kind, bench: Bench) -> None:
    """A claim that a network delivers again, after later ones, or when it took nothing, takes nothing from others."""
    sent: list[tuple[Any, ...]] = []
    original = bench.work._db.run

    async def noting(*args: Any, **options: Any) -> Any:
        sent.append(args)
        return await original(*args, **options)

    bench.work._db.run = noting  # type: ignore[method-assign]  # to know what was sent
    assert await kind.claim(bench.work, 3) == []
    await kind.due(bench, 6)
    bench.work._db.run = noting  # type: ignore[method-assign]
    assert len(await kind.claim(bench.work, 2)) == 2
    assert len(await kind.claim(bench.work, 2)) == 2
    before = (await bench.snapshot()).sets
    copies = [args for args in sent if args[0] == kind.script]
    for args in (copies[0], copies[-2]):
        assert len(await original(*args)) <= 2
    assert (await bench.snapshot()).sets == before
    assert len(await kind.claim(bench.other, 10)) == 2


async def test_what_others_took_over_is_theirs(kind: Kind, bench: Bench, far: WorkStore, proxy: StoreProxy) -> None:
    """When the lease of a lost claim has run out and another worker has begun, asking again brings nothing."""
    await kind.due(bench, 2)
    await lost(kind, far, proxy, 2)
    await bench.let_pass(LEASE_S)
    assert len(await kind.claim(bench.other, 1)) == 1
    assert len(await kind.claim(far, 200)) == 1


async def test_the_lease_is_whole_again(kind: Kind, bench: Bench, far: WorkStore, proxy: StoreProxy) -> None:
    """What is told again is held for a whole lease from then on."""
    await kind.due(bench, 2)
    await lost(kind, far, proxy, 2)
    await bench.let_pass(LEASE_S - 2)
    claims = await kind.claim(far, 200)
    await bench.let_pass(LEASE_S - 3)
    assert await kind.claim(bench.other, 5) == []
    assert await far.renew([claim.lease for claim in claims]) == []


async def test_a_submit_that_was_ambiguous_before_is_so_once(bench: Bench, far: WorkStore, proxy: StoreProxy) -> None:
    """A note from an earlier worker is told again with the claim, and counted once."""
    await bench.accept()
    assert len(await bench.other.begin_submit(ACME, 1)) == 1
    await bench.let_pass(LEASE_S)
    await lost(KINDS["submit"], far, proxy, 1)
    (claim,) = await far.begin_submit(ACME, 1)
    assert (claim.was_ambiguous, claim.tries) == (True, 2)
    assert (await bench.work.account(ACME))["ambiguous"] == 1


async def test_the_overdue_are_told_again(bench: Bench, far: WorkStore, proxy: StoreProxy) -> None:
    """A lost claim of a job that waited too long is had by the next call for such."""
    await bench.accept(deadline_s=5)
    await bench.let_pass(6)
    proxy.rule = Once(script("begin_submit"), Fate.STALL_AFTER)
    with pytest.raises(StoreUnavailable):
        await far.begin_submit(ACME, 5, overdue=True)
    proxy.heal()
    assert await far.begin_submit(ACME, 5) == []
    (claim,) = await far.begin_submit(ACME, 5, overdue=True)
    assert not claim.was_ambiguous


async def test_lost_claims_save_like_others(bench: Bench, far: WorkStore, proxy: StoreProxy) -> None:
    """From a claim that was lost and told again a job goes on to its delivery."""
    await bench.accept()
    await lost(KINDS["submit"], far, proxy, 1)
    (submit,) = await far.begin_submit(ACME, 1)
    await far.save([saved_submission(submit.lease, "up-1", 0)])
    await bench.finish_all()
    await lost(KINDS["deliver"], far, proxy, 1)
    (callback,) = await far.begin_deliver(1)
    await far.save([delivered(callback)])
    assert (await bench.job(submit.lease.id)).delivery.attempts == 1


async def test_what_a_follower_waits_for_has_changed(bench: Bench, far: WorkStore, proxy: StoreProxy) -> None:
    """A follower that was claimed to share a failure is not polled when another has taken the lead meanwhile."""
    first, early = await equal(bench, 2, deadline_s=5_000)
    await bench.let_pass(901)
    late = await later(bench, early, deadline_s=5_000)
    [claim] = await bench.work.begin_submit(ACME, 1)
    assert claim.lease.id == first.id
    error = JobError(ErrorCode.UPSTREAM_UNREACHABLE, "no")
    await bench.work.save([saved_outcome(claim.lease, JobStatus.FAILED, error, announce_after_ms=0)])
    await lost(KINDS["poll"], far, proxy, 1)
    assert "tok" in await bench.record(early.id)
    assert await take_over(bench) == []
    assert [one.lease.id for one in await bench.work.begin_submit(ACME, 5)] == [late.id]
    assert await far.begin_poll(1) == []
    await bench.check()
