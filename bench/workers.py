"""One worker process and two: what each gets done, and that no job is done twice."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.findings import Findings, Target, median, spread
from bench.rig import Rig, cpu_s, scratch

_JOBS, _ROUNDS, _LATENCY_S = 4_000, 3, 1.0
_COUNTS = (1, 2)
#: Two polls for each job, at once.
_SETTINGS = {"RELAY_POLL_STRATEGY": "fixed", "RELAY_POLL_INTERVAL_S": "1"}


async def _round(rig: Rig, number: int) -> tuple[float, float]:
    """Jobs in a second, and jobs in a second of the workers' CPU time."""
    cpu, began_s = cpu_s(rig.worker_pids()), time.monotonic()
    await rig.relayed([f"[latency={_LATENCY_S}] workers {number} {n}" for n in range(_JOBS)])
    return _JOBS / (time.monotonic() - began_s), _JOBS / (cpu_s(rig.worker_pids()) - cpu)


async def _measure(folder: Path, count: int) -> tuple[list[tuple[float, float]], int]:
    async with Rig(folder, _SETTINGS, workers=count).running() as rig:
        await rig.relayed([f"[latency=1] warm {n}" for n in range(500)])
        rounds = [await _round(rig, number) for number in range(_ROUNDS)]
        twice = (await rig.seen_upstream("counts"))["repeated"] + (await rig.sunk("counts"))["repeated"]
    return rounds, twice


async def run(counts: Sequence[int] = _COUNTS) -> Findings:
    """Each number of workers."""
    rows: list[Sequence[str]] = []
    figures: dict[str, Any] = {}
    with scratch() as folder:
        for count in counts:
            rounds, twice = await _measure(folder / str(count), count)
            walls, cpus = [wall for wall, _ in rounds], [cpu for _, cpu in rounds]
            rows.append((str(count), spread(walls, 0), f"{median(walls) / count:.0f}", spread(cpus, 0), str(twice)))
            figures[str(count)] = {"jobs_per_s": walls, "jobs_per_cpu_s": cpus, "done_twice": twice}
    ratio = median(figures["2"]["jobs_per_cpu_s"]) / median(figures["1"]["jobs_per_cpu_s"]) if "2" in figures else 1.0
    return Findings(
        f"workers: {_JOBS:,} jobs at once of {_LATENCY_S:g} s, two polls each",
        ("workers", "jobs/s", "of each", "jobs per CPU second", "done twice"),
        rows,
        figures | {"ratio_per_cpu_s": ratio},
        [Target("jobs done twice", sum(figures[str(count)]["done_twice"] for count in counts), at_most=0)],
        [f"Two workers get {ratio:.2f} times as much done in a second of CPU time as one."],
    )
