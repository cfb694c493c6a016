"""`/dashboard/inbox`: the callbacks that the inbox of `dev` has received."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from relay.api.context import SETTINGS
from relay.api.parameters import Query, is_batch_id, is_job_id
from relay.api.problems import not_found
from relay.core.egress import inbox_session
from relay.dashboard.entrance import page
from relay.dashboard.render import given, show
from relay.dashboard.viewer import Viewer

_SHOWN = 50
_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Arrived:
    """One attempt at a callback, as the inbox tells of it."""

    webhook_id: str
    type: str
    attempt: int
    verified: bool
    reason: str
    received_ms: int
    path: str
    repeated: bool
    headers: Mapping[str, str] = field(repr=False)
    body: Mapping[str, Any] = field(repr=False)

    @property
    def subject(self) -> tuple[str, str] | None:
        """The page of the job or batch that it tells of: where it is, and its id."""
        data = self.body.get("data")
        thing_id = data.get("id") if isinstance(data, dict) else None
        if not isinstance(thing_id, str):
            return None
        return ("/jobs", thing_id) if is_job_id(thing_id) else ("/batches", thing_id) if is_batch_id(thing_id) else None


class _Answer(msgspec.Struct):
    data: list[Arrived]


@page
async def read(request: web.Request, viewer: Viewer) -> web.StreamResponse:
    """The last callbacks, newest first."""
    url = request.app[SETTINGS].dev_inbox_url
    if url is None:
        raise not_found()
    Query(given(request), {"client"}).check()
    arrived: list[Arrived] | None
    try:
        arrived = await _arrived(url)
    except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError):
        arrived = None
    return show(request, viewer, "inbox.html", arrived=arrived, url=url, shown=_SHOWN)


async def _arrived(url: str) -> list[Arrived]:
    async with (
        asyncio.timeout(_WITHIN_S),
        inbox_session() as http,
        http.get(f"{url}/?limit={_SHOWN}", allow_redirects=False) as response,
    ):
        return msgspec.json.decode(await response.read(), type=_Answer).data
