"""What the pages of the dashboard show, and what they never do."""

import json
import re
from typing import Any

import pytest
import redis
from standardwebhooks import Webhook

from relay.core.callback import message_of
from relay.core.model import AttemptOutcome, BatchId, ClientName, DeliveryStatus, JobStatus
from relay.dashboard.routes import ROUTES
from tests.integration.conftest import ACME_KEY, UMBRELLA_KEY, HandWorker, RelayClient, run_relay
from tests.integration.dashboard_harness import Page, Visitor, logged_in

PAGES = (
    *("/dashboard", "/dashboard?range=24h", "/dashboard?range=7d", "/dashboard?range=30d"),
    *("/dashboard/jobs", "/dashboard/jobs?status=done&status=failed&delivery=delivered&q=why", "/dashboard/batches"),
    *("/dashboard/destinations", "/dashboard/destinations?state=paused", "/dashboard/account"),
)
HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>\"'&{{ 7331 * 7333 }}"


async def a_batch(relay: RelayClient, **fields: object) -> Any:
    """A batch is accepted; returns the answer's document."""
    body = {"prompts": ["a", "b"], "scrapers": ["grok"], "callback_url": "https://203.0.113.7/hook"} | fields
    return (await relay.call("POST", "/v1/batches", json=body)).json


async def test_every_page_is_a_page(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """With and without anything to show each answers 200, allows nothing but its own files, and has no inline code."""
    visitor = await logged_in(relay_client)
    for path in (*PAGES, "/dashboard/login"):
        if path != "/dashboard/login":
            check_page(await visitor.get(path), 200)
    check_page(await Visitor(relay_client).get("/dashboard/login"), 200)
    job_id = (await relay_client.submit()).json["id"]
    batch_id = (await a_batch(relay_client))["id"]
    for state in (None, hand_worker.submit_all, hand_worker.finish_all, hand_worker.deliver_all):
        if state is not None:
            await state()
        for path in (*PAGES, f"/dashboard/jobs/{job_id}", f"/dashboard/batches/{batch_id}"):
            check_page(await visitor.get(path), 200)


def check_page(page: Page, status: int) -> None:
    """What is true of every page, whatever it shows."""
    assert page.status == status, page.text
    headers, source = page.answer.headers, page.source
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Content-Security-Policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )
    assert (headers["Cache-Control"], headers["Referrer-Policy"]) == ("no-store", "same-origin")
    assert headers["X-Content-Type-Options"] == "nosniff"
    tags = "".join(re.findall(r"<[a-zA-Z][^>]*>", source))
    assert not re.search(r"<style|\s(?:style|on[a-z]+)=", re.sub(r'="[^"]*"', "=", tags))
    assert all(" src=" in tag for tag in re.findall(r"<script[^>]*>", source))
    for place in re.findall(r'\s(?:src|href|action)="([^"]*)"', source):
        assert place.startswith(("/dashboard", "/docs", "#")) or place == "", place
    assert '<html lang="en">' in source
    assert source.count("<h1") == 1
    ids = re.findall(r'\sid="([^"]+)"', source)
    assert len(ids) == len(set(ids)), "an id is there twice"
    for used in re.findall(r'(?:for|aria-labelledby|aria-describedby|data-copy)="([^"]+)"', source):
        assert set(used.split()) <= set(ids), used
    for form in re.findall(r'<form method="post".*?</form>', source, re.DOTALL):
        assert "form_token" in form or "/dashboard/login" in form


