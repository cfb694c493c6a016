"""What happened when, and how many there are of each kind: numbers to draw and to show.

The scripts that change a record count it in the same breath (`lua/series.lua`), so the two cannot drift apart. That
file alone knows how the counters are laid out, and says so with every answer; this module alone adds them up.
"""

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import add
from struct import Struct
from typing import Any

from relay.core.model import ClientName, DeliveryStatus, JobStatus
from relay.core.store.connection import Connection
from relay.core.store.queries import COMBINATIONS

_MINUTE_MS, _HOUR_MS, _DAY_MS = 60_000, 3_600_000, 86_400_000
#: How long minutes are looked for, and hours. The store keeps them for a little longer.
_MINUTES_MS = _DAY_MS + 10 * _MINUTE_MS
_HOURS_MS = 30 * _DAY_MS
_NUMBER_BYTES = 4


@dataclass(frozen=True, slots=True)
class Slot:
    """What happened from `start_ms` on, until the next slot."""

    start_ms: int
    #: Jobs, by when they were accepted; and by when they had their outcome.
    accepted: int
    done: int
    failed: int
    timed_out: int
    cancelled: int
    #: Deliveries that ended, those of batches and those that were asked for once more among them.
    delivered: int
    exhausted: int
    gone: int
    #: How often the upstream was asked, with or without an answer.
    submits: int
    polls: int
    #: Attempts at callbacks, and those of them that brought no 2xx.
    attempts: int
    attempts_failed: int
    credits: float
    #: From the outcome until its callback got through, at most, for half of them and for 99 % of them, to within a
    #: quarter; None where none did. Without those that were asked for once more.
    late_p50_ms: int | None
    late_p99_ms: int | None


@dataclass(frozen=True, slots=True)
class Series:
    """Slots of equal length without a gap, and all of them as one."""

    slot_ms: int
    slots: Sequence[Slot]
    total: Slot


@dataclass(frozen=True, slots=True)
class _Layout:
    """How a slot is to be read, as the store says."""

    names: Sequence[str]
    numbers: int
    #: Where the histogram begins, where its first bucket ends, and by how much each of the others does later.
    first_bucket: int
    bucket_ms: int
    growth: float

    @classmethod
    def read(cls, answer: Sequence[Any]) -> "_Layout":
        names, numbers, first, bucket_ms, growth = answer
        return cls([name.decode() for name in names], numbers, first, bucket_ms, float(growth))

    def slot(self, start_ms: int, row: Sequence[int]) -> Slot:
        """A slot from its numbers."""
        counts: dict[str, Any] = dict(zip(self.names, row, strict=False))
        counts["credits"] /= 1000
        p50_ms, p99_ms = (self._quantile_ms(row[self.first_bucket :], share) for share in (0.5, 0.99))
        return Slot(start_ms=start_ms, late_p50_ms=p50_ms, late_p99_ms=p99_ms, **counts)

    def _quantile_ms(self, buckets: Sequence[int], share: float) -> int | None:
        upto = list(accumulate(buckets))
        if not upto[-1]:
            return None
        # The middle of the bucket, by the ratio: no farther from the truth than that to either end.
        return round(self.bucket_ms * math.pow(self.growth, bisect_left(upto, share * upto[-1]) - 0.5))


class Statistics:
    """Numbers about what clients have."""

    def __init__(self, db: Connection) -> None:
        self._db = db

    async def counts(self, client: ClientName) -> Mapping[tuple[JobStatus, DeliveryStatus], int]:
        """How many jobs a client has of each kind, zeros included. Raises StoreUnavailable."""

        async def read() -> Any:
            pipe = self._db.redis.pipeline(transaction=True)
            for status, delivery in COMBINATIONS:
                pipe.zcard(self._db.key(f"ix:{client}:{status}:{delivery}"))
            return await pipe.execute()

        return dict(zip(COMBINATIONS, await self._db.call(read), strict=True))

    async def series(
        self, client: ClientName | None, since_ms: int, until_ms: int, *, clients: Sequence[ClientName] = ()
    ) -> Series:
        """What happened to a client's jobs, or with None to those of all `clients`, from `since_ms` until `until_ms`.

        In slots of a minute up to 3 hours, of ten up to 24 hours, of an hour for what is longer, or began more than a
        day ago; the first one may begin before `since_ms`. None are older than 30 days, for nothing is kept for longer,
        and none are farther ahead than a day. Raises StoreUnavailable.
        """
        now_ms = self._db.now_ms()
        since_ms = max(since_ms, now_ms - _HOURS_MS)
        until_ms = min(until_ms, now_ms + _DAY_MS)
        kind, unit_ms, key_ms, slot_ms = "h", _HOUR_MS, _DAY_MS, _HOUR_MS
        # A minute more is no other range.
        length_ms = until_ms - since_ms - _MINUTE_MS
        if length_ms <= _DAY_MS and since_ms >= now_ms - _MINUTES_MS:
            kind, unit_ms, key_ms = "m", _MINUTE_MS, _HOUR_MS
            slot_ms = _MINUTE_MS if length_ms <= 3 * _HOUR_MS else 10 * _MINUTE_MS
        start_ms = since_ms // slot_ms * slot_ms
        first, last = start_ms // key_ms, (until_ms - 1) // key_ms
        # Nobody's counters have a layout too, so that it is known where there are no clients.
        names = [client] if client is not None else [*clients] or [ClientName("")]
        rows: list[list[int]] = []
        for name in names:
            head, *stored = await self._db.run("read_series", name, kind, first, last)
            layout = _Layout.read(head)
            rows = rows or [[0] * layout.numbers for _ in range(start_ms, until_ms, slot_ms)]
            for at_ms, row in _rows(stored, layout.numbers, first * key_ms, unit_ms, key_ms // unit_ms):
                if start_ms <= at_ms < until_ms:
                    i = (at_ms - start_ms) // slot_ms
                    rows[i] = list(map(add, rows[i], row))
        total = [sum(column) for column in zip(*rows, strict=True)] or [0] * layout.numbers
        slots = [layout.slot(start_ms + i * slot_ms, row) for i, row in enumerate(rows)]
        return Series(slot_ms, slots, layout.slot(start_ms, total))


def _rows(
    stored: Sequence[bytes], numbers: int, start_ms: int, unit_ms: int, units: int
) -> Iterator[tuple[int, Sequence[int]]]:
    """When each unit of time began in which something happened, and its numbers. Each string has some `units`."""
    size = numbers * _NUMBER_BYTES
    unpack, nothing = Struct(f">{numbers}I").unpack, bytes(size)
    for i, string in enumerate(stored):
        for j in range(-(-len(string) // size)):
            # A string ends with the last number that was ever counted.
            unit = string[j * size : (j + 1) * size].ljust(size, b"\0")
            if unit != nothing:
                yield start_ms + (i * units + j) * unit_ms, unpack(unit)
