"""Errors as clients see them: RFC 9457 problem details. Alone knows the codes, their statuses and titles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from aiohttp import web

from relay.core import errors as core
from relay.core.wire import encode

CONTENT_TYPE = "application/problem+json"
_TYPE = "urn:scrapellm-relay:problem:"
_STORE_RETRY_AFTER_S = 1

#: Every `code`: the status that it comes with, and its title.
CODES: Mapping[str, tuple[int, str]] = {
    "invalid_json": (400, "The body is not valid JSON"),
    "malformed_request": (400, "The request is not valid HTTP"),
    "unauthorized": (401, "A valid API key is required"),
    "forbidden": (403, "This is not allowed"),
    "not_found": (404, "There is no such thing"),
    "method_not_allowed": (405, "The method is not allowed here"),
    "request_timeout": (408, "The body did not arrive in time"),
    "conflict": (409, "The state does not allow this"),
    "not_redeliverable": (409, "There is no ended delivery to repeat"),
    "job_expired": (410, "The job has been deleted"),
    "result_expired": (410, "The result has been deleted"),
    "too_large": (413, "The body is too large"),
    "unsupported_media_type": (415, "The body must be plain JSON"),
    "invalid_request": (422, "The request breaks a rule"),
    "callback_url_refused": (422, "The callback URL is refused"),
    "batch_too_large": (422, "The batch has too many jobs"),
    "idempotency_key_invalid": (422, "The idempotency key is not valid"),
    "idempotency_key_reused": (422, "The idempotency key was used for another request"),
    "rate_limited": (429, "Too many requests"),
    "too_many_unfinished": (429, "Too many unfinished jobs"),
    "headers_too_large": (431, "The request line or a header is too large"),
    "internal_error": (500, "Something went wrong on our side"),
    "store_unavailable": (503, "The store is unavailable"),
    "not_ready": (503, "The service is not ready"),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a request, and where."""

    detail: str
    #: An RFC 6901 pointer into the body, the name of a query parameter, or of a header.
    at: str
    kind: Literal["pointer", "parameter", "header"] = "pointer"


class Problem(Exception):
    """A request that ends with an error. The middleware turns it into the answer."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        faults: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
        hang_up: bool = False,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.faults = tuple(faults)
        self.headers = dict(headers or {})
        #: Whether the connection must end with the answer, because the body was not read.
        self.hang_up = hang_up
        self.status, self.title = CODES[code]

    def response(self) -> web.Response:
        """The answer."""
        document: dict[str, object] = {
            "type": _TYPE + self.code,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        if self.faults:
            document["errors"] = [{fault.kind: fault.at, "detail": fault.detail} for fault in self.faults]
        response = web.Response(
            status=self.status, body=encode(document), content_type=CONTENT_TYPE, headers=self.headers
        )
        if self.hang_up:
            response.force_close()
        return response


def invalid(faults: Sequence[Fault]) -> Problem:
    """A request that breaks rules: `invalid_request` with every fault that is known."""
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    first = faults[0]
    where = first.at or "The body"
    return Problem("invalid_request", f"{where} {first.detail}{more}", faults=faults)


def not_found() -> Problem:
    """The same for the unknown, the ill-formed and what belongs to another client."""
    return Problem("not_found", "There is no such thing, or it is not yours.")


def of_core(error: core.RelayError) -> Problem:
    """The problem that an exception of the core is to a client."""
    match error:
        case core.StoreUnavailable():
            return Problem(
                "store_unavailable",
                "The store cannot be used now. Nothing is known to have been accepted; try again.",
                headers={"Retry-After": str(_STORE_RETRY_AFTER_S)},
            )
        case core.NotFound():
            return not_found()
        case core.NotRedeliverable():
            return Problem(
                "not_redeliverable", "Only a delivery that has ended can be repeated, and a cancelled job has none."
            )
        case core.Conflict():
            return Problem("conflict", "The job has ended and can no longer be cancelled.")
        case core.JobExpired():
            return Problem("job_expired", "What this idempotency key made has been deleted since.")
        case core.IdempotencyKeyReused():
            detail = "was used before with a different body"
            return Problem(
                "idempotency_key_reused",
                f"The idempotency key {detail}.",
                faults=[Fault(detail, "Idempotency-Key", "header")],
            )
        case core.RateLimited():
            return _later("rate_limited", "This client has used up its requests for now.", error.retry_after_s)
        case core.TooManyUnfinished():
            who = "This relay" if error.of_all else "This client"
            detail = f"{who} has too many jobs without an outcome."
            if error.alone:
                detail = f"{who} may not have so many jobs without an outcome as this batch has: send it in parts."
            return _later("too_many_unfinished", detail, error.retry_after_s)
        case _:
            raise error


def _later(code: str, detail: str, retry_after_s: int) -> Problem:
    return Problem(
        code, f"{detail} Try again in {retry_after_s} s.", headers={"Retry-After": str(max(1, retry_after_s))}
    )
