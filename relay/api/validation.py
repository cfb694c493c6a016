"""Turns pydantic's findings into faults that a person can act on: RFC 6901 pointers and plain words.

Alone knows pydantic's error types. What the client sent is never quoted: it may be a secret.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from relay.api.problems import Fault, invalid

#: A request with thousands of wrong jobs is answered with this many faults.
MAX_FAULTS = 100
_KEY = "[key]"

M = TypeVar("M", bound=BaseModel)

_WORDS: Mapping[str, str | Callable[[Mapping[str, Any]], str]] = {
    "missing": "is required",
    "extra_forbidden": "is not a known field",
    "string_type": "must be a string",
    "bool_type": "must be true or false",
    "int_type": "must be an integer",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "list_type": "must be an array",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "enum": lambda c: f"must be one of: {str(c['expected']).replace(' or ', ', ')}",
    "literal_error": lambda c: f"must be one of: {str(c['expected']).replace(' or ', ', ')}",
    "greater_than_equal": lambda c: f"must be at least {c['ge']:g}",
    "less_than_equal": lambda c: f"must be at most {c['le']:g}",
    "string_too_short": lambda c: _at_least(c["min_length"], "character"),
    "string_too_long": lambda c: f"must have at most {c['max_length']} characters",
    "too_short": lambda c: _at_least(c["min_length"], "item"),
    "too_long": lambda c: f"must have at most {c['max_length']} items",
    "value_error": lambda c: str(c["error"]),
}


def _at_least(count: int, thing: str) -> str:
    return "must not be empty" if count == 1 else f"must have at least {count} {thing}s"


def pointer(*parts: str | int) -> str:
    """An RFC 6901 pointer: `~` and `/` inside of parts are escaped."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def validate(model: type[M], document: object, rules: object) -> M:
    """`document` as an instance of `model`; `rules` are handed to its validators as their context.

    Raises Problem (422 `invalid_request`) with at most 100 faults, in the order of the fields.
    """
    if not isinstance(document, dict):
        raise invalid([Fault("must be a JSON object", "")])
    try:
        return model.model_validate(document, context=rules)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[:MAX_FAULTS]
        raise invalid([_fault(item["loc"], item["type"], item.get("ctx", {})) for item in found]) from None


def _fault(loc: tuple[str | int, ...], kind: str, ctx: Mapping[str, Any]) -> Fault:
    # A wrong key of an object is reported where the key is.
    parts = loc[:-1] if len(loc) > 1 and loc[-1] == _KEY else loc
    words = _WORDS.get(kind, "is not valid")
    return Fault(words if isinstance(words, str) else words(ctx), pointer(*parts))
