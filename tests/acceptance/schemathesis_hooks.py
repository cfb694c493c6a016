"""What the OpenAPI document cannot say, and Schemathesis must know. Loaded by its command, not by pytest."""

import re
import uuid
from typing import Any

import schemathesis

_KEY = re.compile(r"[!-~]{1,255}")
_CURSOR = re.compile(r"[A-Za-z0-9_-]{52}")
_LARGEST = 2**53


@schemathesis.hook
def before_call(_context: schemathesis.HookContext, case: Any, _kwargs: dict[str, Any]) -> None:
    """Change what is well-formed and yet must be refused; what is ill-formed is sent as it is.

    A key that was used with another body becomes a fresh one. Cursors are sealed: one that only looks like one goes.
    """
    headers, query = case.headers or {}, case.query or {}
    for name in [name for name in headers if name.lower() == "idempotency-key"]:
        if isinstance(headers[name], str) and _KEY.fullmatch(headers[name]):
            headers[name] = uuid.uuid4().hex
    if isinstance(query.get("cursor"), str) and _CURSOR.fullmatch(query["cursor"]):
        del query["cursor"]


@schemathesis.hook
def filter_body(_context: schemathesis.HookContext, body: Any) -> bool:
    """Pass over integers beyond 2^53 inside of `metadata`: RFC 8259 lets us refuse them, a schema is not so deep."""
    return not _has_large(body)


def _has_large(value: Any) -> bool:
    match value:
        case bool():
            return False
        case int() | float():
            return abs(value) > _LARGEST
        case dict():
            return any(map(_has_large, value.values()))
        case list():
            return any(map(_has_large, value))
        case _:
            return False
