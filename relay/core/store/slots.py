"""What a worker tells the scripts of its slots for callbacks: how many are free, and who has the others.

The scripts share them out by that (`lua/slots.lua`); they keep nothing of it.
"""

from collections import Counter
from enum import IntEnum
from typing import Any

from relay.core.model import ClientName


class Doubt(IntEnum):
    """How a destination stood when an attempt there was begun."""

    #: It had answered, and not long ago.
    NONE = 0
    #: Nothing had been sent there yet, or not for long.
    SOME = 1
    #: Its last attempt had no answer.
    SILENT = 2


class TakenSlots:
    """Who has a worker's slots for callbacks."""

    def __init__(self) -> None:
        self._at: Counter[str] = Counter()
        #: By client: all, those in doubt, and of these the silent ones.
        self._of: dict[ClientName, list[int]] = {}

    def take(self, client: ClientName, doubt: Doubt, destination: str | None = None) -> None:
        """An attempt takes a slot. Where the destination is not known yet, it counts for its client."""
        self._count(client, doubt, 1)
        if destination is not None:
            self._at[f"{client}/{destination}"] += 1

    def give_back(self, client: ClientName, doubt: Doubt, destination: str | None = None) -> None:
        """What was taken like this is free again."""
        self._count(client, doubt, -1)
        if destination is not None:
            where = f"{client}/{destination}"
            self._at[where] -= 1
            if not self._at[where]:
                del self._at[where]

    def at(self, client: ClientName, destination: str) -> int:
        """How many attempts at a destination have slots."""
        return self._at[f"{client}/{destination}"]

    def _count(self, client: ClientName, doubt: Doubt, by: int) -> None:
        counts = self._of.setdefault(client, [0] * len(Doubt))
        for i in range(doubt + 1):
            counts[i] += by
        if not counts[0]:
            del self._of[client]

    def told(self, free: int) -> dict[str, Any]:
        """For a claim, by a worker with so many free slots."""
        return {"left": free, "at": dict(self._at), "of": self._of}

    def told_by(self, client: ClientName, free: int, *, claiming: int = 0) -> dict[str, Any]:
        """For an attempt of a client, while `claiming` more are about to be somebody's, perhaps in doubt."""
        totals = [sum(counts) for counts in zip(*self._of.values(), strict=True)] or [0] * len(Doubt)
        of = list(self._of.get(client, [0] * len(Doubt)))
        return {"left": free, "of": of, "all": [totals[0], *(n + claiming for n in totals[1:])]}
