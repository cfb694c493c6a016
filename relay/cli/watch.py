"""Jobs as they change: a table that is kept up to date on a terminal, and a line for each change elsewhere.

Alone knows what of the stream of changes is shown.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.live import Live

from relay.cli.options import Target
from relay.cli.render import JOB_COLUMNS, fields_text, job_fields, job_row, notes, output, print_json, print_row, table
from relay.client import Change, ChangeKind, Job, RelayClient
from relay.core.model import DeliveryStatus, JobStatus

#: A table is read anew at most so often, however much changes.
_TABLE_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Filters:
    """Which jobs are meant."""

    status: tuple[JobStatus, ...] = ()
    delivery: tuple[DeliveryStatus, ...] = ()
    batch_id: str | None = None

    def jobs(self, client: RelayClient, limit: int) -> AsyncGenerator[Job, None]:
        """The newest `limit` of them."""
        return client.jobs(status=self.status, delivery=self.delivery, batch_id=self.batch_id, limit=limit)

    def match(self, change: Change) -> bool:
        """Whether a job that has changed is one of them now."""
        return (
            (not self.status or change.status in self.status)
            and (not self.delivery or change.delivery in self.delivery)
            and self.batch_id in (None, change.batch_id)
        )


async def every(target: Target, filters: Filters, limit: int, *, as_json: bool) -> None:
    """Show the jobs that match, and their changes, until cancelled."""
    async with target.client() as client:
        if as_json or not output().is_terminal:
            await _lines(client, filters, as_json=as_json)
        else:
            await _table(client, filters, limit)


async def one(target: Target, job_id: str, *, as_json: bool) -> int:
    """Show one job until its callback has come to an end; returns 0 where it is done, 1 where it is not."""
    async with target.client() as client:
        last: tuple[str, str, int] | None = None
        on_terminal = output().is_terminal and not as_json
        with Live(console=output(), auto_refresh=False) if on_terminal else _NoScreen() as screen:
            async with aclosing(client.events()) as changes:
                async for change in changes:
                    if change.kind is not ChangeKind.RESET and change.id != job_id:
                        continue
                    job = await client.job(job_id)
                    state = (str(job.status), str(job.delivery.status), job.delivery.attempts)
                    if state != last:
                        last = state
                        if isinstance(screen, Live):
                            screen.update(fields_text(job_fields(job.document)), refresh=True)
                        elif as_json:
                            print_json(job.document)
                        else:
                            _print_line(datetime.now(UTC), job.id, *state[:2])
                    if job.status.is_outcome and job.delivery.status.is_ended:
                        break
    return 0 if job.status is JobStatus.DONE else 1


async def _lines(client: RelayClient, filters: Filters, *, as_json: bool) -> None:
    began = False
    async with aclosing(client.events()) as changes:
        async for change in changes:
            if change.kind is ChangeKind.RESET:
                notes().print("some changes may be missing here" if began else "watching (Ctrl-C ends)")
                began = True
            elif change.kind is ChangeKind.JOB and change.id is not None and filters.match(change):
                at = change.at or datetime.now(UTC)
                if as_json:
                    print_json(
                        {
                            "id": change.id,
                            "status": change.status,
                            "delivery": change.delivery,
                            "batch_id": change.batch_id,
                            "at": _iso(at),
                        }
                    )
                else:
                    _print_line(at, change.id, change.status or "", change.delivery or "")


async def _table(client: RelayClient, filters: Filters, limit: int) -> None:
    changed = asyncio.Event()

    async def listen() -> None:
        async with aclosing(client.events()) as changes:
            async for change in changes:
                if change.kind is not ChangeKind.BATCH:
                    changed.set()

    listening = asyncio.ensure_future(listen())
    listening.add_done_callback(lambda _: changed.set())
    console = output()
    # No more rows than the terminal has lines for.
    rows = max(1, min(limit, console.height - 4))
    try:
        with Live(console=console, auto_refresh=False, vertical_overflow="crop") as screen:
            while True:
                await changed.wait()
                if listening.done():
                    await listening
                    return
                changed.clear()
                found = [job_row(job.document) async for job in filters.jobs(client, rows)]
                title = f"{time.strftime('%H:%M:%S')}  {len(found)} jobs (Ctrl-C ends)"
                screen.update(table(JOB_COLUMNS, found, giving_way=2, caption=title), refresh=True)
                await asyncio.sleep(_TABLE_EVERY_S)
    finally:
        listening.cancel()


class _NoScreen:
    """Where nothing is drawn."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def _print_line(at: datetime, job_id: str, status: str, delivery: str) -> None:
    print_row((_iso(at), job_id, status, delivery))


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
