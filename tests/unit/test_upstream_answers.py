"""What the upstream's answers mean, for every status and document that it may send."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.model import Callback, JobSpec
from worker.upstream import query_of
from worker.upstream_answers import (
    Ambiguous,
    Answer,
    CreditsExhausted,
    Done,
    Lost,
    PollOutcome,
    PollUnavailable,
    RateLimited,
    Rejected,
    StillPending,
    SubmitOutcome,
    Submitted,
    Unauthorized,
    Unavailable,
    UpstreamFailed,
    read_poll,
    read_submit,
)

RATE = "Rate limit exceeded. Retry after a moment."
CREDITS = "Credit limit reached. Upgrade your plan or wait for your billing cycle to reset."
GARBAGE = [
    b"",
    b"<html>502</html>",
    b"null",
    b"[]",
    b'"done"',
    b"{",
    b"{}",
    b'{"status": null}',
    b'{"status": 7}',
    b'{"status": "done", "result": {"a": NaN}}',
    b'{"status": "done", "result": {"a": Infinity}}',
    b'{"status": "done", "result": {"a": "\xff"}}',
    b'{"status": "done", "result": {"a": "\\ud800"}}',
    b'{"status": "done", "result": {"a": "\\q"}}',
    b'{"status": "done", "result": {"a": 01}}',
    b'{"status": "done", "result": {"a": 1,}}',
    b'{"status": "done"} {"status": "done"}',
    b'{"status": "done", "result": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"status": "done", "more": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    b'\xff\xfe{"status": "done"}',
]


def answer(status: int, body: object = b"", retry_after_s: float | None = None, secret: str = "") -> Answer:
    """An answer; anything but bytes is sent as JSON."""
    return Answer(status, body if isinstance(body, bytes) else json.dumps(body).encode(), retry_after_s, secret)


SUBMITS: list[tuple[Answer, SubmitOutcome]] = [
    (answer(202, {"job_id": "j-1", "status": "pending"}), Submitted("j-1")),
    (answer(200, {"job_id": "j-1"}), Submitted("j-1")),
    (answer(202, {"job_id": "../x ?", "new": [1]}), Submitted("../x ?")),
    (answer(202, {"job_id": ""}), Ambiguous("accepted without a job id")),
    (answer(202, {"job_id": 5}), Ambiguous("accepted without a job id")),
    (answer(202, {"status": "pending"}), Ambiguous("accepted without a job id")),
    (answer(204), Ambiguous("accepted without a job id")),
    (answer(400, {"detail": "No."}), Rejected(400, "No.")),
    (answer(404, {"detail": "Unknown scraper."}), Rejected(404, "Unknown scraper.")),
    (answer(405), Rejected(405, "the upstream answered with status 405")),
    (answer(413, {}), Rejected(413, "the upstream answered with status 413")),
    (answer(414, b"<html>"), Rejected(414, "the upstream answered with status 414")),
    (answer(422, {"detail": ""}), Rejected(422, "the upstream answered with status 422")),
    (answer(431), Rejected(431, "the upstream answered with status 431")),
    (answer(401, {"detail": "Revoked."}), Unauthorized("Revoked.")),
    (answer(403, {"detail": "Forbidden."}), Unauthorized("Forbidden.")),
    (answer(402, {"detail": "Pay."}), CreditsExhausted("Pay.")),
    (answer(429, {"detail": CREDITS}, 5.0), CreditsExhausted(CREDITS)),
    (answer(429, {"detail": "OUT OF CREDITS"}), CreditsExhausted("OUT OF CREDITS")),
    (answer(429, {"detail": RATE}, 5.0), RateLimited(5.0)),
    (answer(429, {"detail": RATE}), RateLimited(None)),
    (answer(429, b"slow down"), RateLimited(None)),
    *[(answer(status, b"x", 2.0), Unavailable(f"status {status}", 2.0)) for status in (408, 500, 502, 503, 504, 599)],
    *[(answer(status), Unavailable(f"status {status}")) for status in (301, 302, 304, 307, 308)],
]


@pytest.mark.parametrize(("given_answer", "outcome"), SUBMITS, ids=lambda value: str(getattr(value, "status", "")))
def test_every_answer_to_a_submit_has_its_outcome(given_answer: Answer, outcome: SubmitOutcome) -> None:
    """Permanent, later, not with this key, not with these credits, or a job: by the upstream's documentation."""
    assert read_submit(given_answer) == outcome


