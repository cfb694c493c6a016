"""`jobs`: what became of jobs and batches, once or as it happens."""

import asyncio
from typing import Annotated

import typer

from relay.cli import options, watch
from relay.cli.batch import follow_batch, summary
from relay.cli.inputs import InputError
from relay.cli.render import (
    ATTEMPT_COLUMNS,
    JOB_COLUMNS,
    attempt_row,
    batch_fields,
    job_fields,
    job_row,
    notes,
    output,
    print_fields,
    print_json,
    print_table,
)
from relay.cli.services import until_told
from relay.cli.watch import Filters
from relay.core.model import BATCH_PREFIX, DeliveryStatus, JobStatus
from relay.dev.folder import DEFAULT_FOLDER

MORE = """\b
Examples:
  scrapellm-relay jobs --status failed --status timed_out
  scrapellm-relay jobs --delivery exhausted --limit 200
  scrapellm-relay jobs job_01… --json | jq .result
  scrapellm-relay jobs --watch                 every change, as it happens
  scrapellm-relay jobs job_01… --watch         one job, until its callback is delivered, or is not
  scrapellm-relay jobs --watch --json | jq -r 'select(.delivery == "exhausted") | .id'

\b
Exit codes: 0 shown, and with ID --watch done; 1 no such thing, with ID --watch not done; 2 wrong usage,
3 no relay answers.
"""


def jobs(
    job_id: Annotated[
        str | None, typer.Argument(metavar="ID", help="One job with its attempts, or one batch; none: a list.")
    ] = None,
    *,
    watching: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on showing changes: of one until it has ended, or until Ctrl-C.")
    ] = False,
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
    """List jobs, newest first, or show one; with --watch as they change."""
    target = options.find_target(url, api_key, data)
    filters = Filters(tuple(status or ()), tuple(delivery or ()), batch)
    if job_id is None:
        if watching:
            asyncio.run(until_told(watch.every(target, filters, limit, as_json=as_json)))
        else:
            asyncio.run(_list(target, filters, limit, as_json=as_json))
        return
    if filters != Filters():
        raise InputError("give an id, or --status, --delivery and --batch, not both")
    if job_id.startswith(BATCH_PREFIX):
        raise typer.Exit(asyncio.run(_show_batch(target, job_id, watching=watching, as_json=as_json)))
    if watching:
        raise typer.Exit(asyncio.run(watch.one(target, job_id, as_json=as_json)))
    asyncio.run(_show(target, job_id, as_json=as_json))


async def _list(target: options.Target, filters: Filters, limit: int, *, as_json: bool) -> None:
    async with target.client() as client:
        found = [job.document async for job in filters.jobs(client, limit)]
    if as_json:
        print_json({"data": found})
        return
    print_table(JOB_COLUMNS, [job_row(job) for job in found], giving_way=2)
    if not found:
        notes().print("no jobs", style="bright_black")


async def _show(target: options.Target, job_id: str, *, as_json: bool) -> None:
    async with target.client() as client:
        job = await client.job(job_id)
        attempts = [attempt.document for attempt in await client.attempts(job_id)]
    if as_json:
        print_json({**job.document, "attempts": attempts})
        return
    print_fields(job_fields(job.document))
    if attempts:
        output().print()
        print_table(ATTEMPT_COLUMNS, [attempt_row(attempt) for attempt in attempts])


async def _show_batch(target: options.Target, batch_id: str, *, watching: bool, as_json: bool) -> int:
    async with target.client() as client:
        if watching:
            return summary(await follow_batch(client, batch_id), as_json=as_json)
        batch = await client.batch(batch_id)
    if as_json:
        print_json(batch.document)
    else:
        print_fields(batch_fields(batch.document))
    return 0
