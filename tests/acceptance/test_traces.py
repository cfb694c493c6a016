"""One trace from the client's request to the receiver, and log lines that name it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from relay.core.signing import new_secret
from tests.collector import Collector, Noted
from tests.integration.worker_peers import Arrival, Receiver
from tests.processes import API_KEY, System, free_port, until

pytestmark = pytest.mark.acceptance

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT, STATE = f"00-{TRACE}-{SPAN}-01", "rojo=00f067aa0ba902b7,congo=t61r"
SUBMIT, POLL, ACCEPT = "POST /scrapers/{scraper}/jobs", "GET /jobs/{id}", "POST /v1/jobs"


@pytest.fixture(name="collector")
async def fixture_collector() -> AsyncIterator[Collector]:
    """A collector of traces."""
    async with Collector().serving() as collector:
        yield collector


@pytest.fixture(name="receiver")
async def fixture_receiver() -> AsyncIterator[Receiver]:
    """A receiver that refuses the first attempt at each path with `again` in it."""
    seen: set[str] = set()

    async def reply(arrival: Arrival) -> web.Response:
        refuses = "again" in arrival.path and arrival.path not in seen
        seen.add(arrival.path)
        return web.Response(status=503 if refuses else 204)

    async with Receiver(reply).serving() as receiver:
        yield receiver


@pytest.fixture(name="traced")
async def fixture_traced(
    tmp_path: Path, upstream: dict[str, str], settings: dict[str, str], collector: Collector
) -> AsyncIterator[System]:
    """A running system that sends its traces to the collector."""
    # OpenTelemetry's own variables are no settings of ours, but all the same variables of the processes.
    told = {**settings, **collector.settings(), "RELAY_LOG_LEVEL": "debug"}
    async with System(tmp_path, told, upstream).running() as system:
        yield system


async def arrived(receiver: Receiver, path: str, count: int = 1) -> list[Arrival]:
    """The attempts at a path, as soon as there are so many."""
    await until(lambda: len(receiver.at(path)) >= count, 20, lambda: f"{len(receiver.at(path))} attempts at {path}")
    return receiver.at(path)


async def spans(collector: Collector, trace_id: str, *names: str) -> list[Noted]:
    """The spans of a trace, as soon as they have these names."""

    def found() -> list[Noted]:
        return [span for span in collector.spans if span.trace_id == trace_id]

    wanted = sorted(names)
    await until(lambda: sorted(span.name for span in found()) == wanted, 10, lambda: repr(found()))
    return found()


def lines_about(system: System, word: str) -> list[dict[str, Any]]:
    """The log lines of relay and worker that have this word, as `grep` finds them."""
    texts = (service.log.read_text() for service in (system.relay, system.worker))
    return [json.loads(line) for text in texts for line in text.splitlines() if word in line]


async def test_one_trace(traced: System, collector: Collector, receiver: Receiver) -> None:
    """Accepting, submitting, polling and each attempt are in the client's trace, and the receiver goes on with it."""
    body = {"scraper": "grok", "prompt": "[latency=0] Why?", "callback_url": f"{receiver.url}/again"}
    status, job = await traced.call("POST", "/v1/jobs", body, traceparent=PARENT, tracestate=STATE)
    assert status == 202
    first, second = await arrived(receiver, "/again", 2)
    found = await spans(collector, TRACE, ACCEPT, SUBMIT, POLL, "POST", "POST")
    by_name = {span.name: span for span in found}
    accept, submit, poll = by_name[ACCEPT], by_name[SUBMIT], by_name[POLL]
    assert (accept.service, accept.kind, accept.parent_id) == ("scrapellm-relay", "SERVER", SPAN)
    assert accept.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/jobs",
        "http.response.status_code": 202,
    }
    for span in found:
        if span is not accept:
            assert (span.service, span.kind, span.parent_id) == ("scrapellm-relay-worker", "CLIENT", accept.span_id)
            assert span.attributes["scrapellm_relay.id"] == job["id"]
            assert span.attributes["server.address"] == "127.0.0.1"
    assert (submit.attributes["http.response.status_code"], submit.is_error) == (202, False)
    assert (poll.attributes["server.port"], poll.attributes["url.template"]) == (traced.emulator_port, "/jobs/{id}")
    attempts = [span for span in found if span.name == "POST"]
    assert [(a.attributes["http.response.status_code"], a.is_error) for a in attempts] == [(503, True), (204, False)]
    assert attempts[0].attributes["error.type"] == "503"
    assert [a.attributes.get("http.request.resend_count") for a in attempts] == [None, 1]
    for arrival, span in zip((first, second), attempts, strict=True):
        assert arrival.headers["traceparent"] == f"00-{TRACE}-{span.span_id}-01"
        assert arrival.headers["tracestate"] == STATE


