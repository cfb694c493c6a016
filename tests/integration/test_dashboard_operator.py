"""The operator in the dashboard: every client, or one."""

from collections.abc import AsyncIterator

import pytest

from relay.core.errors import ConfigurationError
from relay.core.settings import hash_api_key
from tests.integration.conftest import (
    ACME_KEY,
    UMBRELLA_KEY,
    HandWorker,
    RelayClient,
    make_settings,
    run_relay,
)
from tests.integration.dashboard_harness import OPERATOR_KEY, Visitor, logged_in
from tests.integration.test_dashboard_pages import PAGES, a_batch, check_page


@pytest.fixture(name="relay")
async def fixture_relay(store_url: str) -> AsyncIterator[RelayClient]:
    """A relay that has an operator."""
    async with run_relay(store_url, operator_key_sha256=hash_api_key(OPERATOR_KEY)) as relay:
        yield relay


@pytest.fixture(name="operator")
async def fixture_operator(relay: RelayClient) -> Visitor:
    """The operator, logged in."""
    return await logged_in(relay, OPERATOR_KEY)


async def test_all_clients_or_one(relay: RelayClient, operator: Visitor) -> None:
    """Lists have the jobs of all, or of the one that was chosen, whose choice goes along with every link."""
    mine = [(await relay.submit(key=ACME_KEY)).json["id"] for _ in range(3)]
    theirs = [(await relay.submit(key=UMBRELLA_KEY)).json["id"] for _ in range(2)]
    page = await operator.get("/dashboard/jobs")
    assert page.jobs == sorted(theirs + mine, reverse=True)
    one = await operator.get("/dashboard/jobs?client=umbrella")
    assert one.jobs == sorted(theirs, reverse=True)
    assert 'href="/dashboard/batches?client=umbrella"' in one.source
    assert 'href="/dashboard/jobs?client=umbrella&amp;status=failed&amp;status=timed_out"' in one.source
    assert (await operator.get("/dashboard/jobs?client=")).jobs == page.jobs
    assert (await operator.get("/dashboard/jobs?client=nobody")).status == 404
    assert (await operator.get("/dashboard/jobs?client=acme&client=umbrella")).status == 422


async def test_every_page(relay: RelayClient, operator: Visitor, hand_worker: HandWorker) -> None:
    """They are as good for all clients as they are for one."""
    job_id = (await relay.submit(key=UMBRELLA_KEY)).json["id"]
    batch_id = (await a_batch(relay))["id"]
    for client in ("acme", "umbrella"):
        await hand_worker.submit_all(client)
    await hand_worker.finish_all()
    await hand_worker.deliver_all()
    for path in (*PAGES, f"/dashboard/jobs/{job_id}", f"/dashboard/batches/{batch_id}"):
        check_page(await operator.get(path), 200)
    for path in PAGES:
        check_page(await operator.get(f"{path}{'&' if '?' in path else '?'}client=acme"), 200)
    assert "umbrella" in (await operator.get("/dashboard/account")).text
    assert ">3<" in (await operator.get("/dashboard")).source, "done, of both clients together"
    assert (await operator.get(f"/dashboard/jobs/{job_id}?client=acme")).status == 404
    assert (await operator.get(f"/dashboard/jobs/{job_id}?client=umbrella")).status == 200


async def test_pages_of_several_clients_have_no_gap(relay: RelayClient, operator: Visitor) -> None:
    """From page to page every job comes once, newest first, whoever has how many."""
    keys = [UMBRELLA_KEY if i % 5 == 0 or i > 100 else ACME_KEY for i in range(120)]
    # Ids of one millisecond have no order but their own.
    everything = sorted([(await relay.submit(key=key)).json["id"] for key in keys], reverse=True)
    seen: list[str] = []
    for query in ("", "&q=what", "&status=queued"):
        seen, before = [], ""
        while True:
            page = await operator.get(f"/dashboard/jobs?{before}{query}")
            seen += page.jobs
            if 'rel="next"' not in page.source:
                break
            before = f"before={page.jobs[-1]}"
        assert seen == everything, query


async def test_acting_for_a_client(relay: RelayClient, operator: Visitor, hand_worker: HandWorker) -> None:
    """The operator may cancel, redeliver and resume what any client has."""
    job_id = (await relay.submit(key=UMBRELLA_KEY)).json["id"]
    assert (await operator.send(f"/dashboard/jobs/{job_id}/cancel", of=f"/dashboard/jobs/{job_id}")).status == 303
    assert (await relay.call("GET", f"/v1/jobs/{job_id}", key=UMBRELLA_KEY)).json["status"] == "cancelled"
    await relay.submit(key=UMBRELLA_KEY)
    await hand_worker.submit_all("umbrella")
    await hand_worker.finish_all()
    await hand_worker.deliver_all()
    path = "/dashboard/destinations/203.0.113.7:443/resume"
    of = f"/dashboard/jobs/{job_id}"
    assert (await operator.send(path, {"owner": "nobody"}, of=of)).status == 404
    assert (await operator.send(path, {"owner": "acme"}, of=of)).status == 404
    assert (await operator.send(path, {"owner": "umbrella"}, of=of)).status == 303


async def test_a_key_cannot_be_a_client_s_and_the_operator_s(store_url: str) -> None:
    """That would make one of them the other, so the relay does not start."""
    key = "the-same-key-0123456789"
    settings = make_settings(
        store_url, api_key=key, signing_secret="whsec_" + "a" * 32, operator_key_sha256=hash_api_key(key)
    )
    with pytest.raises(ConfigurationError, match="RELAY_OPERATOR_KEY_SHA256: default has the same key"):
        settings.clients()
