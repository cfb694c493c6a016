"""The arq entry points: thin, without arguments, each one batch of one kind."""

from collections.abc import Mapping
from typing import Any

from worker.batches import Batches
from worker.pump import Pump
from worker.runner import Kind


async def submit(ctx: Mapping[str, Any]) -> None:
    """Submit what is due."""
    await _run(ctx, Kind.SUBMIT)


async def poll(ctx: Mapping[str, Any]) -> None:
    """Poll what is due."""
    await _run(ctx, Kind.POLL)


async def deliver(ctx: Mapping[str, Any]) -> None:
    """Attempt the callbacks that are due."""
    await _run(ctx, Kind.DELIVER)


async def keep_house(ctx: Mapping[str, Any]) -> None:
    """Purge and repair."""
    batches: Batches = ctx["batches"]
    await batches.keep_house()


async def _run(ctx: Mapping[str, Any], kind: Kind) -> None:
    batches: Batches = ctx["batches"]
    pump: Pump = ctx["pump"]
    try:
        match kind:
            case Kind.SUBMIT:
                await batches.submit()
            case Kind.POLL:
                await batches.poll()
            case Kind.DELIVER:
                await batches.deliver()
    finally:
        pump.ended(kind)
