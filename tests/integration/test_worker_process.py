"""`python -m worker` as a process: its exit codes, and what its log lines say and never say."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from relay.core.model import DeliveryStatus
from tests.integration.worker_harness import FAST, SECRET, UPSTREAM_KEY, Rig, callback_to
from tests.integration.worker_peers import Arrival, Asked, Receiver, Upstream, done, refusing, taking, upstream_id
from tests.processes import Service, free_port

EXTRA = {"Authorization": "Bearer token-of-the-receiver", "X-Extra": "value-of-an-extra-header"}
RESULT = b'{"result":"text-of-the-result","credits_used":3}'


def environment_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """The environment of a worker with these settings, and no others."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("RELAY_", "SCRAPELLM_"))}
    return clean | {f"RELAY_{name.upper()}": str(value) for name, value in settings.items() if value is not None}


@contextlib.asynccontextmanager
async def process(log: Path, **settings: Any) -> AsyncIterator[Service]:
    """A worker that is ready, until the end of the context at the latest."""
    port = free_port()
    environment = environment_of(settings | {"worker_port": port, "log_format": "json"})
    worker = Service("worker", ["-m", "worker"], environment, log, f"http://127.0.0.1:{port}/readyz")
    try:
        await worker.start()
        yield worker
    finally:
        if worker.is_running():
            await worker.kill()


class Indiscreet:
    """An upstream that has trouble where prompts name it, and quotes in it what must stay secret."""

    def __init__(self) -> None:
        self._met: set[str] = set()

    async def submit(self, asked: Asked) -> web.Response:
        """Refuse for good, or at first, or take the job."""
        quoting = f"words-of-the-upstream {asked.key} {asked.prompt}"
        for word, status in (("refused", 422), ("unknown-key", 401), ("busy", 503)):
            if word in asked.prompt and self._is_first(asked.prompt):
                return refusing(status, quoting)()
        if "lost" in asked.prompt and self._is_first(asked.prompt):
            return web.Response(status=202, text=quoting)
        return await taking(asked)

    async def poll(self, asked: Asked) -> web.Response:
        """Fail, or have no answer at first, or be done."""
        quoting = f"words-of-the-upstream {asked.job_id}"
        if "failing" in asked.job_id:
            return web.json_response({"status": "failed", "error": quoting})
        if "forgotten" in asked.job_id:
            return refusing(404, quoting)()
        if "garbled" in asked.job_id and self._is_first(asked.job_id):
            return web.Response(text=quoting)
        return done(RESULT)()

    def _is_first(self, what: str) -> bool:
        is_first = what not in self._met
        self._met.add(what)
        return is_first


async def test_its_log_is_discreet(store_url: str, tmp_path: Path) -> None:
    """One JSON line for each attempt, with all that matters; no content and no secret in any line, whatever fails."""
    upstream = Indiscreet()

    async def reply(arrival: Arrival) -> web.Response:
        if arrival.path.endswith("failing"):
            return web.Response(status=500, text=f"words-of-the-receiver {arrival.headers['authorization']}")
        if arrival.path.endswith("hanging"):
            await asyncio.sleep(10)
        return web.Response(status=204)

    words = ["fine", "refused", "unknown-key", "busy", "lost", "failing", "forgotten", "garbled"]
    async with (
        Upstream(submit=upstream.submit, poll=upstream.poll).serving() as served,
        Receiver(reply).serving() as receiver,
        Rig.open(store_url, served.url, callback_schedule="0,0.1", callback_timeout_s=0.5) as rig,
    ):
        urls = {
            "fine": f"{receiver.url}/secret-path/fine",
            "failing": f"{receiver.url}/secret-path/failing",
            "hanging": f"{receiver.url}/secret-path/hanging",
            "refusing": f"http://127.0.0.1:{free_port()}/secret-path",
            "no TLS": f"{receiver.url.replace('http:', 'https:')}/secret-path",
        }
        settings = {**FAST, "upstream_url": served.url, "callback_schedule": "0,0.1", "callback_timeout_s": 0.5}
        async with process(tmp_path / "worker.log", redis_url=store_url, log_level="debug", **settings) as worker:
            jobs = [
                await rig.accept(
                    f"secret-prompt {word}",
                    callback=callback_to(url, headers=EXTRA),
                    params={"mode": "value-of-a-parameter"},
                    metadata={"of": "value-of-metadata"},
                )
                for word, url in [*((word, urls["fine"]) for word in words), *(("fine", url) for url in urls.values())]
            ]
            settled = [await rig.settled(job) for job in jobs]
            assert await worker.terminate() == 0
    text = worker.log.read_text()
    for secret in (
        *(UPSTREAM_KEY, SECRET, SECRET.removeprefix("whsec_"), "key-of-the-tests", *EXTRA.values()),
        *("secret-prompt", "value-of-a-parameter", "value-of-metadata", "text-of-the-result", "secret-path"),
        *("words-of-the-upstream", "words-of-the-receiver", upstream_id("")),
    ):
        assert secret not in text, secret
    lines = [json.loads(line) for line in text.splitlines()]
    attempts = [line for line in lines if line["event"] == "callback attempt"]
    assert len(attempts) == sum(job.delivery.attempts for job in settled)
    assert {line["outcome"] for line in attempts} == {
        *("delivered", "http_error", "timeout", "connection_error", "tls_error"),
    }
    [failed] = [job for job, word in zip(settled[len(words) :], urls, strict=True) if word == "failing"]
    assert failed.delivery.status is DeliveryStatus.EXHAUSTED
    first, last = [line for line in attempts if line["id"] == failed.id]
    assert (first["attempt"], first["http_status"], first["delivery"]) == (1, 500, "retrying")
    assert 0.1 <= first["retry_in_s"] <= 0.12
    assert (last["attempt"], last["delivery"], last["retry_in_s"]) == (2, "exhausted", None)
    assert sum(line["event"] == "job ended" for line in lines) == len(jobs)
    assert {line["level"] for line in lines} == {"debug", "info", "warning", "error"}


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"upstream_api_key": None},
            "RELAY_UPSTREAM_API_KEY is missing: it is the ScrapeLLM key that jobs are paid with",
        ),
        ({"lease_s": 1}, "RELAY_LEASE_S: Input should be greater than or equal to 3"),
    ],
)
async def test_a_wrong_setting_ends_it(store_url: str, tmp_path: Path, settings: dict[str, Any], line: str) -> None:
    """The process stops at once with one line that names the setting, and an exit code of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "worker"),
        env=environment_of({**FAST, "redis_url": store_url, **settings}),
        stderr=subprocess.PIPE,
    )
    async with asyncio.timeout(20):
        _, said = await process.communicate()
    assert (process.returncode, said.decode().splitlines()) == (2, [f"scrapellm-relay worker: {line}"])
