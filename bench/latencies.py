"""Latencies to replay: read from a file, or drawn from distributions as the upstream might have them.

Alone knows the files' formats.
"""

import csv
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

#: The upstream forgets a job after a day (docs/upstream.md).
_LONGEST_S = 86_400.0


class InputError(Exception):
    """A file cannot be read. The message is one line that names the place."""


@dataclass(frozen=True, slots=True)
class Job:
    """When the upstream took a job, by any clock, and how long it took."""

    start_s: float
    latency_s: float


def read_jobs(path: Path, spacing_s: float) -> list[Job]:
    """The jobs in a file, in the order of their starts. Raises InputError, also where there are none.

    `.csv` and `.jsonl` hold `created_at` and `completed_at`, or `latency_s`; any other file holds a latency in seconds
    on each line. Where no start is given, one job starts every `spacing_s`. Jobs without an end are left out.
    """
    try:
        # Spreadsheets put a byte order mark in front.
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    readers: Mapping[str, Callable[[str, str], Iterator[tuple[str, Mapping[str, Any]]]]] = {
        ".csv": _csv_rows,
        ".jsonl": _jsonl_rows,
        ".ndjson": _jsonl_rows,
    }
    rows = readers.get(path.suffix.lower(), _plain_rows)(text, str(path))
    jobs: list[Job] = []
    for place, row in rows:
        job = _job(row, place, len(jobs) * spacing_s)
        if job is not None:
            jobs.append(job)
    if not jobs:
        raise InputError(f"{path}: there is no finished job in it")
    return sorted(jobs, key=lambda job: job.start_s)


def _plain_rows(text: str, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield f"{name}, line {number}", {"latency_s": line.strip()}


def _jsonl_rows(text: str, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        place = f"{name}, line {number}"
        if not line.strip():
            continue
        try:
            document = json.loads(line)
        except (ValueError, RecursionError):
            raise InputError(f"{place}: not JSON") from None
        if not isinstance(document, dict):
            raise InputError(f"{place}: not a JSON object")
        yield place, document


def _csv_rows(text: str, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    reader = csv.DictReader(text.splitlines(), strict=True)
    try:
        columns = reader.fieldnames or ()
        if "latency_s" not in columns and not {"created_at", "completed_at"} <= set(columns):
            raise InputError(f"{name}: the first line must be a header with created_at and completed_at, or latency_s")
        for row in reader:
            yield f"{name}, line {reader.line_num}", row
    except csv.Error as error:
        raise InputError(f"{name}, line {reader.reader.line_num}: {error}") from None


def _job(row: Mapping[str, Any], place: str, start_s: float) -> Job | None:
    if row.get("latency_s") not in (None, ""):
        return Job(start_s, _seconds(row["latency_s"], place))
    if "created_at" not in row:
        raise InputError(f"{place}: there is neither created_at nor latency_s")
    if row.get("completed_at") in (None, ""):
        return None
    start_s = _moment_s(row["created_at"], f"{place}, created_at")
    latency_s = _moment_s(row["completed_at"], f"{place}, completed_at") - start_s
    if latency_s < 0:
        raise InputError(f"{place}: completed_at is before created_at")
    return Job(start_s, _seconds(latency_s, place))


def _seconds(value: Any, place: str) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{place}: {repr(value)[:60]} is not a number of seconds") from None
    if isinstance(value, bool) or not 0 <= seconds <= _LONGEST_S:
        raise InputError(f"{place}: {value!r} is not between 0 and {_LONGEST_S:.0f} seconds")
    return seconds


def _moment_s(value: Any, place: str) -> float:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise InputError(f"{place}: {value!r} is not a time such as 2026-01-31T12:00:00Z") from None
    # The upstream's times are UTC, also where they do not say so.
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def lognormal(median_s: float, sigma: float) -> Callable[[random.Random, float], float]:
    """Latencies as they mostly are: many near the median, some much longer."""
    return lambda rng, _: rng.lognormvariate(math.log(median_s), sigma)


def cached(rng: random.Random, _: float) -> float:
    """Three answers in ten are known already and take a second; the rest take about 15."""
    return 1.0 if rng.random() < 0.3 else rng.lognormvariate(math.log(15.0), 0.3)


def doubling(rng: random.Random, place: float) -> float:
    """Half way through, the upstream becomes half as fast."""
    return rng.lognormvariate(math.log(12.0 if place < 0.5 else 24.0), 0.4)


def halving(rng: random.Random, place: float) -> float:
    """Half way through, the upstream becomes twice as fast."""
    return rng.lognormvariate(math.log(24.0 if place < 0.5 else 12.0), 0.4)


def heavy_tail(rng: random.Random, _: float) -> float:
    """Most jobs take ten seconds, and one in a hundred takes minutes."""
    return min(6.0 * rng.paretovariate(1.4), 900.0)


#: What is replayed without a file. Each draws a latency, given how far through the jobs it is, from 0 to 1.
LOGNORMALS = {f"lognormal, median {m:g} s, sigma {s}": lognormal(m, s) for m, s in ((7, 0.35), (12, 0.4), (35, 0.45))}
OTHERS = {
    "three in ten cached": cached,
    "doubling half way": doubling,
    "halving half way": halving,
    "heavy tail": heavy_tail,
}


def draw_jobs(
    draw: Callable[[random.Random, float], float], count: int, *, seed: int, spacing_s: float
) -> Sequence[Job]:
    """Jobs that start one every `spacing_s`."""
    rng = random.Random(seed)
    return [Job(n * spacing_s, draw(rng, n / count)) for n in range(count)]
