"""The lock files: complete, hashed, and bound to no registry."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "requirements"
NAMES = ("bench", "build", "dev", "docs", "k8s", "runtime")

_PIN = re.compile(r"^(?P<name>[a-z0-9.-]+)==(?P<version>[^ ;]+)(?: ; (?P<marker>.+?))? \\$")
_HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$")
_COMMENT = re.compile(r"^    # via [A-Za-z0-9]")


@dataclass(frozen=True, slots=True)
class Pin:
    """One package of a lock file."""

    name: str
    version: str
    marker: str | None


def pins(name: str) -> list[Pin]:
    """What `requirements/{name}.txt` pins."""
    found = (_PIN.match(line) for line in (FOLDER / f"{name}.txt").read_text().splitlines())
    return [Pin(match["name"], match["version"], match["marker"]) for match in found if match]


def project() -> dict[str, Any]:
    """pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def group(name: str) -> list[str]:
    """What a dependency group asks for, with what it includes."""
    wanted: list[str] = []
    for item in project()["dependency-groups"][name]:
        wanted += group(item["include-group"]) if isinstance(item, dict) else [item]
    return wanted


def asked_for(name: str) -> list[str]:
    """What pyproject.toml wants in one lock file."""
    metadata = project()["project"]
    match name:
        case "bench" | "build" | "k8s":
            return group(name)
        case "docs":
            return [*metadata["dependencies"], *group("docs")]
        case "runtime":
            return [*metadata["dependencies"], *metadata["optional-dependencies"]["otel"]]
        case _:
            return [*metadata["dependencies"], *extras(), *group("test")]


def extras() -> list[str]:
    """What pyproject.toml offers on top of the services."""
    return [line for lines in project()["project"]["optional-dependencies"].values() for line in lines]


def canonical(name: str) -> str:
    """The name of a package as lock files write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(*folders: str) -> Iterator[tuple[Path, str]]:
    """Each import of somebody else's package: the file and the top-level module."""
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            match node:
                case ast.Import(names=names):
                    modules = [alias.name for alias in names]
                case ast.ImportFrom(module=str(module), level=0):
                    modules = [module]
                case _:
                    continue
            tops = {module.partition(".")[0] for module in modules}
            for top in tops - sys.stdlib_module_names - {"bench", "relay", "tests", "worker"}:
                yield path.relative_to(ROOT), top


@pytest.mark.parametrize("name", NAMES)
def test_every_line_is_a_pin_a_hash_or_a_reason(name: str) -> None:
    """A lock file has exact versions, their SHA-256 hashes and why they are there: no option, no URL, no path."""
    for number, line in enumerate((FOLDER / f"{name}.txt").read_text().splitlines(), 1):
        assert _PIN.match(line) or _HASH.match(line) or _COMMENT.match(line), f"{name}.txt:{number}: {line}"
        assert "://" not in line, f"{name}.txt:{number}: {line}"


@pytest.mark.parametrize("name", NAMES)
def test_every_pin_has_a_hash(name: str) -> None:
    """Each pin is followed by a hash at once, so that pip can refuse anything else."""
    lines = (FOLDER / f"{name}.txt").read_text().splitlines()
    places = [number for number, line in enumerate(lines) if _PIN.match(line)]
    assert places, f"{name}.txt pins nothing"
    assert all(_HASH.match(lines[number + 1]) for number in places)


@pytest.mark.parametrize("name", NAMES)
def test_everything_that_is_asked_for_is_pinned_in_range(name: str) -> None:
    """What pyproject.toml asks for is in the lock file, at a version that it allows."""
    locked: dict[str, list[str]] = {}
    for pin in pins(name):
        locked.setdefault(pin.name, []).append(pin.version)
    for line in asked_for(name):
        wanted = Requirement(line)
        versions = locked.get(canonical(wanted.name))
        assert versions, f"{wanted} is not in requirements/{name}.txt: run `make lock`"
        assert all(wanted.specifier.contains(version) for version in versions), f"{wanted}: run `make lock`"


@pytest.mark.parametrize("name", ["build", "runtime"])
def test_the_smaller_locks_are_parts_of_the_whole(name: str) -> None:
    """What runs and builds the container is what the tests ran with."""
    assert set(pins(name)) <= set(pins("dev"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("version", ["3.11.7", "3.12.0", "3.13.0"])
def test_each_package_is_pinned_once_for_a_python(name: str, version: str) -> None:
    """For one Python on Linux no package has two versions."""
    environment = {
        "python_version": version.rpartition(".")[0],
        "python_full_version": version,
        "sys_platform": "linux",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    names = [pin.name for pin in pins(name) if pin.marker is None or Marker(pin.marker).evaluate(environment)]
    assert len(names) == len(set(names))


def test_every_import_is_asked_for() -> None:
    """What the code imports stands in pyproject.toml, and is not there by luck because another package needs it."""
    services = [*project()["project"]["dependencies"], *extras()]
    owners = packages_distributions()
    everything = [*services, *group("test")]
    asked_by = (
        (("relay", "worker"), services),
        (("tests",), everything),
        (("bench",), [*everything, *group("bench")]),
    )
    for folders, lines in asked_by:
        asked = {canonical(Requirement(line).name) for line in lines}
        unasked = [
            f"{path} imports {module}"
            for path, module in imported(*folders)
            # What `make bench` alone needs may not be installed; then modules are called as their packages are.
            if not asked & {canonical(owner) for owner in owners.get(module, [module])}
        ]
        assert unasked == []


def test_every_dependency_is_explained() -> None:
    """docs/dependencies.md has a line for each package that is asked for, and for no other."""
    named = [line for name in ("dev", "build", "bench", "docs", "k8s") for line in asked_for(name)]
    lines = [*named, "hiredis"]
    asked = {canonical(Requirement(line).name) for line in lines}
    page = (ROOT / "docs" / "dependencies.md").read_text()
    explained = [canonical(row) for row in re.findall(r"^\| ([A-Za-z][A-Za-z0-9-]+) \|", page, re.MULTILINE)]
    assert sorted(set(explained) - {"package"}) == sorted(asked)
