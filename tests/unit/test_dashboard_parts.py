"""The pure parts of the dashboard: formats, charts, timelines, pages of several lists, the throttle."""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from relay.core.model import (
    Attempt,
    AttemptOutcome,
    Callback,
    ClientName,
    Delivery,
    DeliveryStatus,
    ErrorCode,
    EventType,
    Job,
    JobError,
    JobId,
    JobSpec,
    JobStatus,
)
from relay.core.store import Slot
from relay.dashboard import formats
from relay.dashboard.charts import HEIGHT, WIDTH, Line, curved, stacked
from relay.dashboard.listing import merge
from relay.dashboard.throttle import Throttle
from relay.dashboard.timeline import steps_of

MINUTE_MS = 60_000


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        *((None, "—"), (0, "0 ms"), (999.4, "999 ms"), (1_000, "1 s"), (12_340, "12.3 s"), (59_900, "59.9 s")),
        *((60_000, "1 min"), (250_000, "4 min 10 s"), (3_600_000, "1 h"), (3_601_000, "1 h"), (3_660_000, "1 h 1 min")),
        *((86_400_000, "1 d"), (93_600_000, "1 d 2 h"), (604_800_000, "7 d")),
    ],
)
def test_durations(ms: float | None, text: str) -> None:
    """A span of time has two units at most."""
    assert formats.duration(ms) == text


def test_numbers() -> None:
    """Numbers and sizes are short, and plurals are right."""
    assert [formats.number(n) for n in (0, 1234, 1.5, 1234567.891)] == ["0", "1,234", "1.5", "1,234,567.89"]
    assert [formats.size(n) for n in (0, 999, 1_500, 2_000_000)] == ["0 B", "999 B", "1.5 kB", "2.0 MB"]
    assert [formats.plural(n, "batch", "batches") for n in (0, 1, 2)] == ["0 batches", "1 batch", "2 batches"]
    assert formats.plural(1, "job") == "1 job"


def test_moments() -> None:
    """A time is in UTC, with the moment for a script to read; none is a dash."""
    assert (
        formats.moment(0)
        == '<time datetime="1970-01-01T00:00:00.000Z" data-form="moment">1970-01-01 00:00:00 UTC</time>'
    )
    assert ">00:00<" in formats.moment(0, "minute")
    assert ">1970-01-01<" in formats.moment(0, "day")
    assert "—" in formats.moment(None)


def test_excerpts() -> None:
    """White space is one space, and what is cut says so."""
    assert formats.excerpt("  a\n\tb ") == "a b"
    assert formats.excerpt("x" * 90) == "x" * 90
    assert formats.excerpt("x" * 91) == "x" * 89 + "…"
    assert formats.excerpt("x" + " " * 500 + "y").endswith("…")


@pytest.mark.parametrize(
    "text",
    ['{"a": [1, -2.5e3, true, null, "b\\"<c>"]}', '"no end', "{", '{"a": "…', "", "nonsense <b>", '"\\', "1" * 1000],
)
def test_colours_change_no_character(text: str) -> None:
    """Marked or not, JSON or not, it reads the same, and is escaped."""
    marked = str(formats.coloured(text))
    bare = re.sub(r'</?i(?: class="[a-z]+")?>', "", marked)
    assert "<" not in bare
    assert html.unescape(bare) == text


def test_colours() -> None:
    """Names, strings and words are told apart."""
    marked = formats.coloured('{"a": "b", "c": -1.5, "d": true}')
    assert re.findall(r'<i class="([a-z]+)">([^<]*)<', marked) == [
        *(("key", "&#34;a&#34;"), ("str", "&#34;b&#34;"), ("key", "&#34;c&#34;")),
        *(("lit", "-1.5"), ("key", "&#34;d&#34;"), ("lit", "true")),
    ]


@pytest.mark.parametrize("ending", ["", "\\", "\\\n…", "\n…"])
def test_a_string_that_was_cut_is_one(ending: str) -> None:
    """A string without an end goes on to the end, however many quotes it has: none is tried as a beginning."""
    text = '"' + '\\"true' * 20_000 + ending
    assert re.findall(r'<i class="([a-z]+)">([^<]*)<', str(formats.coloured(text))) == [
        ("str", html.escape(text, quote=True).replace("&quot;", "&#34;"))
    ]


def test_long_json_is_cut() -> None:
    """At most 64 Ki characters are shown, of however much."""
    short, long = b'{"a":1}', b'"' + "ü".encode() * 70_000 + b'"'
    assert (formats.pretty(short), formats.is_cut(short)) == ('{\n  "a": 1\n}', False)
    assert (len(formats.pretty(long)), formats.is_cut(long)) == (64 * 1024 + 2, True)
    huge = b'"' + b"x" * 3_000_000 + b'"'
    assert len(formats.pretty(huge)) == 64 * 1024 + 2


# Charts


