"""What the overlays bring beside the pods: names, places, numbers, and what Prometheus looks at."""

from pathlib import Path

import pytest
import yaml

from tests.rendered import BASE, OPERATORS, OVERLAYS, PRODUCTION, ROOT, container, every, only, pod, render

RELAY, WORKER = "scrapellm-relay", "scrapellm-relay-worker"


@pytest.mark.parametrize("name", OVERLAYS)
def test_everything_is_labelled(name: str) -> None:
    """Each document says what it belongs to, and each pod which part of it it is."""
    for document in render(name):
        assert document["metadata"]["labels"]["app.kubernetes.io/part-of"] == "scrapellm-relay", document
    for called in (RELAY, WORKER):
        labels = only(name, "Deployment", called)["spec"]["template"]["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "scrapellm-relay"
        assert labels["app.kubernetes.io/component"] == called.removeprefix("scrapellm-").removeprefix("relay-")


@pytest.mark.parametrize("name", OVERLAYS)
def test_everything_is_in_a_namespace_that_holds_it_to_the_standard(name: str) -> None:
    """The overlays bring a namespace that admits restricted pods only, and put everything into it."""
    namespace = only(name, "Namespace")["metadata"]
    assert namespace["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    whole = ("Namespace", "PriorityClass")
    assert {one["metadata"].get("namespace") for one in render(name) if one["kind"] not in whole} == {namespace["name"]}


@pytest.mark.parametrize("called", [RELAY, WORKER])
def test_pods_are_kept_apart_and_drained_one_by_one(called: str) -> None:
    """They spread over nodes and zones; a drain takes one, and a rollout none before the next is ready."""
    deployment = only(BASE, "Deployment", called)["spec"]
    labels = deployment["selector"]["matchLabels"]
    spread = deployment["template"]["spec"]["topologySpreadConstraints"]
    assert [one["topologyKey"] for one in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    assert all(one["labelSelector"]["matchLabels"] == labels for one in spread)
    budget = only(BASE, "PodDisruptionBudget", called)["spec"]
    assert budget["selector"]["matchLabels"] == labels
    assert budget["maxUnavailable"] == 1
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


@pytest.mark.parametrize("name", [PRODUCTION, OPERATORS])
def test_the_number_of_pods_is_the_scalers(name: str) -> None:
    """Each Deployment has one scaler, which wants two at least, and no number of its own that an apply would set."""
    scalers = {
        one["spec"]["scaleTargetRef"]["name"]: one["spec"]
        for one in (*every(name, "HorizontalPodAutoscaler"), *every(name, "ScaledObject"))
    }
    deployments = list(every(name, "Deployment"))
    assert {one["metadata"]["name"] for one in deployments} == scalers.keys() == {RELAY, WORKER}
    assert not any("replicas" in one["spec"] for one in deployments)
    assert all(spec.get("minReplicas", spec.get("minReplicaCount")) == 2 for spec in scalers.values())


def test_prometheus_operator_has_the_alerts_of_the_rules_file() -> None:
    """The PrometheusRule holds the groups of deploy/prometheus/rules.yaml as they are: run `make k8s-rules`."""
    rules = yaml.safe_load((ROOT / "deploy/prometheus/rules.yaml").read_text())
    assert only(OPERATORS, "PrometheusRule")["spec"] == rules


def test_prometheus_finds_every_pod_once() -> None:
    """By annotations or by a PodMonitor, relay and worker are scraped at the port that has their metrics."""
    for called, port in ((RELAY, "8080"), (WORKER, "9090")):
        annotations = only(PRODUCTION, "Deployment", called)["spec"]["template"]["metadata"]["annotations"]
        assert annotations == {"prometheus.io/scrape": "true", "prometheus.io/port": port}
        assert "annotations" not in only(OPERATORS, "Deployment", called)["spec"]["template"]["metadata"]
        labels = only(OPERATORS, "Deployment", called)["spec"]["template"]["metadata"]["labels"]
        monitor = only(OPERATORS, "PodMonitor")["spec"]
        assert monitor["selector"]["matchLabels"].items() <= labels.items()
        (endpoint,) = monitor["podMetricsEndpoints"]
        assert endpoint["port"] in {one["name"] for one in container(called)["ports"]}


@pytest.mark.parametrize("name", [PRODUCTION, OPERATORS])
def test_the_clients_file_is_where_the_settings_say(name: str) -> None:
    """Both services have the Secret with the clients mounted, readable by their group, at the path in the settings."""
    path = Path(only(name, "ConfigMap")["data"]["RELAY_CLIENTS_FILE"])
    for called in (RELAY, WORKER):
        spec = pod(called, name)
        (volume,) = spec["volumes"]
        assert volume["secret"] == {"secretName": "scrapellm-relay-clients", "defaultMode": 0o440}
        assert spec["securityContext"]["fsGroup"] == spec["securityContext"]["runAsGroup"]
        mount = {"name": volume["name"], "mountPath": str(path.parent), "readOnly": True}
        assert container(called, name)["volumeMounts"] == [mount]
