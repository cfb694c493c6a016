"""What a benchmark found: figures for machines, a table for people, and what it was meant to be."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table


@dataclass(frozen=True, slots=True)
class Target:
    """A figure and its bound."""

    name: str
    value: float
    at_most: float | None = None
    at_least: float | None = None
    unit: str = ""

    @property
    def is_met(self) -> bool:
        """Whether the figure is within its bound."""
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )

    def __str__(self) -> str:
        bound = f"at most {_plain(self.at_most)}" if self.at_most is not None else f"at least {_plain(self.at_least)}"
        verdict = "met" if self.is_met else "MISSED"
        return f"{self.name}: {_plain(self.value)}{self.unit} ({bound}{self.unit}: {verdict})"


@dataclass(frozen=True, slots=True)
class Findings:
    """What one benchmark found."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    #: The same as data, and what no table has room for.
    figures: Any
    targets: Sequence[Target] = ()
    notes: Sequence[str] = field(default_factory=tuple)

    def table(self) -> Table:
        """For a terminal."""
        table = Table(title=self.title, title_justify="left", caption_justify="left")
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*row)
        lines = [str(target) for target in self.targets] + list(self.notes)
        table.caption = "\n".join(lines) or None
        return table


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(values)


def rank(values: Sequence[float], share: float) -> float:
    """The value below which `share` of them are."""
    return sorted(values)[max(0, math.ceil(len(values) * share) - 1)]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The middle one, and the least and the greatest."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _plain(value: float | None) -> str:
    assert value is not None
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
