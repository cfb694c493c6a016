"""Charts: a pure function from numbers over time to shapes, in a plane of 1000 by 200 that pages stretch.

What they are called and how they look is the templates' business; words never stand inside of the plane, so that they
keep their size on a phone.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from relay.core.store import Slot
from relay.dashboard.formats import duration, number

WIDTH, HEIGHT = 1000, 200
#: More bars than this would be hairs.
_BARS = 90
_TICKS = 5
#: Ends of a scale, within a power of ten: half of each is a number that reads well.
_NICE = (1, 2, 4, 6, 10)
_SHORTEST_MS = 10


@dataclass(frozen=True, slots=True)
class Line:
    """One quantity: what it is called, and how to read it off a slot."""

    name: str
    #: The class that colours it.
    kind: str
    value: Callable[[Slot], float | None]


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A part of a bar."""

    kind: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What a chart says of one slot, for pointing at and for the table."""

    start_ms: int
    x: float
    width: float
    values: Sequence[str]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart, ready to be drawn."""

    title: str
    description: str
    lines: Sequence[Line]
    #: Labels from the top of the plane to its bottom, evenly apart.
    scale: Sequence[str]
    #: Times below it, from left to right, evenly apart.
    times_ms: Sequence[int]
    readings: Sequence[Reading]
    bars: Sequence[Rectangle] = ()
    #: Class and path of each curve.
    curves: Sequence[tuple[str, str]] = ()
    #: The sums of the lines, or nothing where a sum has no meaning.
    totals: Sequence[str] = ()
    is_empty: bool = False


def stacked(title: str, description: str, lines: Sequence[Line], slots: Sequence[Slot], slot_ms: int) -> Chart:
    """Bars of counts that stand on each other; neighbouring slots share a bar where there are too many."""
    groups = _groups(slots)
    columns = [[sum(line.value(slot) or 0 for slot in group) for line in lines] for group in groups]
    top = _nice(max(map(sum, columns), default=0))
    step = WIDTH / max(1, len(groups))
    bars: list[Rectangle] = []
    for i, column in enumerate(columns):
        base = float(HEIGHT)
        for line, value in zip(lines, column, strict=True):
            if value:
                height = value / top * HEIGHT
                base -= height
                bars.append(Rectangle(line.kind, _r(i * step + step * 0.12), _r(base), _r(step * 0.76), _r(height)))
    readings = [
        Reading(group[0].start_ms, _r(i * step), _r(step), [number(value) for value in column])
        for i, (group, column) in enumerate(zip(groups, columns, strict=True))
    ]
    totals = [sum(column[i] for column in columns) for i in range(len(lines))]
    return Chart(
        title=title,
        description=description,
        lines=lines,
        scale=[number(top), number(top / 2), "0"],
        times_ms=_times(slots, slot_ms),
        readings=readings,
        bars=bars,
        totals=[number(total) for total in totals],
        is_empty=not any(totals),
    )


def curved(title: str, description: str, lines: Sequence[Line], slots: Sequence[Slot], slot_ms: int) -> Chart:
    """Curves of spans of time in milliseconds, on a scale of powers of ten; readings say the longest of their slots."""
    known = [value for slot in slots for line in lines if (value := line.value(slot)) is not None]
    low = math.floor(math.log10(max(_SHORTEST_MS, min(known, default=_SHORTEST_MS))))
    high = max(low + 2, math.ceil(math.log10(max(_SHORTEST_MS, *known, _SHORTEST_MS))))
    step = WIDTH / max(1, len(slots))

    def place(i: int, value: float) -> str:
        share = (math.log10(max(value, 10**low)) - low) / (high - low)
        return f"{_r((i + 0.5) * step)} {_r(HEIGHT - share * HEIGHT)}"

    curves: list[tuple[str, str]] = []
    for line in lines:
        values = [None, *(line.value(slot) for slot in slots), None]
        path, dots = "", ""
        for i, (before, value, after) in enumerate(zip(values, values[1:], values[2:], strict=False)):
            if value is None:
                continue
            if before is None and after is None:
                # One alone is a line without length, which its round ends make a dot.
                dots += f"M{place(i, value)}h0"
            else:
                path += f"{'M' if before is None else 'L'}{place(i, value)}"
        curves += [(line.kind, path), (f"{line.kind} dots", dots)]
    groups = _groups(slots)
    width = WIDTH / max(1, len(groups))
    readings = [
        Reading(
            group[0].start_ms,
            _r(i * width),
            _r(width),
            [
                duration(max((v for slot in group if (v := line.value(slot)) is not None), default=None))
                for line in lines
            ],
        )
        for i, group in enumerate(groups)
    ]
    return Chart(
        title=title,
        description=description,
        lines=lines,
        scale=[_power_of_ten(power) for power in range(high, low - 1, -1)],
        times_ms=_times(slots, slot_ms),
        readings=readings,
        curves=curves,
        is_empty=not known,
    )


def _groups(slots: Sequence[Slot]) -> list[Sequence[Slot]]:
    """Neighbouring slots that share a bar and a reading."""
    together = max(1, math.ceil(len(slots) / _BARS))
    return [slots[i : i + together] for i in range(0, len(slots), together)]


def _power_of_ten(power: int) -> str:
    """So many milliseconds; `100 s`, not `1 min 40 s`."""
    return f"{10**power:,} ms" if power < 3 else f"{10 ** (power - 3):,} s"


def _nice(value: float) -> float:
    if value <= 0:
        return 1
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in _NICE if step * power >= value)


def _times(slots: Sequence[Slot], slot_ms: int) -> list[int]:
    if not slots:
        return []
    start, end = slots[0].start_ms, slots[-1].start_ms + slot_ms
    return [round(start + (end - start) * i / (_TICKS - 1)) for i in range(_TICKS)]


def _r(value: float) -> float:
    return round(value, 2)
