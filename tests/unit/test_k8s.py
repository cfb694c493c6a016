"""The pods of k8s/, as kubectl renders them: hardened, observed, stopped in order, in step with settings and image."""

import base64
import itertools
import os
import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from relay.api.context import Limits
from relay.core.settings import Settings
from tests.rendered import (
    ALL,
    BASE,
    DEV,
    OPERATORS,
    OVERLAYS,
    PRODUCTION,
    ROOT,
    container,
    every,
    only,
    pod,
    pods,
    render,
    workloads,
)
from tests.unit.dockerfile import Dockerfile
from worker.metrics import WorkerMetrics
from worker.upstream_answers import SubmitOutcome

RELAY, WORKER = "scrapellm-relay", "scrapellm-relay-worker"
#: Between the last step's end and the process' end: saving, closing connections.
CLOSING_S = 5
#: How long a stopping worker waits for batches that had just begun, within its grace (worker/service.py).
BATCHES_S = 3
#: How long a stopping relay gives running requests, and then those whose client has gone.
REQUESTS_S = 2 * Limits().shutdown_s


def secret_values() -> dict[str, str]:
    """The values of the dev overlay's Secret."""
    return {key: base64.b64decode(value).decode() for key, value in only(DEV, "Secret")["data"].items()}


def test_the_base_brings_no_secret_and_no_store() -> None:
    """Secrets and the store come from outside; the base only names the Secret."""
    assert {document["kind"] for document in render(BASE)} == {
        *("ServiceAccount", "ConfigMap", "Service", "Deployment", "NetworkPolicy", "PodDisruptionBudget")
    }
    for called in (RELAY, WORKER):
        assert {"secretRef": {"name": "scrapellm-relay"}} in container(called)["envFrom"]


@pytest.mark.parametrize("name", [PRODUCTION, OPERATORS])
def test_no_secret_is_in_the_tree(name: str) -> None:
    """What is deployed for real has its Secrets from outside."""
    assert not list(every(name, "Secret"))


