"""A worker's slots are shared: nobody takes so many that others find none, and nobody waits for ever."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence

import pytest

from relay.core.model import AttemptOutcome, ClientName, DeliveryStatus, JobStatus
from relay.core.store.slots import Doubt, TakenSlots
from relay.core.store.work import Carried, DeliverClaim, SaveAnswer, Saved, saved_attempt, saved_outcome
from tests.integration.store_harness import ACME, FAILURE, UMBRELLA, Bench, attempt_of

pytestmark = pytest.mark.store

SLOTS, PERMITS = 100, 20
#: What those in doubt may have together; what one client may have of that, and where all of those are silent.
IN_DOUBT, IN_DOUBT_ALONE, SILENT_ALONE = 80, 64, 51


@pytest.fixture(name="bench")
async def fixture_bench(store_url: str) -> AsyncIterator[Bench]:
    """An empty store, for workers with a hundred slots, five times as many as a destination has permits."""
    async with Bench.open(store_url, deliver_slots=SLOTS, callback_concurrency=PERMITS) as bench:
        yield bench


class Worker:
    """What one worker has under way."""

    def __init__(self, bench: Bench, *, other: bool = False, slots: int = SLOTS) -> None:
        self._store = bench.other if other else bench.work
        self._slots = slots
        self.claims: list[DeliverClaim] = []
        #: Attempts that are over, which it has not noticed.
        self.unnoticed: list[DeliverClaim] = []

    @property
    def free(self) -> int:
        """Its free slots."""
        return self._slots - len(self.claims) - len(self.unnoticed)

    def at(self) -> Counter[str]:
        """Its attempts by destination."""
        return Counter(claim.destination for claim in self.claims)

    def taken(self) -> TakenSlots:
        """What it tells the store."""
        taken = TakenSlots()
        for claim in [*self.claims, *self.unnoticed]:
            taken.take(claim.client, claim.doubt, claim.destination)
        return taken

    async def begin(self) -> list[DeliverClaim]:
        """Claim for all free slots; returns what is new."""
        new = await self._store.begin_deliver(self.free, slots=self.taken().told(self.free))
        self.claims += new
        return new

    async def end(
        self, destination: str, outcome: AttemptOutcome = AttemptOutcome.DELIVERED, *, noticed: bool = True
    ) -> None:
        """All attempts at a destination get through, or fail, whether the worker has noticed it by now or not."""
        ended = [claim for claim in self.claims if claim.destination == destination]
        self.claims = [claim for claim in self.claims if claim not in ended]
        if not noticed:
            self.unnoticed += ended
        status, delay_ms = DeliveryStatus.DELIVERED, None
        if outcome is not AttemptOutcome.DELIVERED:
            status, delay_ms = DeliveryStatus.RETRYING, 300_000
        await self._store.save(
            [
                saved_attempt(claim, attempt_of(claim, outcome), status, delay_ms, free_slots=self.free)
                for claim in ended
            ]
        )


async def each_announced(bench: Bench, names: Sequence[str], count: int = 1, client: ClientName = ACME) -> None:
    """So many callbacks are due at each destination."""
    for name in names:
        for _ in range(count):
            await bench.accept(client, destination=name)
    await bench.submit_all(client)
    await bench.finish_all()


async def carry_on(bench: Bench, destination: str, worker: Worker) -> SaveAnswer:
    """One more job finds its outcome, and would go on to its callback."""
    await bench.accept(destination=destination)
    await bench.submit_all()
    [poll] = await bench.work.begin_poll(10)
    slots = worker.taken().told_by(ACME, worker.free)
    outcome = saved_outcome(poll.lease, JobStatus.FAILED, FAILURE, announce_after_ms=0, carry_on=True, slots=slots)
    [answer] = await bench.work.save([outcome])
    if isinstance(answer, Carried):
        worker.claims.append(answer.claim)
    return answer


async def drain(bench: Bench, *workers: Worker) -> None:
    """The workers deliver whatever there is, with no fault any more, until there is nothing."""
    for _ in range(200):
        for worker in workers:
            await worker.begin()
            for name in worker.at():
                await worker.end(name)
        await bench.check()
        if not (await bench.work.look({})).deliver:
            await bench.let_pass(1)
        if all(job["d"] == "delivered" for job in (await bench.snapshot()).jobs().values()):
            break
    snapshot = await bench.snapshot()
    assert {job["d"] for job in snapshot.jobs().values()} == {"delivered"}


class TestDestinations:
    """Between the destinations of a client."""

    async def test_a_destination_alone_has_all_its_permits(self, bench: Bench) -> None:
        """What no other destination needs is not held back from one."""
        await bench.announced(30, destination="one.example:443")
        worker = Worker(bench)
        await worker.begin()
        assert worker.at() == {"one.example:443": PERMITS}

    async def test_many_busy_destinations_leave_slots_free(self, bench: Bench) -> None:
        """However many callbacks are due at a dozen destinations, each has some under way, and slots stay free."""
        await each_announced(bench, [f"d{number}.example:443" for number in range(12)], 30)
        worker = Worker(bench)
        await worker.begin()
        assert len(worker.at()) == 12
        assert max(worker.at().values()) == PERMITS
        assert worker.free >= 20
        await bench.announced(1, destination="healthy.example:443")
        await worker.begin()
        assert worker.at()["healthy.example:443"] == 1
        await bench.check()

    async def test_what_was_held_back_goes_out_when_slots_are_free(self, bench: Bench) -> None:
        """Callbacks that were parked for want of slots are released as attempts end, and all are delivered."""
        await each_announced(bench, [f"d{number}.example:443" for number in range(12)], 30)
        await drain(bench, Worker(bench))
        # Nobody waits in line when nothing is left.
        worker = Worker(bench)
        await bench.let_pass(2)
        await worker.begin()
        assert not any(key.startswith("crowd") for key in (await bench.snapshot()).sets)

    async def test_no_more_is_released_than_would_be_begun(self, bench: Bench) -> None:
        """Where slots are few, few callbacks leave their parked set when attempts end, and none is parked again."""
        names = [f"d{number}.example:443" for number in range(12)]
        await each_announced(bench, names, 30)
        worker = Worker(bench)
        await worker.begin()
        last = min(worker.at(), key=worker.at().__getitem__)
        before = len(await bench.raw.zrange("relay:parked:acme/" + last, 0, -1))
        await worker.end(last)
        released = before - len(await bench.raw.zrange("relay:parked:acme/" + last, 0, -1))
        await worker.begin()
        assert released >= 1
        assert worker.at()[last] >= released

    async def test_a_destination_takes_a_fifth_of_few_slots(self, store_url: str) -> None:
        """A dead receiver leaves most slots to others also where a worker has fewer than that has permits."""
        async with Bench.open(store_url, deliver_slots=20, callback_concurrency=50) as bench:
            await bench.announced(30, destination="dead.example:443")
            worker = Worker(bench, slots=20)
            await worker.begin()
            assert worker.at() == {"dead.example:443": 4}

    @pytest.mark.parametrize("slots", [1, 2, 3, 7])
    async def test_a_handful_of_slots_is_enough(self, store_url: str, slots: int) -> None:
        """A worker with hardly any slots delivers everything, of every client."""
        async with Bench.open(store_url, deliver_slots=slots, callback_concurrency=50) as bench:
            await each_announced(bench, ["a.example:443", "b.example:443"], 4)
            await bench.announced(3, client=UMBRELLA)
            await drain(bench, Worker(bench, slots=slots))


class TestDoubt:
    """What has not answered leaves slots to what has."""

    async def test_destinations_that_have_not_answered_leave_slots(self, bench: Bench) -> None:
        """More hanging destinations than there are slots take some of them only, and a known receiver finds one."""
        worker = Worker(bench)
        await bench.announced(1, destination="known.example:443")
        assert [claim.doubt for claim in await worker.begin()] == [Doubt.SOME]
        await worker.end("known.example:443")
        await each_announced(bench, [f"d{number}.example:443" for number in range(120)])
        await worker.begin()
        assert len(worker.claims) == IN_DOUBT_ALONE
        await bench.announced(10, destination="known.example:443")
        new = await worker.begin()
        assert {(claim.destination, claim.doubt) for claim in new} == {("known.example:443", Doubt.NONE)}

    async def test_the_silent_leave_slots_to_the_untried(self, bench: Bench) -> None:
        """Where nobody has answered the last attempt, fewer may hang than where nothing was tried yet."""
        names = [f"d{number}.example:443" for number in range(IN_DOUBT_ALONE)]
        await each_announced(bench, names)
        worker = Worker(bench)
        assert len(await worker.begin()) == IN_DOUBT_ALONE
        for name in names:
            await worker.end(name, AttemptOutcome.TIMEOUT)
        await each_announced(bench, names)
        await worker.begin()
        assert len(worker.claims) == SILENT_ALONE
        assert {claim.doubt for claim in worker.claims} == {Doubt.SILENT}
        await bench.announced(1, destination="new.example:443")
        assert [(claim.destination, claim.doubt) for claim in await worker.begin()] == [("new.example:443", Doubt.SOME)]

    async def test_an_answer_vouches_for_a_while(self, bench: Bench) -> None:
        """What answered an hour ago, well or badly, is in doubt again; a bad answer vouches as well as a good one."""
        worker = Worker(bench)
        for outcome in (AttemptOutcome.HTTP_ERROR, AttemptOutcome.DELIVERED):
            await bench.announced(1)
            await worker.begin()
            await worker.end("hooks.example:443", outcome)
            await bench.announced(1)
            assert [claim.doubt for claim in await worker.begin()] == [Doubt.NONE]
            await worker.end("hooks.example:443")
        await bench.let_pass(3_601)
        await bench.announced(1)
        await worker.begin()
        assert {claim.doubt for claim in worker.claims} == {Doubt.SOME}

    async def test_all_in_line_have_their_turn(self, bench: Bench) -> None:
        """Destinations that wait for slots get them in turn, first those that have waited longest."""
        names = [f"d{number:03}.example:443" for number in range(200)]
        await each_announced(bench, names, 2)
        worker = Worker(bench)
        tried: list[str] = []
        while len(set(tried)) < len(names):
            new = await worker.begin()
            tried += [claim.destination for claim in new]
            assert new, "nobody has a turn"
            for claim in new:
                await worker.end(claim.destination, AttemptOutcome.TIMEOUT)
            await bench.let_pass(1)
        # Each has two callbacks, and those that have had a turn stand at the end.
        assert max(Counter(tried).values()) <= 2
        await bench.check()

    async def test_who_waits_is_not_stirred_in_vain(self, bench: Bench) -> None:
        """While no slot is free for them, destinations in line cost nothing each: they stay where they are."""
        await each_announced(bench, [f"d{number}.example:443" for number in range(150)])
        worker = Worker(bench)
        await worker.begin()
        before = (await bench.snapshot()).sets["crowd:1:acme"]
        for _ in range(3):
            # Other workers have had a look as well.
            await bench.let_pass(1.3)
            assert (await bench.work.look({})).deliver == 1
            assert await worker.begin() == []
        passed_ms = 3 * 1_300
        assert set((await bench.snapshot()).sets["crowd:1:acme"].values()) <= {at - passed_ms for at in before.values()}
        assert (await bench.work.look({})).deliver == 0, "looked at again before a second has passed"

    async def test_an_end_calls_the_next_in_line(self, bench: Bench) -> None:
        """When an attempt of the client ends, those who wait need not wait for their second to pass."""
        await each_announced(bench, [f"d{number}.example:443" for number in range(150)])
        worker = Worker(bench)
        await worker.begin()
        await worker.end(worker.claims[0].destination)
        assert (await bench.work.look({})).deliver == 1
        assert len(await worker.begin()) == 1


class TestClients:
    """Between clients."""

    async def test_one_client_leaves_slots_to_the_others(self, bench: Bench) -> None:
        """However many destinations of a client hang, each of several others has slots for what it has due."""
        await each_announced(bench, [f"d{number}.example:443" for number in range(150)])
        worker = Worker(bench)
        await worker.begin()
        assert len(worker.claims) == IN_DOUBT_ALONE
        for name in ("b", "c", "d"):
            client = ClientName(name)
            await each_announced(bench, [f"{name}{number}.example:443" for number in range(50)], client=client)
            new = await worker.begin()
            assert new
            assert {claim.client for claim in new} == {client}
        assert len(worker.claims) < IN_DOUBT

    async def test_answering_is_no_claim_to_all_slots(self, bench: Bench) -> None:
        """A client whose destinations have all answered leaves slots as well, if they hang now."""
        names = [f"d{number}.example:443" for number in range(120)]
        worker = Worker(bench)
        await each_announced(bench, names)
        while await worker.begin():
            for name in worker.at():
                await worker.end(name)
        await each_announced(bench, names)
        new = await worker.begin()
        assert {claim.doubt for claim in new} == {Doubt.NONE}
        assert len(new) == 80
        await bench.announced(10, client=UMBRELLA)
        assert len(await worker.begin()) >= 1

    async def test_a_client_in_line_gets_what_others_leave(self, bench: Bench) -> None:
        """Everything of all clients is delivered in the end, when receivers answer."""
        for number in range(3):
            client = ClientName(f"c{number}")
            names = [f"d{n}.example:443" for n in range(60)]
            await each_announced(bench, names, 2, client=client)
        await drain(bench, Worker(bench), Worker(bench, other=True))


class TestWorkers:
    """What one worker has no slot for is another one's."""

    async def test_a_free_worker_takes_what_a_crowded_one_has_parked(self, bench: Bench) -> None:
        """While the attempt that is under way there lasts, others begin at a free worker, a second later."""
        crowded, free = Worker(bench), Worker(bench, other=True)
        await each_announced(bench, [f"d{number}.example:443" for number in range(IN_DOUBT_ALONE - 1)])
        await bench.announced(1, destination="slow.example:443")
        await crowded.begin()
        assert crowded.at()["slow.example:443"] == 1
        await bench.announced(5, destination="slow.example:443")
        assert await crowded.begin() == []
        await bench.let_pass(1)
        assert await crowded.begin() == [], "it has no slot for them still"
        assert len(await free.begin()) >= 1
        assert free.at().keys() == {"slow.example:443"}

    async def test_a_worker_without_slots_to_spare_strands_nothing(self, bench: Bench) -> None:
        """What a worker refuses, because it believes that attempts are under way, is begun when it knows better."""
        await bench.announced(2, destination="one.example:443")
        worker = Worker(bench, slots=2)
        worker.claims = await bench.work.begin_deliver(1)
        await worker.end("one.example:443", noticed=False)
        assert await worker.begin() == []
        await bench.check()
        worker.unnoticed.clear()
        await bench.let_pass(1)
        assert [claim.destination for claim in await worker.begin()] == ["one.example:443"]

    async def test_more_under_way_than_slots_is_no_reason_to_begin(self, bench: Bench) -> None:
        """A worker that has got more than it has slots for, as when a claim is told again, gets none in addition."""
        await bench.announced(30, destination="one.example:443")
        told = TakenSlots()
        for _ in range(5):
            told.take(ACME, Doubt.SOME, "other.example:443")
        assert await bench.work.begin_deliver(5, slots=told.told(-150)) == []
        await bench.check()
        await drain(bench, Worker(bench))


