"""Shared trips: who goes together, and what becomes of them."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from relay.core.errors import StoreUnavailable
from relay.core.store.trips import Asked, SharedTrips


class Store:
    """Takes trips, and answers each when it is told to."""

    def __init__(self) -> None:
        self.trips: list[list[str]] = []
        self.let = asyncio.Semaphore(0)
        self.error: Exception | None = None

    async def carry(self, asked: Sequence[Asked]) -> list[Any]:
        self.trips.append([name for name, _ in asked])
        await self.let.acquire()
        if self.error is not None:
            raise self.error
        return [args[0] for _, args in asked]


@pytest.fixture(name="store")
def fixture_store() -> Store:
    """A store that answers nothing yet."""
    return Store()


def ask(trips: SharedTrips, name: str) -> "asyncio.Task[Any]":
    """Ask for a script whose answer is its name in capitals."""
    return asyncio.create_task(trips.run(name, (name.upper(),)))


async def turns() -> None:
    """Let everything that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


class TestSharedTrips:
    """SharedTrips."""

    async def test_what_is_asked_for_at_once_goes_together(self, store: Store) -> None:
        """One turn of the loop, one trip; each caller gets its own answer."""
        trips = SharedTrips(store.carry)
        asked = [ask(trips, name) for name in "abc"]
        await turns()
        assert store.trips == [["a", "b", "c"]]
        store.let.release()
        assert await asyncio.gather(*asked) == ["A", "B", "C"]

    async def test_one_refusal_is_for_who_asked(self) -> None:
        """An exception among the answers is raised to its own caller; the others have theirs."""

        async def carry(asked: Sequence[Asked]) -> list[Any]:
            return [StoreUnavailable("full") if name == "b" else args[0] for name, args in asked]

        trips = SharedTrips(carry)
        a, b, c = await asyncio.gather(*(ask(trips, name) for name in "abc"), return_exceptions=True)
        assert (a, c) == ("A", "C")
        assert isinstance(b, StoreUnavailable)

    async def test_the_rest_goes_when_a_trip_is_back(self, store: Store) -> None:
        """What comes while a trip is under way waits for its end, and goes together then."""
        trips = SharedTrips(store.carry)
        first = ask(trips, "a")
        await turns()
        rest = [ask(trips, name) for name in "bc"]
        await turns()
        assert store.trips == [["a"]]
        store.let.release()
        assert await first == "A"
        await turns()
        assert store.trips == [["a"], ["b", "c"]]
        store.let.release()
        assert await asyncio.gather(*rest) == ["B", "C"]

    async def test_a_trip_that_hangs_is_overtaken(self, store: Store) -> None:
        """What comes while a trip does not end sets out all the same, soon."""
        trips = SharedTrips(store.carry)
        first = ask(trips, "a")
        await turns()
        second = ask(trips, "b")
        async with asyncio.timeout(5):
            while len(store.trips) < 2:
                await asyncio.sleep(0.005)
        assert store.trips == [["a"], ["b"]]
        store.let.release()
        store.let.release()
        assert [await first, await second] == ["A", "B"]

    async def test_a_trip_that_fails_fails_for_all_in_it(self, store: Store) -> None:
        """And for nobody else."""
        trips = SharedTrips(store.carry)
        asked = [ask(trips, name) for name in "ab"]
        await turns()
        store.error = ConnectionError("gone")
        store.let.release()
        assert [type(one) for one in await asyncio.gather(*asked, return_exceptions=True)] == [ConnectionError] * 2
        store.error = None
        store.let.release()
        assert await trips.run("c", ("C",)) == "C"

    async def test_who_gives_up_takes_nobody_along(self, store: Store) -> None:
        """A caller that is cancelled leaves the others their answers."""
        trips = SharedTrips(store.carry)
        gone, stays = ask(trips, "a"), ask(trips, "b")
        await turns()
        gone.cancel()
        store.let.release()
        assert await stays == "B"
        with pytest.raises(asyncio.CancelledError):
            await gone
