"""`/v1/jobs` over HTTP: submitting, reading, listing, cancelling, and what one client sees of another."""

import asyncio
import time

import pytest

from relay.core.model import JobStatus
from tests.integration.conftest import (
    ACME_KEY,
    ACME_OTHER_KEY,
    UMBRELLA_KEY,
    HandWorker,
    RelayClient,
    make_client,
    run_relay,
)

UNKNOWN = "job_01jgfj7p00e8a3c5x9z1v7m4kq"


async def test_submit_and_read(relay_client: RelayClient) -> None:
    """A job is accepted with 202, can be read at its Location, and shows what was asked for."""
    made = await relay_client.submit(
        prompt=" Ünïcode 😀\n",
        country="DE",
        timeout=20.0,
        params={"mode": "fast", "n": 1.5},
        metadata={"order": 17, "nul": "\0"},
        callback_headers={"Authorization": "Bearer hidden-value"},
        callback_format="cloudevents",
        callback_events=["job.failed", "job.completed"],
        callback_payload="thin",
        callback_url="https://203.0.113.7:8443/Hook?x=1",
    )
    assert made.status == 202
    assert made.headers["Location"] == f"/v1/jobs/{made.json['id']}"
    assert "Idempotency-Replayed" not in made.headers
    seen = await relay_client.call("GET", made.headers["Location"])
    assert seen.status == 200
    assert seen.json == made.json
    job = seen.json
    assert (job["prompt"], job["country"], job["timeout"]) == (" Ünïcode 😀\n", "DE", 20)
    assert (job["params"], job["metadata"]) == ({"mode": "fast", "n": 1.5}, {"order": 17, "nul": "\0"})
    assert job["callback_events"] == ["job.failed", "job.completed"]
    assert (job["callback_payload"], job["callback_format"]) == ("thin", "cloudevents")
    assert job["delivery"]["callback_url"] == "https://203.0.113.7:8443/Hook?x=1"
    assert (job["status"], job["delivery"]["status"], job["coalesce"]) == ("queued", "waiting", False)
    assert b"hidden-value" not in seen.body


