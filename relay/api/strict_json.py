"""A strict reader of JSON bodies. Alone knows what the standard library's parser lets through and RFC 8259 does not.

The C scanner does the work; hooks see objects and numbers as they are built, so that a body of many megabytes takes
about as long as `json.loads` itself.
"""

import json
import re
from typing import NoReturn

MAX_DEPTH = 64
#: The largest integer that every JSON reader keeps exact (RFC 8259, section 6).
MAX_INTEGER = 2**53
_INTEGER_DIGITS = 16
_BOM = b"\xef\xbb\xbf"
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_SHOWN = 40


class InvalidJson(ValueError):
    """The body is not acceptable JSON. The message says why, in words for the client."""


def parse(body: bytes) -> object:
    """The value that `body` holds: dict, list, str, int, finite float, bool or None.

    Raises InvalidJson for what is not UTF-8 or not RFC 8259 (NaN and Infinity included), and for what is legal but
    read differently by different parsers: a byte order mark, duplicate keys, lone surrogates, integers beyond 2^53,
    numbers that overflow, nesting deeper than 64. Any input is safe.
    """
    if not body:
        raise InvalidJson("The body is empty.")
    if body.startswith(_BOM):
        raise InvalidJson("The body begins with a byte order mark; send UTF-8 without one.")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidJson(f"The body is not UTF-8: byte {error.start} cannot be decoded.") from None
    try:
        value: object = _decoder.decode(text)
    except json.JSONDecodeError as error:
        raise InvalidJson(f"{error.msg} at line {error.lineno}, column {error.colno}.") from None
    except RecursionError:
        raise InvalidJson(_TOO_DEEP) from None
    if _is_too_deep(value):
        raise InvalidJson(_TOO_DEEP)
    if _SURROGATE_ESCAPE.search(text):
        _refuse_lone_surrogates(value)
    return value


_TOO_DEEP = f"Arrays and objects are nested deeper than {MAX_DEPTH} levels."


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise InvalidJson(f"An object has the key {json.dumps(_short(key))} twice.")
            seen.add(key)
    return result


def _integer(literal: str) -> int:
    # The length comes first: turning thousands of digits into a number is slow, and refused by Python itself.
    if len(literal.lstrip("-")) > _INTEGER_DIGITS or abs(value := int(literal)) > MAX_INTEGER:
        raise InvalidJson(f"The integer {_short(literal)} is beyond 2^53; send it as a string.")
    return value


def _float(literal: str) -> float:
    value = float(literal)
    if value in (float("inf"), float("-inf")):
        raise InvalidJson(f"The number {_short(literal)} is too large.")
    return value


def _constant(literal: str) -> NoReturn:
    raise InvalidJson(f"{literal} is not JSON.")


_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant)


def _is_too_deep(value: object) -> bool:
    # Level by level, looking at containers only.
    level = [value] if type(value) in (dict, list) else []
    for _ in range(MAX_DEPTH):
        if not level:
            return False
        level = [
            child
            for node in level
            for child in (node.values() if type(node) is dict else node)  # type: ignore[attr-defined]  # a list
            if type(child) is dict or type(child) is list
        ]
    return bool(level)


def _refuse_lone_surrogates(value: object) -> None:
    try:
        # The scanner has joined proper pairs by now, so what does not encode is alone.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidJson(r"A string holds a lone surrogate (\ud800 to \udfff without its other half).") from None


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
