"""Reads the Dockerfile, so that tests can hold other files against it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from relay import __version__

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """What the image's last stage says of itself."""

    #: Every instruction of every stage, continuation lines joined: its name and the rest.
    instructions: Sequence[tuple[str, str]]
    command: Sequence[str]
    health: Sequence[str]
    ports: frozenset[int]
    user: str
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
            version=__version__,
        )
