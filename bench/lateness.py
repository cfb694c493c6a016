"""How late callbacks come: from the upstream's outcome to their first byte at the receiver.

Two parts: until the poll that finds the outcome, which is the schedule's, and from there on, which is the relay's own.
"""

import json
from collections.abc import Sequence
from urllib.parse import urlsplit

from bench.findings import Findings, Target, median, rank
from bench.rig import Rig, run_program, scratch
from tests.processes import API_KEY

_RATES, _ROUNDS, _SECONDS = (100, 500), 2, 7.0
_LATENCY_S = (3.0, 6.0)


async def _measure(rig: Rig, per_s: int, seconds: float) -> tuple[list[float], list[float]]:
    """Polling's part and the relay's, of each job of one load."""
    before = await rig.sunk("counts")
    known = (await rig.seen_upstream("ends")).keys()
    port = urlsplit(rig.relay_url).port
    arguments = (port, API_KEY, rig.callback_url, "--seconds", seconds, "--per-s", per_s, "--latency", *_LATENCY_S)
    loaded = json.loads(await run_program("bench.load", *arguments, log=rig.folder / "load.log"))
    assert not loaded["refused"], loaded["first_refusal"]
    await rig.callbacks(before["callbacks"] + loaded["answered"], 60)
    ends, came = await rig.seen_upstream("ends"), await rig.sunk("came")
    fresh = [prompt for prompt in ends if prompt not in known]
    return [ends[p][1] - ends[p][0] for p in fresh], [came[p] - ends[p][1] for p in fresh]


def _ranks(rounds: Sequence[Sequence[float]]) -> dict[str, float]:
    """The middle rounds' ranks, in milliseconds."""
    return {f"p{share * 100:g}_ms": median([rank(late_s, share) * 1000 for late_s in rounds]) for share in (0.5, 0.99)}


async def run(rates: Sequence[int] = _RATES) -> Findings:
    """Each rate."""
    rows: list[Sequence[str]] = []
    figures = {}
    with scratch() as folder:
        async with Rig(folder).running() as rig:
            # The schedule learns meanwhile.
            await _measure(rig, 50, 8.0)
            for per_s in rates:
                rounds = [await _measure(rig, per_s, _SECONDS) for _ in range(_ROUNDS)]
                parts = {
                    "polling": [polling for polling, _ in rounds],
                    "relay": [relay for _, relay in rounds],
                    "both": [[a + b for a, b in zip(*one, strict=True)] for one in rounds],
                }
                found = {name: _ranks(values) for name, values in parts.items()}
                figures[str(per_s)] = found
                rows.append((str(per_s), *(f"{ms:.0f}" for part in found.values() for ms in part.values())))
    relay, name = figures[str(rates[0])]["relay"], f"relay's part at {rates[0]} jobs/s"
    return Findings(
        "lateness: milliseconds from the outcome to the first byte of the callback",
        ("jobs/s", "polling p50", "p99", "relay p50", "p99", "both p50", "p99"),
        rows,
        figures,
        [
            Target(f"{name}, p50", relay["p50_ms"], at_most=50, unit=" ms"),
            Target(f"{name}, p99", relay["p99_ms"], at_most=250, unit=" ms"),
        ],
    )
