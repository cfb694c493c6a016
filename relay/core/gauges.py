"""Gauges that are made at the moment when they are asked for, of what is known then."""

from collections.abc import Iterable, Sequence

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from relay.core.observability import NAMESPACE


def gauge(name: str, text: str, value: float) -> Metric:
    """A gauge without labels; `name` is without our namespace."""
    return GaugeMetricFamily(f"{NAMESPACE}_{name}", text, value)


def gauges(name: str, text: str, labels: Sequence[str], values: Iterable[tuple[Sequence[str], float]]) -> Metric:
    """A gauge for each combination of labels and its value."""
    family = GaugeMetricFamily(f"{NAMESPACE}_{name}", text, labels=labels)
    for combination, value in values:
        family.add_metric(combination, value)
    return family