async def test_what_strangers_write_is_text(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """Prompts, metadata, params, results, errors and what receivers say are shown as they are, and never run."""
    made = await relay_client.submit(prompt=HOSTILE, metadata={HOSTILE: HOSTILE}, params={"a": HOSTILE})
    await hand_worker.submit_all()
    await hand_worker.finish_all(result=json.dumps({HOSTILE: [HOSTILE]}).encode())
    with redis.Redis.from_url(relay_client.settings.redis_url) as store:
        entry = {"number": 1, "started_ms": 1, "duration_ms": 2, "outcome": "http_error", "http_status": 500}
        entry |= {"response_excerpt": HOSTILE, "error": HOSTILE}
        store.rpush(f"relay:att:{made.json['id']}", json.dumps(entry))
        store.hset(f"relay:{made.json['id']}", "a", 1)
    visitor = await logged_in(relay_client)
    page = await visitor.get(f"/dashboard/jobs/{made.json['id']}")
    check_page(page, 200)
    assert page.text.count("<script>alert('x')</script>") >= 7
    assert page.source.count("<script") == 2
    assert "<img" not in page.source
    assert str(7331 * 7333) not in page.text
    for path in (
        "/dashboard/jobs",
        f"/dashboard/jobs?{'q=<script>alert(1)</script>'}",
        "/dashboard/jobs?status=<script>",
    ):
        assert "<script>alert" not in (await visitor.get(path)).source


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/dashboard/nope", 404),
        ("/dashboard/jobs/job_x", 404),
        ("/dashboard/jobs/job_01jgfj7p00e8a3c5x9z1v7m4kq", 404),
        ("/dashboard/batches/batch_01jgfj7p00e8a3c5x9z1v7m4kq", 404),
        ("/dashboard/jobs/job_01jgfj7p00e8a3c5x9z1v7m4kq/result", 404),
        ("/dashboard/static/0/nope.js", 404),
        ("/dashboard/static/0/..%2F..%2Fjob.py", 404),
        ("/dashboard/compose", 404),
        ("/dashboard/inbox", 404),
        ("/dashboard/jobs?client=umbrella", 404),
        ("/dashboard?range=1y", 422),
        ("/dashboard?x=1", 422),
        ("/dashboard/jobs?status=nope&before=1&x=1", 422),
        ("/dashboard/jobs?batch_id=1", 422),
        ("/dashboard/jobs?q=" + "a" * 201, 422),
        ("/dashboard/batches?before=job_1", 422),
        ("/dashboard/destinations?state=nope", 422),
        ("/dashboard/account?x=1", 422),
        ("/dashboard/jobs/redeliver", 404),
    ],
)
async def test_errors_are_pages(relay_client: RelayClient, path: str, status: int) -> None:
    """What is not there and what is malformed is said on a page that leads on."""
    page = await (await logged_in(relay_client)).get(path)
    check_page(page, status)
    assert "To the overview" in page.text


async def test_an_unreachable_store_is_a_page(relay_client: RelayClient) -> None:
    """503 with what to do, on every page that needs the store."""
    cookie = (await logged_in(relay_client)).cookie
    async with run_relay("redis://127.0.0.1:1/0", clients=relay_client.clients) as relay:
        for path in PAGES:
            page = await Visitor(relay, cookie).get(path)
            check_page(page, 503)
            assert "Retry-After" in page.answer.headers


