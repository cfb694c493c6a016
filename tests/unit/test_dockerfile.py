"""The Dockerfile, as far as it can be tried without building it; `make image` builds it."""

import os
import re
import subprocess

import pytest

from tests.image.stand_in import release
from tests.unit.dockerfile import ROOT, Dockerfile, let_in
from tests.unit.tools import tool


def test_hadolint_finds_nothing() -> None:
    """What the linter knows of Dockerfiles is followed, but for the rule that the file names."""
    linter = tool("hadolint")
    done = subprocess.run(  # noqa: S603 - a command and a file of our own
        [linter, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_is_run_needs_no_shell() -> None:
    """Every command is in exec form, so that signals reach the service and the image could do without a shell."""
    image = Dockerfile.read()
    assert all(rest.startswith("[") for rest in image.all("RUN", "CMD", "ENTRYPOINT"))
    assert image.health[:2] == ["python", "-m"]


def test_packages_come_from_the_lock_files() -> None:
    """pip takes what the hashes name, or what was built from this tree, and nothing else."""
    installs = [rest for rest in Dockerfile.read().all("RUN") if '"install"' in rest]
    assert len(installs) == 3
    for rest in installs:
        assert '"--require-hashes"' in rest or ('"--no-index"' in rest and '"--no-deps"' in rest)


def test_the_user_is_a_number_and_not_root() -> None:
    """A number lets Kubernetes see that the image does not run as root."""
    user, _, group = Dockerfile.read().user.partition(":")
    assert int(user) > 0
    assert int(group) > 0


def test_the_base_is_named_to_the_byte() -> None:
    """Both stages are built on one image, which a digest pins."""
    image = Dockerfile.read()
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+@sha256:[0-9a-f]{64}", image.base)
    assert release(image.base), "`make image` has no stand-in for it"
    assert image.all("FROM") == ["${BASE} AS build", "${BASE}"]


def test_the_labels_are_right() -> None:
    """The image says what it is, by the names that the OCI gave these labels."""
    image = Dockerfile.read()
    assert {name.removeprefix("org.opencontainers.image.") for name in image.labels} == {
        *("title", "description", "version", "revision", "licenses", "base.name")
    }
    assert image.labels["org.opencontainers.image.version"] == image.version


def test_what_is_copied_is_let_through_and_nothing_else() -> None:
    """.dockerignore lets through each file that the build copies, and no other file of this repository."""
    folders = [path for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")]
    files = [path for path in ROOT.iterdir() if path.is_file()]
    files += [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    names = {str(path.relative_to(ROOT)) for path in files}
    copied = Dockerfile.read().copied
    wanted = {
        name
        for name in names
        if any(name == path or name.startswith(f"{path}/") for path in copied)
        if not re.search(r"(^|/)\.|\.py[co]$", name)
    }
    assert all((ROOT / path).exists() for path in copied)
    assert {name for name in names if let_in(name)} == wanted


@pytest.mark.parametrize(
    "name",
    [
        *(".env", ".git/config", ".venv/bin/python", "clients.toml", "requirements/dev.txt", "tests/conftest.py"),
        *("relay/.env", "relay/core/.settings.py.swp", "worker/.cache/x.py", "relay/__pycache__/x.pyc", "worker/x.pyo"),
    ],
)
def test_what_must_not_be_in_the_image_is_held_back(name: str) -> None:
    """Secrets, history and what editors and Python leave behind get nowhere near the build."""
    assert not let_in(name)


def test_the_health_check_is_a_module_of_the_image() -> None:
    """What the HEALTHCHECK runs is part of what is installed."""
    module = Dockerfile.read().health[2]
    assert (ROOT / f"{module.replace('.', os.sep)}.py").is_file()
