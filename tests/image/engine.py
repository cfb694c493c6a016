"""Docker or podman: alone knows how they are called, which for all that is needed here is the same way."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.unit.dockerfile import ROOT

#: A build on a slow machine, or over a slow network.
_BUILD_S = 1_800
_PULL_S = 600
_ANSWER_S = 60
#: Whatever starts one of these is refused.
_SHELLS = ("/usr/bin/bash", "/usr/bin/dash")


class NotProved(Exception):
    """What was to be shown does not hold, or could not be tried. The message is for a person."""


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that works."""

    name: str
    #: What each call begins with.
    command: Sequence[str]

    @classmethod
    def find(cls) -> "Engine | None":
        """The one that answers here, Docker first; None where none does."""
        for name in ("docker", "podman"):
            path = shutil.which(name)
            if path is not None and _run([path, "info"]).returncode == 0:
                return cls(name, [path])
        return None

    def call(self, *arguments: str, within_s: float = _ANSWER_S) -> str:
        """One call; returns what it printed. Raises NotProved with what it complained of."""
        done = _run([*self.command, *arguments], within_s)
        if done.returncode != 0:
            raise NotProved(f"{self.name} {arguments[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout

    def can_have(self, image: str) -> bool:
        """Whether an image is here or can be pulled."""
        return (
            _run([*self.command, "image", "inspect", image]).returncode == 0
            or _run([*self.command, "pull", "--quiet", image], _PULL_S).returncode == 0
        )

    def build(self, tag: str, *options: str) -> None:
        """Build the Dockerfile of this repository, exactly as it is written. Raises NotProved."""
        self.call("build", "--tag", tag, *options, str(ROOT), within_s=_BUILD_S)

    def image(self, tag: str) -> Mapping[str, Any]:
        """What the engine says of an image. Raises NotProved."""
        (found,) = json.loads(self.call("image", "inspect", tag))
        return dict(found)

    def contained(self, container: str, tag: str, variables: Iterable[str]) -> list[str]:
        """The command that runs a command of the image with as few rights as there are.

        Nothing can be written, no shell can be started, and there is no capability. The ports are those of this
        machine. `variables` are passed on from the environment by name, so that no value stands in a command.
        """
        return [
            *(*self.command, "run", "--rm", "--name", container, "--network", "host", "--no-healthcheck"),
            *("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
            # podman would lay file systems that can be written over /tmp, /run and /var/tmp.
            *(("--read-only-tmpfs=false",) if self.name == "podman" else ()),
            *(f"--volume=/dev/null:{shell}:ro" for shell in _SHELLS),
            *(f"--env={name}" for name in sorted(variables)),
            tag,
        ]

    def execute(self, container: str, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command in a container that runs, as its health checks are."""
        return _run([*self.command, "exec", container, *command])

    def try_once(self, container: str, tag: str, *command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Run a container that ends by itself, with these variables and no others of ours."""
        return _run([*self.contained(container, tag, variables), *command], environment=variables)

    def remove(self, containers: Iterable[str]) -> None:
        """Remove what is left of these containers, running or not."""
        for container in containers:
            _run([*self.command, "rm", "--force", container])


def _run(
    command: Sequence[str | Path], within_s: float = _ANSWER_S, environment: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    # Health checks are part of Docker's format of an image, which podman uses where it is told to.
    told = {**os.environ, **(environment or {}), "BUILDAH_FORMAT": "docker"}
    try:
        return subprocess.run(  # noqa: S603 - our own commands, without a shell
            command, env=told, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=within_s
        )
    except subprocess.TimeoutExpired:
        raise NotProved(f"{command[0]} {command[1]} was not done after {within_s:g} s") from None