class TestCarryingOn:
    """A finished poll goes on to its callback."""

    async def test_it_leaves_slots_to_others(self, bench: Bench) -> None:
        """It goes on where nothing is under way or slots are plenty; else its callback is due like others."""
        worker = Worker(bench)
        names = [f"d{number}.example:443" for number in range(IN_DOUBT_ALONE + 10)]
        answers = [await carry_on(bench, name, worker) for name in names]
        assert [isinstance(answer, Carried) for answer in answers] == [True] * IN_DOUBT_ALONE + [False] * 10
        assert answers[-1] == Saved()
        assert (await bench.work.look({})).deliver == 10
        await worker.end(names[0])
        assert isinstance(await carry_on(bench, names[0], worker), Carried)

    async def test_a_claim_under_way_counts_for_those_in_doubt(self, bench: Bench) -> None:
        """What a claim may be about to get is not given away a second time."""
        worker = Worker(bench)
        await bench.accept(destination="new.example:443")
        await bench.submit_all()
        [poll] = await bench.work.begin_poll(10)
        slots = worker.taken().told_by(ACME, worker.free, claiming=IN_DOUBT)
        outcome = saved_outcome(poll.lease, JobStatus.FAILED, FAILURE, announce_after_ms=0, carry_on=True, slots=slots)
        assert await bench.work.save([outcome]) == [Saved()]


