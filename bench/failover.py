"""`python -m bench.failover`: what a failover loses of what was accepted, by how long a 202 waits.

The master of a pair is killed while jobs come in, several times for each setting: with a replica in step, as on one
machine, and with one that hears everything a while later, as over a busy network. Sentinels promote the replica; the
old master comes back then, as its replica. What is counted is read when all that is known has ended.
"""

import argparse
import asyncio
import contextlib
import itertools
import statistics
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import redis.asyncio as redis
from rich.console import Console
from rich.table import Table

from tests.faults.sentinels import SERVICE, Cluster
from tests.processes import System, eventually, until

COMMON = {
    "RELAY_LEASE_S": "5",
    "RELAY_POLL_INTERVAL_S": "0.5",
    "RELAY_POLL_MIN_INTERVAL_S": "0.2",
    "RELAY_STORE_TIMEOUT_S": "3",
    "RELAY_CALLBACK_SCHEDULE": "0,0.5,0.5,0.5,0.5,0.5",
}
SETTINGS: Mapping[str, Mapping[str, str]] = {
    "normal": {},
    "strict": {"RELAY_DURABILITY": "strict"},
    "strict, 1 replica": {"RELAY_DURABILITY": "strict", "RELAY_DURABLE_REPLICAS": "1"},
}
#: Asking before the kill, and after 202s are back.
_BEFORE_S, _AFTER_S = 2.0, 2.0
#: How long the replica lags before the kill. The Sentinels put it back where it belongs after 5 s.
_LAGS_S = 2.0
_FAILOVER_S = 30.0
_SETTLE_S = 60.0
_CALL_S = 15.0


