"""How a call of the API can fail. Alone knows what problem details look like, and how a person reads them.

ClientError
├── Misconfigured      no key, or an address that is none: nothing was sent
├── Unreachable        no relay answered, or it cannot work now
├── Unexpected         something answered that is no relay
├── Unverified         a callback is not genuine, or nothing tells that it is
└── Refused            the relay says no; has status, code, detail and errors of the problem (RFC 9457)
    ├── Unauthorized   the key is wrong
    ├── Invalid        the request breaks a rule
    ├── NotFound       there is no such thing, or it is another client's
    ├── Conflict       its state does not allow this
    ├── Gone           it has been deleted
    └── RateLimited    too many requests or unfinished jobs for now; has retry_after_s

Messages are one line for a person, without keys, prompts or results.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from relay.core.retry_after import parse_retry_after

#: How many wrong places one line names.
_PLACES = 5


class ClientError(Exception):
    """A call failed."""


class Misconfigured(ClientError):
    """The client cannot be made as it was asked for."""


class Unreachable(ClientError):
    """No relay answered, or it says that it cannot work now.

    Where `is_sent` is true, nobody knows whether the request was carried out.
    """

    def __init__(self, message: str, *, is_sent: bool = True, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.is_sent = is_sent
        #: What the relay asks to wait, where it does.
        self.retry_after_s = retry_after_s


class Unexpected(ClientError):
    """Something answered that is no relay."""


class Unverified(ClientError):
    """A callback whose signature is not good, or that is none."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field, parameter or header of a request."""

    #: An RFC 6901 pointer into the body, or the name of the parameter or header.
    where: str
    detail: str


class Refused(ClientError):
    """The relay will not do it, and says why."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        errors: Sequence[FieldError] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(_line(detail, errors))
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)
        self.retry_after_s = retry_after_s


class Unauthorized(Refused):
    """The key is missing, unknown, or no longer good."""


class Invalid(Refused):
    """The request breaks a rule; the same one again is refused again."""


class NotFound(Refused):
    """There is no such thing, or it belongs to another client."""


class Conflict(Refused):
    """The thing is in a state that does not allow this."""


class Gone(Refused):
    """It has been deleted."""


class RateLimited(Refused):
    """Too many requests, or too many unfinished jobs; try again after `retry_after_s`."""


_KINDS: Mapping[int, type[Refused]] = {
    HTTPStatus.UNAUTHORIZED: Unauthorized,
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.CONFLICT: Conflict,
    HTTPStatus.GONE: Gone,
    HTTPStatus.TOO_MANY_REQUESTS: RateLimited,
}


def refusal(status: int, document: Mapping[str, Any], retry_after: str | None = None) -> Refused:
    """The refusal that a problem+json document is; liberal about what is missing in it."""
    detail = str(document.get("detail") or document.get("title") or f"the relay answered {status}")
    retry_after_s = parse_retry_after(retry_after, time.time())
    if retry_after_s is not None and "try again" not in detail.lower():
        detail = f"{detail.rstrip('.')}; try again in {retry_after_s:.0f} s"
    errors = document.get("errors")
    places = [
        FieldError(
            str(next((e[k] for k in ("pointer", "parameter", "header") if k in e), "")), str(e.get("detail", ""))
        )
        for e in (errors if isinstance(errors, list) else [])
        if isinstance(e, dict)
    ]
    kind = _KINDS.get(status, Invalid)
    return kind(status, str(document.get("code", "")), detail, places, retry_after_s)


def _line(detail: str, errors: Sequence[FieldError]) -> str:
    if not errors:
        return detail
    named = [f"{e.where or 'the body'}: {e.detail}" for e in errors[:_PLACES]]
    more = len(errors) - len(named)
    places = "; ".join(named) + (f"; and {more} more" if more > 0 else "")
    # The relay's summary often is the first place in other words.
    return places if errors[0].detail in detail else f"{detail} ({places})"
