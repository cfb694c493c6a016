"""How long a server that is busy asks to be left alone."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.retry_after import LONGEST_S, parse_retry_after

NOW_S = 784_111_717.0  # Sun, 06 Nov 1994 08:48:37 GMT


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        ("007", 7.0),
        ("99999999999", LONGEST_S),
        ("9" * 99, LONGEST_S),
        # The three forms of a date (RFC 9110, section 5.6.7), one minute from now.
        ("Sun, 06 Nov 1994 08:49:37 GMT", 60.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 60.0),
        ("Sun Nov  6 08:49:37 1994", 60.0),
        ("Sun, 06 Nov 1994 08:49:37 -0000", 60.0),
        ("Sun, 06 Nov 1994 09:49:37 +0100", 60.0),
        ("Sun, 06 Nov 1994 08:47:37 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST_S),
    ],
)
def test_seconds_and_dates_are_read(value: str, wait_s: float) -> None:
    """Seconds and all forms of a date are understood, the past is now, and nothing exceeds the bound."""
    assert parse_retry_after(value, NOW_S) == wait_s


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        " ",
        "-5",
        "+5",
        "soon",
        "inf",
        "nan",
        "1e3",
        "0x10",
        "5, 6",
        "5 6",
        "٣",
        "1.",
        ".5",
        "Sun, 06 Nov 99999 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:61:00 GMT",
        "Sun, 06 Nov 1994 08:49:37 +9999",
        "9" * 101,
        "00 " * 20,
    ],
)
def test_what_makes_no_sense_is_as_if_missing(value: str | None) -> None:
    """A header that is neither is not guessed at."""
    assert parse_retry_after(value, NOW_S) is None


def test_a_date_without_a_zone_is_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own time zone plays no part."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert parse_retry_after("Sun, 06 Nov 1994 08:49:37", NOW_S) == 60.0
    finally:
        monkeypatch.undo()
        time.tzset()


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, [0-9]{1,3} [A-Z][a-z]{2} [0-9]{1,5} [0-9:]{1,9}( [A-Z+0-9-]{1,6})?"))
def test_no_text_raises(value: str) -> None:
    """Whatever a server sends is a wait within bounds, or none."""
    wait_s = parse_retry_after(value, NOW_S)
    assert wait_s is None or 0 <= wait_s <= LONGEST_S
