"""The examples do what they show: every receiver takes real callbacks, and refuses what is none."""

import asyncio
import json
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from standardwebhooks import Webhook

from relay.core.signing import new_secret
from tests.acceptance import npm
from tests.acceptance.example_receivers import EXAMPLES, RECEIVERS, ROOT, Example, running
from tests.processes import API_KEY, System, eventually, free_port

pytestmark = pytest.mark.acceptance

#: More than the 1 MiB or less that frameworks take unless they are told otherwise.
LARGE = "[bytes=1500000]"


async def delivery(system: System, job: Mapping[str, Any], status: str, attempts: int) -> None:
    """Wait until a job's callback has come so far."""

    async def there() -> bool:
        _, answer = await system.call("GET", f"/v1/jobs/{job['id']}")
        return bool(answer["delivery"]["status"] == status and answer["delivery"]["attempts"] == attempts)

    await eventually(there, 20, f"{status} after {attempts}")


@pytest.mark.parametrize("example", RECEIVERS, ids=str)
async def test_an_example_works_on_each_event_once(example: Example, system: System, tmp_path: Path) -> None:
    """A large result, a thin one, a failure and a batch are worked on once; what is too late is refused for good."""
    form = {"callback_format": example.callback_format}
    async with running(example, tmp_path, system.secret) as receiver:
        there = {"callback_url": receiver.url} | form
        full = await system.submit(f"full {LARGE}", **there)
        _, result = await receiver.works_on(full["id"])
        await delivery(system, full, "delivered", 1)
        status, _ = await system.call("POST", f"/v1/jobs/{full['id']}/redeliver")
        assert status == 202
        await delivery(system, full, "delivered", 2)

        thin = await system.submit(f"thin {LARGE}", callback_payload="thin", **there)
        failed = await system.submit("[fail]", **there)
        late = await system.submit("late", metadata={"useful_until": 1}, **there)
        early = await system.submit("early", metadata={"useful_until": 1e11}, **there)
        batch = {"prompts": ["one"], "scrapers": ["chatgpt"], "callback_events": ["batch.completed"], **there}
        status, batch = await system.call("POST", "/v1/batches", batch)
        assert status == 202, batch

        await delivery(system, late, "gone", 1)
        assert (await receiver.works_on(thin["id"]))[0] == "job.completed"
        assert (await receiver.works_on(early["id"]))[0] == "job.completed"
        event, error = await receiver.works_on(failed["id"])
        assert (event, error["code"]) == ("job.failed", "upstream_failed")
        event, statuses = await receiver.works_on(batch["id"])
        assert (event, statuses["done"]) == ("batch.completed", 1)

        for job, seen in ((full, result), (thin, receiver.worked_on(thin["id"])[0][1])):
            assert len(seen["result"]) >= 1_500_000
            _, answer = await system.call("GET", f"/v1/jobs/{job['id']}")
            assert seen == answer["result"]
        worked = {name: len(receiver.worked_on(name)) for name in (full["id"], thin["id"], failed["id"], late["id"])}
        assert worked == {full["id"]: 1, thin["id"]: 1, failed["id"]: 1, late["id"]: 0}
        assert "Traceback" not in receiver.service.log.read_text()


def signed(secret: str, body: str, age: timedelta = timedelta()) -> dict[str, str]:
    """The headers of a callback."""
    now = datetime.now(UTC) - age
    return {
        "Content-Type": "application/json",
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg_1", now, body),
    }


@pytest.mark.parametrize("example", RECEIVERS, ids=str)
async def test_an_example_refuses_what_is_not_genuine(example: Example, tmp_path: Path) -> None:
    """Another's signature, an old one, a changed body, and what is not even shaped like a callback get a 401."""
    secret = new_secret()
    body = json.dumps({"type": "job.failed", "timestamp": "", "data": {"id": "job_1", "error": None}})
    good = signed(secret, body)
    cases: list[tuple[str, dict[str, str], bytes]] = [
        ("nothing", {}, b""),
        ("another secret", signed(new_secret(), body), body.encode()),
        ("too old", signed(secret, body, timedelta(minutes=6)), body.encode()),
        ("from the future", signed(secret, body, timedelta(minutes=-6)), body.encode()),
        ("changed", good, body.encode() + b" "),
        ("another id", good | {"webhook-id": "msg_2"}, body.encode()),
        ("no signature", {k: v for k, v in good.items() if k != "webhook-signature"}, body.encode()),
        ("not UTF-8", good, b"\xff\xfe"),
        ("no comma", good | {"webhook-signature": "v1"}, body.encode()),
        ("no base64", good | {"webhook-signature": "v1,*"}, body.encode()),
        ("another version", good | {"webhook-signature": good["webhook-signature"].replace("v1", "v9")}, body.encode()),
        ("no time", good | {"webhook-timestamp": "9" * 5000}, body.encode()),
        ("no number", good | {"webhook-timestamp": "NaN"}, body.encode()),
    ]
    async with running(example, tmp_path, secret) as receiver, aiohttp.ClientSession(trust_env=False) as http:
        for name, headers, sent in cases:
            async with http.post(receiver.url, headers=headers, data=sent) as response:
                assert response.status == 401, name
        # Among others' signatures, as while secrets rotate. In no CloudEvent's form, where that is what is expected.
        among = good | {"webhook-signature": f"v1,{'A' * 43}= {good['webhook-signature']}"}
        async with http.post(receiver.url, headers=among, data=body.encode()) as response:
            assert response.status == (400 if example.callback_format == "cloudevents" else 204)
        assert "Traceback" not in receiver.service.log.read_text()


