"""Pages of things over several clients, which the store lists one by one."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

from relay.core.model import ClientName, Job, JobId
from relay.core.store import Page

#: Clients that are asked at once.
_AT_ONCE = 20


async def over_clients(clients: Sequence[ClientName], limit: int, ask: Callable[[ClientName], Awaitable[Page]]) -> Page:
    """The newest `limit` jobs of `clients`, of each of which `ask` gives the newest. Raises what `ask` raises."""
    pages: list[Page] = []
    for start in range(0, len(clients), _AT_ONCE):
        pages += await asyncio.gather(*(ask(client) for client in clients[start : start + _AT_ONCE]))
    return merge(pages, limit)


def merge(pages: Iterable[Page], limit: int) -> Page:
    """One page of several: what is older than the end of one that goes on is left for the next page."""
    pages = list(pages)
    ends = [page.next_before for page in pages if page.next_before is not None]
    end: JobId | None = max(ends) if ends else None
    jobs: list[Job] = sorted(
        (job for page in pages for job in page.jobs if end is None or job.id >= end),
        key=lambda job: job.id,
        reverse=True,
    )
    if len(jobs) > limit:
        jobs = jobs[:limit]
        end = jobs[-1].id
    return Page(jobs, end)
