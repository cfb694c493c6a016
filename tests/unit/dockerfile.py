"""Reads the Dockerfile and .dockerignore, so that tests can hold other files against them."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from relay import __version__

ROOT = Path(__file__).parents[2]

_LABEL = re.compile(r'(\S+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """What the image's last stage says of itself."""

    #: Every instruction of every stage, continuation lines joined: its name and the rest.
    instructions: Sequence[tuple[str, str]]
    command: Sequence[str]
    health: Sequence[str]
    ports: frozenset[int]
    user: str
    labels: dict[str, str]
    version: str

    @classmethod
    def read(cls) -> "Dockerfile":
        """The Dockerfile of this repository."""
        text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        instructions = [(line.split()[0], line.partition(" ")[2].strip()) for line in lines]
        last: dict[str, str] = dict(instructions)
        return cls(
            instructions=instructions,
            command=json.loads(last["CMD"]),
            health=json.loads(last["HEALTHCHECK"].partition("CMD ")[2]),
            ports=frozenset(int(port) for port in last["EXPOSE"].split()),
            user=last["USER"],
            labels=dict(_LABEL.findall(last["LABEL"])),
            version=__version__,
        )

    def all(self, *names: str) -> list[str]:
        """What stands after each instruction of these names, in order."""
        return [rest for name, rest in self.instructions if name in names]

    @property
    def base(self) -> str:
        """The image that it is built on, unless `--build-arg BASE=…` names another."""
        (base,) = (rest.removeprefix("BASE=") for rest in self.all("ARG") if rest.startswith("BASE="))
        return base

    @property
    def copied(self) -> list[str]:
        """The files and folders of this repository that go into the build."""
        return [path for rest in self.all("COPY") if not rest.startswith("--from") for path in rest.split()[:-1]]


def let_in(path: str) -> bool:
    """Whether .dockerignore lets a file through: the last line counts that fits it, or a folder that it is in."""
    names = [path, *map(str, Path(path).parents)]
    verdict = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#") and any(_fits(line.removeprefix("!"), name) for name in names):
            verdict = line.startswith("!")
    return verdict


def _fits(pattern: str, path: str) -> bool:
    """Whether a path is what a pattern of .dockerignore names; of its signs, those that ours has."""
    expression = re.escape(pattern).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*").replace(r"\[co\]", "[co]")
    return path != "." and re.fullmatch(expression, path) is not None
