"""Sharing trips to the store: what is asked for while one is under way goes with the next.

A trip costs the service more than the script that it is made for; under load each carries a few.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

#: A script and its arguments.
Asked = tuple[str, tuple[bytes | str | float, ...]]

#: A trip that takes longer is overtaken: one answer that does not come must not hold up what is asked for afterwards.
_OVERTAKE_S = 0.02


class SharedTrips:
    """The trips of one connection pool.

    `carry` makes one, and returns the answers in order, exceptions for single ones among them, or raises for all.
    """

    def __init__(self, carry: Callable[[Sequence[Asked]], Awaitable[list[Any]]]) -> None:
        self._carry = carry
        self._waiting: list[tuple[Asked, asyncio.Future[Any]]] = []
        self._under_way: set[asyncio.Task[None]] = set()
        self._departure: asyncio.Handle | None = None

    async def run(self, name: str, args: tuple[bytes | str | float, ...]) -> Any:
        """The answer to one script. Raises what its trip raises."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._waiting.append(((name, args), answer))
        if self._departure is None:
            # Not at once: what else this turn of the loop asks for goes along.
            wait = loop.call_later(_OVERTAKE_S, self._depart) if self._under_way else loop.call_soon(self._depart)
            self._departure = wait
        return await answer

    def _depart(self) -> None:
        if self._departure is not None:
            self._departure.cancel()
            self._departure = None
        taken, self._waiting = self._waiting, []
        if taken:
            trip = asyncio.create_task(self._go(taken))
            self._under_way.add(trip)
            trip.add_done_callback(self._back)

    def _back(self, trip: asyncio.Task[None]) -> None:
        self._under_way.discard(trip)
        self._depart()

    async def _go(self, taken: Sequence[tuple[Asked, asyncio.Future[Any]]]) -> None:
        try:
            answers = await self._carry([asked for asked, _ in taken])
        except asyncio.CancelledError:
            for _, future in taken:
                future.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - it goes to those who asked
            for _, future in taken:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(taken, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
