"""The arq entry points: thin, without arguments, each one batch of one kind."""

from collections.abc import Mapping
from typing import Any

from worker.batches import Batches
from worker.pump import HOUSE_TASK, Pump
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
    await _run(ctx, HOUSE_TASK)


async def _run(ctx: Mapping[str, Any], task: str) -> None:
    batches: Batches = ctx["batches"]
    pump: Pump = ctx["pump"]
    try:
        await batches.run(task)
    finally:
        pump.ended(task)
