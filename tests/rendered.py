"""The manifests of k8s/ as kubectl renders them. Alone knows kubectl, and which ways of deploying there are.

`OPERATORS` is the production overlay as its comments offer it: where a component stands in place of another, the other.
"""

import functools
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.unit.tools import tool

ROOT = Path(__file__).parents[1]
BASE = "base"
DEV = "overlays/dev"
PRODUCTION = "overlays/production"
OPERATORS = "overlays/production with operators"
#: All that is deployed; the base alone is not.
OVERLAYS = (DEV, PRODUCTION, OPERATORS)
ALL = (BASE, *OVERLAYS)

Document = dict[str, Any]


def render(name: str) -> Sequence[Document]:
    """The documents of one of ALL; skips the test where there is no kubectl, and fails it in CI."""
    return _documents(render_text(name))


@functools.cache
def render_text(name: str) -> str:
    """The same, as kubectl prints them."""
    if name != OPERATORS:
        return kustomize(ROOT / "k8s" / name)
    with tempfile.TemporaryDirectory(prefix="k8s-") as folder:
        tree = Path(shutil.copytree(ROOT / "k8s", Path(folder) / "k8s"))
        kustomization = tree / PRODUCTION / "kustomization.yaml"
        kustomization.write_text(_with_operators(kustomization.read_text()))
        return kustomize(tree / PRODUCTION)


def _with_operators(kustomization: str) -> str:
    # `- this # or` and then `# - that`: that in place of this. A line by itself is put in.
    chosen = re.sub(r"^  - \S+ # or\n", "", kustomization, flags=re.MULTILINE)
    return re.sub(r"^  # (- \.\./\.\./components/\S+)", r"  \1", chosen, flags=re.MULTILINE)


def kustomize(folder: Path) -> str:
    """What `kubectl kustomize` prints for a folder."""
    kubectl = tool("kubectl")
    done = subprocess.run(  # noqa: S603 - a command and a folder of our own
        [kubectl, "kustomize", folder], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def _documents(text: str) -> Sequence[Document]:
    return tuple(yaml.safe_load_all(text))


def every(name: str, kind: str) -> Iterator[Document]:
    """The documents of that kind."""
    return (document for document in render(name) if document["kind"] == kind)


def only(name: str, kind: str, called: str | None = None) -> Document:
    """The one document of that kind (and name, as far as a hash of its content is not part of it)."""
    found = [one for one in every(name, kind) if called is None or one["metadata"]["name"] == called]
    assert len(found) == 1, f"{len(found)} of {kind} {called} in {name}"
    return found[0]


def workloads(name: str) -> Iterator[Document]:
    """Whatever has pods."""
    return (document for document in render(name) if document["kind"] in ("Deployment", "StatefulSet"))


def pods(name: str) -> Iterator[tuple[str, Document]]:
    """The name and the pod specification of each workload."""
    return ((one["metadata"]["name"], one["spec"]["template"]["spec"]) for one in workloads(name))


def pod(called: str, name: str = BASE) -> Document:
    """The pod specification of one workload."""
    return dict(pods(name))[called]


def container(called: str, name: str = BASE) -> Document:
    """The one container of a workload."""
    (one,) = pod(called, name)["containers"]
    return dict(one)
