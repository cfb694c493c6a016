"""The rules of single fields (docs/api.md, "POST /v1/jobs"), as types that pydantic checks and describes.

Rules that depend on the configuration come in through the validation context, a `Rules`.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, PlainValidator, ValidationInfo, WithJsonSchema
from pydantic.config import JsonDict

from relay.api.strict_json import MAX_INTEGER
from relay.core.model import CallbackFormat, EventType, PayloadKind
from relay.core.upstream_rules import COUNTRIES
from relay.core.wire import encode

METADATA_BYTES = 4096
URL_CHARACTERS = 2048
_PARAMS = 32
_PARAM_CHARACTERS = 1024
_HEADERS = 20
_HEADER_BYTES = 4096
_HEADERS_BYTES = 16 * 1024
_PARAM_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
#: What has a field of its own, or is the relay's business.
_RESERVED_PARAMS = frozenset({"prompt", "country", "bypass_cache", "timeout", "api_key"})
#: RFC 9110, section 5.6.2.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")
#: What describes this one message or connection, and what the relay sets itself.
_REFUSED_HEADERS = frozenset(
    (
        *("host", "user-agent", "accept-encoding", "expect", "cookie", "relay-attempt"),
        # RFC 9110, section 7.6.1, and RFC 2616, section 13.5.1: hop by hop.
        *("connection", "keep-alive", "te", "trailer", "trailers", "transfer-encoding", "upgrade", "http2-settings"),
    )
)
_REFUSED_HEADER_PREFIXES = ("content-", "webhook-", "proxy-")

#: Numbers that every reader of JSON keeps exact.
_EXACT_NUMBER: JsonDict = {"type": "number", "minimum": -MAX_INTEGER, "maximum": MAX_INTEGER}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration allows."""

    scrapers: Sequence[str]
    #: Whether thin callbacks can be: they link to the relay, so it must know its own address.
    thin: bool


def _scraper(value: str, info: ValidationInfo) -> str:
    scrapers = _rules(info).scrapers
    if value not in scrapers:
        raise ValueError(f"must be one of: {', '.join(scrapers)}")
    return value


