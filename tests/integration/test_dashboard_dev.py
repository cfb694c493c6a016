"""What the dashboard has besides under `dev`: a form for jobs, and the inbox."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from relay.dev.inbox import Inbox
from tests.integration.conftest import run_relay
from tests.integration.dashboard_harness import Visitor, logged_in
from tests.integration.inbox_harness import SECRET, STRANGE, Sender, sending_to, signed
from tests.integration.test_dashboard_pages import HOSTILE, check_page

GOOD: dict[str, Any] = {
    "scraper": "chatgpt",
    "prompt": "Why?",
    "callback_url": "https://203.0.113.7/hook",
    "country": "US",
    "callback_payload": "full",
    "callback_format": "standard",
    "callback_events": ["job.completed", "job.failed", "job.timed_out", "batch.completed"],
    **dict.fromkeys(("timeout", "deadline", "params", "metadata", "callback_headers", "idempotency_key"), ""),
}


@pytest.fixture(name="inbox")
async def fixture_inbox() -> AsyncIterator[Sender]:
    """The inbox of a `dev`."""
    async with sending_to(Inbox([SECRET])) as sender:
        yield sender


@pytest.fixture(name="visitor")
async def fixture_visitor(store_url: str, inbox: Sender) -> AsyncIterator[Visitor]:
    """Somebody who is logged in to the relay of a `dev`."""
    async with run_relay(store_url, dev_inbox_url=inbox.url) as relay:
        yield await logged_in(relay)


async def test_composing_a_job(visitor: Visitor) -> None:
    """What the form says is what a program would send: defaults, numbers, objects, ticks."""
    check_page(await visitor.get("/dashboard/compose"), 200)
    plain = await visitor.send("/dashboard/compose", GOOD)
    assert plain.status == 303, plain.text
    path, _, did = plain.location.partition("?")
    assert did == "did=submitted"
    assert "The job is accepted." in (await visitor.get(plain.location)).text
    job = (await visitor.relay.call("GET", path.replace("/dashboard", "/v1"))).json
    assert (job["prompt"], job["timeout"], job["bypass_cache"], job["metadata"]) == ("Why?", 300, False, {})
    full = GOOD | {
        "prompt": "First line\r\nsecond line",
        "timeout": "30.5",
        "deadline": "100",
        "bypass_cache": "1",
        "coalesce": "1",
        "params": '{"mode": "deep", "n": 1}',
        "metadata": '{"order": [17]}',
        "callback_events": ["job.failed"],
        "callback_payload": "thin",
        "callback_format": "cloudevents",
        "country": "DE",
    }
    done = await visitor.send("/dashboard/compose", full)
    job = (await visitor.relay.call("GET", done.location.partition("?")[0].replace("/dashboard", "/v1"))).json
    expected = {
        "prompt": "First line\nsecond line",
        "timeout": 30.5,
        "bypass_cache": True,
        "coalesce": True,
        "params": {"mode": "deep", "n": 1},
        "metadata": {"order": [17]},
        "callback_events": ["job.failed"],
        "callback_payload": "thin",
        "callback_format": "cloudevents",
        "country": "DE",
    }
    assert {name: job[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("prompt", " ", "must not be white space only"),
        ("prompt", "", "is required"),
        ("scraper", "nope", "must be one of"),
        ("country", "XX", "must be an assigned"),
        ("callback_url", "http://localhost/", "own machine"),
        ("callback_url", "nonsense", ""),
        ("timeout", "1", "must be at least 10"),
        ("timeout", "soon", "must be a number"),
        ("timeout", '"30"', "must be a number"),
        ("deadline", "1e9", "must be at most 86400"),
        ("metadata", "[]", "must be an object"),
        ("metadata", "{", "is not JSON"),
        ("params", '{"prompt": 1}', ""),
        ("callback_headers", '{"Host": "hidden-header"}', "Host"),
        ("callback_events", [], "must not be empty"),
        ("idempotency_key", "with space", "must be 1 to 255 visible ASCII"),
    ],
)
async def test_what_is_wrong_is_said_beside_the_field(visitor: Visitor, field: str, value: Any, error: str) -> None:
    """The form comes back as it was, with each error at its field, and no job is made."""
    page = await visitor.send("/dashboard/compose", GOOD | {"metadata": '{"kept": 1}'} | {field: value})
    check_page(page, 422)
    assert f'id="{field}-error"' in page.source
    assert page.source.count('class="error"') == 1
    assert error in page.source.split(f'id="{field}-error">')[1].partition("<")[0]
    assert "hidden-header" not in page.source
    if field != "metadata":
        assert "{&#34;kept&#34;: 1}" in page.source
    assert (await visitor.relay.call("GET", "/v1/jobs")).json["data"] == []


async def test_what_was_typed_is_text(visitor: Visitor) -> None:
    """HTML in a field comes back as text, in each of them."""
    page = await visitor.send("/dashboard/compose", dict.fromkeys(GOOD, HOSTILE) | {"prompt": HOSTILE + " " * 5000})
    check_page(page, 422)
    assert "<script>alert" not in page.source


async def test_an_idempotency_key(visitor: Visitor) -> None:
    """The same form again leads to the same job; another one with its key is told so."""
    keyed = GOOD | {"idempotency_key": "k-1"}
    first = await visitor.send("/dashboard/compose", keyed)
    again = await visitor.send("/dashboard/compose", keyed)
    assert again.location == first.location.replace("submitted", "replayed")
    other = await visitor.send("/dashboard/compose", keyed | {"prompt": "Another?"})
    assert (other.status, "used before with a different body" in other.text) == (422, True)


async def test_the_inbox(visitor: Visitor, inbox: Sender) -> None:
    """It shows what arrived, newest first: verified or why not, which job, and the content as text."""
    empty = await visitor.get("/dashboard/inbox")
    check_page(empty, 200)
    assert "No callbacks yet" in empty.text
    job_id = (await visitor.relay.submit()).json["id"]
    body = (
        b'{"type": "job.completed", "data": {"id": "' + job_id.encode() + b'", "prompt": "<script>alert(1)</script>"}}'
    )
    await inbox.post(signed(body, webhook_id="msg_1"), body)
    await inbox.post(signed(body, webhook_id="msg_1", relay_attempt="2", X_Secret="hidden-header"), body)
    await inbox.post(signed(by=[STRANGE], webhook_id="msg_<b>"), path="/fail/500")
    await inbox.post({}, b"no json")
    page = await visitor.get("/dashboard/inbox")
    check_page(page, 200)
    assert page.text.count("unverified") == 2
    assert "seen before" in page.text
    assert f'href="/dashboard/jobs/{job_id}"' in page.source
    assert "<script>alert" not in page.source
    assert "hidden-header" not in page.source
    assert page.source.index("no event") < page.source.index("seen before")


async def test_an_inbox_that_is_gone(store_url: str) -> None:
    """The page says that it does not answer."""
    async with run_relay(store_url, dev_inbox_url="http://127.0.0.1:1") as relay:
        page = await (await logged_in(relay)).get("/dashboard/inbox")
        check_page(page, 200)
        assert "The inbox does not answer" in page.text
