"""The page on metrics, the alerts and the dashboard say what running processes tell."""

import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.processes import System
from tests.promql import ROOT, alerts, dashboard_expressions, groupings, selectors

pytestmark = pytest.mark.acceptance

PREFIX = "scrapellm_relay_"
#: What Prometheus adds to whatever it scrapes.
ADDED = {"instance", "job"}
#: Learned of many jobs, which is not waited for here.
LEARNED = {"poll_schedule_expected_lateness_seconds", "poll_schedule_expected_polls", "poll_schedule_learned"}


@dataclass
class Told:
    """What a name stands for."""

    kind: str
    labels: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    services: set[str] = field(default_factory=set)


@pytest.fixture(name="told")
async def fixture_told(system: System) -> Mapping[str, Told]:
    """The families that relay and worker tell after a job has gone its way, and their samples' names and labels."""
    await system.submit("[latency=0] Why?")
    await system.callbacks(1, 20)
    told: dict[str, Told] = {}
    async with aiohttp.ClientSession() as http:
        for service, port in (("relay", system.relay_port), ("worker", system.worker_port)):
            async with http.get(f"http://127.0.0.1:{port}/metrics") as response:
                text = await response.text()
            for family in text_string_to_metric_families(text):
                name = family.name + ("_total" if family.type == "counter" else "")
                one = told.setdefault(name, Told(family.type))
                one.services.add(service)
                for sample in family.samples:
                    for label, value in sample.labels.items():
                        one.labels[label].add(value)
                    told[sample.name] = one
    return told


def families(told: Mapping[str, Told]) -> dict[str, Told]:
    """Those of ours, without the parts of histograms."""
    return {
        name.removeprefix(PREFIX): one
        for name, one in told.items()
        if name.startswith(PREFIX) and not re.search(r"_(bucket|count|sum|created)$", name)
    }


def test_the_page_is_complete(told: Mapping[str, Told]) -> None:
    """docs/observability.md has every metric with its labels and where it comes from, and no other."""
    page = (ROOT / "docs" / "observability.md").read_text()
    table = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, str(ROOT / ".ci" / "metrics_table.py")],
        env={"PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert table in page, "run: python .ci/metrics_table.py --write"
    rows = re.findall(r"^\| `(\w+)` \| (\w+)[ *a-z]* \| ([^|]*) \| ([^|]*) \|", table, re.MULTILINE)
    documented = {name: (kind, set(re.findall(r"\w+", labels)), services) for name, kind, labels, services in rows}
    seen = families(told)
    assert documented.keys() == seen.keys()
    for name, (kind, labels, services) in documented.items():
        assert (kind, services) == (seen[name].kind, ", ".join(sorted(seen[name].services)))
        if name not in LEARNED:
            assert labels == seen[name].labels.keys() - {"le"}, name


def test_alerts_and_dashboard_ask_for_what_there_is(told: Mapping[str, Told]) -> None:
    """Every metric, label and value that they name is told by a running relay or worker."""
    expressions = [alert["expr"] for alert in alerts()] + dashboard_expressions()
    for expression in expressions:
        known = set(ADDED)
        for selector in selectors(expression):
            assert selector.name in told, expression
            one = told[selector.name]
            known |= one.labels.keys()
            if selector.name.removeprefix(PREFIX) in LEARNED:
                known.add("scraper")
            for label, how, value in selector.matchers:
                assert label in one.labels, expression
                if how == "=" and label != "status":
                    assert value in one.labels[label], expression
        assert groupings(expression) <= known, expression
    asked = {selector.name for expression in expressions for selector in selectors(expression)}
    shown = {re.sub(rf"^{PREFIX}|_(bucket|count|sum)$", "", name) for name in asked}
    # Whatever is worth telling is worth showing.
    assert families(told).keys() - shown == set()