@pytest.mark.parametrize("name", ALL)
def test_no_pod_has_more_rights_than_it_needs(name: str) -> None:
    """Each pod meets the `restricted` standard, cannot write to its image, and has no token of the cluster's API."""
    for called, spec in pods(name):
        assert spec["automountServiceAccountToken"] is False, called
        assert spec["securityContext"]["runAsNonRoot"] is True, called
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, called
        for one in spec["containers"]:
            assert one["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, called


@pytest.mark.parametrize("name", ALL)
def test_every_container_says_what_it_needs(name: str) -> None:
    """Each container asks for CPU and memory, and has a bound on its memory."""
    for called, spec in pods(name):
        for one in spec["containers"]:
            assert {"cpu", "memory"} <= one["resources"]["requests"].keys(), called
            assert "memory" in one["resources"]["limits"], called


@pytest.mark.parametrize("name", ALL)
def test_services_of_the_namespace_set_no_setting(name: str) -> None:
    """Kubernetes adds no variables for Services: one called `relay` would set RELAY_PORT to an address."""
    for called, spec in pods(name):
        assert spec["enableServiceLinks"] is False, called


@pytest.mark.parametrize(("called", "port"), [("scrapellm-relay", 8080), (WORKER, 9090)])
def test_probes_ask_the_right_thing(called: str, port: int) -> None:
    """Start and life are the process', readiness is the service's, each on the port that the settings name."""
    one = container(called)
    assert one["ports"] == [{"name": "http", "containerPort": port}]
    probes = {kind: one[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert probes == {
        "startup": {"path": "/healthz", "port": "http"},
        "liveness": {"path": "/healthz", "port": "http"},
        "readiness": {"path": "/readyz", "port": "http"},
    }
    variable = {"scrapellm-relay": "RELAY_PORT", WORKER: "RELAY_WORKER_PORT"}[called]
    assert only(BASE, "ConfigMap")["data"][variable] == str(port)


@pytest.mark.parametrize("name", ALL)
def test_a_stopping_worker_is_never_killed_at_work(name: str) -> None:
    """A callback attempt ends within the worker's grace, and that within the pod's, with time to close."""
    config = only(name, "ConfigMap")["data"]
    attempt_s, worker_s = float(config["RELAY_CALLBACK_TIMEOUT_S"]), float(config["RELAY_STOP_GRACE_S"])
    pod_s = pod(WORKER, name)["terminationGracePeriodSeconds"]
    assert BATCHES_S < attempt_s < worker_s < worker_s + CLOSING_S < pod_s


def test_a_stopping_relay_answers_what_it_took() -> None:
    """The relay sleeps until no new connection comes, and then has time for the running requests."""
    sleep_s = container("scrapellm-relay")["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert 0 < sleep_s < sleep_s + REQUESTS_S + CLOSING_S < pod("scrapellm-relay")["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("name", ALL)
def test_every_variable_is_a_setting(name: str) -> None:
    """What is set is known: a misspelt setting would be ignored without a word."""
    known = {f"RELAY_{field.upper()}" for field in Settings.model_fields}
    given = set(only(name, "ConfigMap")["data"])
    if name == DEV:
        given |= secret_values().keys()
    assert given <= known


def test_the_dev_overlay_configures_both_services(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the overlay's variables, and no others, the settings are complete and right."""
    for variable in os.environ:
        if variable.startswith(("RELAY_", "SCRAPELLM_")):
            monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)
    for variable, value in (*only(DEV, "ConfigMap")["data"].items(), *secret_values().items()):
        monkeypatch.setenv(variable, value)
    settings = Settings.load()
    assert settings.clients()
    assert settings.upstream_api_key is not None
    assert settings.redis_url == "redis://valkey:6379/0"


def test_the_dev_overlay_keeps_every_job() -> None:
    """Its store refuses to drop jobs and writes them to a volume."""
    store = container("valkey", DEV)
    options = dict(itertools.pairwise(store["command"]))
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--appendonly"] == "yes"
    mounts = {mount["name"]: mount["mountPath"] for mount in store["volumeMounts"]}
    (claim,) = only(DEV, "StatefulSet")["spec"]["volumeClaimTemplates"]
    assert mounts[claim["metadata"]["name"]] == options["--dir"]


def test_the_dev_overlay_reaches_its_own_services() -> None:
    """The addresses in its settings are those of its Services."""
    ports = {
        document["metadata"]["name"]: {port["port"] for port in document["spec"]["ports"]}
        for document in every(DEV, "Service")
    }
    assert ports == {"scrapellm-relay": {80}, "emulator": {8090}, "valkey": {6379}}
    assert only(DEV, "ConfigMap")["data"]["RELAY_UPSTREAM_URL"] == "http://emulator:8090"
    assert secret_values()["RELAY_REDIS_URL"] == "redis://valkey:6379/0"


@pytest.mark.parametrize("name", ALL)
def test_services_find_their_pods(name: str) -> None:
    """Each Service selects one workload, by a port that it names."""
    for service in every(name, "Service"):
        wanted = service["spec"]["selector"].items()
        templates = [
            workload["spec"]["template"]
            for workload in workloads(name)
            if wanted <= workload["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert len(templates) == 1, service["metadata"]["name"]
        named = {port["name"] for one in templates[0]["spec"]["containers"] for port in one["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= named


def test_the_pods_run_what_the_image_has() -> None:
    """Image, user, commands and ports are those of the Dockerfile, and the tag is the version's."""
    image = Dockerfile.read()
    relay, worker = container("scrapellm-relay"), container(WORKER)
    assert relay["image"] == worker["image"] == f"scrapellm-relay:{image.version}"
    assert relay["command"] == image.command
    assert worker["command"] == ["python", "-m", "worker"]
    assert {port["containerPort"] for one in (relay, worker) for port in one["ports"]} == image.ports
    for called in ("scrapellm-relay", WORKER):
        security = pod(called)["securityContext"]
        assert f"{security['runAsUser']}:{security['runAsGroup']}" == image.user


def test_the_emulator_is_of_the_same_image() -> None:
    """The dev overlay needs one image for three services."""
    assert container("emulator", DEV)["image"] == container("scrapellm-relay", DEV)["image"]
    assert container("emulator", DEV)["command"][:4] == ["python", "-m", "relay.cli", "emulator"]


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


def test_workers_follow_metrics_that_they_have() -> None:
    """What KEDA asks Prometheus for are metrics of the worker, and outcomes that a submit can have."""
    text = " ".join(trigger["metadata"]["query"] for trigger in only(OPERATORS, "ScaledObject")["spec"]["triggers"])
    registry = WorkerMetrics().registry
    known = {sample.name for family in registry.collect() for sample in family.samples}
    known |= {f"{family.name}{suffix}" for family in registry.collect() for suffix in ("", "_total")}
    known |= {"scrapellm_relay_due_lag_seconds"}
    asked = set(re.findall(r"scrapellm_relay_\w+", text))
    assert asked <= known
    outcomes = {kind.__name__.lower() for kind in get_args(SubmitOutcome)}
    assert {name for group in re.findall(r'outcome=~"([^"]+)"', text) for name in group.split("|")} <= outcomes


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
