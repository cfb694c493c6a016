"""The strict JSON reader: what it takes, what it refuses, and that nothing makes it fail in another way."""

import contextlib
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.api.strict_json import MAX_DEPTH, InvalidJson, parse

_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
_VALUES = st.recursive(_SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(_VALUES, st.booleans())
def test_what_is_written_is_read(value: object, ascii_only: bool) -> None:
    """Any JSON value within the limits comes back equal, escaped or not."""
    assert parse(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary(max_size=200) | st.text('[]{}",:0123456789.eE+-truefalsn\\u d8', max_size=60).map(str.encode))
def test_no_input_fails_otherwise(body: bytes) -> None:
    """Whatever the bytes are, the answer is a value or InvalidJson."""
    with contextlib.suppress(InvalidJson):
        parse(body)


REFUSED = {
    "empty": b"",
    "white space": b" \n",
    "truncated": b'{"a": 1',
    "two values": b"{} {}",
    "trailing comma": b"[1,]",
    "single quotes": b"{'a': 1}",
    "comment": b"/* */ {}",
    "leading zero": b"01",
    "plus": b"+1",
    "hex": b"0x10",
    "bare point": b".5",
    "no fraction": b"1.",
    "NaN": b'{"a": NaN}',
    "Infinity": b"Infinity",
    "negative Infinity": b"[-Infinity]",
    "overflow": b"1e400",
    "negative overflow": b"-1E+999",
    "past 2^53": b"9007199254740993",
    "past -2^53": b"-9007199254740993",
    "5,000 digits": b"1" * 5000,
    "twice the same key": b'{"a": 1, "a": 1}',
    "twice the same key, deep": b'[{"x": {"a": 1, "b": 2, "a": 3}}]',
    "twice the same key, escaped": b'{"a": 1, "\\u0061": 2}',
    "not UTF-8": b'"\xff"',
    "overlong UTF-8": b'"\xc0\xaf"',
    "encoded surrogate": b'"\xed\xa0\x80"',
    "Latin-1": "é".encode("latin-1"),
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "lone surrogate": b'"\\ud800"',
    "lone low surrogate": b'["\\uDC00"]',
    "reversed pair": b'"\\udc00\\ud800"',
    "surrogate in a key": b'{"\\ud83d": 1}',
    "raw control character": b'"\x01"',
    "raw newline": b'"a\nb"',
    "unknown escape": b'"\\x41"',
    "10,000 arrays": b"[" * 10_000 + b"]" * 10_000,
    "10,000 objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "a million brackets": b"[" * 1_000_000,
    "non-breaking space": b"\xc2\xa0{}",
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED.keys())
def test_refused(body: bytes) -> None:
    """What RFC 8259 forbids, or parsers disagree about, is refused with a short reason."""
    with pytest.raises(InvalidJson) as caught:
        parse(body)
    assert 5 < len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b" \t\r\n[1]\n", [1]),
        (b"9007199254740992", 2**53),
        (b"-9007199254740992", -(2**53)),
        (b"-0", 0),
        (b"1e5", 100_000.0),
        (b"1e300", 1e300),
        (b'"\\ud83d\\ude00"', "😀"),
        ('"😀"'.encode(), "😀"),
        (b'"\\u0000"', "\0"),
        (b'"\\\\ud800"', "\\ud800"),
        (b'{"": {}}', {"": {}}),
        (b"null", None),
    ],
)
def test_taken(body: bytes, value: object) -> None:
    """Odd but legal JSON is read as what it says."""
    assert parse(body) == value


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_nesting_limit(opening: bytes, closing: bytes) -> None:
    """64 levels are read, 65 are not."""
    parse(opening * MAX_DEPTH + b"1" + closing * MAX_DEPTH)
    with pytest.raises(InvalidJson, match="64"):
        parse(opening * (MAX_DEPTH + 1) + b"1" + closing * (MAX_DEPTH + 1))


def test_integers_beyond_are_not_turned_into_numbers() -> None:
    """Digits by the million cost no more than reading them."""
    started_s = time.perf_counter()
    with pytest.raises(InvalidJson, match="2\\^53"):
        parse(b"[" + b"9" * 5_000_000 + b"]")
    assert time.perf_counter() - started_s < 2


def test_a_full_batch_is_read_fast() -> None:
    """10,000 jobs are read in a fraction of a second."""
    job = {
        "scraper": "chatgpt",
        "prompt": "What is 😀?" * 20,
        "callback_url": "https://example.com/",
        "metadata": {"n": 1.5},
    }
    body = json.dumps({"jobs": [job] * 10_000}).encode()
    started_s = time.perf_counter()
    parse(body)
    assert time.perf_counter() - started_s < 2
