"""The streams of state changes: one per client, capped, read by one blocking reader per relay."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from relay.core.errors import StoreUnavailable
from relay.core.model import ClientName
from relay.core.store.connection import Connection

_ID = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")
_BLOCK_MS = 2_000
_RECONNECT_S = 0.5
_READ = 500
#: Between two readings that found something: under load each brings a few events, instead of being woken for each.
_GATHER_S = 0.01


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One change of a status or a delivery status."""

    client: ClientName
    #: Opaque to clients; grows within a client's stream.
    id: str
    kind: Literal["job", "batch"]
    subject: str
    #: A job's status; `open` or `completed` for a batch.
    status: str
    #: None for a batch without a callback of its own.
    delivery: str | None
    batch_id: str | None
    at_ms: int


class Events:
    """Reading the streams."""

    def __init__(self, db: Connection) -> None:
        self._db = db

    async def follow(self, clients: Sequence[ClientName]) -> AsyncIterator[EventRecord]:
        """New events of `clients`, as they come, without end.

        Outlives outages of the store without losing any that the streams still hold.
        """
        last: dict[bytes, bytes] = {}
        # The server blocks shorter than its answer is waited for, so a silent connection is noticed.
        block_ms = max(1, min(_BLOCK_MS, round(self._db.timeout_s * 500)))
        while True:
            try:
                for name in clients:
                    key = self._stream(name)
                    if key not in last:
                        newest = await self._db.call(lambda at=key: self._db.redis.xrevrange(at, count=1))  # type: ignore[misc]  # bound early on purpose
                        last[key] = newest[0][0] if newest else b"0-0"
                answer = await self._db.call(lambda: self._db.redis.xread(last, count=_READ, block=block_ms))
            except StoreUnavailable:
                # Whoever asks the store directly says that it is away; this reader only waits for it.
                await asyncio.sleep(_RECONNECT_S)
                continue
            for key, entries in answer:
                client = ClientName(key.decode().removeprefix(self._db.key("ev:")))
                for event_id, fields in entries:
                    last[key] = event_id
                    yield _record(client, event_id, fields)
            if answer:
                await asyncio.sleep(_GATHER_S)

    async def events_after(self, client: ClientName, last_id: str) -> list[EventRecord] | None:
        """What came after the event `last_id`; None where that is unknown or no longer held.

        Raises StoreUnavailable.
        """
        if not _ID.fullmatch(last_id) or any(int(part) >= 2**64 for part in last_id.split("-")):
            return None
        key = self._stream(client)
        entries = await self._db.call(lambda: self._db.redis.xrange(key, min=last_id))
        if not entries or entries[0][0].decode() != last_id:
            return None
        return [_record(client, event_id, fields) for event_id, fields in entries[1:]]

    def _stream(self, client: ClientName) -> bytes:
        return self._db.key(f"ev:{client}").encode()


def _record(client: ClientName, event_id: bytes, fields: Mapping[bytes, bytes]) -> EventRecord:
    return EventRecord(
        client=client,
        id=event_id.decode(),
        kind="batch" if fields[b"k"] == b"batch" else "job",
        subject=fields[b"i"].decode(),
        status=fields[b"s"].decode(),
        delivery=fields[b"d"].decode() or None,
        batch_id=fields[b"b"].decode() or None,
        at_ms=int(fields[b"t"]),
    )
