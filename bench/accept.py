"""How many jobs a second the service accepts, against a bare aiohttp handler that makes one trip to the store.

The same load generator asks both, by turns, on as many connections. No worker runs. Batches are timed to their 202.
"""

import json
from dataclasses import dataclass
from urllib.parse import urlsplit

from bench.findings import Findings, Target, median, spread
from bench.rig import Rig, cpu_s, pid_of, run_program, scratch
from tests.processes import API_KEY, Service, free_port

_ROUNDS, _ROUND_S, _CONNECTIONS = 5, 3.0, 32
_BATCH, _BATCHES = 10_000, 5


@dataclass(frozen=True, slots=True)
class Loaded:
    """One round."""

    per_s: float
    p99_ms: float
    #: CPU of the process that answers, for each request.
    cpu_ms: float


async def _load(rig: Rig, service: Service, port: int, seconds: float = _ROUND_S) -> Loaded:
    before = cpu_s(pid_of(service))
    arguments = (port, API_KEY, rig.callback_url, "--seconds", seconds, "--connections", _CONNECTIONS)
    found = json.loads(await run_program("bench.load", *arguments, log=rig.folder / "load.log"))
    assert not found["refused"], found["first_refusal"]
    return Loaded(found["per_s"], found["p99_s"] * 1000, (cpu_s(pid_of(service)) - before) / found["answered"] * 1000)


async def run() -> Findings:
    """Both by turns, then batches."""
    with scratch() as folder:
        rig = Rig(folder)
        port, relay_port = free_port(), urlsplit(rig.relay_url).port or 0
        bare = rig.service("bare", ["bench.bare", str(port), rig.store.url], f"http://127.0.0.1:{port}/ready")
        async with rig.running(rig.relay, bare):
            await _load(rig, bare, port, 1.0)
            await _load(rig, rig.relay, relay_port, 1.0)
            bares, relays = [], []
            for _ in range(_ROUNDS):
                bares.append(await _load(rig, bare, port))
                relays.append(await _load(rig, rig.relay, relay_port))
            seconds = [
                await rig.accept([f"batch {n} {i} ".ljust(200, "x") for i in range(_BATCH)]) for n in range(_BATCHES)
            ]
    ratios = [mine.per_s / theirs.per_s for mine, theirs in zip(relays, bares, strict=True)]
    tails = [mine.p99_ms / theirs.p99_ms for mine, theirs in zip(relays, bares, strict=True)]
    per_s = [_BATCH / took for took in seconds]
    rows = [
        (
            *(name, f"{median([r.per_s for r in rounds]):.0f}", ratio, f"{median([r.cpu_ms for r in rounds]):.3f}"),
            *(f"{median([r.p99_ms for r in rounds]):.1f}", tail),
        )
        for name, rounds, ratio, tail in (
            ("bare handler, one SET", bares, "1", "1"),
            ("POST /v1/jobs", relays, spread(ratios), spread(tails)),
        )
    ]
    rows.append((f"batches of {_BATCH:,}", f"{median(per_s):.0f}", "", "", "", ""))
    return Findings(
        f"accept: jobs a second, {_CONNECTIONS} connections; a batch is timed to its 202",
        ("way", "jobs/s", "ratio", "CPU ms/job", "p99 ms", "ratio"),
        rows,
        {
            "bare_per_s": [r.per_s for r in bares],
            "relay_per_s": [r.per_s for r in relays],
            "ratios": ratios,
            "bare_p99_ms": [r.p99_ms for r in bares],
            "relay_p99_ms": [r.p99_ms for r in relays],
            "batch_jobs_per_s": per_s,
        },
        [
            Target("accepted by relay/bare", median(ratios), at_least=0.6),
            Target("a batch's jobs in a second", median(per_s), at_least=10_000),
        ],
    )