async def test_a_finished_job(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """The upstream's result comes out as its own JSON, and the life of the job can be read off its times."""
    made = await relay_client.submit()
    await hand_worker.submit_all()
    assert (await relay_client.call("GET", made.headers["Location"])).json["status"] == "pending"
    await hand_worker.finish_all(result=b'{"n": 1.10, "big": 12345678901234567890}')
    seen = await relay_client.call("GET", made.headers["Location"])
    assert b'"result":{"n": 1.10, "big": 12345678901234567890}' in seen.body
    assert seen.json["status"] == "done"
    assert seen.json["upstream_job_id"] == f"upstream-{made.json['id']}"
    assert seen.json["created_at"] <= seen.json["submitted_at"] <= seen.json["completed_at"]


async def test_a_failed_job(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """The error has code and message."""
    made = await relay_client.submit()
    await hand_worker.submit_all()
    await hand_worker.finish_all(JobStatus.FAILED)
    job = (await relay_client.call("GET", made.headers["Location"])).json
    assert (job["status"], job["result"]) == ("failed", None)
    assert job["error"] == {"code": "upstream_failed", "message": "execution failed"}


@pytest.mark.parametrize(
    "job_id",
    [
        *(UNKNOWN, UNKNOWN.upper(), UNKNOWN[:-1], UNKNOWN + "0", UNKNOWN.removeprefix("job_"), "batch" + UNKNOWN[3:]),
        *("%00", "*", "job_*", "..%2F..%2Fmetrics", "job_%00", "a:b", "%FF", "%F0%9F%98%80", "job_8" + UNKNOWN[5:]),
        *("[id]", "%7Bid%7D", "{id}", "%0d%0aX:1", UNKNOWN + "%20", "x" * 5000),
    ],
)
@pytest.mark.parametrize(
    ("method", "suffix"), [("GET", ""), ("GET", "/attempts"), ("POST", "/cancel"), ("POST", "/redeliver")]
)
async def test_ids_that_are_nobodys(relay_client: RelayClient, method: str, suffix: str, job_id: str) -> None:
    """Unknown and ill-formed ids are all the same 404."""
    answer = await relay_client.call(method, f"/v1/jobs/{job_id}{suffix}")
    assert (answer.status, answer.code) == (404, "not_found")


async def test_other_clients_jobs_do_not_exist(relay_client: RelayClient) -> None:
    """Another client's job is as unknown as any, in every call."""
    path = (await relay_client.submit()).headers["Location"]
    for method, suffix in (
        ("GET", ""),
        ("GET", "?wait=1"),
        ("GET", "/attempts"),
        ("POST", "/cancel"),
        ("POST", "/redeliver"),
    ):
        answer = await relay_client.call(method, path + suffix, key=UMBRELLA_KEY)
        assert (answer.status, answer.code) == (404, "not_found")
    assert (await relay_client.call("GET", "/v1/jobs", key=UMBRELLA_KEY)).json == {"data": [], "next_cursor": None}
    assert (await relay_client.call("GET", path)).json["status"] == "queued"


async def test_both_keys_of_a_rotation_work(relay_client: RelayClient) -> None:
    """A client with two keys is one client."""
    path = (await relay_client.submit(key=ACME_KEY)).headers["Location"]
    assert (await relay_client.call("GET", path, key=ACME_OTHER_KEY)).status == 200


# Idempotency


async def test_idempotent_replay(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """The same key and body give the job as it is now; field order and spelled-out defaults do not matter."""
    key = {"Idempotency-Key": "order-17!~"}
    first = await relay_client.submit(headers=key, metadata={"a": 1, "b": 2})
    await hand_worker.submit_all()
    again = await relay_client.submit(headers=key, metadata={"b": 2, "a": 1}, timeout=300.0, country=None)
    assert (again.status, again.headers["Idempotency-Replayed"]) == (202, "true")
    assert again.headers["Location"] == first.headers["Location"]
    assert (again.json["id"], again.json["status"]) == (first.json["id"], "pending")


async def test_idempotency_key_with_another_body(relay_client: RelayClient) -> None:
    """Another body, or another call, is refused; another client has keys of its own."""
    key = {"Idempotency-Key": "k"}
    first = await relay_client.submit(headers=key)
    other = await relay_client.submit(headers=key, prompt="Something else")
    assert (other.status, other.code, other.faults) == (422, "idempotency_key_reused", [("header", "Idempotency-Key")])
    job = {"scraper": "chatgpt", "prompt": "What is this?", "callback_url": "https://203.0.113.7/hook"}
    batch = await relay_client.call("POST", "/v1/batches", json={"jobs": [job]}, headers=key)
    assert (batch.status, batch.code) == (422, "idempotency_key_reused")
    elsewhere = await relay_client.submit(headers=key, key=UMBRELLA_KEY)
    assert elsewhere.status == 202
    assert elsewhere.json["id"] != first.json["id"]


async def test_refused_requests_do_not_take_the_key(relay_client: RelayClient) -> None:
    """After a 422 the key is free for the mended body."""
    key = {"Idempotency-Key": "k"}
    assert (await relay_client.submit(headers=key, prompt="")).status == 422
    assert (await relay_client.submit(headers=key)).status == 202


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "x" * 10_000, "é"])
async def test_bad_idempotency_keys(relay_client: RelayClient, key: str) -> None:
    """Empty, blank, too long, or not visible ASCII."""
    answer = await relay_client.submit(headers={"Idempotency-Key": key})
    assert (answer.status, answer.code, answer.faults) == (
        422,
        "idempotency_key_invalid",
        [("header", "Idempotency-Key")],
    )


async def test_repeated_idempotency_key(relay_client: RelayClient) -> None:
    """Two keys are none, even if they are equal."""
    answer = await relay_client.submit(headers=[("Idempotency-Key", "k"), ("Idempotency-Key", "k")])
    # The client's own headers are a mapping, so the raw way is the one that really sends two.
    body = b'{"scraper":"chatgpt","prompt":"x","callback_url":"https://203.0.113.7/"}'
    raw = await relay_client.raw(
        b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-API-Key: " + ACME_KEY.encode() + b"\r\n"
        b"Content-Type: application/json\r\nIdempotency-Key: k\r\nIdempotency-Key: k\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body) + body
    )
    assert answer.status == 202
    assert raw.startswith(b"HTTP/1.1 422 ")
    assert b"idempotency_key_invalid" in raw


async def test_longest_idempotency_key(relay_client: RelayClient) -> None:
    """255 characters are a key."""
    assert (await relay_client.submit(headers={"Idempotency-Key": "~" * 255})).status == 202


async def test_fifty_at_once_make_one_job(relay_client: RelayClient) -> None:
    """Identical requests that race make one job, and all but one say that they are replays."""
    answers = await asyncio.gather(*(relay_client.submit(headers={"Idempotency-Key": "race"}) for _ in range(50)))
    assert {answer.status for answer in answers} == {202}
    assert len({answer.json["id"] for answer in answers}) == 1
    assert sum("Idempotency-Replayed" in answer.headers for answer in answers) == 49
    assert len((await relay_client.call("GET", "/v1/jobs")).json["data"]) == 1


# Limits


async def test_rate_limit(store_url: str) -> None:
    """Requests beyond the client's rate are told when to come back."""
    clients = {c.name: c for c in [make_client("acme", ACME_KEY, jobs_per_minute=2)]}
    async with run_relay(store_url, clients=clients) as relay:
        answers = [await relay.submit() for _ in range(6)]
    refused = [answer for answer in answers if answer.status != 202]
    assert refused
    assert {(answer.status, answer.code) for answer in refused} == {(429, "rate_limited")}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)