async def test_a_trace_begins_here(traced: System, collector: Collector, receiver: Receiver) -> None:
    """Without a client's context, or with a malformed one, the relay begins a trace; log lines say which it is."""
    url = f"{receiver.url}/hook"
    body = {"scraper": "grok", "prompt": "[latency=0] Why?", "callback_url": url}
    status, job = await traced.call("POST", "/v1/jobs", body, traceparent=f"{PARENT}-of no use", tracestate=STATE)
    assert status == 202
    [arrival] = await arrived(receiver, "/hook")
    trace_id = arrival.headers["traceparent"].split("-")[1]
    assert trace_id != TRACE
    assert "tracestate" not in arrival.headers
    found = await spans(collector, trace_id, ACCEPT, SUBMIT, POLL, "POST")
    [accept] = [span for span in found if span.name == ACCEPT]
    assert accept.parent_id == ""
    await until(lambda: len(lines_about(traced, job["id"])) >= 4, 5, lambda: repr(lines_about(traced, job["id"])))
    story = lines_about(traced, job["id"])
    assert [line["event"] for line in story] == ["request", "submitted", "job ended", "callback attempt"]
    assert {(line["id"], line["client"], line["trace_id"]) for line in story} == {(job["id"], "default", trace_id)}
    # A batch and its jobs are one trace, and what was sent again belongs to it as well.
    members = [{"prompt": "[latency=0] a", "scraper": "grok"}, {"prompt": "[latency=0] b", "scraper": "grok"}]
    batch = {"jobs": members, "callback_url": f"{receiver.url}/batch"}
    assert (await traced.call("POST", "/v1/batches", batch, traceparent=PARENT))[0] == 202
    arrivals = await arrived(receiver, "/batch", 3)
    assert {a.document["type"] for a in arrivals} == {"job.completed", "batch.completed"}
    assert {a.headers["traceparent"].split("-")[1] for a in arrivals} == {TRACE}
    assert (await traced.call("POST", f"/v1/jobs/{job['id']}/redeliver"))[0] == 202
    _, again = await arrived(receiver, "/hook", 2)
    assert again.headers["traceparent"].split("-")[1] == trace_id


async def test_a_context_is_passed_on_without_traces(system: System, receiver: Receiver) -> None:
    """Where the relay makes no traces, the receiver gets the client's context as it came; headers of its own win."""
    body = {"scraper": "grok", "prompt": "[latency=0] Why?"}
    paths: dict[str, dict[str, str]] = {
        "/given": {"traceparent": PARENT, "tracestate": STATE},
        "/unsampled": {"traceparent": f"00-{TRACE}-{SPAN}-00"},
        "/malformed": {"traceparent": "00-nonsense", "tracestate": STATE},
        "/none": {},
    }
    for path, headers in paths.items():
        assert (await system.call("POST", "/v1/jobs", {**body, "callback_url": receiver.url + path}, **headers))[
            0
        ] == 202
    own = {"callback_url": f"{receiver.url}/own", "callback_headers": {"TraceParent": "the client's own"}}
    assert (await system.call("POST", "/v1/jobs", {**body, **own}, traceparent=PARENT, tracestate=STATE))[0] == 202
    batch = {"prompts": ["[latency=0] a"], "scrapers": ["grok"], "callback_url": f"{receiver.url}/batch"}
    assert (await system.call("POST", "/v1/batches", batch, traceparent=PARENT))[0] == 202
    for path, headers in paths.items():
        [arrival] = await arrived(receiver, path)
        expected = {} if path == "/malformed" else headers
        assert {n: v for n, v in arrival.headers.items() if n.startswith("trace")} == expected, path
    [arrival] = await arrived(receiver, "/own")
    assert (arrival.headers["traceparent"], "tracestate" in arrival.headers) == ("the client's own", False)
    assert {a.headers["traceparent"] for a in await arrived(receiver, "/batch", 2)} == {PARENT}
    assert not lines_about(system, "trace_id")


async def test_a_context_is_no_part_of_what_is_asked(system: System) -> None:
    """The same idempotency key with another context is the same request."""
    body = {"scraper": "grok", "prompt": "[latency=0] Why?", "callback_url": f"{system.inbox_url}/hook"}
    key = {"Idempotency-Key": "once"}
    first = await system.call("POST", "/v1/jobs", body, **key, traceparent=PARENT)
    second = await system.call("POST", "/v1/jobs", body, **key, traceparent=PARENT.replace("00f0", "00f1"))
    assert (first[0], second[0], second[1]["id"]) == (202, 202, first[1]["id"])


SECRETS = {
    "prompt": "marked-prompt",
    "metadata": "marked-metadata",
    "parameter": "marked-parameter",
    "header": "marked-header",
    "path": "marked-path",
    "query": "marked-query",
    "idempotency": "marked-idempotency-key",
    "receiver": "marked-words-of-the-receiver",
}


