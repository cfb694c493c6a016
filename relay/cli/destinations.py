"""`destinations`: how receivers fare, and sending again to one that was given a rest."""

import asyncio
from typing import Annotated

import typer

from relay.cli import options
from relay.cli.render import DESTINATION_COLUMNS, destination_row, notes, print_json, print_table
from relay.core.model import DestinationState
from relay.dev.folder import DEFAULT_FOLDER

MORE = """\b
Examples:
  scrapellm-relay destinations
  scrapellm-relay destinations --state paused --state unresponsive
  scrapellm-relay destinations --resume hooks.example.com:443
"""


def destinations(
    *,
    state: Annotated[list[DestinationState] | None, typer.Option(help="Only in this state; may be repeated.")] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Forget its failures, and send what waits for it.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, metavar="N", help="The N that were tried last.")] = 50,
    url: options.UrlOption = None,
    api_key: options.KeyOption = None,
    data: options.DataOption = DEFAULT_FOLDER,
    as_json: options.JsonOption = False,
) -> None:
    """See where callbacks went in the last 30 days, and how they fare there."""
    target = options.find_target(url, api_key, data)
    asyncio.run(_destinations(target, state or [], resume, limit, as_json=as_json))


async def _destinations(
    target: options.Target, states: list[DestinationState], resume: str | None, limit: int, *, as_json: bool
) -> None:
    async with target.client() as client:
        if resume is None:
            found = await client.destinations(state=states, limit=limit)
        else:
            found = [await client.resume(resume)]
    if as_json:
        print_json({"data": [destination.document for destination in found]})
        return
    print_table(DESTINATION_COLUMNS, [destination_row(destination.document) for destination in found])
    if not found:
        notes().print("no destinations", style="bright_black")
