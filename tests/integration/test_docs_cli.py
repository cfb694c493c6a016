"""docs/cli.md: the help is what the commands say, and the examples print what is shown."""

import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.dev_process import COMMAND, Running, clean_environment
from tests.integration.cli_harness import fixture_dev
from tests.integration.docs_harness import DOCS, snippets

__all__ = ["fixture_dev"]

SCRIPT = Path(__file__).parents[2] / ".ci" / "cli_page.py"
#: The things that the examples speak of, and what is different each time.
JOB, INBOX = "job_01jgfj7p00e8a3c5x9z1v7m4kq", "127.0.0.1:8081"
_CHANGING = (
    (re.compile(r"\b(job|batch)_[0-9a-z]{26}\b"), r"\1_ID"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "TIME"),
    (re.compile(r"\b127\.0\.0\.1:\d+"), "ADDRESS"),
    (re.compile(r"\b\d+ ms\b"), "N ms"),
    # The last callbacks of a batch may be under way.
    (re.compile(r"^delivery +\d.*$", re.MULTILINE), "delivery COUNTS"),
    (re.compile(r"[ \t]+"), " "),
)


@dataclass(frozen=True)
class Example:
    """A command, and what it prints."""

    command: str
    output: str


def examples() -> list[Example]:
    """The examples of the page, in order."""
    found = []
    for snippet in snippets("cli.md"):
        if snippet.language == "console":
            for part in re.split(r"^\$ ", snippet.code, flags=re.MULTILINE)[1:]:
                command, _, output = part.partition("\n")
                found.append(Example(command, output))
    return found


def settled(text: str) -> str:
    """`text` without what is different each time."""
    for pattern, instead in _CHANGING:
        text = pattern.sub(instead, text)
    return text.strip()


def test_the_page_is_current() -> None:
    """Every command is on it, with the help that it has now."""
    made = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, str(SCRIPT)], check=True, capture_output=True, text=True
    ).stdout
    assert (DOCS / "cli.md").read_text() == made, "run: .venv/bin/python .ci/cli_page.py > cli.md && mv cli.md docs/"
    listed = re.findall(r"^  ([a-z]+)  +\S", made.partition("Commands:\n")[2].partition("\n\n")[0], re.MULTILINE)
    assert sorted(re.findall(r"<!-- help: ([a-z]+) -->", made)) == sorted(listed)


def test_the_examples_print_what_is_shown(dev: Running) -> None:
    """One after another, beside a `dev`, as somebody who reads the page would type them."""
    function = f'scrapellm-relay() {{ {shlex.join(COMMAND)} "$@"; }}'
    inbox = dev.announced()["inbox_url"].removeprefix("http://")
    job = ""
    for example in examples():
        command = example.command.replace(JOB, job).replace(INBOX, inbox)
        done = subprocess.run(  # noqa: S603 - our own documentation
            ["/bin/bash", "-c", f"{function}\n{command}"],
            cwd=dev.folder,
            env=clean_environment({}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert settled(done.stdout) == settled(example.output), command
        if example.command.startswith("scrapellm-relay submit") and not job:
            job = done.stdout.strip()
            dev.wait_for("job.completed")
