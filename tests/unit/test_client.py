"""What the client makes of answers, addresses and streams, without a relay."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

import relay.client
from relay.client import (
    Batch,
    Change,
    ChangeKind,
    Conflict,
    Gone,
    Invalid,
    Job,
    Misconfigured,
    NotFound,
    RateLimited,
    Refused,
    RelayClient,
    Unauthorized,
    Unexpected,
)
from relay.client.documents import read
from relay.client.errors import refusal
from relay.client.sse import Frame, FrameReader, change_of
from relay.client.transport import check_address, check_key, is_loopback, pause_before

JOB: Mapping[str, Any] = {
    "id": "job_1",
    "status": "done",
    "scraper": "chatgpt",
    "prompt": "the prompt",
    "country": "US",
    "timeout": 300,
    "bypass_cache": False,
    "params": {},
    "metadata": {"row": "the metadata"},
    "batch_id": None,
    "coalesce": False,
    "upstream_job_id": "the upstream id",
    "result": {"result": "the result"},
    "error": None,
    "created_at": "2026-01-01T00:00:00.000Z",
    "deadline_at": "2026-01-01T00:16:00.000Z",
    "submitted_at": None,
    "completed_at": None,
    "callback_events": ["job.completed"],
    "callback_payload": "full",
    "callback_format": "standard",
    "delivery": {
        "status": "delivered",
        "callback_url": "https://example.com/hook",
        "attempts": 1,
        "next_attempt_at": None,
        "delivered_at": "2026-01-01T00:00:09.560Z",
    },
}


def test_a_job_is_typed_and_keeps_what_a_newer_relay_adds() -> None:
    """Unknown fields, also inside, are no error, and are in the document."""
    document = {**JOB, "priority": 7, "delivery": {**JOB["delivery"], "region": "eu"}}
    job = read(Job, document)
    assert (job.id, job.status, job.timeout, job.delivery.status) == ("job_1", "done", 300, "delivered")
    assert job.status.is_outcome
    assert job.created_at.isoformat() == "2026-01-01T00:00:00+00:00"
    assert job.document == document


def test_contents_are_in_no_repr() -> None:
    """What is logged by accident has no prompt, result, metadata or upstream id in it."""
    shown = repr(read(Job, dict(JOB)))
    assert "job_1" in shown
    for secret in ("the prompt", "the metadata", "the upstream id", "the result"):
        assert secret not in shown


@pytest.mark.parametrize("document", [None, [], {}, {**JOB, "status": 7}, {**JOB, "created_at": "yesterday"}])
def test_what_is_no_job_is_told_without_its_contents(document: object) -> None:
    """The error names the field, and quotes nothing."""
    with pytest.raises(ValueError, match="Job") as caught:
        read(Job, document)
    assert "the prompt" not in str(caught.value)


def test_a_batch_counts_what_has_ended() -> None:
    """All but queued and pending jobs have an outcome; status words that are new count as one."""
    batch = read(
        Batch,
        {
            "id": "batch_1",
            "count": 9,
            "status": {"queued": 1, "pending": 2, "done": 3, "failed": 1, "timed_out": 0, "cancelled": 2},
            "delivery": {},
            "created_at": "2026-01-01T00:00:00.000Z",
            "completed_at": None,
        },
    )
    assert batch.ended == 6


def test_a_problem_is_one_line_with_every_place() -> None:
    """A summary that repeats the first place is left out; other summaries stay."""
    body = {"detail": "/country must be known (and 1 more)", "code": "invalid_request"}
    errors = [{"pointer": "/country", "detail": "must be known"}, {"parameter": "limit", "detail": "is too high"}]
    assert str(refusal(422, body | {"errors": errors})) == "/country: must be known; limit: is too high"
    refused = {
        "detail": "The callback URL is refused.",
        "errors": [{"pointer": "/callback_url", "detail": "is private"}],
    }
    assert str(refusal(422, refused)) == "The callback URL is refused. (/callback_url: is private)"
    assert str(refusal(422, {"detail": "x", "errors": [{"pointer": "", "detail": "y"}]})) == "x (the body: y)"


def test_many_places_are_counted() -> None:
    """One line stays readable."""
    errors = [{"pointer": f"/jobs/{n}", "detail": "bad"} for n in range(100)]
    assert str(refusal(422, {"detail": "bad", "errors": errors})).endswith("; and 95 more")


@pytest.mark.parametrize("document", [{}, {"errors": 7}, {"errors": [7]}, {"errors": [{}]}, {"title": "Oh"}])
def test_a_problem_that_lacks_something_is_still_a_refusal(document: dict[str, object]) -> None:
    """Something between us and the relay may speak its own dialect."""
    assert str(refusal(418, document))


def test_a_refusal_for_now_says_when_again() -> None:
    """Retry-After is part of the line."""
    assert str(refusal(429, {"detail": "Too many."}, "7")) == "Too many; try again in 7 s"


@pytest.mark.parametrize(
    ("url", "loopback"),
    [("http://127.0.0.1:1", True), ("http://[::1]:1", True), ("http://localhost", True), ("https://r.example", False)],
)
def test_loopback_is_known(url: str, loopback: bool) -> None:
    """No proxy is asked on the way there, and the key of `dev` goes no further."""
    assert is_loopback(url) is loopback


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Invalid),
        (401, Unauthorized),
        (404, NotFound),
        (409, Conflict),
        (410, Gone),
        (413, Invalid),
        (422, Invalid),
        (429, RateLimited),
    ],
)
def test_a_refusal_has_its_kind_and_the_fields_of_the_problem(status: int, kind: type[Refused]) -> None:
    """What to do about it depends on the kind; code, detail and places are there for programs."""
    body = {"code": "a_code", "detail": "No.", "errors": [{"pointer": "/x", "detail": "bad"}]}
    error = refusal(status, body, "3")
    assert type(error) is kind
    assert (error.status, error.code, error.retry_after_s) == (status, "a_code", 3.0)
    assert [(place.where, place.detail) for place in error.errors] == [("/x", "bad")]


@pytest.mark.parametrize(
    ("repeat", "retry_after_s", "jitter", "pause_s"),
    [
        (1, None, 0.0, 0.5),
        (2, None, 0.0, 1.0),
        (3, None, 1.0, 2.4),
        (5, None, 0.0, 8.0),
        (1_000_000, None, 1.0, 9.6),
        (1, 7.0, 0.0, 7.0),
        (5, 1.0, 0.0, 8.0),
    ],
)
def test_pauses_grow_and_respect_what_the_relay_asks_for(
    repeat: int, retry_after_s: float | None, jitter: float, pause_s: float
) -> None:
    """They double up to a limit, and Retry-After is the least."""
    assert pause_before(repeat, retry_after_s, jitter) == pytest.approx(pause_s)


def frames(*chunks: bytes) -> list[Frame]:
    """The events in what a stream brought."""
    reader = FrameReader()
    return [frame for chunk in chunks for frame in reader.feed(chunk)]


STREAM = (
    b': connected\n\nid: 1-0\nevent: job\ndata: {"id":\ndata: "job_1"}\n\n: ping\n\nevent: reset\r\ndata: {}\r\n\r\n'
)
FRAMES = [Frame("job", '{"id":\n"job_1"}', "1-0"), Frame("reset", "{}", None)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, len(STREAM)])
def test_events_are_found_however_the_stream_is_cut(size: int) -> None:
    """Comments are none, lines may end either way, data may have several."""
    assert frames(*(STREAM[at : at + size] for at in range(0, len(STREAM), size))) == FRAMES


def test_an_event_that_is_cut_off_is_none() -> None:
    """Without the empty line at its end an event is not complete."""
    assert frames(b"event: job\ndata: {}\n") == []


@pytest.mark.parametrize("chunk", [b"x" * 4096, b"data: x\n" * 512])
def test_an_event_without_end_is_told(chunk: bytes) -> None:
    """Memory has a bound, whatever is at the other end."""
    with pytest.raises(Unexpected):
        frames(*([chunk] * 100))


def test_a_change_is_typed() -> None:
    """Fields that are new are left out, and kinds that are new are no change."""
    data = {"id": "job_1", "status": "done", "delivery": "pending", "batch_id": None, "at": "2026-01-01T00:00:00.000Z"}
    change = change_of(Frame("job", json.dumps(data | {"new": 1}), "1-0"))
    assert change is not None
    assert (change.kind, change.id, change.status, change.event_id) == (ChangeKind.JOB, "job_1", "done", "1-0")
    nothing = dict.fromkeys(data)
    assert change_of(Frame("reset", json.dumps(nothing), None)) == Change(ChangeKind.RESET)
    assert change_of(Frame("weather", "{}", None)) is None


@pytest.mark.parametrize("data", ["", "[]", "7", '{"id": 7}', '{"at": "soon"}'])
def test_a_change_that_is_none_is_told(data: str) -> None:
    """Something else than a relay speaks."""
    with pytest.raises(Unexpected):
        change_of(Frame("job", data, None))


@pytest.mark.parametrize(
    "url", ["", "relay", "ftp://x", "http://", "http://x:port", "http://u:p@x", "http://x/?q", "http://[::1"]
)
def test_an_address_that_is_none_is_told_without_it(url: str) -> None:
    """It may hold a password."""
    with pytest.raises(Misconfigured) as caught:
        check_address(url)
    assert "u:p" not in str(caught.value)


@pytest.mark.parametrize("key", ["", "two words", "line\n", "schlüssel", "\x00"])
def test_a_key_that_no_header_can_carry_is_told_without_it(key: str) -> None:
    """It is a secret all the same."""
    with pytest.raises(Misconfigured) as caught:
        check_key(key)
    assert not key or key not in str(caught.value)


def test_a_client_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names both ways to give it; that of the environment is enough."""
    monkeypatch.delenv("RELAY_API_KEY", raising=False)
    with pytest.raises(Misconfigured, match="RELAY_API_KEY"):
        RelayClient()
    monkeypatch.setenv("RELAY_API_KEY", "the-key")
    assert "the-key" not in repr(RelayClient())


def test_everything_public_is_there() -> None:
    """What the package says that it has can be had."""
    assert all(hasattr(relay.client, name) for name in relay.client.__all__)
