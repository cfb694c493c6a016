"""Server-sent events (WHATWG HTML, section 9.2.6) as typed changes. Alone knows the framing."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from relay.client.errors import Unexpected

#: The longest that one event may be; those of the relay have a few hundred bytes.
_EVENT_BYTES = 64 * 1024


class ChangeKind(StrEnum):
    """What has changed."""

    JOB = "job"
    BATCH = "batch"
    #: Changes before this one are not told: read what you need.
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a job or batch: its status, or that of its delivery."""

    kind: ChangeKind
    #: The job's or batch's; None for a reset, as are the others.
    id: str | None = None
    status: str | None = None
    delivery: str | None = None
    batch_id: str | None = None
    at: datetime | None = None
    #: What `events(after=…)` takes to go on after this change.
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """One event as it was framed."""

    event: str
    data: str
    id: str | None


class FrameReader:
    """Cuts a stream of bytes into events."""

    def __init__(self) -> None:
        self._rest = b""
        self._fields: list[tuple[str, str]] = []
        self._held_bytes = 0

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The events that are complete with `data`. Raises Unexpected for one that does not end."""
        *lines, self._rest = (self._rest + data).replace(b"\r\n", b"\n").split(b"\n")
        for line in lines:
            if not line:
                self._held_bytes = 0
                frame = self._frame()
                if frame is not None:
                    yield frame
            elif not line.startswith(b":"):
                self._held_bytes += len(line)
                name, _, value = line.decode(errors="replace").partition(":")
                self._fields.append((name, value.removeprefix(" ")))
        if self._held_bytes + len(self._rest) > _EVENT_BYTES:
            raise Unexpected("the stream of events has one that does not end")

    def _frame(self) -> Frame | None:
        fields, self._fields = self._fields, []
        data = [value for name, value in fields if name == "data"]
        if not data:
            return None
        last = dict(fields)
        return Frame(last.get("event", "message"), "\n".join(data), last.get("id"))


def change_of(frame: Frame) -> Change | None:
    """The change that an event tells; None for a kind that this version does not know. Raises Unexpected."""
    if frame.event not in set(ChangeKind):
        return None
    try:
        document: Any = json.loads(frame.data)
        return msgspec.convert(document | {"kind": frame.event, "event_id": frame.id}, Change)
    except (ValueError, TypeError, msgspec.ValidationError) as error:
        raise Unexpected("the stream of events has one that is not the relay's") from error
