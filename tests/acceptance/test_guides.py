"""The commands of the guides, run as they are written."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.core.settings import Settings, hash_api_key
from tests.dev_process import START_S, Running, clean_environment
from tests.processes import free_port

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
READY = "Ctrl-C stops"

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^\$ (.*(?:\\\n.*|\n {4,}.*)*)$", re.MULTILINE)
#: What goes on until it is stopped: the rest waits until it listens, and the shell ends it at its own end. What it
#: prints is kept apart, since two that print at once may mix their lines.
_LASTING = "python examples/aiohttp/receiver.py"
_IN_THE_BACKGROUND = """\
{command} > receiver.out & trap "kill $!" EXIT
for _ in $(seq 400); do (exec 3<>/dev/tcp/127.0.0.1/$PORT) 2>/dev/null && break; sleep 0.05; done"""


@pytest.fixture(name="dev")
def fixture_dev(tmp_path: Path) -> Iterator[Running]:
    """A running `dev` in a folder that looks like a checkout to the commands."""
    shutil.copytree(ROOT / "examples" / "aiohttp", tmp_path / "examples" / "aiohttp")
    activate = tmp_path / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.touch()  # The commands are on the PATH already.
    ports = [f"--{name}={free_port()}" for name in ("port", "inbox-port", "emulator-port")]
    dev = Running(["dev", "--fast", *ports], tmp_path, {"RELAY_POLL_INTERVAL_S": "1", "EMULATOR_FAILURE_RATE": "0"})
    dev.start().wait_for(READY)
    yield dev
    dev.bury()


def commands(page: str, section: str) -> list[str]:
    """The commands of a page, or of one section of it, in their order."""
    text = (ROOT / "docs" / page).read_text()
    if section:
        text = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return [command for block in _BLOCK.findall(text) for command in _COMMAND.findall(block)]


def carried_out(dev: Running, page: str, section: str = "") -> str:
    """Run a page's commands in one shell beside `dev`, which ends at the first that fails; returns what they print.

    Only what a reader has to fill in is filled in, and the ports are those that are free here.
    """
    told, receiver_port = dev.announced(), free_port()
    replaced = {
        "srk_…": told["api_key"],
        "whsec_…": told["signing_secret"],
        "http://127.0.0.1:8080": told["url"],
        "http://127.0.0.1:8081": told["inbox_url"],
        "http://127.0.0.1:9001": f"http://127.0.0.1:{receiver_port}",
    }
    lines = ["set -eu"]
    for command in commands(page, section):
        if command.startswith("make "):
            continue
        for written, meant in replaced.items():
            command = command.replace(written, meant)  # noqa: PLW2901 - step by step
        lines.append(_IN_THE_BACKGROUND.format(command=command) if command == _LASTING else command)
    environment = clean_environment({"PORT": str(receiver_port), "PYTHONPATH": str(ROOT)})
    # The commands are installed beside the Python that runs the tests.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(  # noqa: S603 - our own guide
        ["bash", "-c", "\n".join(lines)],  # noqa: S607 - from PATH
        cwd=dev.folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_quickstart_works_as_written(dev: Running) -> None:
    """Each command succeeds, the receiver takes genuine callbacks and no other, and the one that failed comes again."""
    said = carried_out(dev, "quickstart.md")
    assert "job.completed job_" in (dev.folder / "receiver.out").read_text(), "the receiver prints what it got"
    assert "\n401\n" in said, "and refuses what has no signature"
    assert "http_error" in said
    assert "503" in said
    assert "delivered" in said
    assert '"status":"queued"' in said, "what curl gets"
    assert "UNVERIFIED" not in dev.wait_for("✓ verified  job.completed", within_s=START_S)


def test_the_guide_to_batches_works_as_written(dev: Running) -> None:
    """Each command succeeds, and the batch that asks for one callback gets that one."""
    said = carried_out(dev, "batches.md")
    assert '"count":4' in said.replace(" ", "")
    dev.wait_for("✓ verified  batch.completed")


def test_a_clients_file_is_made_as_written(dev: Running) -> None:
    """The commands that go from one client to a file give one that the settings take, with the same key."""
    carried_out(dev, "rotation.md", "From one client to a file")
    (client,) = Settings.load(clients_file=dev.folder / "clients.toml").clients().values()
    told = dev.announced()
    assert client.name == "default"
    assert client.signing_secrets == (told["signing_secret"],)
    assert client.api_key_hashes == (hash_api_key(told["api_key"]),)