async def test_nothing_secret_is_told(traced: System, collector: Collector) -> None:
    """No log line, no metric and no trace has anything of a job's content, its addresses, keys or upstream ids."""

    async def reply(arrival: Arrival) -> web.Response:
        return web.Response(status=500 if arrival.headers["relay-attempt"] == "1" else 200, text=SECRETS["receiver"])

    async with Receiver(reply).serving() as receiver:
        jobs: list[str] = []
        for payload, marker in (("full", ""), ("thin", ""), ("full", "[fail]")):
            body = {
                "scraper": "grok",
                "prompt": f"[latency=0] {marker} {SECRETS['prompt']}",
                "params": {"mode": SECRETS["parameter"]},
                "metadata": {"of": SECRETS["metadata"]},
                "callback_url": f"{receiver.url}/{SECRETS['path']}?{SECRETS['query']}",
                "callback_headers": {"Authorization": SECRETS["header"]},
                "callback_payload": payload,
            }
            key = f"{SECRETS['idempotency']}-{len(jobs)}"
            status, job = await traced.call("POST", "/v1/jobs", body, **{"Idempotency-Key": key})
            assert status == 202
            jobs.append(job["id"])
        await arrived(receiver, f"/{SECRETS['path']}", 2 * len(jobs))
        [url] = {a.document["data"]["result_url"] for a in receiver.arrivals if "result_url" in a.document["data"]}
        async with aiohttp.ClientSession() as http, http.get(url) as response:
            result = await response.json()
    upstream_ids = [(await traced.call("GET", f"/v1/jobs/{job}"))[1]["upstream_job_id"] for job in jobs]
    metrics = [await scraped(traced.relay_url), await scraped(f"http://127.0.0.1:{traced.worker_port}")]
    assert await traced.worker.terminate() == 0
    assert await traced.relay.terminate() == 0
    told = [service.log.read_bytes() for service in (traced.relay, traced.worker)] + metrics + collector.bodies
    hidden = [
        *SECRETS.values(),
        *upstream_ids,
        *(API_KEY, "upstream-key", traced.secret, traced.secret.removeprefix("whsec_")),
        *(url.rpartition("/")[2], result["result"][:40]),
    ]
    for secret in hidden:
        assert secret
        assert not any(secret.encode() in part for part in told), secret
    for job in jobs:
        assert [line["event"] for line in lines_about(traced, job)].count("callback attempt") == 2
        assert any(job.encode() in body for body in collector.bodies)


async def scraped(url: str) -> bytes:
    """The metrics of a process."""
    async with aiohttp.ClientSession() as http, http.get(f"{url}/metrics") as response:
        return await response.read()


async def test_a_collector_that_is_away(tmp_path: Path, settings: dict[str, str], upstream: dict[str, str]) -> None:
    """Jobs don't wait for traces, and neither does the end of a process."""
    away = {"RELAY_OTEL": "on", "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    async with System(tmp_path, {**settings, **away}, upstream).running() as system:
        await system.submit("[latency=0] Why?")
        await system.callbacks(1, 20)
        for service in (system.relay, system.worker):
            began_s = time.monotonic()
            assert await service.terminate() == 0
            assert time.monotonic() - began_s < 10, service.name
            assert b"Traceback" not in service.log.read_bytes()


@pytest.mark.parametrize("module", ["relay", "worker"])
@pytest.mark.parametrize(
    ("prelude", "variables", "said"),
    [
        (
            "sys.modules['opentelemetry'] = None",
            {},
            "RELAY_OTEL: OpenTelemetry is not installed; install scrapellm-relay with the extra `otel`",
        ),
        (
            "",
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"},
            "RELAY_OTEL: OpenTelemetry cannot be set up: OTEL_EXPORTER_OTLP_ENDPOINT must begin with http:// or https://",
        ),
        (
            "",
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "RELAY_OTEL: OpenTelemetry cannot be set up: OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf",
        ),
    ],
)
def test_traces_that_cannot_be_had(module: str, prelude: str, variables: dict[str, str], said: str) -> None:
    """A process that is asked for traces and cannot make them says so in one line, and ends."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RELAY_", "OTEL_"))}
    settings = {
        "RELAY_OTEL": "on",
        "RELAY_API_KEY": API_KEY,
        "RELAY_SIGNING_SECRET": new_secret(),
        "RELAY_UPSTREAM_API_KEY": "upstream-key",
    }
    program = f"import sys\n{prelude}\nfrom {module}.__main__ import main\nsys.exit(main())"
    done = subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-c", program],
        env={**clean, **settings, **variables},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr.splitlines()) == (2, [f"scrapellm-relay {module}: {said}"])
