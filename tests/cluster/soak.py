"""Scales, rolls, drains and loses relays, workers and the store under load, then draws up the account: `make soak`.

Exits 1 where a job is lost, a pod did not end in peace, or a call failed that nobody was to notice.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from tests.cluster.account import JOB_S, LEASE_S, check_pods, repeated, settle
from tests.cluster.cluster import Cluster
from tests.cluster.workload import NODES
from tests.faults.load import Load

PAUSE_S = (1.0, 4.0)
#: Longer than it takes three liveness probes to fail, 10 s apart: whoever asked the store would be started again.
STORE_DOWN_S = 45.0
#: A lost node's relays are led to for so long.
NOTICED_S = (0.0, 5.0)
#: What nobody may notice, drawn until none is left, and then what they may.
GRACEFUL = ("scale workers", "scale relays", "roll relays", "roll workers", "roll both")
ROUGH = ("lose a node", "lose the store", "lose a node")
CLIENTS = 6
CLIENT_PAUSE_S = 0.2


class Soak:
    """One run."""

    def __init__(self, cluster: Cluster, seed: int, tell: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._chance = random.Random(seed)
        self._tell = tell
        self._done: Counter[str] = Counter()
        self._acts: Mapping[str, Callable[[], Awaitable[object]]] = {
            "scale workers": lambda: cluster.worker.scale(self._other(cluster.worker.replicas)),
            "scale relays": lambda: cluster.relay.scale(self._other(cluster.relay.replicas)),
            "roll relays": cluster.relay.rollout,
            "roll workers": cluster.worker.rollout,
            "roll both": lambda: asyncio.gather(cluster.relay.rollout(), cluster.worker.rollout()),
            "lose a node": lambda: cluster.lose_node(self._chance.choice(NODES), self._chance.uniform(*NOTICED_S)),
            "lose the store": self._lose_the_store,
        }

    async def run(self, seconds: float, most_jobs: int) -> str:
        """Act for so long; returns the account. Raises AssertionError where it does not add up."""
        await self._cluster.start(relays=2, workers=2)
        load = Load(self._cluster, markers="[latency=0.5]")
        unnoticed = 0
        async with load.coming(CLIENTS, CLIENT_PAUSE_S, most_jobs):
            ends = time.monotonic() + seconds
            while time.monotonic() < ends:
                await self._cluster.is_led_to()
                before = len(self._cluster.unanswered), self._cluster.answers[503]
                for act in self._chance.sample(GRACEFUL, len(GRACEFUL)):
                    await self._act(act)
                after = len(self._cluster.unanswered), self._cluster.answers[503]
                assert after == before, f"calls failed: {self._cluster.unanswered[before[0] :]}"
                unnoticed += len(GRACEFUL)
                if time.monotonic() < ends:
                    for act in self._chance.sample(ROUGH, len(ROUGH)):
                        await self._act(act)
        submits = await settle(self._cluster, load, LEASE_S + JOB_S)
        check_pods(self._cluster)
        rows = {
            "jobs accepted": len(load.accepted),
            "callbacks repeated": len(repeated(self._cluster)),
            "submits repeated": submits.repeated,
            "submits ambiguous": submits.ambiguous,
            "calls without answer": len(self._cluster.unanswered),
            "calls answered 503": self._cluster.answers[503],
            "acts that no call noticed": unnoticed,
        }
        acts = ", ".join(f"{act} {count}" for act, count in sorted(self._done.items()))
        return "\n".join([acts, *(f"{name:<28}{value:>8}" for name, value in rows.items()), "It adds up."])

    async def _act(self, act: str) -> None:
        await asyncio.sleep(self._chance.uniform(*PAUSE_S))
        self._tell(act)
        self._done[act] += 1
        await self._acts[act]()

    def _other(self, replicas: int) -> int:
        return self._chance.choice([number for number in (1, 2, 3) if number != replicas])

    async def _lose_the_store(self) -> None:
        await self._cluster.store.lose()
        await asyncio.sleep(STORE_DOWN_S)
        await self._cluster.start_store_and_upstream()
        await asyncio.gather(self._cluster.relay.settle(), self._cluster.worker.settle())


async def soak(folder: Path, *, seed: int, seconds: float, most_jobs: int, tell: Callable[[str], None]) -> str:
    """One run from start to end, with its data in `folder`; returns the account."""
    async with Cluster(folder).running() as cluster:
        return await Soak(cluster, seed, tell).run(seconds, most_jobs)


def main(arguments: Sequence[str]) -> int:
    """Run it from the command line; 0 where the account adds up."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long things happen (default: 5)")
    parser.add_argument("--jobs", type=int, default=50_000, help="the most jobs there are (default: 50000)")
    parser.add_argument("--seed", type=int, default=None, help="what chance begins with (default: another each time)")
    asked = parser.parse_args(arguments)
    seed = asked.seed if asked.seed is not None else random.SystemRandom().randrange(1_000_000)

    def tell(line: str) -> None:
        sys.stderr.write(f"{line}\n")

    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        run = soak(Path(folder), seed=seed, seconds=asked.minutes * 60, most_jobs=asked.jobs, tell=tell)
        account = ""
        try:
            account = asyncio.run(run)
        # Whatever of the run noticed it, clients among them.
        except* AssertionError as wrong:
            account = f"WRONG: {wrong.exceptions}"
    sys.stdout.write(f"seed {seed}; {account}\n")
    return int(account.startswith("WRONG"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
