"""Receivers that know nothing of the relay verify its callbacks with their own libraries."""

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Protocol

import pytest
import standardwebhooks
import svix
from aiohttp import web

from tests.processes import System, until

pytestmark = pytest.mark.acceptance

NODE = Path(__file__).parent / "node"


class Verifier(Protocol):
    """What the Python libraries have in common."""

    def verify(self, data: bytes, headers: dict[str, str]) -> Any:
        """Raises where the signature is not good."""


async def receive(system: System, verifier: Verifier, **fields: object) -> dict[str, Any]:
    """Run one job and return what `verifier` makes of its callback."""
    got: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    async def hook(request: web.Request) -> web.Response:
        body = await request.read()
        verifier.verify(body, dict(request.headers))  # svix returns nothing, standardwebhooks the payload
        got.set_result({"payload": json.loads(body), "headers": request.headers.copy()})
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/hook", hook)
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        await system.submit("who verifies this?", callback_url=f"{site.name}/hook", **fields)
        return await asyncio.wait_for(got, 15)
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("library", [standardwebhooks, svix], ids=["standardwebhooks", "svix"])
@pytest.mark.parametrize("form", ["standard", "cloudevents"])
async def test_python_receivers_verify(system: System, library: Any, form: str) -> None:
    """A receiver with either Python library accepts the callback, in either format."""
    received = await receive(system, library.Webhook(system.secret), callback_format=form)
    assert received["payload"]["data"]["status"] == "done"
    assert received["headers"]["relay-attempt"] == "1"
    assert received["headers"]["User-Agent"].startswith("scrapellm-relay/")


def node_packages() -> None:
    """npm's packages in place, or a skip that says why; under CI they must be there."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("node and npm are missing, and CI=true asks for the receiver in JavaScript")
        pytest.skip("node or npm is not installed: the receiver in JavaScript is not tried")
    if not (NODE / "node_modules" / "svix").is_dir():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=NODE, check=True, timeout=110)  # noqa: S607 - from PATH


async def test_the_node_receiver_verifies(system: System) -> None:
    """A Node receiver with npm's svix and standardwebhooks accepts the callback."""
    await asyncio.to_thread(node_packages)
    process = await asyncio.create_subprocess_exec(
        "node", "receiver.mjs", system.secret, cwd=NODE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        port = json.loads(await asyncio.wait_for(process.stdout.readline(), 15))["port"]
        job = await system.submit("who verifies this?", callback_url=f"http://127.0.0.1:{port}/hook")
        line = json.loads(await asyncio.wait_for(process.stdout.readline(), 15))
        assert line == {"type": "job.completed", "id": job["id"], "webhook_id": f"msg_{job['id']}"}
    finally:
        process.terminate()
        await process.wait()


async def test_a_signature_by_two_secrets_verifies_with_each(system: System) -> None:
    """The inbox, which verifies by itself, agrees."""
    await system.submit("hello")
    await system.callbacks(1, 15)
    await until(lambda: all(received.verified for received in system.inbox.received), 1, lambda: "not verified")
