"""The image's health check: which service it asks, and what it makes of the answer."""

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping

import pytest
from aiohttp import web

from relay.healthcheck import address, main, trouble


@pytest.mark.parametrize(
    ("command", "environment", "expected"),
    [
        ("python -m relay", {}, ("127.0.0.1", 8080)),
        ("python -m worker", {}, ("127.0.0.1", 9090)),
        ("/opt/relay/bin/python -m worker", {}, ("127.0.0.1", 9090)),
        ("python /opt/relay/bin/scrapellm-relay worker", {}, ("127.0.0.1", 9090)),
        ("python /opt/relay/bin/scrapellm-relay serve", {}, ("127.0.0.1", 8080)),
        # As with `docker run --init`.
        ("/sbin/docker-init -- python -m worker", {}, ("127.0.0.1", 9090)),
        ("python -m relay --note workers", {}, ("127.0.0.1", 8080)),
        ("python -m relay", {"RELAY_PORT": "80", "RELAY_WORKER_PORT": "90"}, ("127.0.0.1", 80)),
        ("python -m worker", {"RELAY_PORT": "80", "RELAY_WORKER_PORT": "90"}, ("127.0.0.1", 90)),
        ("python -m relay", {"RELAY_HOST": "0.0.0.0", "RELAY_WORKER_HOST": "::"}, ("127.0.0.1", 8080)),
        ("python -m worker", {"RELAY_HOST": "0.0.0.0", "RELAY_WORKER_HOST": "::"}, ("::1", 9090)),
        ("python -m relay", {"RELAY_HOST": "10.1.2.3"}, ("10.1.2.3", 8080)),
    ],
)
def test_the_service_of_the_container_is_asked(
    command: str, environment: Mapping[str, str], expected: tuple[str, int]
) -> None:
    """Process 1 says which service it is, and that service's own settings say where it listens."""
    assert address(command.replace(" ", "\0").encode() + b"\0", environment) == expected


@contextlib.asynccontextmanager
async def service(status: int) -> AsyncIterator[int]:
    """The port of a service whose `/healthz` answers with a status."""

    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(status=status)

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield int(site.name.rpartition(":")[2])
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(("status", "code", "said"), [(200, 0, ""), (503, 1, "/healthz says 503")])
async def test_the_health_check_asks_the_service(status: int, code: int, said: str) -> None:
    """It is healthy exactly while `/healthz` answers 200, whatever proxy the environment names."""
    async with service(status) as port:
        # Which service process 1 is, is unknown here: both are on this port.
        services = {"RELAY_PORT": str(port), "RELAY_WORKER_PORT": str(port), "http_proxy": "http://127.0.0.1:1"}
        check = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "relay.healthcheck"),
            env={**os.environ, **services},
            stderr=asyncio.subprocess.PIPE,
        )
        _, stderr = await check.communicate()
    assert check.returncode == code
    assert said in stderr.decode()


def test_a_service_that_is_gone_is_named() -> None:
    """Where nothing listens, the line says where it was looked for."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert str(trouble("127.0.0.1", port)).startswith(f"127.0.0.1 port {port}: ")


def test_a_service_that_hangs_is_unhealthy() -> None:
    """What takes the request and never answers is given up on, before Docker would."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert trouble("127.0.0.1", listener.getsockname()[1]) is not None


def test_a_port_that_is_none_is_unhealthy(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A setting that no service could start with is said in one line."""
    monkeypatch.setenv("RELAY_PORT", "http")
    monkeypatch.setenv("RELAY_WORKER_PORT", "http")
    assert main() == 1
    assert capsys.readouterr().err.startswith("unhealthy: ")
