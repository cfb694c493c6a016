"""The examples do what they show."""

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.processes import API_KEY, System, free_port

pytestmark = pytest.mark.acceptance

EXAMPLES = Path(__file__).parents[2] / "examples"


async def test_the_receiver_takes_what_the_script_submits(system: System) -> None:
    """A job submitted by the shell script is called back to the example's receiver, once."""
    if shutil.which("curl") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("curl is missing, and CI=true asks for the example that uses it")
        pytest.skip("curl is not installed: the example that uses it is not tried")
    port = free_port()
    receiver = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / "receiver.py"),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "SIGNING_SECRET": system.secret, "PORT": str(port)},
    )
    assert receiver.stdout is not None
    try:
        assert b"Running on" in await asyncio.wait_for(receiver.stdout.readline(), 15)
        await asyncio.wait_for(receiver.stdout.readline(), 15)
        script = await asyncio.create_subprocess_exec(
            *(str(EXAMPLES / "submit.sh"), 'it\'s a "quoted" prompt', f"http://127.0.0.1:{port}/hook"),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "RELAY_API_KEY": API_KEY, "RELAY_URL": system.relay_url},
        )
        out, _ = await asyncio.wait_for(script.communicate(), 15)
        assert script.returncode == 0, out
        line = (await asyncio.wait_for(receiver.stdout.readline(), 15)).decode()
        assert line.startswith("job.completed job_")
    finally:
        receiver.terminate()
        await receiver.wait()
