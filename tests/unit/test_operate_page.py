"""docs/operate.md says of alerts, policies, scalers and graces what is in the files that it speaks of."""

import re
from pathlib import Path

import yaml

from tests.rendered import ALL, BASE, OPERATORS, PRODUCTION, container, every, only, pod

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operate.md").read_text()
WORKER = "scrapellm-relay-worker"


def section(title: str) -> str:
    """What stands below a heading."""
    return re.split(r"^## ", PAGE.split(f"\n## {title}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]


def test_every_alert_is_named() -> None:
    """The page groups all alerts, by their severity, and no others."""
    groups = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yaml").read_text())["groups"]
    severities = {rule["alert"]: rule["labels"]["severity"] for group in groups for rule in group["rules"]}
    tables = section("What to alert on").split("\n\n| ")[1:]
    named = {
        alert: severity
        for severity, table in zip(("critical", "warning", "info"), tables, strict=True)
        for alert in re.findall(r"`(ScrapellmRelay\w+)`", table)
    }
    assert named == severities


def test_every_policy_is_named() -> None:
    """The table of NetworkPolicies has each of every way to deploy, and no others."""
    rendered = {policy["metadata"]["name"] for name in ALL for policy in every(name, "NetworkPolicy")}
    rows = [line for line in section("Who may speak to whom").splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([a-z-]+)`", row.split("|")[1])}
    assert named == rendered


def test_the_graces_are_those_of_the_manifests() -> None:
    """Pod, worker and attempt have the seconds that are written down."""
    config = only(BASE, "ConfigMap")["data"]
    graces = {called: pod(called)["terminationGracePeriodSeconds"] for called in ("scrapellm-relay", WORKER)}
    sleep_s = container("scrapellm-relay")["lifecycle"]["preStop"]["sleep"]["seconds"]
    cells = [cell.strip(" *") for cell in section("Probes and grace").split("|")]
    stated = {what: cells[number + 1] for number, what in enumerate(cells) if cells[number + 1 :]}
    assert [cells[n + 1] for n, cell in enumerate(cells) if cell == "`terminationGracePeriodSeconds`"] == [
        f"{graces[WORKER]} s",
        f"{graces['scrapellm-relay']} s",
    ]
    assert stated["`RELAY_STOP_GRACE_S`, for all that runs"] == f"{config['RELAY_STOP_GRACE_S']} s"
    assert stated["and the longest HTTP step: `RELAY_CALLBACK_TIMEOUT_S`"] == f"{config['RELAY_CALLBACK_TIMEOUT_S']} s"
    assert stated["`preStop` sleep, until no node sends more"] == f"{sleep_s} s"


def test_the_scalers_are_those_of_the_manifests() -> None:
    """Queries, thresholds and bounds are as they are written down."""
    text = section("How it scales")
    for scaler in every(PRODUCTION, "HorizontalPodAutoscaler"):
        spec = scaler["spec"]
        assert spec["metrics"][0]["resource"]["target"] == {"type": "AverageValue", "averageValue": "600m"}
        assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 6)
    (scaled,) = every(OPERATORS, "ScaledObject")
    for trigger in scaled["spec"]["triggers"]:
        assert f"`{trigger['metadata']['query']}`, a worker for each {int(trigger['metadata']['threshold']):,}" in text
    assert "600 m a pod on average; 2 to 6" in text


def test_requests_are_those_of_the_manifests() -> None:
    """What the sizes begin with is what the base asks for."""
    asked = {called: container(called)["resources"] for called in ("scrapellm-relay", WORKER)}
    words = [
        f"{one['requests']['cpu'].removesuffix('m')} m and {one['requests']['memory'].removesuffix('Mi')} Mi"
        for one in asked.values()
    ]
    assert f"base: relay {words[0]}, worker {words[1]}, each at most 1 Gi" in section("How large")
    assert {one["limits"]["memory"] for one in asked.values()} == {"1Gi"}
