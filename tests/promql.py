"""The expressions of alerts and dashboard, and the metrics that they name."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
RULES = ROOT / "deploy" / "prometheus" / "rules.yaml"
DASHBOARD = ROOT / "deploy" / "grafana" / "scrapellm-relay.json"

_SELECTOR = re.compile(r"\b(?P<name>(?:scrapellm_relay|process|python)_\w+)(?:\{(?P<matchers>[^}]*)\})?")
_MATCHER = re.compile(r'(?P<label>\w+)\s*(?P<how>=~|!~|!=|=)\s*"(?P<value>[^"]*)"')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\((?P<labels>[^)]*)\)")


@dataclass(frozen=True, slots=True)
class Selector:
    """A metric that an expression asks for, with its matchers: label, operator, value."""

    name: str
    matchers: tuple[tuple[str, str, str], ...]


def alerts() -> Iterator[Mapping[str, Any]]:
    """Every alert."""
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        yield from group["rules"]


def panels() -> Iterator[Mapping[str, Any]]:
    """Every panel of the dashboard, those in rows included."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        yield panel
        yield from panel.get("panels", ())


def dashboard_expressions() -> list[str]:
    """What the dashboard asks for, its own variables replaced by what Grafana would put there."""
    document = json.loads(DASHBOARD.read_text())
    found = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    found += [v["query"]["query"] for v in document["templating"]["list"] if v["type"] == "query"]
    found = [re.sub(r"^label_values\((.*), *\w+\)$", r"\1", text) for text in found]
    return [text.replace("$__rate_interval", "5m").replace("$client", ".*") for text in found]


def selectors(expression: str) -> list[Selector]:
    """The metrics that an expression names."""
    return [
        Selector(found["name"], tuple(_MATCHER.findall(found["matchers"] or "")))
        for found in _SELECTOR.finditer(expression)
    ]


def groupings(expression: str) -> set[str]:
    """The labels that an expression aggregates or matches by."""
    return {
        label.strip()
        for found in _GROUPING.finditer(expression)
        for label in found["labels"].split(",")
        if label.strip()
    }
