"""What keeps open pages current."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from relay.core.settings import hash_api_key
from tests.integration.conftest import ACME_KEY, UMBRELLA_KEY, HandWorker, RelayClient, run_relay
from tests.integration.dashboard_harness import OPERATOR_KEY, Visitor, logged_in
from tests.integration.test_api_events import Stream


@contextlib.asynccontextmanager
async def listening(visitor: Visitor, query: str = "") -> AsyncIterator[Stream]:
    """An open page."""
    relay = visitor.relay
    headers = {"Cookie": f"relay_session={visitor.cookie}"}
    async with relay.http.get(f"http://127.0.0.1:{relay.port}/dashboard/events{query}", headers=headers) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        yield Stream(response)


async def test_a_page_hears_of_its_client_s_changes(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """It hears what the client's event stream says, of that client only."""
    async with listening(await logged_in(relay_client)) as stream:
        await relay_client.submit(key=UMBRELLA_KEY)
        job_id = (await relay_client.submit()).json["id"]
        await hand_worker.submit_all()
        heard = [(await stream.next())["data"] for _ in range(2)]
    assert [(event["id"], event["status"]) for event in heard] == [(job_id, "queued"), (job_id, "pending")]


async def test_the_operator_hears_of_all_or_of_one(store_url: str) -> None:
    """As many clients as are shown, in one stream."""
    async with run_relay(store_url, operator_key_sha256=hash_api_key(OPERATOR_KEY)) as relay:
        operator = await logged_in(relay, OPERATOR_KEY)
        async with listening(operator) as everything, listening(operator, "?client=umbrella") as one:
            ids = [(await relay.submit(key=key)).json["id"] for key in (ACME_KEY, UMBRELLA_KEY)]
            assert [(await everything.next())["data"]["id"] for _ in range(2)] == ids
            assert (await one.next())["data"]["id"] == ids[1]


async def test_a_stream_ends_with_the_session(relay_client: RelayClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is told nothing more, and asks again with a cookie that is none."""
    monkeypatch.setattr("relay.dashboard.sessions.LIFETIME_S", 2)
    async with listening(await logged_in(relay_client)) as stream, asyncio.timeout(10):
        with pytest.raises(EOFError):
            await stream.until_the_end()


async def test_who_is_not_logged_in_hears_nothing(relay_client: RelayClient) -> None:
    """The stream leads to the log-in, as every page does."""
    assert (await Visitor(relay_client).get("/dashboard/events")).status == 303
