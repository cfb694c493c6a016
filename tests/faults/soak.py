"""Kills workers, relay and store at random under a load of jobs, then draws up the account: `make soak`.

Exits 1 where the account does not add up.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.account import QUICK, UPSTREAM, Submits, submits_of
from tests.faults.load import Load
from tests.processes import Service, System

#: Between two kills: long enough for work to be done, and short enough to hit it under way.
PAUSE_S = (0.3, 3.0)
STORE_DOWN_S = (0.2, 3.0)
#: After the last kill: leases, schedules, and what has piled up.
SETTLE_S = 30.0
#: Ten kills: drawn until none is left, and then again, so that a short run has some of each.
BAG = ("worker",) * 6 + ("relay",) * 2 + ("store",) * 2
#: Together about 4,000 jobs a minute, of which one in forty ends as a dead letter.
CLIENTS = 8
CLIENT_PAUSE_S = 0.1
BAD_PAUSE_S = 0.6
SETTINGS = QUICK | {
    # So long that kills alone exhaust none, and so short that what has no receiver ends with the run.
    "RELAY_CALLBACK_SCHEDULE": "0" + ",0.5" * 7,
    "RELAY_DESTINATION_CLOSES_AFTER": "0",
}


@dataclass
class Account:
    """What was accepted and what became of it."""

    seed: int
    kills: Counter[str]
    #: The ids of accepted jobs.
    accepted: frozenset[str]
    #: Status and delivery of each job that the relay knows.
    found: dict[str, tuple[str, str]]
    #: How often each event came, and in how many variants.
    arrived: Counter[str]
    variants: int
    unverified: int
    #: Keys that named two jobs.
    changed: int
    submits: Submits
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        outcomes = {job for job, (status, _) in self.found.items() if status in ("done", "failed", "timed_out")}
        delivered = {job for job, (_, delivery) in self.found.items() if delivery == "delivered"}
        dead = {job for job, (_, delivery) in self.found.items() if delivery == "exhausted"}
        announced = {event.removeprefix("msg_") for event in self.arrived}
        self.lines = {
            "jobs accepted": len(self.accepted),
            "jobs with an outcome": len(outcomes),
            "callbacks delivered": len(delivered),
            "dead letters": len(dead),
            "duplicate callbacks": sum(self.arrived[f"msg_{job}"] - 1 for job in delivered),
            "submits": self.submits.taken,
            "submits repeated": self.submits.repeated,
            "submits ambiguous": self.submits.ambiguous,
        }
        self._check("a job was accepted and is not there", self.accepted <= set(self.found))
        self._check("a job is there that nobody was promised", set(self.found) <= self.accepted)
        self._check("a job has no outcome", outcomes == set(self.found))
        self._check("outcomes are not callbacks and dead letters", delivered | dead == outcomes)
        self._check("a delivered callback did not arrive", delivered <= announced)
        self._check("a callback came for an unknown job", announced <= self.accepted)
        self._check("an event has two bodies", self.variants == len(self.arrived))
        self._check("a signature is not good", self.unverified == 0)
        self._check("an idempotency key named two jobs", self.changed == 0)
        self._check("submits are missing", self.submits.taken - self.submits.repeated == len(self.found))
        self._check("more was paid twice than is counted", self.submits.repeated <= self.submits.ambiguous)

    def _check(self, problem: str, holds: bool) -> None:
        if not holds:
            self.problems.append(problem)

    def __str__(self) -> str:
        killed = ", ".join(f"{name} {count}" for name, count in sorted(self.kills.items()))
        rows = [f"{name:<24}{value:>8}" for name, value in self.lines.items()]
        verdict = [f"WRONG: {problem}" for problem in self.problems] or ["It adds up."]
        return "\n".join([f"seed {self.seed}; killed: {killed or 'nothing'}", *rows, *verdict])


class Soak:
    """One run."""

    def __init__(self, system: System, seed: int, tell: Callable[[str], None]) -> None:
        self._system = system
        self._seed = seed
        self._chance = random.Random(seed)
        self._tell = tell
        self._kills: Counter[str] = Counter()
        self._bag: list[str] = []
        self._workers: list[Service] = [system.worker, system.another_worker()]

    async def run(self, seconds: float, most_jobs: int, settle_s: float) -> Account:
        """Kill for so long, have everything settle, and draw up the account. Raises TimeoutError."""
        await self._workers[1].start()
        ends = time.monotonic() + seconds
        good = Load(self._system, path="/slow/0.1", markers="[latency=0.5]")
        # Answers 503 each time: its callbacks end as dead letters.
        bad = Load(self._system, path="/fail/503", markers="[latency=0.5]", prefix="bad")
        async with good.coming(CLIENTS, CLIENT_PAUSE_S, most_jobs), bad.coming(1, BAD_PAUSE_S, most_jobs):
            while time.monotonic() < ends:
                await asyncio.sleep(self._chance.uniform(*PAUSE_S))
                await self._kill(self._drawn())
        accepted = frozenset({*good.accepted.values(), *bad.accepted.values()})
        self._tell(f"{len(accepted)} jobs accepted; waiting for the rest")
        async with asyncio.timeout(settle_s):
            while not all(_is_ended(*state) for state in (await self._found()).values()):
                await asyncio.sleep(1)
        received = self._system.inbox.received
        return Account(
            seed=self._seed,
            kills=self._kills,
            accepted=accepted,
            found=await self._found(),
            arrived=Counter(one.webhook_id for one in received),
            variants=len({(one.webhook_id, one.raw) for one in received}),
            unverified=sum(not one.verified for one in received),
            changed=len(good.changed) + len(bad.changed),
            submits=await submits_of(self._system),
        )

    def _drawn(self) -> str:
        if not self._bag:
            self._bag = self._chance.sample(BAG, len(BAG))
        return self._bag.pop()

    async def _kill(self, what: str) -> None:
        self._kills[what] += 1
        self._tell(f"kill {sum(self._kills.values())}: {what}")
        match what:
            case "worker":
                await self._again(self._chance.choice(self._workers))
            case "relay":
                await self._again(self._system.relay)
            case _:
                await self._restart_store()

    async def _again(self, service: Service) -> None:
        await service.kill()
        await service.start()

    async def _restart_store(self) -> None:
        self._system.store.kill()
        await asyncio.sleep(self._chance.uniform(*STORE_DOWN_S))
        await asyncio.to_thread(self._system.store.start)

    async def _found(self) -> dict[str, tuple[str, str]]:
        found: dict[str, tuple[str, str]] = {}
        query = {"limit": "200"}
        while True:
            async with self._system.http.get("/v1/jobs", params=query) as response:
                page = await response.json()
            if response.status != 200:
                raise RuntimeError(page)
            found |= {job["id"]: (job["status"], job["delivery"]["status"]) for job in page["data"]}
            if not page.get("next_cursor"):
                return found
            query["cursor"] = page["next_cursor"]


def _is_ended(status: str, delivery: str) -> bool:
    return status not in ("queued", "pending") and delivery not in ("waiting", "pending", "retrying")


async def soak(folder: Path, *, seed: int, seconds: float, most_jobs: int, tell: Callable[[str], None]) -> Account:
    """One run from start to end, with its data in `folder`. Raises TimeoutError where it does not settle."""
    system = System(folder, SETTINGS, UPSTREAM)
    # With everysec a crash may take back the last second, and a job whose outcome was in it ends twice.
    system.store.appendfsync = "always"
    async with system.running():
        return await Soak(system, seed, tell).run(seconds, most_jobs, SETTLE_S + seconds / 10)


def main(arguments: Sequence[str]) -> int:
    """Run it from the command line; 0 where the account adds up."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long there are kills (default: 10)")
    parser.add_argument("--jobs", type=int, default=50_000, help="the most jobs there are (default: 50000)")
    parser.add_argument("--seed", type=int, default=None, help="what chance begins with (default: another each time)")
    asked = parser.parse_args(arguments)
    seed = asked.seed if asked.seed is not None else random.SystemRandom().randrange(1_000_000)

    def tell(line: str) -> None:
        sys.stderr.write(f"{line}\n")

    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        run = soak(Path(folder), seed=seed, seconds=asked.minutes * 60, most_jobs=asked.jobs, tell=tell)
        account = asyncio.run(run)
    sys.stdout.write(f"{account}\n")
    return 1 if account.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
