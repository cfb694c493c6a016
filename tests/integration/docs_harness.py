"""The snippets of a page of the documentation."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.dev_process import clean_environment

DOCS = Path(__file__).parents[2] / "docs"
_FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Snippet:
    """A piece of code, and the heading that it stands under."""

    heading: str
    language: str
    code: str


def snippets(page: str) -> list[Snippet]:
    """The snippets of a page, in order."""
    text = (DOCS / page).read_text()
    found = []
    for match in _FENCE.finditer(text):
        # A comment in a snippet looks like a heading.
        before = _FENCE.sub("", text[: match.start()])
        found.append(Snippet(_HEADING.findall(before)[-1], match[2], textwrap.dedent(match[3])))
    return found


def command(snippet: Snippet) -> list[str]:
    """What runs it; skips the test where the tool is missing, and fails it under CI=true."""
    tool, *rest = {
        "sh": ["bash", "-e", "-o", "pipefail", "-c", snippet.code],
        "python": [sys.executable, "-c", snippet.code],
        "js": ["node", "--input-type=module", "-e", snippet.code],
    }[snippet.language]
    needed = "curl" if snippet.language == "sh" else tool
    if shutil.which(needed) is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{needed} is missing, and CI=true asks for the snippets that use it")
        pytest.skip(f"{needed} is not installed: the snippets that use it are not tried")
    return [tool, *rest]


def run(snippet: Snippet, folder: Path, environment: Mapping[str, str]) -> str:
    """Run it to its end; returns what it printed."""
    done = subprocess.run(  # noqa: S603 - our own documentation
        command(snippet),
        cwd=folder,
        env=clean_environment(environment),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, f"{snippet.code}\n{done.stdout}{done.stderr}"
    return done.stdout
