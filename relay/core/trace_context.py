"""The trace that a request belongs to: W3C Trace Context, read and written. Alone knows the form of its two headers.

It is passed on whether or not the relay makes traces itself. What is malformed is ignored, as the standard asks for:
a request is not worse for it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

#: In lower case, as the standard has them.
HEADERS = ("traceparent", "tracestate")

#: A later version may have more at its end.
_PARENT = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-[0-9a-f]{2}(?P<more>-[\x21-\x7e]*)?"
)
_MEMBER = re.compile(r"[a-z0-9][a-z0-9_*/@-]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")
_MOST_MEMBERS = 32
#: What has to be passed on at least; members at the end go first.
_STATE_CHARACTERS = 512
_PARENT_CHARACTERS = 256


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Where in which trace something happened."""

    #: `traceparent`: version, trace, span and flags.
    parent: str
    #: `tracestate`, what tracing systems have to say to themselves; may be empty.
    state: str = ""

    @classmethod
    def read(cls, parents: Sequence[str], states: Sequence[str]) -> Self | None:
        """The context that the values of both headers tell; None where there is none that can be understood."""
        if len(parents) != 1 or not _is_parent(parents[0]):
            return None
        return cls(parents[0], _state(states))

    @classmethod
    def unpack(cls, text: str) -> Self | None:
        """The reverse of `packed`; None for an empty text."""
        parent, _, state = text.partition(" ")
        return cls(parent, state) if parent else None

    def packed(self) -> str:
        """Both in one text, as it is stored."""
        return f"{self.parent} {self.state}".rstrip()

    @property
    def trace_id(self) -> str:
        """The trace, in hex."""
        return self.parent[3:35]

    def headers(self) -> Mapping[str, str]:
        """Both headers, the second only where it says something."""
        return dict(zip(HEADERS, (self.parent, self.state), strict=True)) if self.state else {HEADERS[0]: self.parent}


def _is_parent(text: str) -> bool:
    found = _PARENT.fullmatch(text)
    if found is None or len(text) > _PARENT_CHARACTERS:
        return False
    version, more = found["version"], found["more"]
    return (
        version != "ff"
        and not (version == "00" and more)
        and found["trace"].strip("0") != "" != found["span"].strip("0")
    )


def _state(values: Sequence[str]) -> str:
    members = [member for member in (part.strip(" \t") for part in ",".join(values).split(",")) if member]
    if len(members) > _MOST_MEMBERS or not all(_MEMBER.fullmatch(member) for member in members):
        return ""
    while members and len(",".join(members)) > _STATE_CHARACTERS:
        members.pop()
    return ",".join(members)
