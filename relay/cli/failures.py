"""How a call of the API can fail. Alone knows what problem details look like, and how a person reads them.

ClientError
├── Unreachable    no relay answered, or it cannot work now
├── Refused        the relay will not do it; `is_usage` says whether the request itself was wrong
└── Unexpected     something answered that is no relay
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

#: A document as the API speaks it.
Document = dict[str, Any]

#: How many wrong places one line names.
_PLACES = 5


class ClientError(Exception):
    """A call failed. The message is one line for a person."""


class Unreachable(ClientError):
    """No relay answered, or it says that it cannot work now."""


class Unexpected(ClientError):
    """Something answered that is no relay."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field, parameter or header of a request."""

    #: An RFC 6901 pointer into the body, or the name of the parameter or header.
    where: str
    detail: str


class Refused(ClientError):
    """The relay will not do it, and says why."""

    def __init__(self, status: int, code: str, detail: str, errors: Sequence[FieldError] = ()) -> None:
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)
        super().__init__(self.line())

    @property
    def is_usage(self) -> bool:
        """Whether the request or the key is wrong, rather than the moment or the thing's state."""
        return self.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.GONE, 429)

    def line(self, name_of: Mapping[str, str] | None = None) -> str:
        """The reason in one line, the places named as `name_of` says for those pointers that it knows."""
        if not self.errors:
            return self.detail
        named = [f"{(name_of or {}).get(e.where, e.where) or 'the body'}: {e.detail}" for e in self.errors[:_PLACES]]
        more = len(self.errors) - len(named)
        places = "; ".join(named) + (f"; and {more} more" if more > 0 else "")
        # The relay's summary often is the first place in other words.
        return places if self.errors[0].detail in self.detail else f"{self.detail} ({places})"


def problem_of(status: int, document: Document, retry_after: str | None = None) -> Refused:
    """A problem+json document as the refusal that it is; liberal about what is missing in it."""
    detail = str(document.get("detail") or document.get("title") or f"the relay answered {status}")
    if retry_after is not None:
        detail = f"{detail.rstrip('.')}; try again in {retry_after} s"
    errors = document.get("errors")
    places = [
        FieldError(
            str(next((e[k] for k in ("pointer", "parameter", "header") if k in e), "")), str(e.get("detail", ""))
        )
        for e in (errors if isinstance(errors, list) else [])
        if isinstance(e, dict)
    ]
    return Refused(status, str(document.get("code", "")), detail, places)
