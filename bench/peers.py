"""What one relayed job costs by other means: arq with one task for each job, and Celery.

Each is used as its documentation shows it, and does the same work as the plain script: submit, poll, sign, post, log.
"""

import asyncio
import contextlib
import importlib.util
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.cost import POLL_S, SETTINGS, measure_relay, measure_script
from bench.findings import Findings, median, spread
from bench.rig import Rig, cpu_s, pid_of, scratch, stop
from tests.processes import Service

#: Two polls for each job.
_LATENCY_S = 5.0
_JOBS, _ROUNDS = 1_000, 2
#: By default arq runs ten tasks at once, and a task lasts as long as its job.
_ARQ_DEFAULT_JOBS = 20
_MISSING = "Celery is not installed: `make bench` installs what requirements/bench.txt pins. It was left out."


@dataclass(frozen=True, slots=True)
class Peer:
    """One way."""

    name: str
    module: Sequence[str]
    environment: Mapping[str, str]
    jobs: int
    enqueue: Callable[[Rig, Sequence[str]], Any]
    rounds: int = _ROUNDS


async def _enqueue_arq(rig: Rig, prompts: Sequence[str]) -> None:
    from arq import create_pool  # noqa: PLC0415 - of interest to this peer only
    from arq.connections import RedisSettings  # noqa: PLC0415

    pool = await create_pool(RedisSettings.from_dsn(rig.store.url))
    for prompt in prompts:
        await pool.enqueue_job("relay_one", prompt)
    await pool.aclose()


async def _enqueue_celery(rig: Rig, prompts: Sequence[str]) -> None:
    program = [sys.executable, "-m", "bench.peer_celery", rig.store.url]
    process = await asyncio.create_subprocess_exec(*program, stdin=asyncio.subprocess.PIPE)
    await process.communicate("\n".join(prompts).encode())
    assert process.returncode == 0


def _peers() -> list[Peer]:
    arq = ["bench.peer_arq"]
    peers = [Peer("arq, a task for each job, as it comes", arq, {}, _ARQ_DEFAULT_JOBS, _enqueue_arq, rounds=1)]
    # With as many as there are jobs it stops looking for more; with more it looks through those that run each time.
    for most, rounds in ((_JOBS, _ROUNDS), (2 * _JOBS, 1)):
        tuned = {"PEER_MAX_JOBS": str(most), "PEER_POLL_DELAY_S": "0.1"}
        peers.append(Peer(f"arq, max_jobs={most}, poll_delay=0.1", arq, tuned, _JOBS, _enqueue_arq, rounds))
    if importlib.util.find_spec("celery") is not None:
        celery = ["celery", "--quiet", "--app", "bench.peer_celery", "worker", "--loglevel", "info"]
        celery += ["--pool", "prefork", "--concurrency", "2"]
        peers.append(Peer("Celery, 2 processes, retry(countdown=3)", celery, {}, _JOBS, _enqueue_celery))
    return peers


def _family(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


@contextlib.asynccontextmanager
async def _running(rig: Rig, peer: Peer, number: int) -> AsyncIterator[Service]:
    environment = {
        "PEER_STORE_URL": rig.store.url,
        "PEER_UPSTREAM_URL": rig.upstream_url,
        "PEER_SINK_URL": rig.callback_url,
        "PEER_SECRET": rig.secret,
        "PEER_POLL_S": str(POLL_S),
        **peer.environment,
    }
    # It has no port: what is asked is the upstream, which answers at once.
    service = rig.service(f"peer-{number}", peer.module, rig.upstream.ready_url, environment)
    try:
        await service.start()
        await asyncio.sleep(2.0)
        yield service
    finally:
        await stop(service)


async def _measure(rig: Rig, peer: Peer, number: int) -> float:
    """Milliseconds of CPU time for each job."""
    rig.raw_store().flushdb()
    async with _running(rig, peer, number) as service:
        for jobs in (min(peer.jobs, 10), peer.jobs):
            pids = _family(pid_of(service))
            before = cpu_s(pids)
            expected = (await rig.sunk("counts"))["callbacks"] + jobs
            name = f"{number} {jobs} {os.urandom(4).hex()}"
            latency_s = _LATENCY_S if jobs == peer.jobs else 0.1
            await peer.enqueue(rig, [f"[latency={latency_s}] peer {name} {n}" for n in range(jobs)])
            await rig.callbacks(expected, 120)
            used_ms = (cpu_s(pids) - before) / jobs * 1000
    return used_ms


async def run() -> Findings:
    """Script, relay and peers, by turns; the peers in a store of their own."""
    peers = _peers()
    found: dict[str, list[float]] = {}
    jobs = {peer.name: peer.jobs for peer in peers}
    with scratch() as folder:
        rig, other = Rig(folder / "relay", SETTINGS), Rig(folder / "peers")
        async with rig.running(), other.running(other.upstream, other.sink):
            await measure_relay(rig, 300, 1.0)
            for round_number in range(_ROUNDS):
                script = await measure_script(rig, _JOBS, _LATENCY_S)
                relay = await measure_relay(rig, _JOBS, _LATENCY_S)
                found.setdefault("scrapellm-relay, its worker", []).append(relay.cpu_ms)
                found.setdefault("plain script, nothing kept", []).append(script.cpu_ms)
                for number, peer in enumerate(peers):
                    if round_number < peer.rounds:
                        found.setdefault(peer.name, []).append(await _measure(other, peer, number))
    relays = found["scrapellm-relay, its worker"]
    ratios = {name: [mine / base for mine, base in zip(used, relays, strict=False)] for name, used in found.items()}
    return Findings(
        f"peers: CPU for each job of {_LATENCY_S:g} s, polled every {POLL_S:g} s, {_JOBS:,} at once",
        ("way", "jobs", "CPU ms", "times the relay's"),
        [
            (name, f"{jobs.get(name, _JOBS):,}", f"{median(used):.2f}", spread(ratios[name]))
            for name, used in found.items()
        ],
        {"cpu_ms": found, "ratios": ratios},
        notes=[] if len(peers) > 2 else [_MISSING],
    )
