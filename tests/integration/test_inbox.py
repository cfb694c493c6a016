"""What the inbox verifies, over real HTTP: signatures by old and new secrets, and bodies of any kind."""

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from relay.dev.inbox import Inbox
from tests.integration.inbox_harness import BODY, OTHER, SECRET, STRANGE, resigned, sending_to, signed, without

#: Headers that are made when they are needed: a signature is good for five minutes.
Headers = Callable[[], dict[str, str]]


@pytest.mark.parametrize(
    ("secrets", "headers"),
    [
        ([SECRET], signed),
        ([SECRET], lambda: {name.upper(): value for name, value in signed().items()}),
        # The receiver has both secrets while one replaces the other.
        ([OTHER, SECRET], signed),
        ([SECRET, OTHER], signed),
        # The sender signs with both, and the receiver has the old one, or the new one.
        ([SECRET], lambda: signed(by=[SECRET, OTHER])),
        ([OTHER], lambda: signed(by=[SECRET, OTHER])),
        ([SECRET], lambda: signed(age_s=290)),
        ([SECRET], lambda: signed(age_s=-290)),
        ([SECRET], lambda: resigned("v1a,abc {}")),
    ],
)
async def test_a_good_signature_is_accepted(secrets: list[str], headers: Headers) -> None:
    """A callback signed by one of the secrets within five minutes is 204, and marked as verified."""
    inbox = Inbox(secrets)
    async with sending_to(inbox) as sender:
        assert await sender.post(headers()) == 204
    (received,) = inbox.received
    assert (received.verified, received.reason) == (True, "")
    assert (received.raw, received.body) == (BODY, json.loads(BODY))


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        (lambda: signed(by=[STRANGE]), "No matching signature found"),
        (lambda: signed(b"{}"), "No matching signature found"),
        (lambda: signed(webhook_id="msg_1") | {"webhook-id": "msg_2"}, "No matching signature found"),
        (lambda: signed(webhook_timestamp=str(int(time.time()) - 100)), "No matching signature found"),
        (lambda: resigned("v2{}"), "No matching signature found"),
        *(
            (partial(without, f"webhook-{name}"), "Missing required headers")
            for name in ("id", "timestamp", "signature")
        ),
        (dict, "Missing required headers"),
        (lambda: signed(age_s=310), "Message timestamp too old"),
        (lambda: signed(age_s=-330), "Message timestamp too new"),
        *((partial(signed, webhook_timestamp=value), "Invalid Signature Headers") for value in ("soon", "nan", "1e99")),
        *(
            (partial(signed, webhook_signature=value), "Invalid Signature Headers")
            for value in ("x", "v1,x", "v1,é", "v1,a,b")
        ),
        (lambda: signed(webhook_id="é\N{GRINNING FACE}", webhook_signature="v1,AAAA"), "No matching signature found"),
    ],
)
async def test_a_bad_signature_is_refused(headers: Headers, reason: str) -> None:
    """What is not signed, not by a known secret, or not now, is 401; it is kept with the reason."""
    inbox = Inbox([OTHER, SECRET])
    async with sending_to(inbox) as sender:
        assert await sender.post(headers()) == 401
        status, document = await sender.get("/")
    assert status == 200
    assert [(entry["verified"], entry["reason"]) for entry in document["data"]] == [(False, reason)]


async def test_without_secrets_nothing_is_verified() -> None:
    """An inbox that has nothing to verify with says so."""
    inbox = Inbox([])
    async with sending_to(inbox) as sender:
        assert await sender.post(signed()) == 401
    assert inbox.received[0].reason == "no secret to verify with"


@pytest.mark.parametrize(
    "secret",
    ["", "whsec_", "whsec_x", SECRET.removeprefix("whsec_"), "whsec_AAAA"],
    ids=["empty", "prefix", "no base64", "no prefix", "short"],
)
async def test_a_wrong_secret_is_told_at_once(secret: str) -> None:
    """It is not first found out by callbacks that cannot be verified; the error has no secret in it."""
    with pytest.raises(ValueError, match=r".") as caught:
        Inbox([SECRET, secret])
    assert not secret or secret not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "event", "document"),
    [
        (BODY, "job.completed", json.loads(BODY)),
        (b'{"type": "com.scrapellm.relay.job.failed", "id": "x"}', "job.failed", None),
        (b"{}", "", {}),
        (b'{"type": null}', "", {"type": None}),
        (b'{"type": 5}', "", {"type": 5}),
        (b'{"type": ["job.completed"]}', "", {"type": ["job.completed"]}),
        (b"", "", {}),
        (b"null", "", {}),
        (b'["type"]', "", {}),
        (b"not JSON", "", {}),
        (b'{"type": "cut o', "", {}),
        (b"[" * 100_000, "", {}),
        (b"9" * 10_000, "", {}),
        (b'{"half": "\\ud83d"}', "", {"half": "\ud83d"}),
    ],
    ids=lambda value: repr(value)[:30],
)
async def test_any_body_can_be_signed(body: bytes, event: str, document: dict[str, Any] | None) -> None:
    """The signature is what counts; a body that is no JSON object is kept as bytes and listed as an empty one."""
    inbox = Inbox([SECRET])
    async with sending_to(inbox) as sender:
        assert await sender.post(signed(body), body) == 204
        _, listed = await sender.get("/msg_1")
    (received,) = inbox.received
    expected = json.loads(body) if document is None else document
    assert (received.event, received.raw, received.body) == (event, body, expected)
    assert (listed["data"][0]["type"], listed["data"][0]["body"]) == (event, expected)


async def test_a_body_that_is_no_text_is_refused() -> None:
    """What was signed is UTF-8; other bytes are kept, and not verified."""
    inbox = Inbox([SECRET])
    async with sending_to(inbox) as sender:
        assert await sender.post(signed(), b"\xff\xfe") == 401
    assert (inbox.received[0].raw, inbox.received[0].verified) == (b"\xff\xfe", False)