@pytest.mark.parametrize("example", [one for one in RECEIVERS if not one.answers_last], ids=str)
async def test_a_server_answers_before_it_works(example: Example, tmp_path: Path) -> None:
    """Where the work comes after the answer, the answer does not wait for the result that the work has to fetch."""
    secret, answered = new_secret(), asyncio.Event()

    async def result(_request: web.Request) -> web.Response:
        await answered.wait()
        return web.json_response({"status": "done"})

    app = web.Application()
    app.router.add_get("/", result)
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    data = {"id": "job_1", "result": None, "result_url": f"{site.name}/"}
    if example.callback_format == "cloudevents":
        kind = {
            "specversion": "1.0",
            "id": "msg_1",
            "source": "/clients/a",
            "type": "com.scrapellm.relay.job.completed",
        }
        body, form = json.dumps(kind | {"subject": "job_1", "data": data}), "application/cloudevents+json"
    else:
        body, form = json.dumps({"type": "job.completed", "timestamp": "", "data": data}), "application/json"
    headers = signed(secret, body) | {"Content-Type": form}
    try:
        async with running(example, tmp_path, secret) as receiver, aiohttp.ClientSession(trust_env=False) as http:
            limit = aiohttp.ClientTimeout(total=10)
            async with http.post(receiver.url, headers=headers, data=body.encode(), timeout=limit) as response:
                assert response.status == 204
            assert receiver.worked_on("job_1") == []
            answered.set()
            assert await receiver.works_on("job_1") == ("job.completed", {"status": "done"})
    finally:
        answered.set()
        await runner.cleanup()


@pytest.mark.parametrize("example", [one for one in RECEIVERS if one.answers_last], ids=str)
async def test_a_function_that_fails_is_called_again(example: Example, tmp_path: Path) -> None:
    """Where the work comes before the answer, what failed is answered with an error, and not taken for seen."""
    secret = new_secret()
    nowhere = {"id": "job_1", "result": None, "result_url": f"http://127.0.0.1:{free_port()}/"}
    body = json.dumps({"type": "job.completed", "timestamp": "", "data": nowhere})
    async with running(example, tmp_path, secret) as receiver, aiohttp.ClientSession(trust_env=False) as http:
        for _ in range(2):
            async with http.post(receiver.url, headers=signed(secret, body), data=body.encode()) as response:
                assert response.status >= 500


@pytest.mark.parametrize("example", [one for one in RECEIVERS if one.folder != "cloudflare-worker"], ids=str)
async def test_without_a_secret_an_example_does_not_start(example: Example, tmp_path: Path) -> None:
    """Without SIGNING_SECRET an example ends at once, and says in one line what is missing."""
    service = await asyncio.to_thread(example.service, tmp_path, free_port(), None)
    try:
        with pytest.raises(AssertionError, match="did not start"):
            await service.start()
        assert not service.is_running()
    finally:
        if service.is_running():
            await service.kill()
    log = service.log.read_text()
    assert log.count("SIGNING_SECRET is not set") == 1
    assert "Traceback" not in log


async def test_without_a_secret_the_worker_takes_nothing(tmp_path: Path) -> None:
    """A Worker gets its secret with each request: without one it answers 500, so that callbacks come again."""
    example = next(one for one in RECEIVERS if one.folder == "cloudflare-worker")
    service = example.service(tmp_path, free_port(), None)
    url, service.ready_url = service.ready_url, service.ready_url.replace("/hook", "/ready")
    try:
        await service.start()
        async with aiohttp.ClientSession(trust_env=False) as http, http.post(url, data=b"{}") as response:
            assert (response.status, "SIGNING_SECRET is not set" in await response.text()) == (500, True)
    finally:
        await service.terminate(10)


def test_examples_pin_what_is_tested() -> None:
    """What an example asks for is pinned, at the version of the lock file that the tests run with."""
    locked = set(re.findall(r"^([a-z0-9.-]+==[^ ]+)", (ROOT / "requirements" / "dev.txt").read_text(), re.MULTILINE))
    files = sorted(EXAMPLES.glob("*/requirements.txt"))
    assert len(files) == 5
    for file in files:
        assert set(file.read_text().split()) <= locked, file


async def test_the_receiver_takes_what_the_script_submits(system: System, tmp_path: Path) -> None:
    """A job submitted by the shell script is called back to an example, whatever is in its prompt."""
    npm.need("curl")
    async with running(RECEIVERS[0], tmp_path, system.secret) as receiver:
        script = await asyncio.create_subprocess_exec(
            *(str(EXAMPLES / "submit.sh"), 'it\'s a "quoted" prompt', receiver.url),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "RELAY_API_KEY": API_KEY, "RELAY_URL": system.relay_url},
        )
        out, _ = await asyncio.wait_for(script.communicate(), 15)
        assert script.returncode == 0, out
        assert (await receiver.works_on(json.loads(out)["id"]))[0] == "job.completed"
