"""The OpenAPI document holds: what it allows is accepted, what it forbids refused, and nothing ends in a 5xx."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.processes import API_KEY, System

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(400)
async def test_schemathesis_finds_nothing(system: System, tmp_path: Path) -> None:
    """All phases with valid and invalid data; only the stream of events, which never ends, is left out."""
    process = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).with_name("st")), "run", f"{system.relay_url}/openapi.json"),
        *("--header", f"Authorization: Bearer {API_KEY}", "--exclude-path", "/v1/events"),
        *("--phases", "examples,coverage,fuzzing,stateful", "--mode", "all", "--max-examples", "30"),
        *("--seed", "7", "--request-timeout", "10", "--no-color", "--generation-database", "none"),
        cwd=tmp_path,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.acceptance.schemathesis_hooks", "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()[-6_000:]
