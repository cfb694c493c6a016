"""What tests of receivers need from elsewhere, programs and npm's packages: in place, or a skip that says why."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def need(*programs: str) -> None:
    """Skip the test where one of the programs is not installed; fail it under CI=true."""
    missing = [program for program in programs if shutil.which(program) is None]
    if not missing:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"{missing} missing, and CI=true asks for the tests that use it")
    pytest.skip(f"not installed: {missing}; what uses it is not tried")


def install(folder: Path) -> None:
    """Install what the folder's package-lock.json names, if that has not been done since it changed."""
    need("node", "npm")
    lock, done = folder / "package-lock.json", folder / "node_modules" / ".package-lock.json"
    if not done.is_file() or done.stat().st_mtime < lock.stat().st_mtime:
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, check=True, timeout=110)  # noqa: S607 - from PATH
