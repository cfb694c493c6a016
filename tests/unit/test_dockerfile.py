"""The Dockerfile, as far as it can be tried without building it."""

import asyncio
import os
import sys

import pytest
from aiohttp import web

from tests.unit.dockerfile import ROOT, Dockerfile


def test_what_is_run_needs_no_shell() -> None:
    """Every command is in exec form, so that signals reach the service and the image could do without a shell."""
    image = Dockerfile.read()
    assert all(rest.startswith("[") for name, rest in image.instructions if name in ("RUN", "CMD", "ENTRYPOINT"))


def test_packages_come_from_the_lock_files() -> None:
    """pip takes what the hashes name, or what was built from this tree, and nothing else."""
    installs = [rest for name, rest in Dockerfile.read().instructions if name == "RUN" and '"install"' in rest]
    assert len(installs) == 3
    for rest in installs:
        assert '"--require-hashes"' in rest or ('"--no-index"' in rest and '"--no-deps"' in rest)


def test_the_user_is_a_number_and_not_root() -> None:
    """A number lets Kubernetes see that the image does not run as root."""
    user, _, group = Dockerfile.read().user.partition(":")
    assert int(user) > 0
    assert int(group) > 0


def test_what_is_copied_is_let_through() -> None:
    """What the build copies exists and is not held back by .dockerignore, which lets nothing else through."""
    ignore = (ROOT / ".dockerignore").read_text().split()
    allowed = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    assert "*" in ignore
    copied: set[str] = set()
    for name, rest in Dockerfile.read().instructions:
        if name == "COPY" and not rest.startswith("--from"):
            copied |= set(rest.split()[:-1])
    assert all((ROOT / path).exists() for path in copied)
    assert {path.partition("/")[0] for path in copied} == allowed


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
async def test_the_health_check_asks_the_service(status: int, healthy: bool) -> None:
    """The image is healthy exactly while the service's `/healthz` answers 200, whatever proxy the environment names."""

    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(status=status)

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site.name.rpartition(":")[2]
        # Which service process 1 is, is unknown here: both are on this port.
        services = {"RELAY_PORT": port, "RELAY_WORKER_PORT": port, "http_proxy": "http://127.0.0.1:1"}
        check = await asyncio.create_subprocess_exec(
            sys.executable, *Dockerfile.read().health[1:], env={**os.environ, **services}
        )
        assert (await check.wait() == 0) is healthy
    finally:
        await runner.cleanup()
