"""`jobs` and `redeliver`: what became of jobs, and their callbacks once more."""

import asyncio
from enum import StrEnum
from typing import Annotated, Any

import typer

from relay.cli import options
from relay.cli.client import RelayClient, Target
from relay.cli.failures import Document, Refused
from relay.cli.inputs import InputError
from relay.cli.render import (
    ATTEMPT_COLUMNS,
    JOB_COLUMNS,
    attempt_row,
    batch_fields,
    clean,
    job_fields,
    job_row,
    notes,
    output,
    print_fields,
    print_json,
    print_table,
)
from relay.core.model import DeliveryStatus, JobStatus
from relay.dev.folder import DEFAULT_FOLDER

MORE = """\b
Examples:
  scrapellm-relay jobs --status failed --status timed_out
  scrapellm-relay jobs --delivery exhausted --limit 200
  scrapellm-relay jobs job_01… --json | jq .result
"""
MORE_REDELIVER = """\b
Examples:
  scrapellm-relay redeliver job_01…
  scrapellm-relay redeliver --all --since 2026-01-01T00:00:00Z --callback-host hooks.example.com
"""

_BATCH = "batch_"


class EndedDelivery(StrEnum):
    """What can be delivered again."""

    EXHAUSTED = DeliveryStatus.EXHAUSTED
    GONE = DeliveryStatus.GONE
    DELIVERED = DeliveryStatus.DELIVERED
    SKIPPED = DeliveryStatus.SKIPPED


def jobs(
    job_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="One job with its attempts, or one batch; none: a list.")
    ] = None,
    *,
    status: Annotated[list[JobStatus] | None, typer.Option(help="Only jobs in this state; may be repeated.")] = None,
    delivery: Annotated[
        list[DeliveryStatus] | None, typer.Option(help="Only callbacks in this state; may be repeated.")
    ] = None,
    batch: Annotated[str | None, typer.Option(metavar="ID", help="Only jobs of this batch.")] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="The newest N jobs.")] = 20,
    url: options.UrlOption = None,
    api_key: options.KeyOption = None,
    data: options.DataOption = DEFAULT_FOLDER,
    as_json: options.JsonOption = False,
) -> None:
    """List jobs, newest first, or show one."""
    target = options.find_target(url, api_key, data)
    if job_id is None:
        asyncio.run(_list(target, status or [], delivery or [], batch, limit, as_json=as_json))
        return
    if status or delivery or batch:
        raise InputError("give an id, or --status, --delivery and --batch, not both")
    asyncio.run(_show(target, job_id, as_json=as_json))


def redeliver(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Jobs, or batches.")] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="All jobs that the other options choose.")] = False,
    delivery: Annotated[
        EndedDelivery | None, typer.Option(help="With --all: callbacks in this state; exhausted, unless given.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="With --all: jobs that ended at this time (RFC 3339) or later.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="With --all: jobs that ended earlier.")] = None,
    callback_host: Annotated[
        str | None, typer.Option(metavar="HOST", help="With --all: callbacks to exactly this host.")
    ] = None,
    url: options.UrlOption = None,
    api_key: options.KeyOption = None,
    data: options.DataOption = DEFAULT_FOLDER,
    as_json: options.JsonOption = False,
) -> None:
    """Send callbacks once more: the same webhook-id and body, and a fresh schedule that starts now."""
    chosen = {"delivery": delivery, "since": since, "until": until, "callback_host": callback_host}
    selection: Document = {name: str(value) for name, value in chosen.items() if value is not None}
    if bool(ids) == every:
        raise InputError("give ids, or --all")
    if ids and selection:
        raise InputError(f"--{next(iter(selection)).replace('_', '-')} goes with --all")
    target = options.find_target(url, api_key, data)
    if ids:
        raise typer.Exit(asyncio.run(_redeliver(target, ids, as_json=as_json)))
    asyncio.run(_redeliver_many(target, selection, as_json=as_json))


async def _list(
    target: Target,
    statuses: list[JobStatus],
    deliveries: list[DeliveryStatus],
    batch: str | None,
    limit: int,
    *,
    as_json: bool,
) -> None:
    async with RelayClient(target) as client:
        found = [
            job
            async for job in client.jobs(
                statuses=[str(s) for s in statuses],
                deliveries=[str(d) for d in deliveries],
                batch_id=batch,
                limit=limit,
            )
        ]
    if as_json:
        print_json({"data": found})
        return
    print_table(JOB_COLUMNS, [job_row(job) for job in found], giving_way=2)
    if not found:
        notes().print("no jobs", style="bright_black")


async def _show(target: Target, job_id: str, *, as_json: bool) -> None:
    async with RelayClient(target) as client:
        if job_id.startswith(_BATCH):
            batch = await client.batch(job_id)
            if as_json:
                print_json(batch)
            else:
                print_fields(batch_fields(batch))
            return
        job: dict[str, Any] = await client.job(job_id)
        attempts = await client.attempts(job_id)
    if as_json:
        print_json(job | {"attempts": attempts})
        return
    print_fields(job_fields(job))
    if attempts:
        output().print()
        print_table(ATTEMPT_COLUMNS, [attempt_row(attempt) for attempt in attempts])


async def _redeliver(target: Target, ids: list[str], *, as_json: bool) -> int:
    """Ask for each; a refusal is told, and does not keep the others from being asked for."""
    done = []
    async with RelayClient(target) as client:
        for subject_id in ids:
            try:
                done.append(await client.redeliver(subject_id))
            except Refused as refusal:
                if refusal.is_usage:
                    raise
                notes().print(clean(f"{subject_id}: {refusal}"), markup=False)
            else:
                if not as_json:
                    typer.echo(subject_id)
    if as_json:
        print_json({"data": done})
    return 0 if len(done) == len(ids) else 1


async def _redeliver_many(target: Target, selection: Document, *, as_json: bool) -> None:
    async with RelayClient(target) as client:
        count = await client.redeliver_many(selection)
    if as_json:
        print_json({"count": count})
    else:
        typer.echo(f"{count} to be delivered again")
