"""What comes in paths, queries and headers. Alone knows how ids, numbers and the idempotency key may look."""

import re
from collections.abc import Collection
from enum import StrEnum
from typing import TypeVar

from aiohttp import web
from multidict import MultiMapping

from relay.api.context import SUBJECT
from relay.api.problems import Fault, Problem, invalid, not_found
from relay.core.model import BATCH_PREFIX, JOB_PREFIX, BatchId, JobId

_ULID = r"[0-7][0-9a-hjkmnp-tv-z]{25}"
_JOB_ID = re.compile(JOB_PREFIX + _ULID)
_BATCH_ID = re.compile(BATCH_PREFIX + _ULID)
_DESTINATION = re.compile(r"(?:[a-z0-9._-]{1,253}|\[[0-9a-f:.]{2,45}\]):[0-9]{1,5}")
#: The shape of a JSON number, without its sign.
_NUMBER = re.compile(r"(0|[1-9][0-9]{0,8})(\.[0-9]{1,64})?([eE][+-]?[0-9]{1,3})?")
_LIMIT = re.compile(r"[1-9][0-9]{0,3}")
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
MAX_WAIT_S = 60
MAX_LIMIT = 200
DEFAULT_LIMIT = 50

E = TypeVar("E", bound=StrEnum)


def job_id(request: web.Request) -> JobId:
    """The job that the path names. Raises Problem (404) where it cannot be one."""
    return JobId(_id(request, _JOB_ID))


def batch_id(request: web.Request) -> BatchId:
    """The batch that the path names. Raises Problem (404) where it cannot be one."""
    return BatchId(_id(request, _BATCH_ID))


def destination_name(request: web.Request) -> str:
    """The destination that the path names, `host:port`. Raises Problem (404) where it cannot be one."""
    text = request.match_info["destination"].lower()
    if not _DESTINATION.fullmatch(text):
        raise not_found()
    return text


def _id(request: web.Request, pattern: re.Pattern[str]) -> str:
    text = request.match_info["id"]
    if not pattern.fullmatch(text):
        raise not_found()
    request[SUBJECT] = text
    return text


def is_job_id(text: str) -> bool:
    """Whether `text` has the form of a job's id."""
    return _JOB_ID.fullmatch(text) is not None


def is_batch_id(text: str) -> bool:
    """Whether `text` has the form of a batch's id."""
    return _BATCH_ID.fullmatch(text) is not None


class Query:
    """The query of one request. What is wrong is collected, so that the answer can name all of it."""

    def __init__(self, query: MultiMapping[str], known: Collection[str]) -> None:
        self._query = query
        self.faults = [
            Fault("is not a known parameter", name, "parameter")
            for name in dict.fromkeys(self._query)
            if name not in known
        ]

    def fault(self, name: str, detail: str) -> None:
        """Note that a parameter is wrong."""
        self.faults.append(Fault(detail, name, "parameter"))

    def check(self) -> None:
        """Raise Problem (422) if anything was wrong."""
        if self.faults:
            raise invalid(self.faults)

    def single(self, name: str) -> str | None:
        """A parameter that may be there once."""
        values = self._query.getall(name, [])
        if len(values) > 1:
            self.fault(name, "must not be repeated")
        return values[0] if values else None

    def each(self, name: str, kind: type[E]) -> frozenset[E]:
        """A parameter that may repeat, of an enumeration."""
        found: set[E] = set()
        for value in self._query.getall(name, []):
            try:
                found.add(kind(value))
            except ValueError:
                self.fault(name, f"must be one of: {', '.join(kind)}")
                break
        return frozenset(found)

    def wait_s(self) -> float:
        """`wait`: 0 to 60 seconds, 0 where it is left out."""
        text = self.single("wait")
        if text is None:
            return 0.0
        value = float(text) if _NUMBER.fullmatch(text) else None
        if value is None or value > MAX_WAIT_S:
            self.fault("wait", f"must be a number from 0 to {MAX_WAIT_S}")
            return 0.0
        return value

    def limit(self) -> int:
        """`limit`: 1 to 200, 50 where it is left out."""
        text = self.single("limit")
        if text is None:
            return DEFAULT_LIMIT
        if not _LIMIT.fullmatch(text) or int(text) > MAX_LIMIT:
            self.fault("limit", f"must be an integer from 1 to {MAX_LIMIT}")
            return DEFAULT_LIMIT
        return int(text)

    def batch_id(self) -> BatchId | None:
        """`batch_id`."""
        text = self.single("batch_id")
        if text is not None and not _BATCH_ID.fullmatch(text):
            self.fault("batch_id", "is not the id of a batch")
        return None if text is None else BatchId(text)


def idempotency_key(request: web.Request) -> str | None:
    """The `Idempotency-Key`. Raises Problem (`idempotency_key_invalid`)."""
    values = request.headers.getall("Idempotency-Key", [])
    if not values:
        return None
    if len(values) > 1:
        raise _bad_key("must not be repeated")
    return checked_idempotency_key(values[0])


def checked_idempotency_key(text: str) -> str:
    """`text`, if it can be an idempotency key. Raises Problem (`idempotency_key_invalid`)."""
    if not _IDEMPOTENCY_KEY.fullmatch(text):
        raise _bad_key("must be 1 to 255 visible ASCII characters without spaces")
    return text


def _bad_key(detail: str) -> Problem:
    return Problem(
        "idempotency_key_invalid",
        f"The idempotency key {detail}.",
        faults=[Fault(detail, "Idempotency-Key", "header")],
    )
