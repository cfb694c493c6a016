"""The manifests at work: probes, scaling, rollouts and lost nodes, with nothing lost and nobody told that it failed."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cluster.account import JOB_S, LEASE_S, check_pods, repeated, settle
from tests.cluster.cluster import WORKER, Cluster
from tests.faults.load import Load
from tests.processes import until
from tests.rendered import OPERATORS, only

pytestmark = [pytest.mark.faults, pytest.mark.slow]


LONG = pytest.mark.skipif(
    not os.environ.get("FAULTS_LONG"), reason="shows what the others see; FAULTS_LONG=1 asks for it"
)


@pytest.fixture(name="cluster")
async def fixture_cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """The dev overlay, with nothing started."""
    async with Cluster(tmp_path).running() as cluster:
        yield cluster


async def wait_for_outcomes(cluster: Cluster, load: Load) -> None:
    """Ask for the outcome of one job after another, by long polls that take as long as it takes."""
    while True:
        job = next(reversed(load.accepted.values()), None)
        state = "queued"
        while job is not None and state in ("queued", "pending"):
            _, answer = await cluster.call("GET", f"/v1/jobs/{job}?wait=20")
            state = answer["status"]
        await asyncio.sleep(0.05)


async def test_scaling_and_rollouts(cluster: Cluster) -> None:
    """Scaling and rolling restarts under load fail no call, lose nothing, and send nothing twice."""
    await cluster.start(relays=2, workers=1)
    load = Load(cluster, markers="[latency=0.5]")
    waiting = [asyncio.create_task(wait_for_outcomes(cluster, load)) for _ in range(3)]
    async with load.coming(clients=4, pause_s=0.1):
        await cluster.worker.scale(3)
        await load.goes_on(by=30, timeout_s=10)
        await cluster.worker.scale(1)
        await load.goes_on(by=30, timeout_s=10)
        await asyncio.gather(cluster.relay.rollout(), cluster.worker.rollout())
        await load.goes_on(by=30, timeout_s=10)
    submits = await settle(cluster, load)
    for task in waiting:
        assert task.cancel(), "a long poll has failed"
    assert cluster.unanswered == []
    assert cluster.answers.keys() == {200, 202}
    assert repeated(cluster) == []
    assert (submits.taken, submits.repeated) == (len(load.accepted), 0)
    assert (submits.ambiguous, submits.orphans) == (0, 0)
    check_pods(cluster)
    for workload in (cluster.relay, cluster.worker):
        plan = workload.plan
        assert len(workload.all) - len(workload.pods) >= workload.replicas
        assert workload.fewest_ready >= workload.replicas - plan.unavailable
        assert workload.most <= workload.replicas + plan.surge


async def test_workers_tell_what_they_are_scaled_by(cluster: Cluster) -> None:
    """Every metric that the scaler of workers asks Prometheus for is one that a worker has."""
    queries = [trigger["metadata"]["query"] for trigger in only(OPERATORS, "ScaledObject")["spec"]["triggers"]]
    asked = set(re.findall(r"scrapellm_relay_\w+", " ".join(queries)))
    await cluster.start_store_and_upstream()
    await cluster.worker.scale(1)
    (worker,) = cluster.worker.pods
    async with cluster.http.get(f"http://{worker.address}:{cluster.port_of(WORKER)}/metrics") as response:
        told = set(re.findall(r"^(scrapellm_relay_\w+)", await response.text(), re.MULTILINE))
    assert asked <= told


async def test_outages(cluster: Cluster) -> None:
    """Without store or worker pods are not ready, and live; half of the nodes gone, the others do what was left."""
    await cluster.start_store_and_upstream()
    cluster.relay.resize(2)
    (relay, other) = cluster.relay.pods
    await until(lambda: relay.probes["readiness", False] > 1, 20, lambda: f"{relay.probes}")
    assert relay.probes["startup", True] == 1
    assert not relay.ready
    assert not other.ready
    assert cluster.balancer.endpoints == []
    await cluster.start(relays=2, workers=2)
    pods = cluster.pods
    load = Load(cluster, markers="[latency=0.5]")

    def probes() -> str:
        return f"{[pod.probes for pod in pods]}"

    async with load.coming(clients=4, pause_s=0.1):
        await load.goes_on(by=30, timeout_s=10)
        lived = [pod.probes["liveness", True] for pod in pods]
        await cluster.store.lose()
        await until(lambda: not any(pod.ready for pod in pods), 25, probes)
        await until(
            lambda: all(pod.probes["liveness", True] > before for pod, before in zip(pods, lived, strict=True)),
            25,
            probes,
        )
        assert sum(pod.probes["liveness", False] for pod in pods) == 0
        await cluster.start_store_and_upstream()
        await until(lambda: all(pod.ready for pod in pods), 25, probes)
        await load.goes_on(by=30, timeout_s=10)
        assert await cluster.lose_node("node-b", noticed_s=2) == 2
        await load.goes_on(by=30, timeout_s=10)
    await settle(cluster, load, LEASE_S + JOB_S)
    assert cluster.answers.keys() <= {202, 503}
    check_pods(cluster)


@LONG
async def test_without_the_sleep_calls_fail(tmp_path: Path) -> None:
    """Where a relay ends as soon as it is told to, nodes that have not heard of it lead calls to nobody."""
    async with Cluster(tmp_path, relay_pre_stop_s=0).running() as cluster:
        await cluster.start(relays=2, workers=1)
        load = Load(cluster, markers="[latency=0.5]")
        async with load.coming(clients=4, pause_s=0.05):
            await cluster.relay.rollout()
        await settle(cluster, load)
        assert len(cluster.unanswered) > 0
