"""Building where no registry of images can be reached: a base made of Debian's own packages stands in for the real one.

It is of the same Debian and the same Python; only pip's own configuration, and apt's, say where packages come from.
What is built on it proves the Dockerfile and is thrown away. Alone knows what podman needs to run where few rights are.
"""

import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.image.engine import Engine, NotProved
from tests.unit.dockerfile import ROOT

BASE = "localhost/stand-in:base"
_NEEDED = ("apt-get", "crun", "debootstrap", "mount", "podman", "tar", "umount", "unshare")
_PACKAGES = "ca-certificates,python-is-python3,python3-pip"
_WITHIN_S = 900
_HYBRID = Path("/sys/fs/cgroup/unified")


def check() -> None:
    """Raise NotProved where this cannot be tried, with what is missing."""
    missing = [name for name in _NEEDED if shutil.which(name) is None]
    if missing:
        raise NotProved(
            f"a stand-in for the base takes Debian with {', '.join(_NEEDED)}; missing: {', '.join(missing)}"
        )
    if os.geteuid() != 0:
        raise NotProved("a stand-in for the base can be made by root only")


def release(base: str) -> tuple[str, str]:
    """The Python and the Debian of a base such as `python:3.13.1-slim-trixie`. Raises NotProved for another kind."""
    named = re.match(r"python:(3\.\d+)[0-9.]*-slim-([a-z]+)", base)
    if named is None:
        raise NotProved(f"there is no stand-in for {base}")
    return named[1], named[2]


def engine(folder: Path) -> Engine:
    """Podman with a storage of its own in `folder`. To be called in a mount namespace of its own."""
    if _HYBRID.is_dir():
        # crun knows the two kinds of control groups, and not both at once.
        _call("umount", "--lazy", "--recursive", "/sys/fs/cgroup")
        _call("mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
    configuration = folder / "containers.conf"
    # Not more than this process may have: raising limits is a right that it may lack.
    limits = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
    hard = {name: min(resource.getrlimit(number)[1] % 2**63, 4096) for name, number in limits.items()}
    lines = ", ".join(f'"{name}={limit}:{limit}"' for name, limit in hard.items())
    configuration.write_text(f'[containers]\ncgroups = "disabled"\ndefault_ulimits = [{lines}]\n')
    os.environ["CONTAINERS_CONF"] = str(configuration)
    own = ["--root", str(folder / "storage"), "--runroot", str(folder / "run")]
    return Engine("podman", ["podman", *own, "--cgroup-manager", "cgroupfs", "--events-backend", "none"])


def prepare(podman: Engine, folder: Path, base: str) -> Sequence[str]:
    """Make the stand-in of `base` and fetch the packages; returns the options of the build. Raises NotProved."""
    python, suite = release(base)
    root, wheels = folder / "root", folder / "wheels"
    _call("debootstrap", "--variant=minbase", f"--include={_PACKAGES}", suite, str(root), _mirror())
    _call("tar", "--directory", str(root), "--create", "--file", str(folder / "root.tar"), ".")
    shutil.rmtree(root)
    podman.call("import", "--quiet", str(folder / "root.tar"), BASE, within_s=_WITHIN_S)
    _call(
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--require-hashes", "--no-deps", "--only-binary", ":all:", "--python-version", python),
        *(
            "--requirement",
            str(ROOT / "requirements/build.txt"),
            "--requirement",
            str(ROOT / "requirements/runtime.txt"),
        ),
        *("--dest", str(wheels)),
    )
    # As an operator's own configuration of pip would be there: the Dockerfile is none the wiser.
    (folder / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    return [
        *("--build-arg", f"BASE={BASE}", "--isolation", "chroot", "--network", "host"),
        *("--volume", f"{wheels}:/wheels:ro", "--volume", f"{folder / 'pip.conf'}:/etc/pip.conf:ro"),
    ]


def clear(podman: Engine, folder: Path) -> None:
    """Remove the storage, which has mounts of its own, so that `folder` can be removed."""
    podman.call("rmi", "--all", "--force")
    storage = folder / "storage" / "overlay"
    if os.path.ismount(storage):
        _call("umount", str(storage))


def _mirror() -> str:
    """Where this machine's apt has Debian's packages from."""
    lines = _call("apt-get", "indextargets", "--format", "$(REPO_URI)", "Origin: Debian", "Label: Debian").splitlines()
    if not lines:
        raise NotProved("apt knows no source of Debian's packages here")
    return lines[0]


def _call(*command: str) -> str:
    done = subprocess.run(  # noqa: S603 - our own commands, without a shell
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=_WITHIN_S
    )
    if done.returncode != 0:
        raise NotProved(f"{command[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout
