"""A `dev` that serves a module's tests, and its commands, run in this process."""

import io
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from relay.cli import main
from tests.dev_process import Running

JOB_ID = re.compile(r"job_[0-7][0-9a-hjkmnp-tv-z]{25}")
BATCH_ID = re.compile(r"batch_[0-7][0-9a-hjkmnp-tv-z]{25}")


@dataclass(frozen=True)
class Done:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Its output as JSON."""
        return json.loads(self.out)


Cli = Callable[..., Done]


def when(cli: Cli, job_id: str, delivery: str, *, attempts: int) -> Any:
    """The job, as soon as its delivery stands so; fails after a while."""
    give_up = time.monotonic() + 20
    while True:
        document = cli("jobs", job_id, "--json").document
        if document["delivery"]["status"] == delivery and document["delivery"]["attempts"] == attempts:
            return document
        assert time.monotonic() < give_up, document["delivery"]


@pytest.fixture(scope="module", name="dev")
def fixture_dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A `dev` that serves all tests of this module."""
    environment = {"EMULATOR_FAILURE_RATE": "0", "RELAY_POLL_INTERVAL_S": "1", "RELAY_CALLBACK_SCHEDULE": "0"}
    arguments = ["dev", "--port=0", "--inbox-port=0", "--emulator-port=0", "--latency-scale=0.01"]
    dev = Running(arguments, tmp_path_factory.mktemp("dev"), environment).start()
    try:
        dev.wait_for("Ctrl-C stops")
        yield dev
        assert dev.stop() == 0
    finally:
        dev.bury()


@pytest.fixture(name="cli")
def fixture_cli(dev: Running, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run a command in the folder of `dev`."""
    monkeypatch.chdir(dev.folder)
    for name in ("RELAY_URL", "RELAY_API_KEY", "RELAY_SIGNING_SECRET"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, stdin: bytes = b"") -> Done:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return Done(int(ended.value.code or 0), printed.out, printed.err)

    return run