async def test_another_client_s_things(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """They are not there: not listed, not found, not counted, not changed."""
    job_id = (await relay_client.submit(key=UMBRELLA_KEY, prompt="hidden-prompt")).json["id"]
    batch_id = (
        await relay_client.call(
            "POST",
            "/v1/batches",
            key=UMBRELLA_KEY,
            json={"prompts": ["hidden-prompt"], "scrapers": ["grok"], "callback_url": "https://203.0.113.7/"},
        )
    ).json["id"]
    await hand_worker.submit_all("umbrella")
    await hand_worker.finish_all()
    await hand_worker.deliver_all()
    visitor = await logged_in(relay_client)
    for path in (
        *(f"/dashboard/jobs/{job_id}", f"/dashboard/jobs/{job_id}/result", f"/dashboard/jobs/{job_id}/callback"),
        *(f"/dashboard/batches/{batch_id}", f"/dashboard/batches/{batch_id}/callback"),
    ):
        assert (await visitor.get(path)).status == 404, path
    for path in (f"/dashboard/jobs/{job_id}/redeliver", f"/dashboard/batches/{batch_id}/redeliver"):
        assert (await visitor.send(path)).status == 404, path
    assert (await visitor.send("/dashboard/destinations/203.0.113.7:443/resume", {"owner": "umbrella"})).status == 404
    for path in (
        *PAGES,
        f"/dashboard/jobs?q={job_id}",
        "/dashboard/jobs?q=hidden",
        f"/dashboard/jobs?batch_id={batch_id}",
    ):
        source = (await visitor.get(path)).source
        assert "hidden-prompt" not in source
        assert job_id not in source.replace(f'value="{job_id}"', "")
        assert "umbrella" not in source


async def test_a_job_s_page_tells_its_story(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """Each step has its place: accepted, submitted, the outcome, attempts with what the receiver said."""
    job_id = (await relay_client.submit(prompt="Is it so?", metadata={"order": 17}, params={"mode": "deep"})).json["id"]
    visitor = await logged_in(relay_client)
    path = f"/dashboard/jobs/{job_id}"
    assert "Waiting to be submitted" in (await visitor.get(path)).text
    await hand_worker.submit_all()
    pending = (await visitor.get(path)).text
    assert "Submitted" in pending
    assert "Waiting for the outcome" in pending
    await hand_worker.finish_all()
    done = await visitor.get(path)
    assert "The first attempt is due" in done.text
    assert "Paris." in done.text
    await hand_worker.deliver_all(DeliveryStatus.EXHAUSTED, AttemptOutcome.HTTP_ERROR)
    page = await visitor.get(path)
    for words in (
        "Attempt 1 failed",
        "HTTP 500 after 12 ms",
        "thanks",
        "The schedule is used up",
        '"order": 17',
        "deep",
    ):
        assert words in page.text, words
    assert f"upstream-{job_id}" in page.text, "the client's own, as in the API"
    assert f"upstream-{job_id}" not in (await visitor.get("/dashboard/jobs")).text


@pytest.mark.parametrize("fields", [{}, {"callback_payload": "thin"}, {"callback_format": "cloudevents"}])
async def test_the_callback_is_the_one_that_is_sent(
    relay_client: RelayClient, hand_worker: HandWorker, fields: dict[str, str]
) -> None:
    """The bytes to download are those that workers sign, and the headers on the page verify them."""
    hidden = {"X-Secret": "hidden-header", "Authorization": "Bearer hidden-header"}
    job_id = (await relay_client.submit(callback_headers=hidden, **fields)).json["id"]
    await hand_worker.submit_all()
    await hand_worker.finish_all()
    claims = await hand_worker.store.begin_deliver(10)
    signed = message_of(claims[0].subject).body
    visitor = await logged_in(relay_client)
    download = await visitor.get(f"/dashboard/jobs/{job_id}/callback")
    assert download.answer.body == signed
    assert download.answer.headers["Content-Disposition"] == 'attachment; filename="callback.json"'
    page = await visitor.get(f"/dashboard/jobs/{job_id}")
    headers = {
        name: re.search(rf"{name}</i>: ([^\n]+)\n", page.source)[1]  # type: ignore[index]  # it is there
        for name in ("webhook-id", "webhook-timestamp", "webhook-signature")
    }
    secret = relay_client.clients[ClientName("acme")].signing_secrets[0]
    Webhook(secret).verify(signed, headers, json_parse=False)
    assert "2 headers of your own go along" in page.text
    for page_ in (page, download):
        assert "hidden-header" not in page_.source
    assert secret not in page.source
    assert ACME_KEY not in page.source


async def test_a_batch_s_callback(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """The same for `batch.completed`, also when its jobs were delivered meanwhile."""
    batch_id = (await a_batch(relay_client))["id"]
    visitor = await logged_in(relay_client)
    assert (await visitor.get(f"/dashboard/batches/{batch_id}/callback")).status == 404
    await hand_worker.submit_all()
    await hand_worker.finish_all()
    claims = await hand_worker.store.begin_deliver(10)
    [signed] = [message_of(claim.subject).body for claim in claims if claim.subject.id == batch_id]
    assert (await visitor.get(f"/dashboard/batches/{batch_id}/callback")).answer.body == signed
    assert "batch.completed" in (await visitor.get(f"/dashboard/batches/{batch_id}")).text


async def test_a_large_result(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """Only its beginning is on the page; all of it can be downloaded, and the command reads the body from a file."""
    result = json.dumps({"text": "ä" * 3_000_000}).encode()
    job_id = (await relay_client.submit()).json["id"]
    await hand_worker.submit_all()
    await hand_worker.finish_all(result=result)
    visitor = await logged_in(relay_client)
    page = await visitor.get(f"/dashboard/jobs/{job_id}")
    assert len(page.source) < 400_000
    assert "Only the beginning is shown" in page.text
    assert "--data-binary @callback.json" in page.text
    assert (await visitor.get(f"/dashboard/jobs/{job_id}/result")).answer.body == result


async def test_filters_search_and_pages(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """Filters combine, words of prompts and metadata are found, and older ones follow without a gap."""
    old = [(await relay_client.submit(prompt=f"old {i}", metadata={"tag": "Blue"})).json["id"] for i in range(3)]
    await hand_worker.submit_all()
    await hand_worker.finish_all(JobStatus.FAILED)
    new = [(await relay_client.submit(prompt=f"new {i}")).json["id"] for i in range(60)]
    visitor = await logged_in(relay_client)

    async def listed(query: str) -> list[str]:
        return (await visitor.get(f"/dashboard/jobs{query}")).jobs

    # Ids of one millisecond have no order but their own.
    failed, everything = sorted(old, reverse=True), sorted(old + new, reverse=True)
    first = await visitor.get("/dashboard/jobs?status=&delivery=&q=")
    assert first.jobs == everything[:50]
    assert await listed(f"?before={first.jobs[-1]}") == everything[50:]
    assert f"before={first.jobs[-1]}" in first.source
    assert await listed("?status=failed") == failed
    assert await listed("?status=failed&status=queued") == everything[:50]
    assert await listed("?status=failed&delivery=delivered") == []
    assert await listed("?q=blue") == failed
    assert await listed("?q=NEW+59") == [new[59]]
    assert await listed(f"?q={new[7]}") == [new[7]]
    assert "No job fits" in (await visitor.get("/dashboard/jobs?status=timed_out")).text


async def test_the_overview_counts(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """What is unfinished, done, failed and undelivered is told, and drawn with the same numbers."""
    for _ in range(3):
        await relay_client.submit()
    await hand_worker.submit_all()
    await hand_worker.finish_all()
    await hand_worker.deliver_all(DeliveryStatus.EXHAUSTED, AttemptOutcome.HTTP_ERROR)
    await relay_client.submit()
    await hand_worker.submit_all()
    await hand_worker.finish_all(JobStatus.FAILED)
    await relay_client.submit()
    page = await (await logged_in(relay_client)).get("/dashboard")
    numbers = dict(re.findall(r'id="n-([a-z]+)">([^<]+)<', page.source))
    assert numbers["unfinished"] == "1"
    assert numbers["done"] == "3"
    assert numbers["failed"] == "1"
    assert numbers["undelivered"] == "3"
    assert page.source.count("<svg viewBox") == 4
    assert re.search(r"<title[^>]*>Outcomes</title>", page.source)
    assert "done: 3." in page.text


async def test_the_examples_work(relay_client: RelayClient) -> None:
    """Where there is nothing yet, a command says how to begin; it has no key in it."""
    visitor = await logged_in(relay_client)
    for path, call in (
        ("/dashboard", "/v1/jobs"),
        ("/dashboard/jobs", "/v1/jobs"),
        ("/dashboard/batches", "/v1/batches"),
    ):
        text = (await visitor.get(path)).text
        assert f"curl -sS https://relay.example{call}" in text
        document = json.loads(re.search(r"-d '(\{.*?\})'", text)[1])  # type: ignore[index]  # it is there
        answer = await relay_client.call("POST", call, json=document | {"callback_url": "https://203.0.113.7/"})
        assert answer.status == 202
        await relay_client.call("POST", f"/v1/jobs/{answer.json['id']}/cancel")
        with redis.Redis.from_url(relay_client.settings.redis_url) as store:
            store.flushdb()


async def test_files_are_kept_by_browsers(relay_client: RelayClient) -> None:
    """Every file that a page names is there without a log-in, typed, and cached for as long as it does not change."""
    source = (await Visitor(relay_client).get("/dashboard/login")).source
    names = sorted(set(re.findall(r'"(/dashboard/static/[^"]+)"', source)))
    assert len(names) == 4
    for name in (*names, names[0].rpartition("/")[0] + "/morph.js"):
        answer = (await Visitor(relay_client).get(name)).answer
        assert answer.status == 200
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert answer.headers["Content-Type"].partition(";")[0] in {"text/css", "text/javascript", "image/svg+xml"}
    old = await Visitor(relay_client).get(f"/dashboard/static/before/{names[0].rpartition('/')[2]}")
    assert (old.status, old.answer.headers["Cache-Control"]) == (200, "no-store")


async def test_a_cloud_of_jobs(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """With thousands of jobs a list is a page of 50, and says how many there are."""
    body = {"prompts": ["a"] * 5_000, "scrapers": ["grok"], "callback_url": "https://203.0.113.7/"}
    batch = (await relay_client.call("POST", "/v1/batches", json=body)).json
    await hand_worker.store.enlist(BatchId(batch["id"]))
    page = await (await logged_in(relay_client)).get("/dashboard/jobs")
    assert page.jobs == batch["job_ids"][:-51:-1]
    assert "5,000" in page.text


def test_every_route_is_known() -> None:
    """Nothing below `/dashboard` is served that these tests don't know of."""
    assert {path for _, path, _ in ROUTES} == {
        *("/", "/dashboard", "/dashboard/", "/dashboard/login", "/dashboard/logout", "/dashboard/events"),
        *("/dashboard/static/{version}/{file}", "/dashboard/jobs", "/dashboard/jobs/{id}", "/dashboard/{nowhere:.*}"),
        *("/dashboard/jobs/{id}/result", "/dashboard/jobs/{id}/callback", "/dashboard/jobs/{id}/redeliver"),
        *("/dashboard/jobs/{id}/cancel", "/dashboard/batches", "/dashboard/batches/{id}", "/dashboard/account"),
        *("/dashboard/batches/{id}/callback", "/dashboard/batches/{id}/redeliver", "/dashboard/destinations"),
        *("/dashboard/destinations/{destination}/resume", "/dashboard/compose", "/dashboard/inbox"),
    }
