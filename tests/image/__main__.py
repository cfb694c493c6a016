"""Builds the image with Docker or podman, then proves it. Exits 1 where something does not hold, or could not be tried.

Where the base cannot be pulled, a stand-in made of Debian's packages takes its place: that proves the Dockerfile, and
leaves no image behind.
"""

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

from relay import __version__
from tests.image import stand_in
from tests.image.engine import Engine, NotProved
from tests.image.proof import Proof
from tests.unit.dockerfile import ROOT, Dockerfile

TAG = f"scrapellm-relay:{__version__}"


def main() -> int:
    """Build, prove, and say what was shown."""
    parser = argparse.ArgumentParser(prog="make image", description=__doc__)
    parser.add_argument("--stand-in", action="store_true", help="do not try to pull the base")
    parser.add_argument("--in-own-namespace", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="scrapellm-relay-image-") as folder:
            if options.in_own_namespace:
                _with_stand_in(Path(folder))
                return 0
            engine = None if options.stand_in else _engine()
            if engine is not None:
                _with_base(engine, Path(folder))
                return 0
        stand_in.check()
    except (NotProved, AssertionError) as error:
        sys.stderr.write(f"make image: {error}\n")
        return 1
    return _in_own_namespace()


def _engine() -> Engine | None:
    """An engine that has the base or can pull it; None where there is none, and then says why."""
    engine = Engine.find()
    if engine is None:
        _tell("no container engine answers: a stand-in takes the place of the base")
    elif not engine.can_have(Dockerfile.read().base):
        _tell(f"{engine.name} cannot pull the base: a stand-in takes its place")
        return None
    return engine


def _in_own_namespace() -> NoReturn:
    """Become the same program in a mount namespace of its own: what is mounted for it goes with it."""
    unshare = shutil.which("unshare") or "unshare"
    again = [unshare, "--mount", sys.executable, "-m", "tests.image", "--in-own-namespace"]
    sys.stdout.flush()
    os.execv(unshare, again)  # noqa: S606 - our own command, without a shell


def _with_base(engine: Engine, folder: Path) -> None:
    _build(engine)
    asyncio.run(Proof(engine, TAG, _tell).run(folder))
    _tell(f"{TAG} is proved, and there to be used")


def _with_stand_in(folder: Path) -> None:
    began_s, base = time.monotonic(), Dockerfile.read().base
    podman = stand_in.engine(folder)
    try:
        options = stand_in.prepare(podman, folder, base)
        _tell(f"made a stand-in for {base.partition('@')[0]} in {time.monotonic() - began_s:.0f} s")
        _build(podman, *options)
        asyncio.run(Proof(podman, TAG, _tell).run(folder))
    finally:
        stand_in.clear(podman, folder)
    _tell("the Dockerfile is proved; without its base, no image was kept")


def _build(engine: Engine, *options: str) -> None:
    began_s = time.monotonic()
    engine.build(TAG, *options, "--build-arg", f"REVISION={_revision()}")
    _tell(f"{engine.name} built it in {time.monotonic() - began_s:.0f} s")


def _revision() -> str:
    """The commit that is built; empty where that is not known."""
    git = shutil.which("git")
    if git is None:
        return ""
    command = [git, "-C", str(ROOT), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603 - our own


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
