"""A worker's slots are shared by destinations: none takes so many that others find none, and none waits for ever."""

from collections import Counter
from collections.abc import AsyncIterator

import pytest

from relay.core.model import DeliveryStatus, Job, JobStatus
from relay.core.store.work import Carried, DeliverClaim, SaveAnswer, Saved, saved_attempt, saved_outcome
from tests.integration.store_harness import FAILURE, Bench, attempt_of

pytestmark = pytest.mark.store

SLOTS, PERMITS = 100, 20


@pytest.fixture(name="bench")
async def fixture_bench(store_url: str) -> AsyncIterator[Bench]:
    """An empty store, for workers with a hundred slots, five times as many as a destination has permits."""
    async with Bench.open(store_url, deliver_slots=SLOTS, callback_concurrency=PERMITS) as bench:
        yield bench


class Worker:
    """What one worker has under way."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.claims: list[DeliverClaim] = []

    @property
    def free(self) -> int:
        """Its free slots."""
        return SLOTS - len(self.claims)

    def at(self) -> Counter[str]:
        """Its attempts by destination, as the store names those."""
        return Counter(where(claim) for claim in self.claims)

    async def begin(self) -> None:
        """Claim for all free slots."""
        self.claims += await self._bench.work.begin_deliver(self.free, free_slots=self.free, under_way=self.at())

    async def end(self, destination: str, *, noticed: bool = True) -> None:
        """All attempts at a destination get through, whether the worker has noticed it by now or not."""
        ended = [claim for claim in self.claims if where(claim) == destination]
        if noticed:
            self.claims = [claim for claim in self.claims if claim not in ended]
        saves = [
            saved_attempt(claim, attempt_of(claim), DeliveryStatus.DELIVERED, free_slots=self.free) for claim in ended
        ]
        await self._bench.work.save(saves)


def where(claim: DeliverClaim) -> str:
    """Where a job's callback goes, as the store names it."""
    assert isinstance(claim.subject, Job)
    return f"acme/{claim.subject.spec.callback.destination}"


async def carry_on(bench: Bench, destination: str, free_slots: int) -> SaveAnswer:
    """One more job finds its outcome, and would go on to its callback."""
    await bench.accept(destination=destination)
    await bench.submit_all()
    [poll] = await bench.work.begin_poll(10)
    [answer] = await bench.work.save(
        [
            saved_outcome(
                poll.lease, JobStatus.FAILED, FAILURE, announce_after_ms=0, carry_on=True, free_slots=free_slots
            )
        ]
    )
    return answer


async def test_a_destination_alone_has_all_its_permits(bench: Bench) -> None:
    """What no other destination needs is not held back from one."""
    await bench.announced(30, destination="one.example:443")
    worker = Worker(bench)
    await worker.begin()
    assert worker.at() == {"acme/one.example:443": PERMITS}


async def test_many_busy_destinations_leave_slots_free(bench: Bench) -> None:
    """However many callbacks are due at a dozen destinations, each has some under way, and slots stay free."""
    for number in range(12):
        await bench.announced(30, destination=f"d{number}.example:443")
    worker = Worker(bench)
    await worker.begin()
    assert len(worker.at()) == 12
    assert max(worker.at().values()) == PERMITS
    assert worker.free >= 20
    await bench.announced(1, destination="healthy.example:443")
    await worker.begin()
    assert worker.at()["acme/healthy.example:443"] == 1
    await bench.check()


async def test_what_was_held_back_goes_out_when_slots_are_free(bench: Bench) -> None:
    """Callbacks that were parked for want of slots are released as attempts end, and all are delivered."""
    names = [f"d{number}.example:443" for number in range(12)]
    for name in names:
        await bench.announced(30, destination=name)
    worker = Worker(bench)
    await worker.begin()
    for _ in range(100):
        for name in names:
            await worker.end(f"acme/{name}")
            await worker.begin()
        if not worker.claims:
            break
    snapshot = await bench.snapshot()
    assert {job["d"] for job in snapshot.jobs().values()} == {"delivered"}


async def test_no_more_is_released_than_would_be_begun(bench: Bench) -> None:
    """Where slots are few, few callbacks leave their parked set when attempts end, and none is parked again."""
    for number in range(12):
        await bench.announced(30, destination=f"d{number}.example:443")
    worker = Worker(bench)
    await worker.begin()
    last = min(worker.at(), key=worker.at().__getitem__)
    before = worker.free
    await worker.end(last)
    due = (await bench.work.look({})).deliver
    await worker.begin()
    assert due >= 1
    assert worker.at()[last] == due
    assert worker.free <= before


async def test_a_worker_without_slots_to_spare_strands_nothing(bench: Bench) -> None:
    """Where nothing is under way a callback begins, also if the worker believes otherwise: nobody would release it."""
    await bench.announced(2, destination="one.example:443")
    worker = Worker(bench)
    worker.claims = await bench.work.begin_deliver(1)
    await worker.end("acme/one.example:443", noticed=False)
    [claim] = await bench.work.begin_deliver(1, free_slots=1, under_way=worker.at())
    assert where(claim) == "acme/one.example:443"


async def test_carrying_on_leaves_slots_to_others(bench: Bench) -> None:
    """A finished poll goes on where nothing is under way or slots are plenty; else its callback is due like others."""
    assert isinstance(await carry_on(bench, "one.example:443", 1), Carried)
    assert await carry_on(bench, "one.example:443", 1) == Saved()
    assert isinstance(await carry_on(bench, "one.example:443", SLOTS), Carried)
    assert (await bench.work.look({})).deliver == 1
