"""`make bench`: what one relayed job costs in CPU time, against a plain script that does the same and keeps nothing.

Both poll as often, against the same emulator and inbox, in one run; the ratio is what counts. The script is one
process; of the relay's three the worker does the same work, the HTTP service accepts, and the store keeps.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.processes import System

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Measured:
    """One way of doing the work."""

    way: str
    cpu_ms_per_job: float
    #: What the HTTP service and the store took besides.
    beside_ms_per_job: float
    polls_per_job: float
    wall_s: float


def cpu_s(pid: int) -> float:
    """CPU time that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


async def measure_relay(system: System, jobs: int, latency_s: float) -> Measured:
    """The worker, while it relays a batch."""
    assert system.worker.process is not None
    assert system.relay.process is not None
    pid = system.worker.process.pid
    others = (system.relay.process.pid, system.store.pid())
    polls, cpu, began = (await system.emulated())["polls"], cpu_s(pid), time.monotonic()
    beside = sum(map(cpu_s, others))
    expected = len(system.webhook_ids()) + jobs
    body = {
        "callback_url": f"{system.inbox_url}/hook",
        "callback_events": ["job.completed", "job.failed"],
        "scrapers": ["chatgpt"],
        "prompts": [f"[latency={latency_s}] relay {began} {n}" for n in range(jobs)],
    }
    status, answer = await system.call("POST", "/v1/batches", body)
    assert status == 202, answer
    await system.callbacks(expected, 60 + jobs / 20)
    wall_s = time.monotonic() - began
    polls = (await system.emulated())["polls"] - polls
    beside = sum(map(cpu_s, others)) - beside
    return Measured(
        "scrapellm-relay's worker, durable",
        (cpu_s(pid) - cpu) / jobs * 1000,
        beside / jobs * 1000,
        polls / jobs,
        wall_s,
    )


async def measure_script(system: System, jobs: int, latency_s: float, poll_s: float) -> Measured:
    """The plain script, in a process of its own."""
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.plain_script", system.emulator_url, f"{system.inbox_url}/hook"),
        *(system.secret, str(jobs), str(latency_s), str(poll_s)),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    used = json.loads(out)
    return Measured(
        "plain script, nothing kept", used["cpu_s"] / jobs * 1000, 0.0, used["polls"] / jobs, time.monotonic() - began
    )


async def run(jobs: int, latency_s: float, poll_s: float) -> list[Measured]:
    """Warm up, then measure both ways."""
    settings = {"RELAY_POLL_INTERVAL_S": str(poll_s), "RELAY_CALLBACK_CONCURRENCY": "250"}
    with tempfile.TemporaryDirectory() as folder:
        system = System(Path(folder), settings, {"EMULATOR_FAILURE_RATE": "0"})
        async with system.running():
            await measure_relay(system, max(1, jobs // 10), latency_s)
            return [await measure_script(system, jobs, latency_s, poll_s), await measure_relay(system, jobs, latency_s)]


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2_000)
    parser.add_argument("--latency", type=float, default=5.0, help="seconds that the upstream takes for each")
    parser.add_argument("--poll", type=float, default=1.0, help="seconds between two polls")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    measured = asyncio.run(run(given.jobs, given.latency, given.poll))
    base = measured[0]
    if given.json:
        print(
            json.dumps(
                [
                    {
                        "way": m.way,
                        "cpu_ms_per_job": m.cpu_ms_per_job,
                        "beside_ms_per_job": m.beside_ms_per_job,
                        "polls_per_job": m.polls_per_job,
                    }
                    for m in measured
                ]
            )
        )
        return
    table = Table(
        *("way", "CPU ms per job", "ratio", "service and store", "polls per job", "wall s"),
        title=f"{given.jobs} jobs of {given.latency:g} s",
    )
    for m in measured:
        ratio = m.cpu_ms_per_job / base.cpu_ms_per_job
        table.add_row(
            *(m.way, f"{m.cpu_ms_per_job:.2f}", f"{ratio:.2f}", f"{m.beside_ms_per_job:.2f}"),
            *(f"{m.polls_per_job:.1f}", f"{m.wall_s:.1f}"),
        )
    Console().print(table)


if __name__ == "__main__":
    main()
