"""Prints the table of metrics in docs/observability.md, made of the metrics themselves; `--write` puts it there."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import CollectorRegistry

from relay.api.census import CensusGauges
from relay.api.metrics import HttpMetrics
from relay.core.model import ClientName, DeliveryStatus, JobStatus
from relay.core.observability import NAMESPACE
from relay.core.polling import Expected, Limits, Schedule
from relay.core.settings import Client, Settings
from relay.core.store.queries import Census
from relay.core.store.work import Look
from worker.metrics import WorkerMetrics

PAGE = Path(__file__).parents[1] / "docs" / "observability.md"
BEGIN = "<!-- Made by .ci/metrics_table.py; a test holds it against running processes. -->\n"
END = "<!-- The end of it. -->\n"
#: The same in every process that tells them.
GLOBAL = frozenset(
    {
        *("callbacks", "client_unfinished_jobs_limit", "clients_paused", "destinations", "due", "due_lag_seconds"),
        *("jobs", "store_memory_limit_bytes", "store_memory_used_bytes", "submits_held", "unfinished_jobs"),
        *("unfinished_jobs_limit", "workers"),
    }
)
_CLIENT = ClientName("default")


@dataclass
class _Row:
    kind: str
    labels: str
    text: str
    services: list[str] = field(default_factory=list)


def table() -> str:
    """The table as it should be."""
    rows: dict[str, _Row] = {}
    for service, registry in (("relay", _relay()), ("worker", _worker())):
        for name, row in _rows(registry):
            rows.setdefault(name, row).services.append(service)
    lines = ["| metric | type | labels | of | what it is |", "|---|---|---|---|---|"]
    for name, row in sorted(rows.items()):
        system = " **max**" if name in GLOBAL else ""
        lines.append(f"| `{name}` | {row.kind}{system} | {row.labels} | {', '.join(row.services)} | {row.text} |")
    return "\n".join(lines) + "\n"


def _relay() -> CollectorRegistry:
    metrics = HttpMetrics([_CLIENT])
    metrics.answered("POST", "/v1/jobs", 202, 0.01, held=False)
    census = CensusGauges(Settings(_env_file=None), {_CLIENT: _client()}, worker_seen_s=30)
    census.census = Census(0, 0, {_CLIENT: {(JobStatus.QUEUED, DeliveryStatus.WAITING): 0}})
    metrics.registry.register(census)
    return metrics.registry


def _client() -> Client:
    return Client(_CLIENT, (), (), None, (), max_unfinished_jobs=1, jobs_per_minute=1)


def _worker() -> CollectorRegistry:
    metrics = WorkerMetrics([_CLIENT])
    metrics.looked.look = Look(0, 0, 0, 0, 0, {})
    limits = Limits.of(floor_s=1, interval_s=3)
    metrics.poll_schedule("grok", Schedule(limits, expected=Expected(polls=1, lateness_s=1)))
    for gauge in (metrics.slots, metrics.slots_free):
        gauge.labels("poll")
    return metrics.registry


def _rows(registry: CollectorRegistry) -> Iterator[tuple[str, _Row]]:
    for family in registry.collect():
        if not family.name.startswith(NAMESPACE):
            continue
        labels: Mapping[str, str] = family.samples[0].labels
        names = ", ".join(f"`{name}`" for name in labels if name != "le")
        suffix = "_total" if family.type == "counter" else ""
        name = family.name.removeprefix(f"{NAMESPACE}_") + suffix
        yield name, _Row(family.type, names, family.documentation)


def with_table(page: str) -> str:
    """A page with the table in its place."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    if "--write" in sys.argv:
        PAGE.write_text(with_table(PAGE.read_text()))
    else:
        sys.stdout.write(table())
