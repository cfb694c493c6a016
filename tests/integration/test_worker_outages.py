"""A store that is not there, at the start or in the middle of the work, or that grants few rights."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import structlog
from aiohttp import web

from relay.core.model import DeliveryStatus, JobStatus
from tests.faults.proxy import Fate, Once, StoreProxy, load_scripts, script
from tests.integration.conftest import run_relay
from tests.integration.store_harness import make_settings
from tests.integration.worker_harness import FAST, Rig, Worker, eventually, started
from tests.integration.worker_peers import Asked, Upstream, done
from tests.processes import StoreProcess, free_port, until

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


@pytest.fixture(name="own_store")
async def fixture_own_store(tmp_path: Path) -> AsyncIterator[StoreProcess]:
    """A store that a test starts and ends itself; it keeps its data."""
    store = StoreProcess(tmp_path / "store", free_port())
    yield store
    await asyncio.to_thread(store.stop)


async def status_of(worker: Worker, path: str) -> int:
    """What a worker's HTTP server answers with; 0 where it does not listen yet."""
    try:
        return (await worker.get(path))[0]
    except OSError:
        return 0


def is_said(lines: Sequence[Mapping[str, Any]], words: str) -> bool:
    """Whether a line says so."""
    return any(words in line["event"] for line in lines)


async def test_a_store_that_comes_later_is_waited_for(own_store: StoreProcess) -> None:
    """Without a store it lives and is not ready; as soon as there is one it works."""
    async with Upstream().serving() as upstream:
        settings = make_settings(own_store.url, **{**FAST, "upstream_url": upstream.url, "worker_port": free_port()})
        with structlog.testing.capture_logs() as lines:
            async with started(settings) as worker:
                await eventually(lambda: status_of(worker, "/healthz"), lambda status: status == 200)
                await until(lambda: bool(lines), 10, lambda: "it says nothing")
                assert await status_of(worker, "/readyz") == 503
                await asyncio.to_thread(own_store.start)
                await eventually(lambda: status_of(worker, "/readyz"), lambda status: status == 200)
                async with Rig.open(own_store.url, upstream.url) as rig:
                    job = await rig.settled(await rig.accept())
        assert job.delivery.status is DeliveryStatus.DELIVERED
        waits = [line for line in lines if line["event"] == "waiting for the store"]
        assert [line["log_level"] for line in waits] == ["warning"]


async def test_it_can_be_stopped_while_it_waits(own_store: StoreProcess) -> None:
    """Who is told to stop before there is a store just ends."""
    settings = make_settings(own_store.url, **FAST)
    with structlog.testing.capture_logs() as lines:
        async with started(settings) as worker:
            await until(lambda: bool(lines), 10, lambda: "it says nothing")
            assert await worker.stop() < 3
    assert [line["event"] for line in lines] == ["waiting for the store"]


async def test_an_outage_of_the_store_costs_nothing(own_store: StoreProcess) -> None:
    """What was under way when the store went is saved when it is back: nothing is submitted or called back twice."""
    await asyncio.to_thread(own_store.start)
    go_on = asyncio.Event()

    async def holding(_asked: Asked) -> web.Response:
        await go_on.wait()
        return done()()

    # Leases that outlast the outage: what they fence off is another test's subject.
    async with (
        Upstream(poll=holding).serving() as upstream,
        Rig.open(own_store.url, upstream.url, lease_s=60, store_timeout_s=1) as rig,
    ):
        with structlog.testing.capture_logs() as lines:
            async with rig.working(measured=True) as worker:
                jobs = [await rig.accept(f"number {n}") for n in range(20)]
                await until(lambda: len(upstream.polls) == 20, 10, lambda: f"{len(upstream.polls)} polls")
                await asyncio.to_thread(own_store.stop)
                go_on.set()
                await until(lambda: is_said(lines, "saves wait"), 10, lambda: str(lines))
                await until(lambda: is_said(lines, "going on when it is back"), 10, lambda: str(lines))
                await asyncio.to_thread(own_store.start)
                for job in jobs:
                    ended = await rig.settled(job)
                    assert (ended.status, ended.delivery.attempts) == (JobStatus.DONE, 1)
                await until(lambda: is_said(lines, "the store is back"), 10, lambda: str(lines))
                assert await worker.metric("refused_saves_total") == 0
                assert (await worker.get("/readyz"))[0] == 200
        assert await rig.account() == {"submitted": 20, "credits": 60}
    assert (len(upstream.submits), len(upstream.polls), len(rig.inbox.received)) == (20, 20, 20)


