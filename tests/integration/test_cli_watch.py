"""What goes on until something has ended: on a terminal, in a pipe, and when somebody stops it."""

import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.dev_process import COMMAND, Running, clean_environment
from tests.integration.cli_harness import BATCH_ID, JOB_ID, Cli, fixture_cli, fixture_dev
from tests.terminal import Terminal

__all__ = ["fixture_cli", "fixture_dev"]

Watch = Callable[..., Running]


@pytest.fixture(name="watch")
def fixture_watch(dev: Running) -> Iterator[Watch]:
    """`jobs --watch` with options, in a pipe and listening; ended after the test."""
    started: list[Running] = []

    def start(*options: str) -> Running:
        watching = Running(["jobs", "--watch", *options], dev.folder)
        watching.output.unlink(missing_ok=True)
        started.append(watching.start())
        watching.wait_for("watching (Ctrl-C ends)")
        return watching

    yield start
    for watching in started:
        watching.bury()


def test_every_change_is_a_line(cli: Cli, watch: Watch) -> None:
    """A program reads when, which, status and delivery, with tabs between; Ctrl-C is a peaceful end."""
    watching = watch()
    job_id = cli("submit", "watch me", "-s", "grok").out.strip()
    lines = watching.wait_for(f"{job_id}\tdone\tdelivered").splitlines()[1:]
    assert [line.split("\t")[1:] for line in lines if job_id in line] == [
        [job_id, "queued", "waiting"],
        [job_id, "pending", "waiting"],
        [job_id, "done", "pending"],
        [job_id, "done", "delivered"],
    ]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", lines[0].split("\t")[0])
    assert watching.stop(signal.SIGINT) == 0


def test_changes_are_filtered(cli: Cli, watch: Watch) -> None:
    """Only those that the options choose are told, here as JSON lines."""
    watching = watch("--json", "--status", "failed", "--delivery", "delivered")
    cli("submit", "fine", "-s", "grok", "--wait")
    failed = json.loads(cli("submit", "[fail]", "-s", "grok", "--wait", "--json").out)["id"]
    lines = watching.wait_for('"delivered"').splitlines()[1:]
    assert [{**json.loads(line), "at": ""} for line in lines] == [
        {"id": failed, "status": "failed", "delivery": "delivered", "batch_id": None, "at": ""}
    ]
    assert watching.stop() == 0


@pytest.mark.parametrize(("prompt", "status", "code"), [("fine", "done", 0), ("[fail]", "failed", 1)])
def test_one_job_is_watched_to_its_end(cli: Cli, prompt: str, status: str, code: int) -> None:
    """It ends with the delivery, and the exit code says what became of the job."""
    job_id = cli("submit", prompt, "-s", "grok").out.strip()
    done = cli("jobs", job_id, "--watch")
    assert done.code == code
    assert done.out.splitlines()[-1].split("\t")[1:] == [job_id, status, "delivered"]
    again = cli("jobs", job_id, "--watch", "--json")
    assert (again.code, json.loads(again.out)["status"]) == (code, status)


def test_a_batch_is_watched_to_its_end(cli: Cli) -> None:
    """Afterwards there is its summary; in a pipe no bar."""
    batch_id = cli("batch", "-", "--format", "txt", "-s", "grok", "--no-wait", stdin=b"a\nb\n").out.strip()
    done = cli("jobs", batch_id, "--watch")
    assert (done.code, done.err) == (0, "")
    assert re.search(r"^status +2 done$", done.out, re.MULTILINE)


def test_what_does_not_exist_is_not_watched(cli: Cli) -> None:
    """It is told at once."""
    for unknown in ("job_01jzzzzzzzzzzzzzzzzzzzzzzz", "batch_01jzzzzzzzzzzzzzzzzzzzzzzz"):
        done = cli("jobs", unknown, "--watch")
        assert (done.code, done.out) == (1, "")


def test_a_terminal_has_a_table_that_is_kept_up_to_date(cli: Cli, dev: Running) -> None:
    """A job appears and changes without a key pressed; Ctrl-C ends it with 0, and the cursor is back."""
    with Terminal("jobs", "--watch", "--limit", "5", folder=dev.folder) as terminal:
        terminal.wait_for("(Ctrl-C ends)")
        job_id = cli("submit", "in a table [latency=2]", "-s", "grok").out.strip()
        terminal.wait_for(re.compile(rf"{job_id} +queued|{job_id} +pending"))
        terminal.wait_for(re.compile(rf"{job_id} +done +delivered"))
        terminal.interrupt()
        assert terminal.end() == 0
    assert terminal.is_coloured
    assert terminal.raw.rindex("\x1b[?25h") > terminal.raw.rindex("\x1b[?25l")
    assert "Traceback" not in terminal.text


def test_a_terminal_shows_a_bar(dev: Running) -> None:
    """While a batch is under way it counts what has an outcome; it is gone when all have one."""
    (dev.folder / "bar.txt").write_text("a\nb [latency=3]\n")
    with Terminal("batch", "bar.txt", "-s", "grok", folder=dev.folder) as terminal:
        terminal.wait_for("1/2")
        terminal.wait_for("2 done")
        assert terminal.end() == 0
    assert BATCH_ID.search(terminal.text)


def test_ctrl_c_says_that_the_work_goes_on(dev: Running) -> None:
    """130, and one line with the command that shows how it stands; no trace."""
    with Terminal("submit", "[never]", "-s", "grok", "--wait", folder=dev.folder) as terminal:
        terminal.wait_for("accepted; waiting")
        terminal.interrupt()
        assert terminal.end() == 130
    job_id = JOB_ID.search(terminal.text)
    assert job_id is not None
    assert f"scrapellm-relay jobs {job_id[0]}" in terminal.text
    assert "Traceback" not in terminal.text


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_can_be_refused(dev: Running, environment: dict[str, str], coloured: bool) -> None:
    """NO_COLOR is respected (no-color.org)."""
    with Terminal("submit", "[fail]", "-s", "grok", "--wait", folder=dev.folder, environment=environment) as terminal:
        assert terminal.end() == 1
    assert "upstream_failed" in terminal.text
    assert terminal.is_coloured is coloured


def test_a_reader_that_goes_away_ends_the_watch(cli: Cli, dev: Running) -> None:
    """`jobs --watch | head -1` ends with the next line, without a trace."""
    with subprocess.Popen(  # noqa: S603 - our own command
        [*COMMAND, "jobs", "--watch"],
        cwd=dev.folder,
        env=clean_environment({}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as watching:
        try:
            assert watching.stdout is not None
            assert watching.stderr is not None
            assert watching.stderr.readline() == "watching (Ctrl-C ends)\n"
            cli("submit", "one", "-s", "grok", "--wait")
            assert "queued" in watching.stdout.readline()
            watching.stdout.close()
            cli("submit", "two", "-s", "grok", "--wait")
            assert watching.wait(10) == 1
            assert watching.stderr.read() == ""
        finally:
            watching.kill()
