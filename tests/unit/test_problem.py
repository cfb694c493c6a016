"""Problem details."""

import json

import pytest

from relay.api.problems import CODES, CONTENT_TYPE, Fault, Problem, invalid, of_core
from relay.core import errors


def body(problem: Problem) -> dict[str, object]:
    """The body of the answer."""
    content = problem.response().body
    assert isinstance(content, bytes)
    return dict(json.loads(content))


@pytest.mark.parametrize("code", CODES)
def test_members(code: str) -> None:
    """Every problem has the members of RFC 9457 and its code, and the status that goes with it."""
    problem = Problem(code, "It is so.")
    response = problem.response()
    assert response.content_type == CONTENT_TYPE
    assert response.status == CODES[code][0]
    assert body(problem) == {
        "type": f"urn:scrapellm-relay:problem:{code}",
        "title": CODES[code][1],
        "status": CODES[code][0],
        "detail": "It is so.",
        "code": code,
    }


def test_faults_say_where() -> None:
    """A fault is in the body, in a parameter or in a header."""
    faults = [Fault("is wrong", "/a"), Fault("is wrong", "limit", "parameter"), Fault("is wrong", "X-Y", "header")]
    assert body(invalid(faults))["errors"] == [
        {"pointer": "/a", "detail": "is wrong"},
        {"parameter": "limit", "detail": "is wrong"},
        {"header": "X-Y", "detail": "is wrong"},
    ]


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [
        (errors.StoreUnavailable("x"), 503, "store_unavailable", "1"),
        (errors.NotFound("x"), 404, "not_found", None),
        (errors.Conflict("x"), 409, "conflict", None),
        (errors.NotRedeliverable("x"), 409, "not_redeliverable", None),
        (errors.JobExpired("x"), 410, "job_expired", None),
        (errors.IdempotencyKeyReused("x"), 422, "idempotency_key_reused", None),
        (errors.RateLimited(7), 429, "rate_limited", "7"),
        (errors.TooManyUnfinished(5), 429, "too_many_unfinished", "5"),
    ],
)
def test_errors_of_the_core(error: errors.RelayError, status: int, code: str, retry_after: str | None) -> None:
    """What the core refuses has a status and a code; what may be tried again says when."""
    problem = of_core(error)
    assert (problem.status, problem.code) == (status, code)
    assert problem.response().headers.get("Retry-After") == retry_after


def test_other_errors_stay_errors() -> None:
    """What is no refusal is not turned into one."""
    with pytest.raises(errors.ConfigurationError):
        of_core(errors.ConfigurationError("x"))
