"""The health of destinations: when callbacks are held back, that nothing is lost meanwhile, and how it ends."""

from collections.abc import AsyncIterator

import pytest

from relay.core.errors import NotFound
from relay.core.model import AttemptOutcome, ClientName, DeliveryStatus, DestinationState
from relay.core.store.work import Carried, DeliverClaim, News, Save, Saved, saved_attempt, saved_outcome
from tests.integration.store_harness import ACME, UMBRELLA, Bench, attempt_of, delivered, make_admission, make_spec

pytestmark = pytest.mark.store

DEAD, WELL = "dead.example:443", "well.example:443"
CLOSES_AFTER, PAUSES_AFTER_S, PAUSED_TRY_S = 3, 1_000, 100


@pytest.fixture(name="bench")
async def fixture_bench(store_url: str) -> AsyncIterator[Bench]:
    """An empty store in which three silent attempts close a destination, for 5 to 30 s, and 1,000 s pause it."""
    async with Bench.open(
        store_url,
        callback_concurrency=4,
        destination_closes_after=CLOSES_AFTER,
        destination_pauses_after_s=PAUSES_AFTER_S,
        destination_paused_try_s=PAUSED_TRY_S,
    ) as bench:
        yield bench


def ended_as(claim: DeliverClaim, outcome: AttemptOutcome, retry_after_ms: int = 1_000_000) -> Save:
    """The claimed attempt failed; the next one is far away."""
    return saved_attempt(claim, attempt_of(claim, outcome, None), DeliveryStatus.RETRYING, retry_after_ms)


async def attempt(bench: Bench, outcome: AttemptOutcome, count: int = 100) -> list[News | None]:
    """Every due callback, at most `count`, is attempted, one after the other, and ends so; returns the news."""
    news = []
    for claim in await bench.work.begin_deliver(count):
        save = delivered(claim) if outcome is AttemptOutcome.DELIVERED else ended_as(claim, outcome)
        [answer] = await bench.work.save([save])
        assert isinstance(answer, Saved)
        news.append(answer.news)
    return news


async def state(bench: Bench, name: str = DEAD, client: ClientName = ACME) -> DestinationState:
    """How a destination fares."""
    return (await bench.store.destination(client, name)).state


async def test_silence_closes_and_a_success_opens(bench: Bench) -> None:
    """After three attempts without an answer callbacks wait; one is tried then, and when it succeeds all go out."""
    await bench.announced(3, destination=DEAD)
    assert await attempt(bench, AttemptOutcome.TIMEOUT) == [None, None, News.UNRESPONSIVE]
    await bench.announced(6, destination=DEAD)
    assert await bench.work.begin_deliver(100) == []
    seen = await bench.store.destination(ACME, DEAD)
    assert (seen.state, seen.failures, seen.waiting) == (DestinationState.UNRESPONSIVE, 3, 6)
    await bench.check()
    await bench.let_pass(6)
    [trial] = await bench.work.begin_deliver(100)
    assert await bench.work.begin_deliver(100) == []
    assert await bench.work.save([delivered(trial)]) == [Saved(News.RECOVERED)]
    assert len(await bench.work.begin_deliver(100)) == 4, "as many as there are permits"
    seen = await bench.store.destination(ACME, DEAD)
    assert (seen.state, seen.failures, seen.failing_since_ms) == (DestinationState.HEALTHY, 0, None)


async def test_a_trial_that_fails_closes_for_longer(bench: Bench) -> None:
    """Each silent trial doubles the time until the next, up to a tenth of the schedule's longest delay."""
    await bench.announced(10, destination=DEAD)
    while await attempt(bench, AttemptOutcome.CONNECTION_ERROR):
        pass
    waits = []
    for _ in range(4):
        seen = await bench.store.destination(ACME, DEAD)
        assert seen.next_try_ms is not None
        waits.append(round((seen.next_try_ms - bench.work.now_ms()) / 1000))
        await bench.let_pass(waits[-1] + 1)
        [trial] = await bench.work.begin_deliver(100)
        [answer] = await bench.work.save([ended_as(trial, AttemptOutcome.TIMEOUT)])
        assert answer == Saved(None), "said once"
        await bench.check()
    assert waits == [5, 10, 20, 30]


async def test_answers_close_nothing(bench: Bench) -> None:
    """A receiver that answers with errors is failing, and its callbacks go on by their schedules."""
    await bench.announced(8, destination=DEAD)
    while await attempt(bench, AttemptOutcome.HTTP_ERROR):
        pass
    assert await state(bench) is DestinationState.FAILING
    await bench.announced(1, destination=DEAD)
    assert len(await bench.work.begin_deliver(100)) == 1


async def test_a_bad_answer_opens_what_silence_has_closed(bench: Bench) -> None:
    """A trial that is answered with an error shows that somebody is there."""
    await bench.announced(6, destination=DEAD)
    await attempt(bench, AttemptOutcome.TIMEOUT, 3)
    assert await bench.work.begin_deliver(100) == []
    await bench.let_pass(6)
    assert await attempt(bench, AttemptOutcome.HTTP_ERROR) == [None]
    assert await state(bench) is DestinationState.FAILING
    assert len(await bench.work.begin_deliver(100)) == 2


