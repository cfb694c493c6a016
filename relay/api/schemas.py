"""The bodies that requests may have: pydantic models that validate them and that the OpenAPI document is made of.

`null` for an optional field means that it was left out; what stands in for it is decided where specs are made.
"""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

from relay.api import fields as f
from relay.api.conditions import COUNTRY_CONDITION, FORM_CONDITION
from relay.core.model import EventType

MAX_BATCH = 10_000
_RFC3339 = re.compile(r"(\d{4}-\d{2}-\d{2})[Tt](\d{2}:\d{2}:\d{2})(?:\.(\d+))?([Zz]|[+-]\d{2}:\d{2})", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _default(value: JsonValue) -> Any:
    """A field that may be left out, with its default in the schema rather than in the model."""
    return Field(default=None, json_schema_extra={"default": value})


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


class JobFields(_Strict):
    """The fields of a job that may be left out."""

    country: f.Country | None = _default("US")
    bypass_cache: f.BypassCache | None = _default(value=False)
    coalesce: f.Coalesce | None = _default(value=False)
    timeout: f.Timeout | None = _default(300)
    params: f.Params | None = _default({})
    deadline: f.Deadline | None = None
    metadata: f.Metadata | None = _default({})
    callback_headers: f.CallbackHeaders | None = _default({})
    callback_events: f.CallbackEvents | None = _default([*map(str, EventType)])
    callback_payload: f.CallbackPayload | None = _default("full")
    callback_format: f.CallbackFormatName | None = _default("standard")


class JobRequest(JobFields):
    """One prompt for one scraper, and where to announce the outcome."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "scraper": "chatgpt",
                    "prompt": "What is the capital of France?",
                    "callback_url": "https://example.com/hooks/scrapellm",
                    "metadata": {"order": 17},
                }
            ],
            **COUNTRY_CONDITION,
        }
    )

    scraper: f.Scraper
    prompt: f.Prompt
    callback_url: f.CallbackUrlText


class BatchJob(JobFields):
    """One job of a batch. What it leaves out comes from the batch's own fields, then from the defaults."""

    model_config = ConfigDict(json_schema_extra=COUNTRY_CONDITION)

    scraper: f.Scraper | None = None
    prompt: f.Prompt | None = None
    callback_url: f.CallbackUrlText | None = None


class BatchRequest(BatchJob):
    """Many jobs at once: either `jobs`, or `prompts` and `scrapers`, every prompt for every scraper.

    Other fields are defaults for all of its jobs. `callback_url` is announced `batch.completed` too.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "prompts": ["What is the capital of France?", "What is the capital of Peru?"],
                    "scrapers": ["chatgpt", "perplexity"],
                    "callback_url": "https://example.com/hooks/scrapellm",
                }
            ],
            **FORM_CONDITION,
        }
    )

    jobs: Annotated[list[BatchJob], Field(min_length=1, max_length=MAX_BATCH)] | None = None
    prompts: Annotated[list[f.Prompt], Field(min_length=1, max_length=MAX_BATCH)] | None = None
    scrapers: Annotated[list[f.Scraper], Field(min_length=1, max_length=MAX_BATCH)] | None = None


def epoch_ms(text: str) -> int:
    """Unix milliseconds of an RFC 3339 date-time, fractions of a millisecond rounded up.

    Rounded up, `since <= t < until` holds for whole milliseconds exactly when it holds for the moments themselves.
    Raises ValueError.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError("must be an RFC 3339 date and time with an offset, such as 2026-01-01T00:00:00Z")
    day, time, fraction, offset = match.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{time}{'+00:00' if offset in 'Zz' else offset}")
    except ValueError:
        raise ValueError("is not a moment that exists") from None
    digits = (fraction or "").ljust(3, "0")
    return round((moment - _EPOCH).total_seconds()) * 1000 + int(digits[:3]) + (int(digits[3:] or 0) > 0)


def _moment(value: str) -> str:
    epoch_ms(value)
    return value


Moment = Annotated[str, Field(max_length=64, json_schema_extra={"format": "date-time"}), AfterValidator(_moment)]


class RedeliverRequest(_Strict):
    """Which callbacks to repeat."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"delivery": "exhausted", "since": "2026-01-01T00:00:00Z"}]}
    )

    delivery: (
        Annotated[
            Literal["exhausted", "gone", "delivered", "skipped"],
            Field(description="Where the delivery stands."),
        ]
        | None
    ) = _default("exhausted")
    since: Annotated[Moment, Field(description="Jobs whose `completed_at` is this or later.")] | None = None
    until: Annotated[Moment, Field(description="Jobs whose `completed_at` is earlier than this.")] | None = None
    callback_host: (
        Annotated[
            str,
            Field(
                min_length=1,
                max_length=253,
                description="The exact host of the callback URL, without port.",
                examples=["example.com"],
            ),
        ]
        | None
    ) = None
