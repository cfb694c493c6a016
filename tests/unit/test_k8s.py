"""The pods of k8s/, as kubectl renders them: hardened, observed, stopped in order, in step with settings and image."""

import base64
import itertools
import os
from pathlib import Path

import pytest

from relay.core.settings import Settings
from tests.rendered import ALL, BASE, DEV, OPERATORS, PRODUCTION, container, every, only, pod, pods, render, workloads
from tests.unit.dockerfile import Dockerfile
from tests.unit.stopping import BATCHES_S, CLOSING_S, REQUESTS_S

RELAY, WORKER = "scrapellm-relay", "scrapellm-relay-worker"


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