async def test_too_many_unfinished(store_url: str, hand_worker: HandWorker) -> None:
    """A client with as many unfinished jobs as it may have waits until one has ended."""
    clients = {c.name: c for c in [make_client("acme", ACME_KEY, max_unfinished_jobs=2)]}
    async with run_relay(store_url, clients=clients) as relay:
        assert [(await relay.submit()).status for _ in range(3)] == [202, 202, 429]
        refused = await relay.submit()
        assert refused.code == "too_many_unfinished"
        assert int(refused.headers["Retry-After"]) >= 1
        await hand_worker.submit_all()
        await hand_worker.finish_all()
        assert (await relay.submit()).status == 202


# Callback addresses


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://127.0.0.1/",
            "http://[::1]/",
            "http://169.254.169.254/latest",
            "http://localhost/",
            "http://10.0.0.1",
        ),
        *("ftp://203.0.113.7/", "//203.0.113.7/", "", "x", "https://203.0.113.7:0/", "https://203.0.113.7:6379/"),
        *(
            "https://user@203.0.113.7/",
            "https://203.0.113.7/\n",
            "https://203.0.113.7/" + "x" * 2048,
            "http://2130706433/",
        ),
    ],
)
async def test_refused_addresses(relay_client: RelayClient, url: str) -> None:
    """What the address guard refuses is 422 with a pointer and a reason, and nothing is stored."""
    answer = await relay_client.submit(callback_url=url)
    assert (answer.status, answer.code, answer.faults) == (422, "callback_url_refused", [("pointer", "/callback_url")])
    assert (await relay_client.call("GET", "/v1/jobs")).json["data"] == []


async def test_callback_hosts_of_the_client(store_url: str) -> None:
    """A client with an allow list is held to it."""
    clients = {c.name: c for c in [make_client("acme", ACME_KEY, callback_hosts=("203.0.113.8",))]}
    async with run_relay(store_url, clients=clients) as relay:
        assert (await relay.submit()).code == "callback_url_refused"
        assert (await relay.submit(callback_url="https://203.0.113.8/")).status == 202


async def test_thin_needs_a_public_url(store_url: str) -> None:
    """A relay that does not know its own address refuses thin callbacks."""
    async with run_relay(store_url, public_url=None) as relay:
        answer = await relay.submit(callback_payload="thin")
    assert (answer.status, answer.code, answer.faults) == (422, "invalid_request", [("pointer", "/callback_payload")])


