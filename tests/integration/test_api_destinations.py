"""How receivers fare, over HTTP."""

from typing import Any

import pytest

from relay.core.model import AttemptOutcome, DeliveryStatus
from tests.integration.conftest import UMBRELLA_KEY, HandWorker, RelayClient

NAME = "203.0.113.7:443"


async def attempted(
    relay: RelayClient, worker: HandWorker, outcome: AttemptOutcome = AttemptOutcome.DELIVERED, **fields: Any
) -> None:
    """One job is done, and its callback was attempted once."""
    await relay.submit(**fields)
    await worker.submit_all()
    await worker.finish_all()
    ended = DeliveryStatus.DELIVERED if outcome is AttemptOutcome.DELIVERED else DeliveryStatus.EXHAUSTED
    await worker.deliver_all(ended, outcome)


async def test_the_list(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """Each receiver has a state, counts and times; another client's are not in it."""
    assert (await relay_client.call("GET", "/v1/destinations")).json == {"data": []}
    await attempted(relay_client, hand_worker)
    [found] = (await relay_client.call("GET", "/v1/destinations")).json["data"]
    assert found == {
        "destination": NAME,
        "state": "healthy",
        "failures": 0,
        "failing_since": None,
        "last_success_at": found["last_success_at"],
        "last_failure_at": None,
        "next_try_at": None,
        "waiting": 0,
    }
    assert found["last_success_at"].endswith("Z")
    assert (await relay_client.call("GET", "/v1/destinations", key=UMBRELLA_KEY)).json == {"data": []}


async def test_it_is_filtered_by_state(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """`state` may repeat."""
    await attempted(relay_client, hand_worker)
    await attempted(relay_client, hand_worker, AttemptOutcome.HTTP_ERROR, callback_url="https://203.0.113.8:8443/hook")
    for query, names in (
        ("", ["203.0.113.8:8443", NAME]),
        ("?limit=1", ["203.0.113.8:8443"]),
        ("?state=healthy", [NAME]),
        ("?state=failing", ["203.0.113.8:8443"]),
        ("?state=paused&state=unresponsive", []),
    ):
        data = (await relay_client.call("GET", f"/v1/destinations{query}")).json["data"]
        assert [destination["destination"] for destination in data] == names, query


@pytest.mark.parametrize("query", ["?state=open", "?state=", "?limit=0", "?limit=201", "?cursor=x", "?limit=1&limit=1"])
async def test_a_wrong_query(relay_client: RelayClient, query: str) -> None:
    """Unknown parameters and values are refused."""
    assert (await relay_client.call("GET", f"/v1/destinations{query}")).status == 422


async def test_an_unresponsive_one_is_resumed(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """Resuming forgets the failures, and what waits is due."""
    for _ in range(relay_client.settings.destination_closes_after):
        await attempted(relay_client, hand_worker, AttemptOutcome.TIMEOUT)
    await attempted(relay_client, hand_worker)
    path = f"/v1/destinations/{NAME}"
    found = (await relay_client.call("GET", path)).json
    assert (found["state"], found["waiting"]) == ("unresponsive", 1)
    assert found["next_try_at"] is not None
    resumed = await relay_client.call("POST", f"{path}/resume")
    assert (resumed.status, resumed.json["state"], resumed.json["failures"]) == (200, "healthy", 0)
    assert await hand_worker.deliver_all() == 1
    assert (await relay_client.call("GET", path)).json["waiting"] == 0


@pytest.mark.parametrize("name", ["203.0.113.9:443", "nowhere", "a%2Fb:443", "*:443", "%00:1", "..%2F..:1", "x" * 300])
async def test_an_unknown_one(relay_client: RelayClient, hand_worker: HandWorker, name: str) -> None:
    """What the client has never sent to is not found, whatever it looks like."""
    await attempted(relay_client, hand_worker)
    assert (await relay_client.call("GET", f"/v1/destinations/{name}")).code == "not_found"
    assert (await relay_client.call("POST", f"/v1/destinations/{name}/resume")).code == "not_found"
    other = await relay_client.call("POST", f"/v1/destinations/{NAME}/resume", key=UMBRELLA_KEY)
    assert other.code == "not_found"
