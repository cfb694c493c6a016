"""What one relayed job costs in CPU time, against a plain script that does the same and keeps nothing.

Both poll as often, against the same upstream and sink, turn by turn; the ratio is what counts. The script is one
process; of the relay's three the worker does the same work, the HTTP service accepts, and the store keeps.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from bench.findings import Findings, Target, median, spread
from bench.rig import Rig, cpu_s, pid_of, run_program, scratch

_LATENCY_S, POLL_S = 10.0, 3.0
#: Jobs at once, and how often each way is measured.
_SIZES: Mapping[int, int] = {3_000: 3, 10_000: 2}
#: Both ways may poll whenever the time has come.
SETTINGS = {"RELAY_POLL_STRATEGY": "fixed", "RELAY_POLL_INTERVAL_S": f"{POLL_S}"}


@dataclass(frozen=True, slots=True)
class Used:
    """What one run took for each job."""

    cpu_ms: float
    #: The relay's HTTP service, and the store: beside the worker.
    service_ms: float
    store_ms: float
    polls: float


async def measure_relay(rig: Rig, jobs: int, latency_s: float = _LATENCY_S) -> Used:
    """The workers, while they relay a batch."""
    watched = (rig.worker_pids(), [pid_of(rig.relay)], [rig.store.pid()])
    polls, before = (await rig.seen_upstream("counts"))["polls"], [cpu_s(pids) for pids in watched]
    await rig.relayed([f"[latency={latency_s}] relay {polls} {n}" for n in range(jobs)])
    worker, service, store = ((cpu_s(pids) - was) / jobs * 1000 for pids, was in zip(watched, before, strict=True))
    return Used(worker, service, store, ((await rig.seen_upstream("counts"))["polls"] - polls) / jobs)


async def measure_script(rig: Rig, jobs: int, latency_s: float = _LATENCY_S) -> Used:
    """The plain script, in a process of its own."""
    arguments = (rig.upstream_url, rig.callback_url, rig.secret, jobs, latency_s, POLL_S)
    used = json.loads(await run_program("bench.plain_script", *arguments, log=rig.folder / "script.log"))
    return Used(used["cpu_s"] / jobs * 1000, 0.0, 0.0, used["polls"] / jobs)


async def run(sizes: Mapping[int, int] = _SIZES) -> Findings:
    """Warm up, then measure both ways by turns."""
    rows: list[Sequence[str]] = []
    targets: list[Target] = []
    figures = {}
    with scratch() as folder:
        async with Rig(folder, SETTINGS).running() as rig:
            await measure_relay(rig, 500, 1.0)
            await measure_script(rig, 500, 1.0)
            for jobs, rounds in sizes.items():
                scripts, relays = [], []
                for _ in range(rounds):
                    scripts.append(await measure_script(rig, jobs))
                    relays.append(await measure_relay(rig, jobs))
                ratios = [r.cpu_ms / s.cpu_ms for r, s in zip(relays, scripts, strict=True)]
                rows += [
                    _row(jobs, "plain script, nothing kept", scripts, "1"),
                    _row(jobs, "scrapellm-relay, its worker", relays, spread(ratios)),
                ]
                targets.append(Target(f"{jobs:,} jobs, relay/script", median(ratios), at_most=1.0))
                figures[str(jobs)] = {
                    "script": [asdict(used) for used in scripts],
                    "relay": [asdict(used) for used in relays],
                    "ratios": ratios,
                }
    return Findings(
        f"cost: CPU for each job of {_LATENCY_S:g} s, polled every {POLL_S:g} s",
        ("jobs at once", "way", "CPU ms", "ratio", "polls", "CPU ms a request", "service ms", "store ms"),
        rows,
        figures,
        targets,
    )


def _row(jobs: int, way: str, runs: Sequence[Used], ratio: str) -> Sequence[str]:
    return (
        *(f"{jobs:,}", way, f"{median([used.cpu_ms for used in runs]):.2f}", ratio),
        f"{median([used.polls for used in runs]):.2f}",
        # A submit, the polls, a callback: where one way was late with its polls, it made fewer.
        f"{median([used.cpu_ms / (used.polls + 2) for used in runs]):.3f}",
        f"{median([used.service_ms for used in runs]):.2f}",
        f"{median([used.store_ms for used in runs]):.2f}",
    )
