"""Has checkov look at each overlay of k8s/, as kubectl renders it; k8s/checkov.yaml says what it does not ask for.

Takes checkov's path. Without kubectl it says so, and fails only in CI.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.rendered import OVERLAYS, ROOT, render_text

_WITHIN_S = 300


def main(checkov: str) -> int:
    """Render, and look."""
    with tempfile.TemporaryDirectory(prefix="k8s-") as folder:
        try:
            for name in OVERLAYS:
                (Path(folder) / f"{name.replace('/', '-').replace(' ', '-')}.yaml").write_text(render_text(name))
        except (pytest.skip.Exception, pytest.fail.Exception) as missing:
            print(f"k8s: {missing}")
            return int(isinstance(missing, pytest.fail.Exception))
        done = subprocess.run(  # noqa: S603 - our own command
            [checkov, "--config-file", str(ROOT / "k8s" / "checkov.yaml"), "--directory", folder],
            timeout=_WITHIN_S,
            check=False,
        )
    if done.returncode == 0:
        print(f"k8s: checkov has nothing against {len(OVERLAYS)} overlays")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
