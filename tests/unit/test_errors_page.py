"""The page on errors says what the code says, and what to do about each."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from relay.api.problems import CODES
from relay.core.model import AttemptOutcome, ErrorCode

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / ".ci" / "errors_page.py"


def test_the_page_is_current() -> None:
    """docs/errors.md is what the code makes of it."""
    made = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, str(SCRIPT)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert (ROOT / "docs" / "errors.md").read_text() == made.stdout, "run: python .ci/errors_page.py > docs/errors.md"


@pytest.mark.parametrize(
    ("section", "codes"), [("problems", CODES), ("failures", ErrorCode), ("outcomes", AttemptOutcome)]
)
def test_each_code_has_its_text_and_no_other(section: str, codes: Any) -> None:
    """Whatever a client may meet as a code is explained, and nothing that it cannot meet."""
    texts = tomllib.loads((ROOT / ".ci" / "errors.toml").read_text())
    assert set(texts[section]) == set(codes)


def test_each_code_has_a_heading_to_link_to() -> None:
    """The page has one section for each code, so that a link can lead to it."""
    sections = re.findall(r"^### `([a-z_]+)`$", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE)
    assert sorted(sections) == sorted([*CODES, *ErrorCode, *AttemptOutcome])
