"""The reference of settings says what the settings are."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_is_current() -> None:
    """docs/configuration.md is what the settings make of it."""
    made = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, str(ROOT / ".ci" / "configuration_page.py")], check=True, capture_output=True, text=True
    )
    assert (ROOT / "docs" / "configuration.md").read_text() == made.stdout, (
        "run: python .ci/configuration_page.py > docs/configuration.md"
    )
