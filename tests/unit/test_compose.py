"""compose.yaml, as Compose itself reads it: complete, hardened, and in step with the settings and the image."""

import itertools
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from relay.core.settings import Settings
from relay.core.signing import new_secret
from tests.unit.dockerfile import ROOT, Dockerfile
from tests.unit.stopping import BATCHES_S, CLOSING_S, REQUESTS_S
from tests.unit.tools import tool

OURS = ("relay", "worker", "emulator")
SECRETS = {
    "RELAY_API_KEY": "key-of-the-tests",
    "RELAY_SIGNING_SECRET": new_secret(),
    "RELAY_UPSTREAM_API_KEY": "upstream-key",
}


def compose(folder: Path, given: Mapping[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Have Compose read a copy of compose.yaml in `folder`, beside a `.env` with what is given; no engine is needed."""
    command = tool("docker-compose")
    (folder / "compose.yaml").write_bytes((ROOT / "compose.yaml").read_bytes())
    if given:
        (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in given.items()))
    # Variables of whoever runs the tests would stand in for those of the file.
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    return subprocess.run(  # noqa: S603 - a command and a folder of our own
        [command, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture(name="services")
def fixture_services(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """Each service as Compose understands it, with the emulator's profile."""
    done = compose(tmp_path, SECRETS, "--profile", "emulator", "config", "--format", "json")
    assert done.returncode == 0, done.stderr
    services: dict[str, dict[str, Any]] = json.loads(done.stdout)["services"]
    return services


def test_what_starts_is_a_relay_two_workers_and_a_store(tmp_path: Path) -> None:
    """The emulator, which is for trying out, starts only where its profile is asked for."""
    done = compose(tmp_path, SECRETS, "config", "--format", "json")
    services = json.loads(done.stdout)["services"]
    counts = {name: service.get("deploy", {}).get("replicas", 1) for name, service in services.items()}
    assert counts == {"relay": 1, "worker": 2, "store": 1}


@pytest.mark.parametrize("missing", [*SECRETS, "everything"])
def test_a_missing_secret_is_named_with_its_cure(tmp_path: Path, missing: str) -> None:
    """Nothing starts where a secret is missing or there is no `.env`; each line names a secret and the page."""
    given = {} if missing == "everything" else {**SECRETS, missing: ""}
    done = compose(tmp_path, given, "config", "--quiet")
    assert done.returncode != 0
    named = SECRETS.keys() if missing == "everything" else {missing}
    for name in named:
        assert f"{name} is missing a value: put it into .env, as docs/image.md says" in done.stderr
    assert not any(value in done.stderr for value in SECRETS.values())


def test_the_services_are_of_one_image(services: dict[str, dict[str, Any]]) -> None:
    """Relay, worker and emulator are the image of this version, started as the image and the manifests have it."""
    image = Dockerfile.read()
    assert {services[name]["image"] for name in OURS} == {f"scrapellm-relay:{image.version}"}
    assert services["relay"]["command"] == image.command
    assert services["worker"]["command"] == ["python", "-m", "worker"]
    assert services["emulator"]["command"][:4] == ["python", "-m", "relay.cli", "emulator"]


def test_every_variable_is_a_setting(services: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set is known, and it is all that both services need."""
    known = {f"RELAY_{field.upper()}" for field in Settings.model_fields}
    for name in ("relay", "worker"):
        assert services[name]["environment"].keys() <= known
    for variable in os.environ:
        if variable.startswith(("RELAY_", "SCRAPELLM_")):
            monkeypatch.delenv(variable)
    for variable, value in services["worker"]["environment"].items():
        monkeypatch.setenv(variable, value)
    settings = Settings.load(_env_file=None)
    assert settings.clients()
    assert settings.upstream_api_key is not None
    assert settings.redis_url == "redis://store:6379/0"
    assert {settings.port, settings.worker_port} == Dockerfile.read().ports


def test_any_other_setting_comes_from_the_env_file(tmp_path: Path) -> None:
    """`.env` reaches relay and workers whole, and cannot move the ports that the rest of the file goes by."""
    done = compose(tmp_path, SECRETS | {"RELAY_POLL_INTERVAL_S": "4", "RELAY_PORT": "1"}, "config", "--format", "json")
    for name in ("relay", "worker"):
        environment = json.loads(done.stdout)["services"][name]["environment"]
        assert environment["RELAY_POLL_INTERVAL_S"] == "4"
        assert environment["RELAY_PORT"] == "8080"


def test_no_service_has_more_rights_than_it_needs(services: dict[str, dict[str, Any]]) -> None:
    """Each has a root file system that it cannot write to, no capabilities, no way to more, and bounded memory."""
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["mem_limit"]) > 0, name
        assert "privileged" not in service, name


def test_only_the_relay_is_reached_and_only_from_this_machine(services: dict[str, dict[str, Any]]) -> None:
    """One port is published, on the loopback interface; the store is in a network that leads nowhere."""
    published = {
        (name, port["host_ip"], port["target"])
        for name, service in services.items()
        for port in service.get("ports", [])
    }
    assert published == {("relay", "127.0.0.1", 8080)}
    assert set(services["store"]["networks"]) == {"store"}


def test_the_store_keeps_every_job(services: dict[str, dict[str, Any]]) -> None:
    """It refuses to drop jobs, and writes them to a volume."""
    store = services["store"]
    options = dict(itertools.pairwise(store["command"]))
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--appendonly"] == "yes"
    assert [volume["target"] for volume in store["volumes"]] == [options["--dir"]]
    assert store["volumes"][0]["type"] == "volume"


def test_a_stopping_service_is_never_killed_at_work(services: dict[str, dict[str, Any]]) -> None:
    """Each is given longer than it takes at most; the worker's callbacks end within its own grace."""
    grace_s = {name: _seconds(service.get("stop_grace_period", "10s")) for name, service in services.items()}
    worker_s = float(services["worker"]["environment"]["RELAY_STOP_GRACE_S"])
    assert Settings.model_fields["callback_timeout_s"].default < worker_s
    assert grace_s["worker"] > worker_s + BATCHES_S + CLOSING_S
    assert grace_s["relay"] > REQUESTS_S + CLOSING_S


def _seconds(duration: str) -> float:
    """A duration as Compose prints it, such as `1m0s`."""
    minutes, _, seconds = duration.rpartition("m")
    return float(minutes or 0) * 60 + float(seconds.removesuffix("s") or 0)
