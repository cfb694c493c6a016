"""How the inbox answers over real HTTP, what it keeps of a callback, and what it tells of it."""

import json
import time

import pytest

from relay.dev.inbox import Inbox, Received
from tests.integration.inbox_harness import BODY, SECRET, STRANGE, sending_to, signed, without

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("path", "statuses"),
    [
        ("/", [204, 204]),
        ("/any/path?a=b", [204, 204]),
        ("/fail/503", [503, 503, 503]),
        ("/fail/503/2", [503, 503, 204, 204]),
        ("/fail/410/1", [410, 204]),
        ("/fail/302/0", [204]),
        ("/fail/200", [200]),
        # No status that can be answered, or no number: a path as any other.
        *((path, [204]) for path in ("/fail/199", "/fail/600", "/fail/50", "/fail/503/x", "/fail/503/2/x", "/fail/")),
    ],
)
async def test_a_path_can_ask_for_failures(path: str, statuses: list[int]) -> None:
    """`/fail/503` always fails, and `/fail/503/2` twice for each event, so that retries can be seen."""
    inbox = Inbox([SECRET])
    async with sending_to(inbox) as sender:
        for webhook_id in ("msg_1", "msg_2"):
            headers = signed(webhook_id=webhook_id)
            assert [await sender.post(headers, path=path) for _ in statuses] == statuses
            assert inbox.times(webhook_id) == len(statuses)
    assert [received.path for received in inbox.received] == [path.partition("?")[0]] * 2 * len(statuses)


async def test_failing_comes_before_verifying() -> None:
    """A path that fails does so whatever the signature; afterwards that is what counts."""
    async with sending_to(Inbox([SECRET])) as sender:
        headers = signed(by=[STRANGE])
        assert [await sender.post(headers, path="/fail/500/1") for _ in range(2)] == [500, 401]
        # Without an id no two attempts are of the same event.
        assert [await sender.post({}, path="/fail/500/1") for _ in range(2)] == [500, 500]


@pytest.mark.parametrize(
    ("path", "at_least_s"), [("/slow/0.2", 0.2), ("/slow/0", 0.0), ("/slow/x", 0.0), ("/slow/1000", 0.0)]
)
async def test_a_path_can_ask_for_time(path: str, at_least_s: float) -> None:
    """`/slow/0.2` is answered after that time, but told of at once; what is no number of seconds is any path."""
    told: list[float] = []
    inbox = Inbox([SECRET], lambda received: told.append(time.monotonic()))
    async with sending_to(inbox) as sender:
        assert await sender.post(signed(), path=path) == 204
        assert time.monotonic() - told[0] >= at_least_s


async def test_whoever_listens_is_told_before_the_answer() -> None:
    """Each callback is handed over once, as it was kept, by the time that the sender has its answer."""
    told: list[Received] = []
    inbox = Inbox([SECRET], told.append)
    async with sending_to(inbox) as sender:
        for number, headers in enumerate([signed(), signed(), signed(by=[STRANGE]), {}], start=1):
            await sender.post(headers)
            assert len(told) == number
    assert told == list(inbox.received)
    assert [received.repeated for received in told] == [False, True, True, False]


@pytest.mark.parametrize(
    ("value", "attempt"),
    [("1", 1), ("12", 12), ("0", 0), ("", 0), ("-1", 0), ("1.5", 0), ("x", 0), ("9" * 10, 0), ("\u0663", 0)],
)
async def test_the_attempt_is_read(value: str, attempt: int) -> None:
    """The number of the attempt is that of its header; what is no number is 0, and so is none."""
    inbox = Inbox([SECRET])
    async with sending_to(inbox) as sender:
        assert await sender.post(signed(relay_attempt=value)) == 204
        assert await sender.post(without("relay-attempt")) == 204
    assert [received.attempt for received in inbox.received] == [attempt, 0]


async def test_what_came_is_listed() -> None:
    """All are listed, the newest first; those of one event, the oldest first; an unknown event is 404."""
    async with sending_to(Inbox([SECRET])) as sender:
        assert await sender.get("/") == (200, {"data": []})
        before_ms = int(time.time() * 1000)
        first = signed(relay_attempt="1")
        await sender.post(first, path="/fail/503/1")
        await sender.post(signed(webhook_id="msg_2"), path="/b")
        await sender.post(signed(relay_attempt="2"), path="/fail/503/1")
        _, listed = await sender.get("/")
        status, one = await sender.get("/msg_1")
        assert await sender.get("/unknown") == (404, {"data": []})
        assert await sender.get("/healthz") == (200, {"status": "ok"})
    entries = listed["data"]
    assert [(entry["webhook_id"], entry["attempt"]) for entry in entries] == [("msg_1", 2), ("msg_2", 1), ("msg_1", 1)]
    assert (status, one) == (200, {"data": [entries[2], entries[0]]})
    entry = entries[2]
    assert before_ms <= entry.pop("received_ms") <= int(time.time() * 1000) + 1
    assert entry.pop("headers").items() >= {name.lower(): value for name, value in first.items()}.items()
    assert entry == {
        "webhook_id": "msg_1",
        "type": "job.completed",
        "attempt": 1,
        "verified": True,
        "reason": "",
        "path": "/fail/503/1",
        "repeated": False,
        "body": json.loads(BODY),
    }


async def test_headers_that_a_client_added_are_not_told() -> None:
    """They are its secrets: neither listed nor handed over, whatever they are called."""
    inbox = Inbox([SECRET])
    added = {"Authorization": "Bearer hush", "X-Token": "hush", "Cookie": "a=hush", "webhook-extra": "hush"}
    async with sending_to(inbox) as sender:
        assert await sender.post(signed() | added) == 204
        documents = [await sender.get(path) for path in ("/", "/msg_1")]
    assert "hush" not in json.dumps(documents)
    assert "hush" not in str(dict(inbox.received[0].headers))
    assert "hush" not in repr(inbox.received[0])


async def test_only_the_last_ones_are_kept() -> None:
    """Of more than `keep` callbacks the oldest are forgotten, and with them how often their event came."""
    inbox = Inbox([SECRET], keep=2)
    async with sending_to(inbox) as sender:
        for webhook_id in ("msg_1", "msg_2", "msg_1", "msg_3"):
            assert await sender.post(signed(webhook_id=webhook_id)) == 204
        _, listed = await sender.get("/")
        assert (await sender.get("/msg_2"))[0] == 404
    assert [entry["webhook_id"] for entry in listed["data"]] == ["msg_3", "msg_1"]
    assert [inbox.times(webhook_id) for webhook_id in ("msg_1", "msg_2", "msg_3")] == [2, 0, 1]


async def test_large_callbacks_are_taken_and_few_are_kept() -> None:
    """A callback of 32 MiB is taken and a larger one is 413; of large ones no more than 128 MiB are kept."""
    inbox = Inbox([SECRET])
    body = b'"' + b"x" * (32 * MIB - 2) + b'"'
    async with sending_to(inbox) as sender:
        assert await sender.post(signed(body), body) == 204
        assert await sender.post({}, body + b" ") == 413
        for _ in range(4):
            assert await sender.post({}, body) == 401
    assert [received.webhook_id for received in inbox.received] == [""] * 4