async def test_a_full_store_is_worked_off(own_store: StoreProcess) -> None:
    """Where the store takes no more, arq can be given no task; what was accepted is done and delivered all the same."""
    await asyncio.to_thread(own_store.start)
    async with Upstream().serving() as upstream, Rig.open(own_store.url, upstream.url) as rig:
        jobs = [await rig.accept(f"number {n}") for n in range(5)]
        await rig.bench.raw.config_set("maxmemory", 1)
        async with rig.working():
            for job in jobs:
                assert (await rig.settled(job)).delivery.status is DeliveryStatus.DELIVERED
    assert (len(upstream.submits), len(rig.inbox.received)) == (5, 5)


async def test_the_rights_that_are_documented_suffice(own_store: StoreProcess) -> None:
    """A user with the rights of docs/operations.md is refused nothing that the services ask for."""
    own_store.appendfsync = "always"
    await asyncio.to_thread(own_store.start)
    found = re.search(r"^user relay on >… (.+)$", OPERATIONS.read_text(), re.MULTILINE)
    assert found is not None
    url = own_store.url.replace("://", "://relay:secret@")
    async with Upstream().serving() as upstream, Rig.open(own_store.url, upstream.url) as rig:
        await rig.bench.raw.execute_command("ACL SETUSER", "relay", "on", ">secret", *found[1].split())
        with structlog.testing.capture_logs() as lines:
            async with rig.working(redis_url=url, durability="strict"), run_relay(url, durability="strict") as relay:
                assert (await rig.settled(await rig.accept())).delivery.status is DeliveryStatus.DELIVERED
                assert (await relay.submit()).status == 202
                assert (await relay.call("GET", "/v1/jobs")).status == 200
                assert (await relay.call("GET", "/readyz")).status == 200
        assert not is_said(lines, "appendfsync")
        assert await rig.bench.raw.execute_command("ACL LOG") == []


@pytest.mark.parametrize("name", ["begin_submit", "begin_poll", "begin_deliver"])
async def test_a_claim_without_an_answer_is_given_back_at_the_end(store_url: str, name: str) -> None:
    """A worker that is stopped before it could ask again leaves nothing under a lease, and nothing that looks begun."""
    async with (
        StoreProxy(urlsplit(store_url).port or 6379).running() as proxy,
        Upstream().serving() as upstream,
        Rig.open(store_url, upstream.url, callback_schedule="0.2", lease_s=60, store_timeout_s=1) as rig,
    ):
        await load_scripts(store_url)
        proxy.rule = Once(script(name), Fate.STALL_AFTER)
        async with rig.working(redis_url=urlsplit(store_url)._replace(netloc=f"127.0.0.1:{proxy.port}").geturl()):
            job = await rig.accept()
            await until(lambda: proxy.withheld > 0, 10, lambda: f"{name} was not called")
        record = await rig.bench.record(job.id)
        assert {"tok", "le", "amb", "oa"} & record.keys() == set()
        assert (record.get("sub", "0"), record.get("a", "0")) == ("0" if name == "begin_submit" else "1", "0")
        async with rig.working():
            ended = await rig.settled(job)
        assert (ended.delivery.status, ended.delivery.attempts) == (DeliveryStatus.DELIVERED, 1)
        assert "ambiguous" not in await rig.account()
    assert len(upstream.submits) == 1
