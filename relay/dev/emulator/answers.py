"""The shapes of the emulator's answers, with the documented texts (docs/upstream.md, "Errors")."""

from collections.abc import Mapping

import msgspec
from aiohttp import web

RATE_LIMITED = "Rate limit exceeded. Retry after a moment."
CREDITS_USED_UP = "Credit limit reached. Upgrade your plan or wait for your billing cycle to reset."


class Refusal(Exception):
    """The request is refused with a status and a detail."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def problem(detail: str) -> dict[str, str]:
    """The body of every error."""
    return {"detail": detail}


def json_answer(status: int, document: object, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer in JSON."""
    return web.Response(
        status=status, body=msgspec.json.encode(document), content_type="application/json", headers=headers
    )


def rate_limited(retry_after_s: int) -> web.Response:
    """The 429 that means: not so fast."""
    return json_answer(429, problem(RATE_LIMITED), {"Retry-After": str(retry_after_s)})
