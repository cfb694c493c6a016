"""Receivers that know nothing of the relay verify its callbacks with their own libraries."""

import asyncio
import json
from pathlib import Path
from typing import Any, Protocol

import pytest
import standardwebhooks
import svix
from aiohttp import web

from relay.core.settings import hash_api_key
from relay.core.signing import new_secret
from tests.acceptance import npm
from tests.processes import API_KEY, System

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


async def test_the_node_receiver_verifies(system: System) -> None:
    """A Node receiver with npm's svix and standardwebhooks accepts the callback."""
    await asyncio.to_thread(npm.install, NODE)
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


@pytest.fixture(name="two_secrets")
def fixture_two_secrets(tmp_path: Path, settings: dict[str, str]) -> list[str]:
    """A client whose signing secret is being replaced: the old one and the new one."""
    secrets = [new_secret(), new_secret()]
    clients = tmp_path / "clients.toml"
    clients.write_text(
        f"[clients.acme]\napi_key_sha256 = ['{hash_api_key(API_KEY)}']\nsigning_secrets = {json.dumps(secrets)}\n"
    )
    settings["RELAY_CLIENTS_FILE"] = str(clients)
    return secrets


@pytest.mark.parametrize("library", [standardwebhooks, svix], ids=["standardwebhooks", "svix"])
async def test_while_a_secret_is_replaced_both_verify(two_secrets: list[str], system: System, library: Any) -> None:
    """Receivers with the old secret and receivers with the new one accept the same callback."""
    for secret in two_secrets:
        received = await receive(system, library.Webhook(secret))
        assert len(received["headers"]["webhook-signature"].split()) == 2
