"""A relay in this process, on a real store and a real port, and clients that talk to it."""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from relay.api.context import Limits
from relay.api.server import listening
from relay.app import build_app
from relay.core.model import (
    Attempt,
    AttemptOutcome,
    ClientName,
    DeliveryStatus,
    ErrorCode,
    JobError,
    JobStatus,
)
from relay.core.settings import Client, Settings, hash_api_key
from relay.core.signing import new_secret
from relay.core.store import WorkStore
from relay.core.store.records import pack_result
from relay.core.store.work import saved_attempt, saved_outcome, saved_submission

#: Short enough for tests; the bodies' limits and everything else are those of the service.
LIMITS = Limits(body_timeout_s=1.0, ping_s=0.2, shutdown_s=5.0)
ACME_KEY, ACME_OTHER_KEY, UMBRELLA_KEY = "acme-key-0123456789", "acme-key-after-rotation", "umbrella-key-0123456789"


def make_client(name: str, *keys: str, **changes: Any) -> Client:
    """A client with fresh secrets."""
    fields: dict[str, Any] = {
        "name": ClientName(name),
        "api_key_hashes": tuple(hash_api_key(key) for key in keys),
        "signing_secrets": (new_secret(),),
        "upstream_api_key": None,
        "callback_hosts": (),
        "max_unfinished_jobs": 20_000,
        "jobs_per_minute": 100_000,
    }
    return Client(**fields | changes)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    json: Any

    @property
    def code(self) -> str:
        """The `code` of a problem."""
        assert self.headers["Content-Type"] == "application/problem+json"
        assert self.json["status"] == self.status
        assert self.json["type"] == f"urn:scrapellm-relay:problem:{self.json['code']}"
        assert self.json["title"]
        assert self.json["detail"]
        return str(self.json["code"])

    @property
    def faults(self) -> list[tuple[str, str]]:
        """What is wrong where: (kind, place) of every fault."""
        return [(kind, fault[kind]) for fault in self.json["errors"] for kind in fault if kind != "detail"]


@dataclass(slots=True)
class RelayClient:
    """Talks to one running relay, as the client `acme` unless told otherwise."""

    http: aiohttp.ClientSession
    settings: Settings
    clients: Mapping[ClientName, Client]
    port: int

    async def call(
        self, method: str, path: str, *, key: str | None = ACME_KEY, headers: Any = None, **arguments: Any
    ) -> Answer:
        """One call. `key` is sent as a bearer token unless it is None."""
        own = {} if key is None else {"Authorization": f"Bearer {key}"}
        own |= dict(headers or {})
        url = f"http://127.0.0.1:{self.port}{path}"
        if isinstance(arguments.get("data"), bytes) and len(arguments["data"]) > 1024 * 1024:
            # aiohttp warns of larger bodies in one piece.
            arguments["data"] = io.BytesIO(arguments["data"])
        async with self.http.request(method, url, headers=own, allow_redirects=False, **arguments) as response:
            body = await response.read()
            is_json = "json" in response.headers.get("Content-Type", "") and body
            return Answer(
                response.status, response.headers, body, await response.json(content_type=None) if is_json else None
            )

    async def submit(self, *, key: str = ACME_KEY, headers: Any = None, **fields: object) -> Answer:
        """`POST /v1/jobs` with a good body, changed by `fields`; `...` takes a field out."""
        body = {"scraper": "chatgpt", "prompt": "What is this?", "callback_url": "https://203.0.113.7/hook"} | fields
        body = {name: value for name, value in body.items() if value is not ...}
        return await self.call("POST", "/v1/jobs", key=key, json=body, headers=headers)

    async def raw(self, request: bytes) -> bytes:
        """Send bytes on a connection of their own; returns all that comes back until the relay hangs up."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            async with asyncio.timeout(10):
                return await reader.read()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


def make_settings(store_url: str, **changes: Any) -> Settings:
    """Settings that ignore the environment but for what is given."""
    values: dict[str, Any] = {
        "redis_url": store_url,
        # A block that is reserved for documentation stands for the public internet: nothing is ever sent there.
        "callback_allowed_networks": "203.0.113.0/24",
        "public_url": "https://relay.example",
        "log_format": "json",
    }
    return Settings.load(_env_file=None, **values | changes)


@contextlib.asynccontextmanager
async def run_relay(
    store_url: str, *, limits: Limits = LIMITS, clients: Mapping[ClientName, Client] | None = None, **changes: Any
) -> AsyncIterator[RelayClient]:
    """A relay that lasts as long as the context."""
    settings = make_settings(store_url, **changes)
    known = clients or {
        client.name: client
        for client in (make_client("acme", ACME_KEY, ACME_OTHER_KEY), make_client("umbrella", UMBRELLA_KEY))
    }
    app = build_app(settings, known, limits=limits)
    async with listening(app, "127.0.0.1", changes.get("port", 0)) as port, aiohttp.ClientSession() as http:
        yield RelayClient(http, settings, known, port)


@pytest.fixture(name="relay_client")
async def fixture_relay_client(store_url: str) -> AsyncIterator[RelayClient]:
    """A running relay."""
    async with run_relay(store_url) as client:
        yield client


class HandWorker:
    """Moves jobs by hand, with the worker's own side of the store: no upstream and no receiver are needed."""

    def __init__(self, store: WorkStore) -> None:
        self.store = store

    async def submit_all(self, client: str = "acme") -> None:
        """Every queued job of `client` becomes pending."""
        claims = await self.store.begin_submit(ClientName(client), 1000)
        await self.store.save([saved_submission(claim.lease, f"upstream-{claim.lease.id}", 0) for claim in claims])

    async def finish_all(
        self,
        status: JobStatus = JobStatus.DONE,
        *,
        result: bytes | None = b'{"result":"Paris."}',
        announce: bool = True,
    ) -> None:
        """Every pending job has its outcome."""
        error = None if status is JobStatus.DONE else JobError(ErrorCode.UPSTREAM_FAILED, "execution failed")
        claims = await self.store.begin_poll(1000)
        stored = None if result is None or error else pack_result(result, 16_384)
        await self.store.save(
            [
                saved_outcome(claim.lease, status, error, announce_after_ms=0 if announce else None, result=stored)
                for claim in claims
            ]
        )

    async def deliver_all(
        self, status: DeliveryStatus = DeliveryStatus.DELIVERED, outcome: AttemptOutcome = AttemptOutcome.DELIVERED
    ) -> int:
        """Every due callback was attempted, and its delivery ended; returns how many there were."""
        claims = await self.store.begin_deliver(1000)
        code = 200 if outcome is AttemptOutcome.DELIVERED else 500
        for claim in claims:
            attempt = Attempt(claim.attempt, self.store.now_ms(), 12, outcome, code, "thanks", None)
            await self.store.save([saved_attempt(claim, attempt, status)])
        return len(claims)


@pytest.fixture(name="hand_worker")
async def fixture_hand_worker(store_url: str) -> AsyncIterator[HandWorker]:
    """A worker whose every step a test takes itself."""
    store = await WorkStore.connect(make_settings(store_url))
    yield HandWorker(store)
    await store.close()