@dataclass
class LateLine:
    """A line to the master on which what it says takes a while; what is under way when it dies is lost."""

    master: int
    lag_s: float = 0.0
    port: int = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["LateLine"]:
        """The line, while it is there."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            master, to_master = await asyncio.open_connection("127.0.0.1", self.master)
        except OSError:
            writer.transport.abort()
            return
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        async def ask() -> None:
            while data := await reader.read(65_536):
                to_master.write(data)
                await to_master.drain()

        async def listen() -> None:
            while data := await master.read(65_536):
                under_way.put_nowait((loop.time() + self.lag_s, data))

        async def say() -> None:
            while True:
                at, data = await under_way.get()
                await asyncio.sleep(at - loop.time())
                writer.write(data)
                await writer.drain()

        ends = [asyncio.create_task(one) for one in (ask(), listen(), say())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
            writer.transport.abort()
            to_master.transport.abort()


@dataclass
class Asking:
    """Clients that ask for jobs at a steady rate, each once."""

    system: System
    per_s: float
    #: When each accepted job was, by its id.
    accepted: dict[str, float] = field(default_factory=dict)
    #: How long each 202 took.
    took_s: list[float] = field(default_factory=list)
    _noted_from: float = 0.0

    def note_from_now(self) -> None:
        """Take down how long a 202 takes for those that are asked from now on."""
        self.took_s.clear()
        self._noted_from = asyncio.get_running_loop().time()

    @contextlib.asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """While this lasts, they ask; all have their answers at the end."""
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:

            async def ask() -> None:
                loop = asyncio.get_running_loop()
                began = loop.time()
                for number in itertools.count():
                    await asyncio.sleep(began + number / self.per_s - loop.time())
                    if over.is_set():
                        return
                    group.create_task(self._one(number))

            group.create_task(ask())
            try:
                yield
            finally:
                over.set()

    async def _one(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        prompt, url = f"[latency=0.5] failover {number}", f"{self.system.inbox_url}/hook"
        body = {"scraper": "chatgpt", "prompt": prompt, "callback_url": url}
        try:
            async with asyncio.timeout(_CALL_S):
                status, answer = await self.system.call("POST", "/v1/jobs", body)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return
        if status == 202:
            self.accepted[answer["id"]] = loop.time()
            if began >= self._noted_from:
                self.took_s.append(loop.time() - began)
        else:
            assert status == 503, answer

    def longest_gap_s(self) -> float:
        """The longest time between two 202s."""
        return max(after - before for before, after in itertools.pairwise(sorted(self.accepted.values())))


@dataclass(frozen=True, slots=True)
class Counted:
    """One kill."""

    accepted: int
    accept_ms: float
    lost: int
    #: Of those that were lost: their callbacks had come before.
    lost_after_callback: int
    gap_s: float
    callbacks_repeated: int
    submits_repeated: int


async def one_kill(folder: Path, settings: Mapping[str, str], lag_s: float, per_s: float, moment_s: float) -> Counted:
    """Start everything, kill the master under load, and count. `moment_s` moves the kill within the second."""
    async with Cluster(folder / "cluster").running() as cluster:
        system = System(folder, {**COMMON, **settings, "RELAY_REDIS_URL": cluster.url}, {"EMULATOR_FAILURE_RATE": "0"})
        async with system.running(), LateLine(cluster.master).running() as line:
            asking = Asking(system, per_s)
            async with asking.going_on():
                await asyncio.sleep(_BEFORE_S)
                if lag_s:
                    await _lead_through(cluster.replica, line.port)
                    line.lag_s = lag_s
                    asking.note_from_now()
                    await asyncio.sleep(_LAGS_S)
                accept_ms = statistics.median(asking.took_s) * 1000
                await asyncio.sleep(moment_s)
                cluster.kill_master()
                await eventually(cluster.promoted, _FAILOVER_S, "no failover")
                # Before that they would lead to the old master, which would take jobs until it is told otherwise.
                await eventually(lambda: _agreed(cluster), _FAILOVER_S, "the Sentinels don't agree")
                await cluster.start_replica()
                back = len(asking.accepted)
                await until(lambda: len(asking.accepted) > back, _FAILOVER_S, lambda: "no 202 after the failover")
                await asyncio.sleep(_AFTER_S)
            known = await _settled(system)
            times = Counter(one.webhook_id.removeprefix("msg_") for one in system.inbox.received)
            lost = set(asking.accepted) - known
            return Counted(
                accepted=len(asking.accepted),
                accept_ms=accept_ms,
                lost=len(lost),
                lost_after_callback=len(lost & set(times)),
                gap_s=asking.longest_gap_s(),
                callbacks_repeated=times.total() - len(times),
                submits_repeated=(await system.emulated())["repeated_submits"],
            )


async def _agreed(cluster: Cluster) -> bool:
    """Whether all Sentinels name the new master."""
    for port in cluster.sentinels:
        async with redis.Redis(port=port) as client:
            address = await client.sentinel_get_master_addr_by_name(SERVICE)  # type: ignore[no-untyped-call]  # the driver's
            if address is None or int(address[1]) != cluster.replica:
                return False
    return True


async def _lead_through(replica: int, port: int) -> None:
    """Have the replica follow its master over another port."""
    async with redis.Redis(port=replica) as client:
        await client.replicaof("127.0.0.1", port)

        async def follows() -> bool:
            state = await client.info("replication")
            return bool(state["master_port"] == port and state["master_link_status"] == "up")

        await eventually(follows, 4, "the replica does not follow over the late line")


async def _settled(system: System) -> set[str]:
    """The ids of all known jobs, when all of them have ended."""
    found: dict[str, tuple[str, str]] = {}

    async def ended() -> bool:
        found.clear()
        found.update(await _jobs(system))
        return not any(
            status in ("queued", "pending") or delivery in ("waiting", "pending", "retrying")
            for status, delivery in found.values()
        )

    await eventually(ended, _SETTLE_S, "not all jobs have ended")
    return set(found)


async def _jobs(system: System) -> dict[str, tuple[str, str]]:
    """Status and delivery of every job that the relay knows."""
    found: dict[str, tuple[str, str]] = {}
    cursor = ""
    while True:
        status, page = await system.call("GET", f"/v1/jobs?limit=200{cursor}")
        assert status == 200, page
        found |= {job["id"]: (job["status"], job["delivery"]["status"]) for job in page["data"]}
        if not page.get("next_cursor"):
            return found
        cursor = f"&cursor={page['next_cursor']}"


async def run(kills: int, lags_s: Sequence[float], per_s: float, console: Console) -> None:
    """Measure, and print the table."""
    table = Table(
        *("replica", "durability", "kills", "202s", "a 202 takes, ms", "lost", "of those, called back"),
        *("longest time without a 202, s", "callbacks repeated", "submits repeated"),
        title=f"The master is killed at {per_s:g} accepts per second",
    )
    for lag_s, (name, settings) in itertools.product(lags_s, SETTINGS.items()):
        counted: list[Counted] = []
        for number in range(kills):
            with tempfile.TemporaryDirectory(prefix="failover-") as folder:
                counted.append(await one_kill(Path(folder), settings, lag_s, per_s, number / kills))
        table.add_row(
            *(
                f"{lag_s:g} s behind" if lag_s else "in step",
                name,
                str(kills),
                str(sum(one.accepted for one in counted)),
            ),
            f"{statistics.median(one.accept_ms for one in counted):.0f}",
            f"{sum(one.lost for one in counted)} ({', '.join(str(one.lost) for one in counted)})",
            str(sum(one.lost_after_callback for one in counted)),
            f"{min(one.gap_s for one in counted):.1f} to {max(one.gap_s for one in counted):.1f}",
            str(sum(one.callbacks_repeated for one in counted)),
            str(sum(one.submits_repeated for one in counted)),
        )
    console.print(table)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.failover", description=__doc__)
    parser.add_argument("--kills", type=int, default=5, help="for each setting")
    parser.add_argument("--lags", type=float, nargs="+", default=[0.0, 1.0], help="seconds that the replica is behind")
    parser.add_argument("--per-s", type=float, default=20.0, help="accepts asked for")
    given = parser.parse_args()
    asyncio.run(run(given.kills, given.lags, given.per_s, Console(width=160)))


if __name__ == "__main__":
    main()
