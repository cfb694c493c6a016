"""W3C Trace Context: what is understood, what is ignored, and what is passed on."""

from collections.abc import Sequence

import pytest

from relay.core.trace_context import TraceContext

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("parents", "parent"),
    [
        ([PARENT], PARENT),
        ([f"00-{TRACE}-{SPAN}-00"], f"00-{TRACE}-{SPAN}-00"),
        # Of a version that is not known yet.
        ([f"cc-{TRACE}-{SPAN}-01"], f"cc-{TRACE}-{SPAN}-01"),
        ([f"cc-{TRACE}-{SPAN}-01-what.the.future.brings"], f"cc-{TRACE}-{SPAN}-01-what.the.future.brings"),
        ([], None),
        ([""], None),
        ([PARENT, PARENT], None),
        ([f"{PARENT}-more"], None),
        ([f"{PARENT} "], None),
        ([f"{PARENT}\n"], None),
        ([PARENT.upper()], None),
        ([f"ff-{TRACE}-{SPAN}-01"], None),
        ([f"00-{'0' * 32}-{SPAN}-01"], None),
        ([f"00-{TRACE}-{'0' * 16}-01"], None),
        ([f"00-{TRACE[:-1]}-{SPAN}-01"], None),
        ([f"00-{TRACE}-{SPAN}-1"], None),
        ([f"00-{TRACE}-{SPAN}"], None),
        ([f"cc-{TRACE}-{SPAN}-01.more"], None),
        ([f"cc-{TRACE}-{SPAN}-01-with a space"], None),
        ([f"cc-{TRACE}-{SPAN}-01-{'x' * 300}"], None),
        ([f"cc-{TRACE}-{SPAN}-01-\u00e9"], None),
        (["x" * 100_000], None),
    ],
)
def test_traceparent(parents: Sequence[str], parent: str | None) -> None:
    """One that is well-formed is passed on as it is; anything else counts as none."""
    read = TraceContext.read(parents, [])
    assert (read and read.headers()) == (parent and {"traceparent": parent})


@pytest.mark.parametrize(
    ("states", "state"),
    [
        (["rojo=00f067aa0ba902b7"], "rojo=00f067aa0ba902b7"),
        (["rojo=1, congo=t61r\t,", "a@b=x y"], "rojo=1,congo=t61r,a@b=x y"),
        (["rojo"], ""),
        (["rojo=a=b"], ""),
        (["Rojo=1"], ""),
        (["rojo=\u00e9"], ""),
        ([",".join(f"k{n}=v" for n in range(32))], ",".join(f"k{n}=v" for n in range(32))),
        ([",".join(f"k{n}=v" for n in range(33))], ""),
        ([f"a={'x' * 250},b={'y' * 250},c={'z' * 250}"], f"a={'x' * 250},b={'y' * 250}"),
    ],
)
def test_tracestate(states: Sequence[str], state: str) -> None:
    """Several headers are one; what is malformed is dropped, and of what is too long the end, but not the parent."""
    read = TraceContext.read([PARENT], states)
    assert read == TraceContext(PARENT, state)
    assert read.trace_id == TRACE
    assert read.headers() == ({"traceparent": PARENT, "tracestate": state} if state else {"traceparent": PARENT})
    assert TraceContext.unpack(read.packed()) == read


def test_nothing_is_stored_for_nothing() -> None:
    """An empty text is no trace."""
    assert TraceContext.unpack("") is None