# Lists


async def test_pages(relay_client: RelayClient) -> None:
    """Pages follow one another without gap or repeat, newest first, and without results."""
    ids = [(await relay_client.submit()).json["id"] for _ in range(7)]
    seen: list[str] = []
    cursor = ""
    while True:
        page = (await relay_client.call("GET", f"/v1/jobs?limit=3{cursor}")).json
        seen += [job["id"] for job in page["data"]]
        assert all("result" not in job and "delivery" in job for job in page["data"])
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == sorted(ids, reverse=True)


async def test_filters(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """`status` and `delivery` may repeat; a batch that does not exist has no jobs."""
    first = (await relay_client.submit()).json["id"]
    await hand_worker.submit_all()
    await hand_worker.finish_all()
    second = (await relay_client.submit()).json["id"]
    await relay_client.call("POST", f"/v1/jobs/{second}/cancel")
    third = (await relay_client.submit()).json["id"]

    async def found(query: str) -> set[str]:
        return {job["id"] for job in (await relay_client.call("GET", f"/v1/jobs?{query}")).json["data"]}

    assert await found("status=done") == {first}
    assert await found("status=done&status=queued") == {first, third}
    assert await found("delivery=skipped") == {second}
    assert await found("delivery=waiting&delivery=pending&status=queued") == {third}
    assert await found("batch_id=batch_01jgfj7p00e8a3c5x9z1v7m4kq") == set()


@pytest.mark.parametrize(
    ("query", "name"),
    [
        *(
            ("status=", "status"),
            ("status=Done", "status"),
            ("status=done,failed", "status"),
            ("delivery=x", "delivery"),
        ),
        *(
            ("limit=0", "limit"),
            ("limit=201", "limit"),
            ("limit=-1", "limit"),
            ("limit=1.0", "limit"),
            ("limit=", "limit"),
        ),
        *(
            ("limit=1e2", "limit"),
            ("limit=%D9%A1", "limit"),
            ("limit=1&limit=1", "limit"),
            ("limit=" + "9" * 5000, "limit"),
        ),
        *(
            ("batch_id=", "batch_id"),
            ("batch_id=*", "batch_id"),
            ("batch_id=job_01jgfj7p00e8a3c5x9z1v7m4kq", "batch_id"),
        ),
        *(("cursor=", "cursor"), ("cursor=x", "cursor"), ("cursor=" + "A" * 52, "cursor"), ("cursor=%00", "cursor")),
        *(
            ("cursor=" + "A" * 20_000, "cursor"),
            ("cursor=%F0%9F%98%80", "cursor"),
            ("page=2", "page"),
            ("Limit=1", "Limit"),
        ),
    ],
)
async def test_bad_queries(relay_client: RelayClient, query: str, name: str) -> None:
    """Anything malformed or unknown is 422 and named."""
    answer = await relay_client.call("GET", f"/v1/jobs?{query}")
    assert (answer.status, answer.code, answer.faults) == (422, "invalid_request", [("parameter", name)])


async def test_cursors_are_bound(relay_client: RelayClient, store_url: str) -> None:
    """A cursor works for its client and filters only, on any relay, with any limit; a changed one does not."""
    for _ in range(3):
        await relay_client.submit()
        await relay_client.submit(key=UMBRELLA_KEY)
    cursor = (await relay_client.call("GET", "/v1/jobs?limit=1&status=queued&status=done")).json["next_cursor"]
    good = f"/v1/jobs?status=done&status=queued&limit=2&cursor={cursor}"
    assert len((await relay_client.call("GET", good)).json["data"]) == 2
    async with run_relay(store_url, clients=relay_client.clients) as another:
        assert (await another.call("GET", good)).status == 200
    for bad in (
        f"/v1/jobs?cursor={cursor}",
        f"/v1/jobs?status=queued&cursor={cursor}",
        f"/v1/jobs?status=queued&status=done&delivery=waiting&cursor={cursor}",
        *(f"/v1/jobs?status=done&status=queued&cursor={forged}" for forged in _changed(cursor)),
    ):
        assert (await relay_client.call("GET", bad)).faults == [("parameter", "cursor")]
    assert (await relay_client.call("GET", good, key=UMBRELLA_KEY)).status == 422


def _changed(cursor: str) -> list[str]:
    flipped = [cursor[:i] + ("B" if cursor[i] != "B" else "C") + cursor[i + 1 :] for i in (0, 20, len(cursor) - 1)]
    return [*flipped, cursor[:-1], cursor + "A", cursor + "="]


# Cancelling


async def test_cancel(relay_client: RelayClient) -> None:
    """A job that has no outcome is cancelled, and again; nothing is announced."""
    path = (await relay_client.submit()).headers["Location"]
    for _ in range(2):
        answer = await relay_client.call("POST", f"{path}/cancel")
        assert (answer.status, answer.json["status"], answer.json["delivery"]["status"]) == (
            200,
            "cancelled",
            "skipped",
        )
    assert (await relay_client.call("POST", f"{path}/redeliver")).code == "not_redeliverable"


async def test_cancel_after_the_outcome(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """A job that is done stays done."""
    path = (await relay_client.submit()).headers["Location"]
    await hand_worker.submit_all()
    await hand_worker.finish_all()
    answer = await relay_client.call("POST", f"{path}/cancel")
    assert (answer.status, answer.code) == (409, "conflict")


@pytest.mark.parametrize("body", [b"", b"{}", b"not json", b"x" * 1_000_000])
async def test_calls_without_a_body_take_no_offence(relay_client: RelayClient, body: bytes) -> None:
    """What is sent to a call that has no body is not looked at."""
    path = (await relay_client.submit()).headers["Location"]
    assert (await relay_client.call("POST", f"{path}/cancel", data=body)).status == 200


# Waiting


async def test_waiting_for_the_outcome(relay_client: RelayClient, hand_worker: HandWorker) -> None:
    """A long poll answers as soon as the job has its outcome."""
    path = (await relay_client.submit()).headers["Location"]
    await hand_worker.submit_all()
    waiting = asyncio.create_task(relay_client.call("GET", f"{path}?wait=60"))
    await until_waiting(relay_client)
    started_s = time.monotonic()
    await hand_worker.finish_all()
    answer = await waiting
    assert (answer.status, answer.json["status"]) == (200, "done")
    assert time.monotonic() - started_s < 2


async def test_waiting_in_vain(relay_client: RelayClient) -> None:
    """Without an outcome the job is answered as it is when the time is over."""
    path = (await relay_client.submit()).headers["Location"]
    started_s = time.monotonic()
    answer = await relay_client.call("GET", f"{path}?wait=0.3")
    assert answer.json["status"] == "queued"
    assert 0.3 <= time.monotonic() - started_s < 3


@pytest.mark.parametrize(
    "wait", ["", "-1", "60.1", "61", "1e9", "nan", "inf", "x", "1,5", "0x1", "1_0", "%D9%A1", "5&wait=5"]
)
async def test_bad_waits(relay_client: RelayClient, wait: str) -> None:
    """`wait` is one number from 0 to 60."""
    answer = await relay_client.call("GET", f"/v1/jobs/{UNKNOWN}?wait={wait}")
    assert (answer.status, answer.faults) == (422, [("parameter", "wait")])


async def test_waiting_ends_when_the_client_hangs_up(relay_client: RelayClient) -> None:
    """A long poll whose client is gone holds nothing."""
    path = (await relay_client.submit()).headers["Location"]
    waiting = asyncio.create_task(relay_client.call("GET", f"{path}?wait=60"))
    await until_waiting(relay_client)
    waiting.cancel()
    await until_waiting(relay_client, count=0)


async def until_waiting(relay: RelayClient, *, count: int = 1, gauge: str = "long_polls_open") -> None:
    """Wait until so many requests are held."""
    line = f"scrapellm_relay_{gauge} {count}.0"
    async with asyncio.timeout(5):
        while line not in (await relay.call("GET", "/metrics", key=None)).body.decode():
            await asyncio.sleep(0.01)
