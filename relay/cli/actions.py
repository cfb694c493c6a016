"""`cancel` and `redeliver`: what is asked of jobs that are there already."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

import typer

from relay.cli import options
from relay.cli.inputs import InputError
from relay.cli.render import clean, notes, print_json
from relay.client import Conflict, Gone, NotFound, RelayClient
from relay.core.model import BATCH_PREFIX, DeliveryStatus
from relay.dev.folder import DEFAULT_FOLDER

MORE_CANCEL = """\b
Examples:
  scrapellm-relay cancel job_01…
  scrapellm-relay jobs --status queued --json | jq -r '.data[].id' | xargs scrapellm-relay cancel

\b
Exit codes: 0 all are cancelled, 1 one is not there or has an outcome already, 2 wrong usage, 3 no relay answers.
"""
MORE_REDELIVER = """\b
Examples:
  scrapellm-relay redeliver job_01…
  scrapellm-relay redeliver --exhausted --since 2h
  scrapellm-relay redeliver --all --delivery delivered --since 2026-01-01T00:00:00Z --callback-host hooks.example.com

\b
Exit codes: 0 all are due, 1 one cannot be sent again now, 2 wrong usage, 3 no relay answers.
"""

_AGO = re.compile(r"([0-9]{1,5})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class EndedDelivery(StrEnum):
    """What can be delivered again."""

    EXHAUSTED = DeliveryStatus.EXHAUSTED
    GONE = DeliveryStatus.GONE
    DELIVERED = DeliveryStatus.DELIVERED
    SKIPPED = DeliveryStatus.SKIPPED


def cancel(
    ids: Annotated[list[str], typer.Argument(metavar="ID", help="Jobs.")],
    *,
    url: options.UrlOption = None,
    api_key: options.KeyOption = None,
    data: options.DataOption = DEFAULT_FOLDER,
    as_json: options.JsonOption = False,
) -> None:
    """Cancel jobs. Before a job is submitted that costs nothing; afterwards its result is dropped, though paid for."""
    target = options.find_target(url, api_key, data)

    async def one(client: RelayClient, job_id: str) -> Mapping[str, Any]:
        return (await client.cancel(job_id)).document

    raise typer.Exit(asyncio.run(_each(target, ids, one, as_json=as_json)))


def redeliver(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Jobs, or batches.")] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="All jobs that the other options choose.")] = False,
    exhausted: Annotated[
        bool, typer.Option("--exhausted", help="The same as --all --delivery exhausted: what did not get through.")
    ] = False,
    delivery: Annotated[
        EndedDelivery | None, typer.Option(help="With --all: callbacks in this state; exhausted, unless given.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Only jobs that ended at this time (RFC 3339, or 90s, 15m, 2h, 3d ago)."),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Only jobs that ended earlier.")] = None,
    callback_host: Annotated[
        str | None, typer.Option(metavar="HOST", help="Only callbacks to exactly this host.")
    ] = None,
    url: options.UrlOption = None,
    api_key: options.KeyOption = None,
    data: options.DataOption = DEFAULT_FOLDER,
    as_json: options.JsonOption = False,
) -> None:
    """Send callbacks once more: the same webhook-id and body, and a fresh schedule that starts now."""
    if exhausted and delivery not in (None, EndedDelivery.EXHAUSTED):
        raise InputError("--exhausted: not with another --delivery")
    chosen = {
        "delivery": EndedDelivery.EXHAUSTED if exhausted else delivery,
        "since": moment(since),
        "until": moment(until),
        "callback_host": callback_host,
    }
    selection = {name: str(value) for name, value in chosen.items() if value is not None}
    if bool(ids) == (every or exhausted):
        raise InputError("give ids, or --exhausted, or --all")
    if ids and selection:
        raise InputError(f"--{next(iter(selection)).replace('_', '-')} goes with --all or --exhausted, not with ids")
    target = options.find_target(url, api_key, data)

    async def one(client: RelayClient, subject_id: str) -> Mapping[str, Any]:
        if subject_id.startswith(BATCH_PREFIX):
            return (await client.redeliver_batch(subject_id)).document
        return (await client.redeliver(subject_id)).document

    if ids:
        raise typer.Exit(asyncio.run(_each(target, ids, one, as_json=as_json)))
    asyncio.run(_redeliver_many(target, selection, as_json=as_json))


def moment(text: str | None) -> str | None:
    """A time as the API takes it: `2h` is two hours ago; anything else is left for the relay to judge."""
    match = _AGO.fullmatch(text or "")
    if match is None:
        return text
    return (datetime.now(UTC) - timedelta(**{_UNITS[match[2]]: int(match[1])})).isoformat()


async def _each(
    target: options.Target,
    ids: list[str],
    action: Callable[[RelayClient, str], Awaitable[Mapping[str, Any]]],
    *,
    as_json: bool,
) -> int:
    """Ask for each; a no for one is told, and does not keep the others from being asked for."""
    done = []
    async with target.client() as client:
        for subject_id in ids:
            try:
                done.append(await action(client, subject_id))
            except (NotFound, Conflict, Gone) as refusal:
                notes().print(clean(f"{subject_id}: {refusal}"), markup=False)
            else:
                if not as_json:
                    typer.echo(subject_id)
    if as_json:
        print_json({"data": done})
    return 0 if len(done) == len(ids) else 1


async def _redeliver_many(target: options.Target, selection: dict[str, str], *, as_json: bool) -> None:
    async with target.client() as client:
        count = await client.redeliver_many(**selection)
    if as_json:
        print_json({"count": count})
    else:
        typer.echo(f"{count} to be delivered again")
