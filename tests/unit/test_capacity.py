"""The model of capacity: its costs are the published ones, it promises no more than was seen, and the page is its."""

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import capacity
from bench.capacity import Costs, Load, Setup, held, kept_bytes, limits, per_job_ms, plan, rows_of

DOCS = Path(__file__).parents[2] / "docs"
COSTS, SETUP = Costs(), Setup()
#: What the worked example of the page keeps results for.
HOUR_S = 3_600


def published(first: str, page: str = "performance.md") -> list[list[str]]:
    """The cells of the rows of a page that begin so."""
    lines = (DOCS / page).read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith(f"| {first}")]


def test_the_costs_are_the_published_ones() -> None:
    """The dearer of the rounds that docs/performance.md has."""
    rows = [row for row in (*published("3,000 |"), *published("10,000 |")) if "worker" in row[1]]
    worker_ms, service_ms, store_ms = (max(float(row[column]) for row in rows) for column in (5, 6, 7))
    assert COSTS.worker_request_ms == worker_ms
    assert COSTS.relay_batched_ms == service_ms
    of_store = per_job_ms(Load(1), COSTS)["store"]
    assert of_store == pytest.approx(store_ms)
    (accepting,) = published("`POST /v1/jobs`")
    assert float(accepting[3]) == COSTS.relay_post_ms
    waiting, finished = (
        float(found) * 1_000 for found in re.findall(r"takes (\d\.\d) kB", (DOCS / "reliability.md").read_text())
    )
    assert waiting == COSTS.waiting_bytes
    assert finished == COSTS.finished_bytes + Load(1).result_bytes


def test_it_promises_no_more_than_was_seen() -> None:
    """What the costs were not taken from, jobs in a second of a worker's CPU time, is more by a third at most."""
    load = Load(1, polls=2, batched=1)
    said = 1_000 / per_job_ms(load, COSTS)["worker"]
    rows = [row for row in (*published("1 |"), *published("2 |")) if len(row) == 5]
    for row in rows:
        seen = float(row[3].split()[0])
        assert said < seen < said * 4 / 3
    assert len(rows) == 2


def test_slots_follow_littles_law() -> None:
    """What is held grows with the rate, the requests and the time of each, and the limit falls by as much."""
    load = Load(100, polls=4, poll_s=0.5)
    assert held(load)["poll slots"] == 2
    assert plan(load, SETUP, COSTS).slots["poll slots"] == 200
    assert limits(load, SETUP, COSTS)["worker's poll slots"] == SETUP.poll_slots / 2
    slower = limits(replace(load, poll_s=1.0), SETUP, COSTS)
    assert slower["worker's poll slots"] == SETUP.poll_slots / 4
    assert slower["worker's core"] == limits(load, SETUP, COSTS)["worker's core"]


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({}, "worker's submit slots"),
        ({"submit_s": 0.01}, "worker's poll slots"),
        ({"submit_s": 0.01, "poll_s": 0.01}, "worker's core"),
        ({"callback_s": 5.0}, "worker's deliver slots"),
        ({"result_bytes": 1_000_000}, "store's memory"),
    ],
)
def test_what_is_at_its_end_first(changes: dict[str, Any], limit: str) -> None:
    """The limit is that of what is slow, or large."""
    assert plan(replace(Load(100), **changes), Setup(result_ttl_s=HOUR_S), COSTS).limit == limit


def test_what_is_not_delivered_is_kept_for_longer() -> None:
    """Memory is the share's of each time."""
    load = Load(1, job_s=0)
    of_one = COSTS.finished_bytes + load.result_bytes
    assert kept_bytes(load, SETUP, COSTS) == 86_400 * of_one
    assert kept_bytes(replace(load, undelivered=1.0), SETUP, COSTS) == 604_800 * of_one


def test_whole_processes_are_counted() -> None:
    """Just beyond what one does, there are two."""
    rate = limits(Load(1), SETUP, COSTS)["worker's submit slots"]
    assert plan(Load(rate * 0.999), SETUP, COSTS).workers == 1
    assert plan(Load(rate * 1.001), SETUP, COSTS).workers == 2


def test_the_page_has_its_figures() -> None:
    """The worked example and the limits of docs/capacity.md are what the model says."""
    page = (DOCS / "capacity.md").read_text()
    loads = [Load(rate) for rate in (1, 100, 1_000, 10_000)]
    for name, cells in rows_of(loads, Setup(result_ttl_s=HOUR_S), COSTS).items():
        assert f"| {name} | {' | '.join(cells)} |" in page
    for name, rate in limits(loads[0], Setup(result_ttl_s=HOUR_S), COSTS).items():
        assert re.search(rf"^\| {re.escape(name)} \|.*\| {rate:,.0f} \|", page, re.MULTILINE), name


def test_it_runs_from_the_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Rates and everything else can be given."""
    monkeypatch.setattr(sys, "argv", ["capacity", "50", "--polls", "2", "--result-ttl-s", "60"])
    capacity.main()
    printed = capsys.readouterr().out
    assert "50/s" in printed
    assert "worker's core: 972 jobs/s" in printed
