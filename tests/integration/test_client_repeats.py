"""What the client asks again, and what it does not, where a relay stumbles."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from relay.client import Invalid, Misconfigured, RelayClient, Unexpected, Unreachable
from tests.processes import free_port
from tests.unit.test_client import JOB

Step = Callable[[web.Request], Awaitable[web.StreamResponse]]
SUBMIT: Any = {"scraper": "grok", "prompt": "Why?", "callback_url": "https://example.com/hook"}
PROBLEM = {"title": "x", "detail": "The store is away.", "code": "store_unavailable"}


@dataclass
class Stumbling:
    """Answers by steps, one for each request; the last one is kept."""

    steps: Sequence[Step]
    url: str = ""
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Take the next step."""
        step = self.steps[min(len(self.requests), len(self.steps) - 1)]
        self.requests.append((request.method, request.path_qs, request.headers.get("Idempotency-Key")))
        self.headers.append(dict(request.headers))
        return await step(request)


@contextlib.asynccontextmanager
async def stumbling(*steps: Step, port: int = 0) -> AsyncIterator[Stumbling]:
    """A server that stumbles as told."""
    server = Stumbling(steps)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    async with TestServer(app, host="127.0.0.1", port=port or None) as listening:
        server.url = f"http://127.0.0.1:{listening.port}"
        yield server


async def fine(_request: web.Request) -> web.Response:
    """A job."""
    return web.json_response(dict(JOB))


async def cut(request: web.Request) -> web.Response:
    """No answer: the connection ends."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def saying(status: int, body: object = PROBLEM, **headers: str) -> Step:
    """An answer with this status."""

    async def step(_request: web.Request) -> web.Response:
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.json_response(body, status=status, headers=told)

    return step


def page(status: int) -> Step:
    """What a load balancer says in a relay's place."""

    async def step(_request: web.Request) -> web.Response:
        return web.Response(status=status, text="<h1>No</h1>", content_type="text/html")

    return step


@pytest.mark.parametrize(
    "trouble",
    [cut, saying(503, Retry_After="0"), saying(429, Retry_After="0"), page(502), page(503), page(504), saying(500)],
)
async def test_a_submit_is_repeated_with_the_same_key(trouble: Step) -> None:
    """However the answer was lost, the second request cannot make a second job."""
    async with stumbling(trouble, fine) as relay, RelayClient(relay.url, "key") as client:
        assert (await client.submit(**SUBMIT)).id == "job_1"
    assert len(relay.requests) == 2
    assert relay.requests[0] == relay.requests[1]
    assert relay.requests[0][2]


async def test_a_read_and_a_cancel_are_repeated() -> None:
    """Twice is the same as once."""
    async with stumbling(cut, fine, cut, fine) as relay, RelayClient(relay.url, "key") as client:
        await client.job("job_1")
        await client.cancel("job_1")
    assert [path for _, path, _ in relay.requests] == ["/v1/jobs/job_1"] * 2 + ["/v1/jobs/job_1/cancel"] * 2


@pytest.mark.parametrize("trouble", [cut, saying(503, Retry_After="0")])
async def test_a_redelivery_is_not_repeated(trouble: Step) -> None:
    """Nobody knows whether it was carried out: a second one might send a second callback."""
    async with stumbling(trouble, trouble, fine) as relay, RelayClient(relay.url, "key") as client:
        for call in (client.redeliver("job_1"), client.redeliver_many()):
            with pytest.raises(Unreachable):
                await call
    assert len(relay.requests) == 2


async def test_what_was_never_sent_is_repeated() -> None:
    """A relay that is starting is waited for, also with a redelivery."""
    port = free_port()
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(RelayClient(f"http://127.0.0.1:{port}", "key"))
        with pytest.raises(Unreachable) as caught:
            async with RelayClient(f"http://127.0.0.1:{port}", "key", patience_s=0) as hasty:
                await hasty.redeliver("job_1")
        assert not caught.value.is_sent

        redelivering = asyncio.create_task(client.redeliver("job_1"))
        await asyncio.sleep(0)
        relay = await stack.enter_async_context(stumbling(fine, port=port))
        assert (await asyncio.wait_for(redelivering, 10)).id == "job_1"
        assert len(relay.requests) == 1


async def test_patience_ends() -> None:
    """What would be waited for longer than one is willing to wait is told at once, with the reason."""
    async with (
        stumbling(saying(503, Retry_After="3600")) as relay,
        RelayClient(relay.url, "key", patience_s=5) as client,
    ):
        with pytest.raises(Unreachable, match="The store is away") as caught:
            await client.job("job_1")
    assert len(relay.requests) == 1
    assert caught.value.retry_after_s == 3600


async def test_a_refusal_is_final() -> None:
    """The same request again would be refused again."""
    body = {"detail": "No.", "code": "invalid_request", "errors": [{"parameter": "wait", "detail": "is odd"}]}
    async with stumbling(saying(422, body)) as relay, RelayClient(relay.url, "key") as client:
        with pytest.raises(Invalid, match="wait: is odd"):
            await client.job("job_1")
    assert len(relay.requests) == 1


@pytest.mark.parametrize("answer", [page(200), saying(200, []), saying(200, {"id": 1}), page(404), page(302)])
async def test_something_else_than_a_relay_is_told(answer: Step) -> None:
    """An answer that is not the relay's is no job, and no redirect is followed with the key."""
    async with stumbling(answer) as relay, RelayClient(relay.url, "key") as client:
        for call in (client.job, client.batch, client.attempts):
            with pytest.raises(Unexpected):
                await call("job_1")
        with pytest.raises(Unexpected):
            await client.redeliver_many()
        with pytest.raises(Unexpected):
            await anext(client.events())


async def test_the_trace_context_goes_along() -> None:
    """What the caller traces can be followed into the relay."""
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with stumbling(fine) as relay, RelayClient(relay.url, "key") as client:
        await client.submit(**SUBMIT, traceparent=traceparent)
        await client.submit(**SUBMIT)
    assert [headers.get("traceparent") for headers in relay.headers] == [traceparent, None]
    assert relay.headers[0]["Authorization"] == "Bearer key"


async def test_no_proxy_is_asked_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment does not get in between, nor the key."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    async with stumbling(fine) as relay, RelayClient(relay.url, "key", patience_s=0) as client:
        assert (await client.job("job_1")).id == "job_1"


async def test_a_client_that_is_not_opened_is_a_mistake() -> None:
    """The error says what to do; an address that is none is told before anything is sent."""
    with pytest.raises(RuntimeError, match="context manager"):
        await RelayClient("http://127.0.0.1:1", "key").job("job_1")
    with pytest.raises(Misconfigured):
        RelayClient("nowhere", "key")