def _prompt(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain U+0000")
    if value.isspace():
        raise ValueError("must not be white space only")
    return value


def _country(value: str) -> str:
    if value not in COUNTRIES:
        hint = ", in upper case" if value.upper() in COUNTRIES else ""
        raise ValueError(f"must be an assigned ISO 3166-1 alpha-2 code{hint}")
    return value


def _number(value: float) -> int | float:
    # 300 and 300.0 are one JSON number.
    return int(value) if value.is_integer() and abs(value) <= MAX_INTEGER else value


def _param_name(value: str) -> str:
    if not _PARAM_NAME.fullmatch(value):
        raise ValueError("has a name that is not 1 to 64 of A-Z a-z 0-9 _ . -")
    if value in _RESERVED_PARAMS:
        raise ValueError("cannot be set here; it has a field of its own or is set by the relay")
    return value


def _param(value: object) -> str | int | float | bool:
    match value:
        case bool() | int():
            return value
        case float() if math.isfinite(value):
            return _number(value)
        case str() if len(value) <= _PARAM_CHARACTERS:
            return value
        case str():
            raise ValueError(f"must have at most {_PARAM_CHARACTERS} characters")
        case _:
            raise ValueError("must be a string, a finite number or a boolean")


def _metadata(value: dict[str, Any]) -> dict[str, Any]:
    size = len(encode(value))
    if size > METADATA_BYTES:
        raise ValueError(f"is {size} bytes as compact JSON; at most {METADATA_BYTES} are allowed")
    return value


def _header_name(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        raise ValueError("has a name that is not an HTTP token (RFC 9110)")
    lower = value.lower()
    if lower in _REFUSED_HEADERS or lower.startswith(_REFUSED_HEADER_PREFIXES):
        raise ValueError("is a header that the relay or the connection sets itself")
    return value


def _header_value(value: str) -> str:
    if not _HEADER_VALUE.fullmatch(value):
        raise ValueError("must be visible ASCII, spaces and tabs")
    if len(value) > _HEADER_BYTES:
        raise ValueError(f"must have at most {_HEADER_BYTES} bytes")
    return value


def _headers(value: dict[str, str]) -> dict[str, str]:
    twice = [name for name, count in Counter(map(str.lower, value)).items() if count > 1]
    if twice:
        raise ValueError(f"has the header {twice[0]} more than once")
    if sum(len(name) + len(text) for name, text in value.items()) > _HEADERS_BYTES:
        raise ValueError(f"must have at most {_HEADERS_BYTES} bytes in all")
    return value


def _unique(value: list[T]) -> list[T]:
    if len(set(value)) != len(value):
        raise ValueError("must not name an event twice")
    return value


def _payload(value: PayloadKind, info: ValidationInfo) -> PayloadKind:
    if value is PayloadKind.THIN and not _rules(info).thin:
        raise ValueError("cannot be thin: this relay has no RELAY_PUBLIC_URL to link to")
    return value


def _any_case(names: Iterable[str], prefixes: Iterable[str]) -> str:
    """A pattern for names of headers, whose case does not matter; JSON Schema has no flag for that."""
    wanted = (*(f"{re.escape(name)}$" for name in sorted(names)), *map(re.escape, prefixes))
    insensitive = [re.sub("[a-z]", lambda m: f"[{m[0].upper()}{m[0]}]", item) for item in wanted]
    return f"^({'|'.join(insensitive)})"


def _rules(info: ValidationInfo) -> Rules:
    assert isinstance(info.context, Rules)  # noqa: S101 - every caller goes through validation.validate
    return info.context


#: Marks the schemas that allow the configured scrapers; the OpenAPI document names those instead.
SCRAPER_MARK = "x-scraper"

Scraper = Annotated[
    str,
    AfterValidator(_scraper),
    Field(
        description="Which scraper answers the prompt.",
        examples=["chatgpt"],
        json_schema_extra={SCRAPER_MARK: True},
    ),
]
Prompt = Annotated[
    str,
    Field(
        min_length=1,
        max_length=4000,
        description="What to ask: 1 to 4,000 code points, not only white space, no U+0000. Never trimmed.",
        examples=["What is the capital of France?"],
        # The rule for people and generators; what is checked is below.
        json_schema_extra={"pattern": r"^[^\u0000]*[^\s\u0000\u001c-\u001f\u0085][^\u0000]*$"},
    ),
    AfterValidator(_prompt),
]
CallbackUrlText = Annotated[
    str,
    Field(
        description="Where the outcome is announced: a public http or https address.",
        examples=["https://example.com/hooks/scrapellm"],
        json_schema_extra={
            "format": "uri",
            "minLength": 1,
            "maxLength": URL_CHARACTERS,
            "pattern": "^[Hh][Tt][Tt][Pp]",
        },
    ),
]
Country = Annotated[
    str,
    AfterValidator(_country),
    Field(
        description="Where to ask from: an assigned ISO 3166-1 alpha-2 code in upper case.",
        json_schema_extra={"enum": sorted(COUNTRIES)},
    ),
]
BypassCache = Annotated[bool, Field(description="Whether the upstream must not answer from its cache.")]
Coalesce = Annotated[
    bool,
    Field(
        description="Whether it may share one upstream job, and one charge, with equal unfinished jobs: same "
        "`scraper`, `prompt`, `country`, `timeout` and `params`, all with `coalesce` and without `bypass_cache`."
    ),
]
Timeout = Annotated[
    float,
    Field(ge=10, le=600, allow_inf_nan=False, description="The upstream's limit for one scrape, in seconds."),
    AfterValidator(_number),
]
Deadline = Annotated[
    float,
    Field(
        ge=1,
        le=86_400,
        allow_inf_nan=False,
        description="Seconds from acceptance after which the job ends; by default 3 × `timeout` + 60.",
    ),
    AfterValidator(_number),
]
ParamName = Annotated[
    str,
    AfterValidator(_param_name),
    Field(
        json_schema_extra={
            "pattern": f"^{_PARAM_NAME.pattern}$",
            "not": {"enum": sorted(_RESERVED_PARAMS)},
        }
    ),
]
ParamValue = Annotated[
    Any,
    PlainValidator(_param),
    WithJsonSchema({"anyOf": [{"type": "string", "maxLength": _PARAM_CHARACTERS}, _EXACT_NUMBER, {"type": "boolean"}]}),
]
Params = Annotated[
    dict[ParamName, ParamValue],
    Field(
        max_length=_PARAMS,
        description="Scraper-specific parameters, passed through.",
        examples=[{"mode": "fast"}],
        json_schema_extra={"additionalProperties": False},
    ),
]
Metadata = Annotated[
    dict[str, Any],
    AfterValidator(_metadata),
    Field(
        description="Any JSON object of at most 4,096 bytes; echoed in answers and callbacks.",
        examples=[{"order": 17}],
    ),
]
HeaderName = Annotated[str, AfterValidator(_header_name), Field(json_schema_extra={"pattern": f"^{_TOKEN.pattern}$"})]
HeaderValue = Annotated[
    str,
    AfterValidator(_header_value),
    Field(json_schema_extra={"pattern": r"^[\t -~]*$", "maxLength": _HEADER_BYTES}),
]
CallbackHeaders = Annotated[
    dict[HeaderName, HeaderValue],
    Field(
        max_length=_HEADERS,
        description="Extra request headers of the callback; never shown again.",
        examples=[{"Authorization": "Bearer of-the-receiver"}],
        json_schema_extra={
            "additionalProperties": False,
            "propertyNames": {"not": {"pattern": _any_case(_REFUSED_HEADERS, _REFUSED_HEADER_PREFIXES)}},
        },
    ),
    AfterValidator(_headers),
]
CallbackEvents = Annotated[
    list[Annotated[EventType, Field(strict=False)]],
    Field(
        min_length=1, description="What is announced; by default everything.", json_schema_extra={"uniqueItems": True}
    ),
    AfterValidator(_unique),
]
CallbackPayload = Annotated[
    PayloadKind,
    Field(strict=False, description="Whether callbacks carry the result or a link to it."),
    AfterValidator(_payload),
]
CallbackFormatName = Annotated[CallbackFormat, Field(strict=False, description="The shape of the callback's body.")]