async def test_days_of_failure_pause_and_it_resumes_by_itself(bench: Bench) -> None:
    """A destination that fails for long is tried seldom, loses nothing, and goes on with the first success."""
    jobs = await bench.announced(5, destination=DEAD)
    assert await attempt(bench, AttemptOutcome.HTTP_ERROR, 1) == [None]
    await bench.let_pass(PAUSES_AFTER_S + 1)
    assert await attempt(bench, AttemptOutcome.HTTP_ERROR, 1) == [News.PAUSED]
    assert await bench.work.begin_deliver(100) == []
    assert await state(bench) is DestinationState.PAUSED
    look = await bench.work.look({ACME: "key"})
    assert (look.unresponsive, look.paused, look.deliver) == (1, 1, 0)
    await bench.let_pass(PAUSED_TRY_S + 1)
    assert (await bench.work.look({ACME: "key"})).deliver == 1, "somebody has to try"
    assert await attempt(bench, AttemptOutcome.TIMEOUT) == [None]
    assert await bench.work.begin_deliver(100) == []
    await bench.let_pass(PAUSED_TRY_S + 1)
    assert await attempt(bench, AttemptOutcome.DELIVERED) == [News.RECOVERED]
    while await attempt(bench, AttemptOutcome.DELIVERED):
        pass
    await bench.let_pass(1_000)
    while await attempt(bench, AttemptOutcome.DELIVERED):
        pass
    assert {(await bench.job(job.id)).delivery.status for job in jobs} == {DeliveryStatus.DELIVERED}
    assert (await bench.work.look({ACME: "key"})).paused == 0


async def test_it_is_resumed_by_hand(bench: Bench) -> None:
    """Resuming forgets the failures, and everything that waits is due; only the client's own can be resumed."""
    await bench.announced(8, destination=DEAD)
    await attempt(bench, AttemptOutcome.TIMEOUT, 4)
    assert await bench.work.begin_deliver(100) == []
    with pytest.raises(NotFound):
        await bench.store.resume_destination(UMBRELLA, DEAD)
    assert await bench.work.begin_deliver(100) == []
    seen = await bench.store.resume_destination(ACME, DEAD)
    assert (seen.state, seen.failures, seen.waiting) == (DestinationState.HEALTHY, 0, 4)
    assert len(await bench.work.begin_deliver(100)) == 4
    with pytest.raises(NotFound):
        await bench.store.resume_destination(ACME, "unknown.example:443")


async def test_clients_and_destinations_don_t_share_their_gates(bench: Bench) -> None:
    """One client's dead receiver holds up neither its other receivers nor another client's callbacks to the same."""
    await bench.announced(4, destination=DEAD)
    await attempt(bench, AttemptOutcome.TIMEOUT)
    await bench.store.accept(make_admission(UMBRELLA), make_spec(DEAD))
    await bench.submit_all(UMBRELLA)
    await bench.finish_all()
    await bench.announced(1, destination=WELL)
    await bench.announced(1, destination=DEAD)
    claims = await bench.work.begin_deliver(100)
    assert {(claim.client, claim.subject.client) for claim in claims} == {(ACME, ACME), (UMBRELLA, UMBRELLA)}
    assert len(claims) == 2
    assert [d.name for d in await bench.store.destinations(UMBRELLA)] == []


async def test_a_poll_does_not_carry_on_to_a_closed_destination(bench: Bench) -> None:
    """An outcome for a destination that is left alone is saved, and its callback waits."""
    await bench.announced(3, destination=DEAD)
    await attempt(bench, AttemptOutcome.TIMEOUT)
    await bench.accept(destination=DEAD)
    await bench.submit_all()
    [poll] = await bench.work.begin_poll(10)
    [answer] = await bench.work.save(
        [
            saved_outcome(
                poll.lease,
                (await bench.job(poll.lease.id)).status.DONE,
                None,
                announce_after_ms=0,
                carry_on=True,
                result=b"r{}",
            )
        ]
    )
    assert not isinstance(answer, Carried)
    assert await bench.work.begin_deliver(10) == []


async def test_a_killed_trial_is_followed_by_another(bench: Bench) -> None:
    """The worker that tries a closed destination dies: after its lease somebody tries again."""
    await bench.announced(6, destination=DEAD)
    await attempt(bench, AttemptOutcome.TIMEOUT, 4)
    assert await bench.work.begin_deliver(100) == []
    await bench.let_pass(11)
    assert len(await bench.work.begin_deliver(100)) == 1
    await bench.let_pass(16)
    assert len(await bench.other.begin_deliver(100)) == 1
    await bench.check()


async def test_they_are_listed_with_the_latest_first(bench: Bench) -> None:
    """A client sees where its callbacks went, and can ask for those in one state."""
    await bench.announced(1, destination=WELL)
    await attempt(bench, AttemptOutcome.DELIVERED)
    await bench.let_pass(1)
    await bench.announced(4, destination=DEAD)
    await attempt(bench, AttemptOutcome.TIMEOUT)
    assert [d.name for d in await bench.store.destinations(ACME)] == [DEAD, WELL]
    assert [d.name for d in await bench.store.destinations(ACME, limit=1)] == [DEAD]
    assert [d.name for d in await bench.store.destinations(ACME, frozenset({DestinationState.HEALTHY}))] == [WELL]
    assert await bench.store.destinations(ACME, frozenset({DestinationState.PAUSED})) == []
    await bench.let_pass(31 * 86_400)
    await bench.announced(1, destination="new.example:443")
    await attempt(bench, AttemptOutcome.DELIVERED, 10)
    assert "well.example:443" not in [d.name for d in await bench.store.destinations(ACME)]
