"""`scrapellm-relay` as users run it: a command that ends, or one that goes on until it is stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: As installed: whatever lies in the working directory is not ours.
COMMAND = [sys.executable, "-P", "-m", "relay.cli"]
START_S = 40.0


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The environment without settings of ours, but for `extra`."""
    ours = ("RELAY_", "SCRAPELLM_", "EMULATOR_")
    # Nothing that the test run itself is started by says what a terminal is.
    return {k: v for k, v in os.environ.items() if not k.startswith(ours)} | {"COLUMNS": "200", **extra}


def run(
    *arguments: str,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    stdin: str = "",
    timeout_s: float = 60,
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    return subprocess.run(  # noqa: S603 - our own command
        [*COMMAND, *arguments],
        cwd=folder,
        env=clean_environment(environment or {}),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@dataclass
class Running:
    """A command that goes on until it is stopped, and what it prints."""

    arguments: Sequence[str]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def output(self) -> Path:
        """What it said on standard output and standard error, in a file."""
        return self.folder / f"{self.arguments[0]}.out"

    def start(self) -> "Running":
        """Start it; does not wait for it to be ready."""
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(  # noqa: S603 - our own command
                [*COMMAND, *self.arguments],
                cwd=self.folder,
                env=clean_environment(self.environment),
                stdout=output,
                stderr=output,
            )
        return self

    def wait_for(self, text: str, *, times: int = 1, within_s: float = START_S) -> str:
        """Wait until it has said `text` so many times; returns all that it said."""
        give_up = time.monotonic() + within_s
        while True:
            said = self.output.read_text()
            if said.count(text) >= times:
                return said
            assert self.process is not None
            assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{said}"
            assert time.monotonic() < give_up, f"{text!r} was not said within {within_s} s:\n{said}"
            time.sleep(0.02)

    def stop(self, number: signal.Signals = signal.SIGTERM, *, within_s: float = 60) -> int:
        """Send a signal and wait for the end; returns the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(within_s)

    def bury(self) -> None:
        """End it, whatever it does. For the end of a test."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    def children(self) -> dict[str, int]:
        """The processes that it has started, by the word of their command that tells them apart."""
        assert self.process is not None
        found = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(stat.read_text().rpartition(")")[2].split()[1])
                command = (stat.parent / "cmdline").read_bytes().decode().split("\0")
            except (OSError, ValueError, IndexError):
                continue
            if parent == self.process.pid:
                name = next((word for word in ("relay", "worker") if word in command), "store")
                found[name] = int(stat.parent.name)
        return found

    def announced(self) -> dict[str, Any]:
        """What a running `dev` says of itself."""
        return dict(json.loads((self.folder / ".scrapellm-relay" / "running.json").read_text()))


def wait_until_gone(pids: Sequence[int], within_s: float) -> None:
    """Wait until none of these processes lives."""
    give_up = time.monotonic() + within_s
    while living := [pid for pid in pids if _lives(pid)]:
        assert time.monotonic() < give_up, f"still there after {within_s} s: {living}"
        time.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")
