"""`python -m bench [NAME...]`: measure. Ratios within one run are what counts; times are this machine's at this moment.

Without names all of them run, in about ten minutes on two cores.
"""

import argparse
import asyncio
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import accept, cost, lateness, peers, replay, scale, workers
from bench.findings import Findings

BENCHMARKS: Mapping[str, Callable[[], Coroutine[None, None, Findings]]] = {
    "cost": cost.run,
    "scale": scale.run,
    "accept": accept.run,
    "lateness": lateness.run,
    "workers": workers.run,
    "peers": peers.run,
    "polling": replay.run,
}
_PACKAGES = ("scrapellm-relay", "aiohttp", "arq", "celery", "hiredis", "msgspec", "redis", "structlog", "uvloop")


def machine() -> dict[str, Any]:
    """What it ran on, and with."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    processor = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "unknown"
    )
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory_bytes / 2**30, 1),
        "processor": processor,
        "kernel": platform.release(),
        "load": os.getloadavg()[0],
        "versions": versions,
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def main() -> None:
    """Run what is asked for, and print a table each."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all without one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    console = Console(width=140)
    found: dict[str, Any] = {"machine": machine()}
    on = found["machine"]
    console.print(
        f"{on['cores']} cores of {on['processor']}, {on['memory_gib']:g} GiB; Python {on['versions']['python']}; "
        f"load {on['load']:.1f} before it began"
    )
    for name in given.names or BENCHMARKS:
        began_s = time.monotonic()
        findings = asyncio.run(BENCHMARKS[name]())
        console.print(findings.table())
        console.print(f"({name} took {time.monotonic() - began_s:.0f} s)\n")
        found[name] = {
            "figures": findings.figures,
            "targets": {target.name: {"value": target.value, "met": target.is_met} for target in findings.targets},
        }
        if given.json is not None:
            given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
