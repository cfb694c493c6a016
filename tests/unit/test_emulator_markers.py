"""How a prompt steers its own job in the emulated upstream."""

import pytest

from relay.dev.emulator.markers import Markers, markers_of


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Why is the sky blue?", Markers()),
        ("[fail]", Markers(fails=True)),
        ("before [never] after", Markers(never_ends=True)),
        ("[latency=0]", Markers(latency_s=0.0)),
        ("[latency=0.25]", Markers(latency_s=0.25)),
        ("[slow=20]", Markers(slower_s=20.0)),
        ("[status=503]", Markers(status=503)),
        ("[reject]", Markers(status=400)),
        ("[bytes=9000]", Markers(result_bytes=9_000)),
        ("[bytes=0]", Markers(result_bytes=0)),
        ("[fail][slow=1] and [latency=2]", Markers(fails=True, slower_s=1.0, latency_s=2.0)),
        ("[fail] [never]", Markers(fails=True, never_ends=True)),
    ],
)
def test_markers_are_read(prompt: str, expected: Markers) -> None:
    """Each marker is read wherever it stands, and any number of them together."""
    assert markers_of(prompt) == expected


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("[latency=1] [latency=2]", Markers(latency_s=2.0)),
        ("[status=500] [status=404]", Markers(status=404)),
        ("[status=503] [reject]", Markers(status=400)),
        ("[reject] [status=503]", Markers(status=400)),
    ],
)
def test_one_of_a_kind_counts(prompt: str, expected: Markers) -> None:
    """The last of a kind counts, and a rejection goes before a status."""
    assert markers_of(prompt) == expected


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "[]",
        "fail",
        "[FAIL]",
        "[ fail ]",
        "[fail=1]",
        "[latency]",
        "[latency=]",
        "[latency=-1]",
        "[latency=.5]",
        "[latency=1e3]",
        "[latency=nan]",
        "[latency=\u0663]",
        "[latency=123456789]",
        "[latency=0.1234567]",
        "[latency=1.2.3]",
        "[bytes=many]",
        "[status=200]",
        "[status=399]",
        "[status=600]",
        "[status=0]",
    ],
)
def test_what_is_no_marker_means_nothing(prompt: str) -> None:
    """Text that only looks like a marker, and a status that is no error, are text."""
    assert markers_of(prompt) == Markers()