def slots(*done: int, late: Sequence[int | None] | None = None) -> list[Slot]:
    """Slots of a minute in which so many jobs were done."""
    return [
        Slot(
            start_ms=i * MINUTE_MS,
            **dict.fromkeys(("accepted", "timed_out", "cancelled", "delivered", "exhausted", "gone", "submits"), 0),
            **dict.fromkeys(("polls", "attempts", "attempts_failed", "credits"), 0),
            done=n,
            failed=n // 2,
            late_p50_ms=late[i] if late else None,
            late_p99_ms=None,
        )
        for i, n in enumerate(done)
    ]


DONE = Line("done", "done", lambda slot: slot.done)
FAILED = Line("failed", "failed", lambda slot: slot.failed)
LATE = Line("late", "p50", lambda slot: slot.late_p50_ms)


@pytest.mark.parametrize("counts", [[], [0, 0, 0], [1], [3, 0, 8, 2], [7] * 61, [10**6] * 720, [1, 10**9]])
def test_bars_stay_in_the_plane(counts: list[int]) -> None:
    """Whatever the numbers, bars stand on the ground and on each other, in the plane, and their sums are right."""
    chart = stacked("T", "D", [DONE, FAILED], slots(*counts), MINUTE_MS)
    assert all(bar.x >= 0 and bar.x + bar.width <= WIDTH + 0.1 for bar in chart.bars)
    assert all(bar.y >= -0.1 and bar.y + bar.height <= HEIGHT + 0.1 for bar in chart.bars)
    assert len(chart.readings) <= 90
    assert chart.totals == [formats.number(sum(counts)), formats.number(sum(n // 2 for n in counts))]
    assert chart.is_empty == (not any(counts))
    assert chart.scale[-1] == "0"


def test_the_scale_of_bars_reads_well() -> None:
    """It ends at a round number, whose half is in the middle."""
    tops = {0: "1", 1: "1", 3: "4", 5: "6", 7: "10", 11: "20", 130: "200", 45_000: "60,000"}
    assert {n: stacked("T", "D", [DONE], slots(n), MINUTE_MS).scale[0] for n in tops} == tops


@pytest.mark.parametrize(
    "late", [[None], [None, 5, None], [1, 2, None, 3_600_000], [10_000_000] * 5, [0, 0], [20, None, 30, 40]]
)
def test_curves_stay_in_the_plane(late: list[int | None]) -> None:
    """Whatever the times, each is a point in the plane; one without neighbours is a dot."""
    chart = curved("T", "D", [LATE], slots(*[0] * len(late), late=late), MINUTE_MS)
    (_, path), (kind, dots) = chart.curves
    points = re.findall(r"[ML]([\d.]+) ([\d.-]+)", path + dots)
    assert len(points) == sum(value is not None for value in late)
    assert all(0 <= float(x) <= WIDTH and -0.1 <= float(y) <= HEIGHT + 0.1 for x, y in points)
    assert kind == "p50 dots"
    alone = [None, *late, None]
    assert dots.count("M") == sum(
        b is not None and a is None and c is None for a, b, c in zip(alone, alone[1:], alone[2:], strict=False)
    )
    assert chart.is_empty == (not points)


def test_the_scale_of_curves() -> None:
    """Powers of ten, from below the least to above the most."""
    assert curved("T", "D", [LATE], slots(0, 0, late=[20, 4_000]), MINUTE_MS).scale == [
        "10 s",
        "1 s",
        "100 ms",
        "10 ms",
    ]
    assert curved("T", "D", [LATE], slots(0), MINUTE_MS).scale == ["1 s", "100 ms", "10 ms"]


# Timelines


JOB = Job(
    id=JobId("job_1"),
    client=ClientName("acme"),
    spec=JobSpec("grok", "Why?", "US", 300, False, 960, Callback("https://a.example", "a.example:443", [*EventType])),
    status=JobStatus.QUEUED,
    created_ms=0,
    deadline_ms=960_000,
    delivery=Delivery(DeliveryStatus.WAITING),
)
PENDING = replace(JOB, status=JobStatus.PENDING, submitted_ms=100, submits=2, polls=3)
DONE_JOB = replace(
    PENDING, status=JobStatus.DONE, completed_ms=12_000, delivery=Delivery(DeliveryStatus.PENDING, 0, 12_000)
)
TIMED_OUT = replace(
    JOB, status=JobStatus.TIMED_OUT, completed_ms=960_000, error=JobError(ErrorCode.DEADLINE_EXCEEDED, "too late")
)
REFUSED = Attempt(1, 12_000, 12, AttemptOutcome.HTTP_ERROR, 503, "busy", "HTTP 503")
CUT_OFF = Attempt(1, 12_000, 12, AttemptOutcome.CONNECTION_ERROR, None, None, "refused")
TAKEN = Attempt(2, 17_000, 4, AttemptOutcome.DELIVERED, 204)


@pytest.mark.parametrize(
    ("job", "attempts", "titles"),
    [
        (JOB, [], ["Accepted", "Waiting to be submitted"]),
        (PENDING, [], ["Accepted", "Submitted", "Polled 3 times", "Waiting for the outcome"]),
        (DONE_JOB, [], ["Accepted", "Submitted", "Polled 3 times", "Done", "The first attempt is due"]),
        (
            replace(JOB, status=JobStatus.CANCELLED, delivery=Delivery(DeliveryStatus.SKIPPED)),
            [],
            ["Accepted", "Cancelled"],
        ),
        (replace(TIMED_OUT, delivery=Delivery(DeliveryStatus.SKIPPED)), [], ["Accepted", "Timed out", "No callback"]),
        (
            replace(TIMED_OUT, delivery=Delivery(DeliveryStatus.RETRYING, 1, 17_000)),
            [REFUSED],
            ["Accepted", "Timed out", "Attempt 1 failed", "The next attempt is due"],
        ),
        (
            replace(TIMED_OUT, delivery=Delivery(DeliveryStatus.DELIVERED, 2)),
            [CUT_OFF, TAKEN],
            ["Accepted", "Timed out", "Attempt 1 failed", "Attempt 2 delivered"],
        ),
        (
            replace(TIMED_OUT, delivery=Delivery(DeliveryStatus.EXHAUSTED, 1)),
            [REFUSED],
            ["Accepted", "Timed out", "Attempt 1 failed", "Callback not delivered"],
        ),
        (
            replace(TIMED_OUT, delivery=Delivery(DeliveryStatus.GONE, 1)),
            [REFUSED],
            ["Accepted", "Timed out", "Attempt 1 failed", "Callback stopped"],
        ),
        (
            replace(TIMED_OUT, delivery=Delivery(DeliveryStatus.RETRYING, 3)),
            [TAKEN],
            ["Accepted", "Timed out", "1 earlier attempt", "Attempt 2 delivered", "Attempt 3"],
        ),
        (
            replace(TIMED_OUT, delivery=Delivery(DeliveryStatus.PENDING, 1)),
            [],
            ["Accepted", "Timed out", "Attempt 1"],
        ),
    ],
)
def test_timelines(job: Job, attempts: list[Attempt], titles: list[str]) -> None:
    """Each state has its steps, in order."""
    assert [step.title for step in steps_of(job, attempts)] == titles


def test_what_steps_say() -> None:
    """A step tells how long it took and why it failed, and says nothing twice."""
    details = {
        step.title: step.detail for step in steps_of(replace(DONE_JOB, delivery=TIMED_OUT.delivery), [CUT_OFF, REFUSED])
    }
    assert details["Submitted"] == "grok took it after 100 ms, at submit 2"
    assert details["Done"] == "12 s after acceptance"
    assert details["Attempt 1 failed"] == "HTTP 503 after 12 ms"
    [*_, failed] = steps_of(replace(TIMED_OUT, delivery=Delivery(DeliveryStatus.RETRYING, 1)), [CUT_OFF])
    assert failed.detail == "connection error after 12 ms: refused"
    [_, ended, *_] = steps_of(TIMED_OUT, [])
    assert ended.detail == "16 min after acceptance; deadline exceeded: too late"


# Lists and limits


@dataclass(frozen=True)
class Thing:
    """Something with an id."""

    id: str


def test_merging_pages() -> None:
    """What lies beyond the end of a page that goes on is left for the next; a full page ends with its last thing."""

    def things(names: str) -> list[Thing]:
        return [Thing(name) for name in names]

    def merged(*pages: tuple[str, str | None], limit: int = 9) -> tuple[str, str | None]:
        found, end = merge([(things(names), following) for names, following in pages], limit)
        return "".join(thing.id for thing in found), end

    assert merged(("zx", None), ("yw", None)) == ("zyxw", None)
    assert merged(("zx", "x"), ("yw", None)) == ("zyx", "x")
    assert merged(("zx", "x"), ("yw", "w")) == ("zyx", "x")
    assert merged(("zx", None), ("yw", None), limit=3) == ("zyx", "x")
    assert merged(("", "q"), ("z", None)) == ("z", "q")
    assert merged(("", None)) == ("", None)
    assert merged() == ("", None)


def test_the_throttle() -> None:
    """Each address has its own count, which begins anew after a minute; the number of addresses is bounded."""
    throttle = Throttle(failures=2, window_s=60, addresses=3)
    throttle.failed("a", 0)
    assert throttle.wait_s("a", 1) == 0
    throttle.failed("a", 10)
    assert throttle.wait_s("a", 20) == 40
    assert throttle.wait_s("b", 20) == 0
    assert throttle.wait_s("a", 60) == 0
    throttle.failed("a", 61)
    assert throttle.wait_s("a", 62) == 0, "a new minute"
    throttle.failed("a", 62)
    for other in "bcd":
        throttle.failed(other, 63)
    assert throttle.wait_s("a", 64) == 0, "forgotten"