@pytest.mark.parametrize("body", GARBAGE)
def test_garbage_after_an_accepted_submit_is_ambiguous(body: bytes) -> None:
    """The status says that there is a job, and nothing says which."""
    assert isinstance(read_submit(answer(202, body)), Ambiguous)


POLLS: list[tuple[Answer, PollOutcome]] = [
    (answer(200, {"status": "pending", "completed_at": None}), StillPending()),
    (answer(200, {"status": "failed", "error": "execution failed"}), UpstreamFailed("execution failed")),
    (answer(200, {"status": "failed", "error": None}), UpstreamFailed("failed")),
    (answer(200, {"status": "failed", "error": {"code": 3}}), UpstreamFailed('{"code":3}')),
    (answer(404, {"detail": "Job not found."}), Lost("Job not found.")),
    (answer(410), Lost("the upstream answered with status 410")),
    (answer(200, {"status": "paused"}), PollUnavailable("an unknown status")),
    (answer(429, {"detail": RATE}, 3.0), PollUnavailable("status 429", 3.0)),
    *[(answer(status), PollUnavailable(f"status {status}")) for status in (302, 400, 401, 408, 422, 500, 503, 504)],
]


@pytest.mark.parametrize(("given_answer", "outcome"), POLLS, ids=lambda value: str(getattr(value, "status", "")))
def test_every_answer_to_a_poll_has_its_outcome(given_answer: Answer, outcome: PollOutcome) -> None:
    """What was paid for is only given up where the upstream says so."""
    assert read_poll(given_answer) == outcome


@pytest.mark.parametrize("body", GARBAGE)
def test_garbage_says_nothing_of_the_job(body: bytes) -> None:
    """An answer that cannot be read is no outcome of the job, however it is broken."""
    assert read_poll(answer(200, body)) == PollUnavailable("an answer that is not the documented JSON")


def test_the_result_is_the_upstreams_own_bytes() -> None:
    """White space, the order of names, escapes and numbers stay as they came."""
    result = '{ "b" : 1.0,\n "a":1e999, "t":"\\u00e9 é \\u0000 😀", "credits_used": 3 }'.encode()
    times = b'"created_at":"2026-01-01T00:00:00Z","completed_at":"2026-01-01T00:00:12.345+00:00"'
    outcome = read_poll(answer(200, b"{" + times + b',"status":"done","result": ' + result + b"}"))
    started_ms = round(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000)
    assert outcome == Done(result, started_ms, started_ms + 12_345, 3)


@pytest.mark.parametrize(
    ("document", "result"),
    [({}, b"null"), ({"result": None}, b"null"), ({"result": "text"}, b'"text"'), ({"result": [1]}, b"[1]")],
)
def test_a_result_that_is_no_object_is_passed_on(document: dict[str, object], result: bytes) -> None:
    """The upstream says that it is done, so it is; what it gave is given."""
    assert read_poll(answer(200, {"status": "done", **document})) == Done(result, None, None, None)


@pytest.mark.parametrize(
    ("value", "credits_used"),
    [("3", 3), ("2.5", 2.5), ("0", 0), ("null", None), ("-3", None), ('"3"', None), ("true", None), ("1e300", None)],
)
def test_credits_are_a_price_or_unknown(value: str, credits_used: float | None) -> None:
    """What could not be added to an account is not."""
    outcome = read_poll(answer(200, b'{"status":"done","result":{"credits_used":%s}}' % value.encode()))
    assert isinstance(outcome, Done)
    assert outcome.credits_used == credits_used


