"""Searching: by the ids of jobs and batches, or a part of them, and by what prompts and metadata say."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from relay.core.errors import NotFound
from relay.core.model import BATCH_PREFIX, JOB_PREFIX, BatchId, ClientName, DeliveryStatus, Job, JobId, JobStatus
from relay.core.store.queries import LAST, Page, Queries

#: An id or at least the first eight characters of one: the second in which it was made.
_ID = re.compile(rf"({JOB_PREFIX}|{BATCH_PREFIX})[0-9a-hjkmnp-tv-z]{{8,26}}")
_WHOLE = 26
#: Records that one call reads, and that it reads in one trip: the store is held up for a few milliseconds then.
_READ, _CHUNK = 2_000, 100
#: Batches that one part of an id may mean.
_BATCHES = 20


@dataclass(frozen=True, slots=True)
class _Filter:
    """Whose jobs, in which states, and how many of them."""

    client: ClientName
    statuses: frozenset[JobStatus]
    deliveries: frozenset[DeliveryStatus]
    limit: int
    before: JobId | None

    def fits(self, job: Job) -> bool:
        return (
            (not self.statuses or job.status in self.statuses)
            and (not self.deliveries or job.delivery.status in self.deliveries)
            and (self.before is None or job.id < self.before)
        )


class Search(Queries):
    """Finding jobs by what a person knows of them."""

    async def search(
        self,
        client: ClientName,
        text: str,
        *,
        statuses: frozenset[JobStatus] = frozenset(),
        deliveries: frozenset[DeliveryStatus] = frozenset(),
        limit: int = 50,
        before: JobId | None = None,
    ) -> Page:
        """A client's jobs that `text` fits, newest first, without their results; empty filters mean all.

        The id of a job or batch, or at least eight characters of it after its prefix, finds that job, or the jobs of
        that batch. Anything else is looked for in prompts and in the keys and values of metadata, whatever the case:
        in some thousand jobs, so that a page may have few jobs or none and still say where the next one begins.
        Raises StoreUnavailable.
        """
        of = _Filter(client, statuses, deliveries, limit, before)
        wanted = text.strip().lower()
        found = _ID.fullmatch(wanted)
        if found is None:
            return await self._containing(of, text.strip().casefold())
        if found[1] == BATCH_PREFIX:
            return await self._of_batches(of, wanted)
        if len(wanted) == len(JOB_PREFIX) + _WHOLE:
            return await self._with_id(of, JobId(wanted))
        return await self._jobs(of, prefix=wanted)

    async def _jobs(self, of: _Filter, *, batch_id: BatchId | None = None, prefix: str = "") -> Page:
        return await self.jobs(
            of.client,
            statuses=of.statuses,
            deliveries=of.deliveries,
            batch_id=batch_id,
            limit=of.limit,
            before=of.before,
            prefix=prefix,
        )

    async def _with_id(self, of: _Filter, job_id: JobId) -> Page:
        # Not from the index: a job of a batch that has just been accepted may not be there yet.
        try:
            job = await self.job(of.client, job_id, with_result=False)
        except NotFound:
            return Page([], None)
        return Page([job] if of.fits(job) else [], None)

    async def _of_batches(self, of: _Filter, prefix: str) -> Page:
        key, low, high = self._db.key(f"batches:{of.client}"), f"[{prefix}", f"[{prefix}{LAST}"
        known = await self._db.call(lambda: self._db.redis.zrevrangebylex(key, high, low, 0, _BATCHES))
        # One that was accepted before there was this index has its id still.
        ids = {BatchId(name.decode()) for name in known} | {BatchId(prefix)}
        pages = [await self._jobs(of, batch_id=batch_id) for batch_id in ids]
        jobs = sorted((job for page in pages for job in page.jobs), key=lambda job: job.id, reverse=True)
        more = len(jobs) > of.limit or any(page.next_before for page in pages)
        return Page(jobs[: of.limit], jobs[: of.limit][-1].id if jobs and more else None)

    async def _containing(self, of: _Filter, wanted: str) -> Page:
        found: list[Job] = []
        before = of.before
        for _ in range(0, _READ, _CHUNK):
            page = await self._jobs(replace(of, limit=_CHUNK, before=before))
            for job in page.jobs:
                if any(wanted in text.casefold() for text in _texts(job)):
                    found.append(job)
                    if len(found) == of.limit:
                        return Page(found, job.id)
            before = page.next_before
            if before is None:
                break
        return Page(found, before)


def _texts(job: Job) -> Iterator[str]:
    yield job.spec.prompt
    yield from _texts_in(job.spec.metadata)


def _texts_in(value: Any) -> Iterator[str]:
    match value:
        case dict():
            for name, item in value.items():
                yield name
                yield from _texts_in(item)
        case list():
            for item in value:
                yield from _texts_in(item)
        case bool() | None:
            pass
        case _:
            yield str(value)
