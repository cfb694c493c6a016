"""Commands that a test needs and that are no modules of Python."""

import os
import shutil
import sysconfig

import pytest


def tool(name: str) -> str:
    """The path of a command, of this environment or of the system. Where there is none: skips, and fails in CI."""
    found = shutil.which(name, path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]))
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} is missing, and CI must have it")
        pytest.skip(f"{name} is missing")
    return found