@pytest.mark.parametrize(
    ("value", "moment_ms"),
    [
        ("1970-01-01T00:00:01Z", 1_000),
        ("1970-01-01T00:00:01.5", 1_500),
        ("1970-01-01T01:00:01+01:00", 1_000),
        ("0001-01-01T00:00:00+23:59", -62_135_683_140_000),
        ("yesterday", None),
        (12, None),
        (None, None),
        ({}, None),
    ],
)
def test_times_are_read_where_they_are_times(value: object, moment_ms: int | None) -> None:
    """The upstream's times are UTC; anything else is no time, and no error."""
    outcome = read_poll(answer(200, {"status": "done", "completed_at": value}))
    assert isinstance(outcome, Done)
    assert outcome.completed_ms == moment_ms


def test_what_the_upstream_says_is_shortened() -> None:
    """A detail of any length becomes a message."""
    outcome = read_submit(answer(400, {"detail": "no " * 10_000}))
    assert isinstance(outcome, Rejected)
    assert len(outcome.detail) == 500


def test_a_list_of_faults_becomes_a_sentence_without_the_input() -> None:
    """Of a validation error the place and the message are told, and not the prompt."""
    detail = [
        {"loc": ["query", "timeout"], "msg": "must be less than 600", "input": "the prompt", "ctx": {"le": 600}},
        {"msg": "another", "input": "the prompt"},
    ]
    assert read_submit(answer(422, {"detail": detail})) == Rejected(
        422, "query.timeout: must be less than 600; another"
    )


def test_a_key_or_an_id_in_the_upstreams_words_is_not_passed_on() -> None:
    """The operator's key does not reach the client whose job was refused with it."""
    outcome = read_submit(answer(401, {"detail": "Key sk-0123456789 is revoked."}, secret="sk-0123456789"))
    assert outcome == Unauthorized("Key … is revoked.")
    lost = read_poll(answer(404, {"detail": "No job 0b7e0f1c-1111."}, secret="0b7e0f1c-1111"))
    assert lost == Lost("No job ….")


def test_reprs_hold_no_secret() -> None:
    """Ids, results and the upstream's words are in no log by way of a repr."""
    secrets = "id-of-the-job", "what-it-said"
    shown = repr(
        [
            Submitted(secrets[0]),
            answer(200, secrets[1].encode(), secret=secrets[0]),
            Done(secrets[1].encode(), None, None, None),
            *[kind(secrets[1]) for kind in (Unauthorized, CreditsExhausted, UpstreamFailed, Lost)],
            Rejected(400, secrets[1]),
        ]
    )
    assert not any(secret in shown for secret in secrets)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
documents = st.dictionaries(
    st.sampled_from(["job_id", "status", "result", "error", "detail", "created_at", "completed_at"]), json_values
)


@given(
    status=st.integers(200, 599),
    body=st.binary(max_size=40) | documents.map(lambda document: json.dumps(document).encode()),
)
def test_no_answer_raises(status: int, body: bytes) -> None:
    """Whatever the upstream answers is an outcome."""
    read_submit(answer(status, body))
    outcome = read_poll(answer(status, body))
    if isinstance(outcome, Done):
        json.loads(outcome.result)


@pytest.mark.parametrize(
    ("timeout_s", "sent"),
    [(300, "300"), (300.0, "300"), (10.5, "10.5"), (600, "600"), (0.1 + 0.2, "0.30000000000000004")],
)
def test_the_query_has_what_is_always_sent_and_then_the_scrapers_own(timeout_s: float, sent: str) -> None:
    """Booleans are words, numbers are as JSON has them, text is as it is."""
    spec = JobSpec(
        scraper="grok",
        prompt=" a+b&c ",
        country="US",
        timeout_s=timeout_s,
        bypass_cache=False,
        deadline_s=960,
        callback=Callback("https://example.com/", "example.com:443", ()),
        params={"mode": "MODEL_MODE_EXPERT", "deep": True, "shallow": False, "n": 3, "x": 1.0, "y": 1e22, "empty": ""},
    )
    assert list(query_of(spec).items()) == [
        ("prompt", " a+b&c "),
        ("country", "US"),
        ("bypass_cache", "false"),
        ("timeout", sent),
        ("mode", "MODEL_MODE_EXPERT"),
        ("deep", "true"),
        ("shallow", "false"),
        ("n", "3"),
        ("x", "1.0"),
        ("y", "1e22"),
        ("empty", ""),
    ]
