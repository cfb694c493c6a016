"""Pages of things over several clients, which the store lists one by one."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from relay.core.model import ClientName

#: Clients that are asked at once.
_AT_ONCE = 20


class _Thing(Protocol):
    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=_Thing)
R = TypeVar("R")
#: Things, newest first, and the id after which the next page begins; None on the last one.
Listed = tuple[Sequence[T], str | None]


async def of_each(clients: Sequence[ClientName], ask: Callable[[ClientName], Awaitable[R]]) -> list[R]:
    """What `ask` answers for each client, some of them at a time. Raises what `ask` raises."""
    answers: list[R] = []
    for start in range(0, len(clients), _AT_ONCE):
        answers += await asyncio.gather(*(ask(client) for client in clients[start : start + _AT_ONCE]))
    return answers


def merge(pages: Iterable[Listed[T]], limit: int) -> Listed[T]:
    """One page of several: what is older than the end of one that goes on is left for the next page."""
    pages = list(pages)
    end = max((following for _, following in pages if following is not None), default=None)
    found = [thing for things, _ in pages for thing in things if end is None or thing.id >= end]
    found.sort(key=lambda thing: thing.id, reverse=True)
    if len(found) > limit:
        found = found[:limit]
        end = found[-1].id
    return found, end