@pytest.mark.parametrize("first", [100, 101])
async def test_claims_of_one_look_at_the_lines_too(store_url: str, first: int) -> None:
    """A worker with two slots, whose claims are all for one, gets to those in line and to those that are due."""
    async with Bench.open(store_url, deliver_slots=2, callback_concurrency=20) as bench:
        worker = Worker(bench, slots=2)
        await each_announced(bench, [f"receiver-{n}.example:443" for n in range(12)])
        bench.work._next_number = first
        delivered = 0
        # At first nothing ends, so that all but one get in line.
        for turn in range(100):
            worker.claims += await bench.work.begin_deliver(
                (worker.free + 1) // 2, slots=worker.taken().told(worker.free)
            )
            for destination in {claim.destination for claim in worker.claims} if turn > 5 else ():
                delivered += 1
                await worker.end(destination)
            await bench.let_pass(0.3)
        assert delivered == 12


async def test_a_backlog_keeps_all_its_permits(store_url: str) -> None:
    """Two workers drain what waits for a receiver that answers with as many attempts as it has permits, to the end."""
    async with Bench.open(store_url, deliver_slots=10, callback_concurrency=4) as bench:
        workers = [Worker(bench, slots=10), Worker(bench, slots=10, other=True)]
        await each_announced(bench, ["a.example:443"])
        await workers[0].begin()
        await workers[0].end("a.example:443")
        await each_announced(bench, ["a.example:443"], 60)
        under_way = []
        for _ in range(40):
            for worker in workers:
                await worker.begin()
            await bench.let_pass(0.3)
            under_way.append(sum(len(worker.claims) for worker in workers))
            worker = max(workers, key=lambda one: len(one.claims))
            claim = worker.claims.pop(0)
            save = saved_attempt(
                claim, attempt_of(claim), DeliveryStatus.DELIVERED, free_slots=worker.free, at=len(worker.claims) + 1
            )
            await worker._store.save([save])
        assert min(under_way[1:]) >= 3
