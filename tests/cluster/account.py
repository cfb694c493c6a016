"""What became of the jobs of a run, and of the pods that were to do them."""

from collections import Counter

from tests.cluster.cluster import Cluster
from tests.faults.account import Submits, check_callbacks, submits_of
from tests.faults.load import Load
from tests.processes import until

#: What a job takes by the dev overlay's own settings: two polls, 3 s apart, and what two cores add.
JOB_S = 25.0
#: Before others take up the jobs of a worker that is gone: RELAY_LEASE_S, which the overlay leaves at its default.
LEASE_S = 15.0


async def settle(cluster: Cluster, load: Load, within_s: float = JOB_S) -> Submits:
    """Wait until each accepted job was called back. Raises AssertionError where one is lost, or paid for unseen."""
    jobs = load.accepted.values()

    def arrived() -> set[str]:
        return {received.webhook_id for received in cluster.inbox.received}

    await until(lambda: len(arrived()) >= len(jobs), within_s, lambda: f"{len(arrived())} of {len(jobs)} arrived")
    check_callbacks(cluster, jobs)
    assert load.changed == []
    submits = await submits_of(cluster)
    assert submits.taken == len(jobs) + submits.repeated
    assert submits.repeated <= submits.ambiguous
    return submits


def repeated(cluster: Cluster) -> list[str]:
    """The callbacks that came more than once."""
    counts = Counter(received.webhook_id for received in cluster.inbox.received)
    return [webhook_id for webhook_id, count in counts.items() if count > 1]


def check_pods(cluster: Cluster) -> None:
    """No container was started again, and each that was told to end did so within its grace, in peace."""
    for workload in (cluster.relay, cluster.worker):
        assert {pod.name: pod.restarts for pod in workload.all if pod.restarts} == {}
        assert {pod.name: pod.exit_code for pod in workload.all if pod.exit_code} == {}
