"""The fields of requests: which values they take, and how refusals point at them."""

from typing import Any

import pytest

from relay.api import intake
from relay.api.fields import Rules
from relay.api.problems import Problem
from relay.api.schemas import MAX_BATCH, BatchRequest, JobRequest, RedeliverRequest, epoch_ms
from relay.api.validation import MAX_FAULTS, pointer, validate
from relay.core.egress import CallbackUrl
from relay.core.model import CallbackFormat, EventType, JobSpec, PayloadKind
from relay.core.settings import SCRAPERS
from relay.core.upstream_rules import COUNTRIES, refuses_country

RULES = Rules(scrapers=SCRAPERS, thin=True)
URL = "https://example.com/hook"
JOB = {"scraper": "chatgpt", "prompt": "Why?", "callback_url": URL}


class _Lead:
    destination = "example.com:443"


LEADS: Any = type("Leads", (), {"__getitem__": lambda _self, _url: _Lead})()


def spec(**fields: object) -> JobSpec:
    """What is kept of a job with these fields."""
    draft = intake.draft_job(validate(JobRequest, JOB | fields, RULES))
    leads: dict[str, CallbackUrl] = LEADS
    return intake.spec_of(draft, leads)


def drafted(document: object, model: type[Any], rules: Rules) -> object:
    """What a body of a job or of a batch comes to."""
    request = validate(model, document, rules)
    return intake.draft_job(request) if model is JobRequest else intake.draft_batch(request)


def faults(document: object, model: type[Any] = JobRequest, rules: Rules = RULES) -> dict[str, str]:
    """Where and why a body is refused."""
    with pytest.raises(Problem) as caught:
        drafted(document, model, rules)
    assert caught.value.status == 422
    assert all(fault.kind == "pointer" for fault in caught.value.faults)
    return {fault.at: fault.detail for fault in caught.value.faults}


def test_defaults() -> None:
    """A job with nothing but the required fields has the defaults of the contract."""
    made = spec()
    assert (made.country, made.timeout_s, made.bypass_cache, made.deadline_s) == ("US", 300, False, 960)
    assert (made.params, made.metadata, made.coalesce) == ({}, {}, False)
    assert tuple(made.callback.events) == tuple(EventType)
    assert (made.callback.payload, made.callback.format) == (PayloadKind.FULL, CallbackFormat.STANDARD)
    assert made.callback.headers == {}


@pytest.mark.parametrize(
    "name",
    [
        *("country", "bypass_cache", "timeout", "params", "deadline", "metadata"),
        *("callback_headers", "callback_events", "callback_payload", "callback_format"),
    ],
)
def test_null_means_the_default(name: str) -> None:
    """An optional field that is null is one that was left out."""
    assert spec(**{name: None}) == spec()


@pytest.mark.parametrize("name", ["scraper", "prompt", "callback_url"])
def test_required(name: str) -> None:
    """The required fields must be there, and not null."""
    assert faults({key: value for key, value in JOB.items() if key != name}) == {f"/{name}": "is required"}
    assert faults(JOB | {name: None}) == {f"/{name}": "must be a string"}


@pytest.mark.parametrize("body", [None, [], "", 1, True, [JOB]])
def test_no_object(body: object) -> None:
    """A body that is no object is refused as a whole."""
    assert faults(body) == {"": "must be a JSON object"}


def test_unknown_fields_are_named() -> None:
    """Unknown fields are refused, with pointers that escape what RFC 6901 wants escaped."""
    assert set(faults(JOB | {"colaesce": True, "a/b": 1, "~": 2, "": 3})) == {"/colaesce", "/a~1b", "/~0", "/"}


def test_pointer_escapes() -> None:
    """`~` and `/` are escaped, in this order (RFC 6901, section 3)."""
    assert pointer("jobs", 17, "~1/x") == "/jobs/17/~01~1x"
    assert pointer() == ""


@pytest.mark.parametrize(
    "prompt", ["x", "x" * 4000, "😀" * 4000, " x\n", "مرحبا بالعالم", "\u200b", "e\u0301", "\u202eabc", "\x01"]
)
def test_prompts_are_kept_as_they_are(prompt: str) -> None:
    """Prompts of 1 to 4,000 code points are neither trimmed nor normalised."""
    assert spec(prompt=prompt).prompt == prompt


@pytest.mark.parametrize(
    "prompt", ["", " ", "\n\t \r", "\u2003\u00a0\u3000", "x" * 4001, "😀" * 4001, "a\0b", 1, True, [], {}]
)
def test_prompts_refused(prompt: object) -> None:
    """Empty, blank, too long, with U+0000, or no string."""
    assert set(faults(JOB | {"prompt": prompt})) == {"/prompt"}


@pytest.mark.parametrize("country", ["us", "XK", "EU", "UK", "ZZ", "USA", "", "U", " US", 1, "ＵＳ"])
def test_countries_refused(country: object) -> None:
    """Only assigned codes, in upper case."""
    assert set(faults(JOB | {"country": country})) == {"/country"}


def test_all_assigned_countries_are_known() -> None:
    """ISO 3166-1 has 249 assigned codes."""
    assert len(COUNTRIES) == 249
    assert {"US", "TW", "JP", "GB", "AX", "SS"} <= COUNTRIES


@pytest.mark.parametrize("scraper", SCRAPERS)
@pytest.mark.parametrize("country", ["JP", "TW", "KR"])
def test_countries_that_the_upstream_refuses(scraper: str, country: str) -> None:
    """gemini, google_ai_mode and grok are refused for JP and TW, as the upstream would; nothing else is."""
    refused = scraper in ("gemini", "google_ai_mode", "grok") and country != "KR"
    assert refuses_country(scraper, country) is refused
    if refused:
        assert set(faults(JOB | {"scraper": scraper, "country": country})) == {"/country"}
    else:
        assert spec(scraper=scraper, country=country).country == country


@pytest.mark.parametrize("scraper", ["Chatgpt", "bard", "", "chatgpt ", 1, ["chatgpt"]])
def test_scrapers_refused(scraper: object) -> None:
    """Only configured scrapers."""
    assert set(faults(JOB | {"scraper": scraper})) == {"/scraper"}


def test_scrapers_are_a_setting() -> None:
    """A scraper that is configured is taken, and the standard ones are refused where they are not."""
    rules = Rules(scrapers=("newest",), thin=False)
    assert validate(JobRequest, JOB | {"scraper": "newest"}, rules).scraper == "newest"
    assert faults(JOB, rules=rules) == {"/scraper": "must be one of: newest"}


@pytest.mark.parametrize(("name", "low", "high"), [("timeout", 10, 600), ("deadline", 1, 86_400)])
def test_times(name: str, low: int, high: int) -> None:
    """Seconds within their bounds, fractions too; integral numbers are integers however they were written."""
    for value in (low, high, low + 0.5):
        assert getattr(spec(**{name: value}), f"{name}_s") == value
    whole = getattr(spec(**{name: float(low)}), f"{name}_s")
    assert whole == low
    assert isinstance(whole, int)
    others: list[object] = [low - 0.001, high + 0.001, low - 1, 0, -1, 1e300, "30", True, [], {}]
    for wrong in others:
        assert set(faults(JOB | {name: wrong})) == {f"/{name}"}


def test_the_deadline_follows_the_timeout() -> None:
    """The default is 3 × timeout + 60; a given one may be shorter than the timeout."""
    assert spec(timeout=10).deadline_s == 90
    assert spec(timeout=600, deadline=5).deadline_s == 5


@pytest.mark.parametrize("value", [1, 0, "true", [], {}])
def test_booleans_are_booleans(value: object) -> None:
    """Nothing else stands for true or false."""
    assert faults(JOB | {"bypass_cache": value}) == {"/bypass_cache": "must be true or false"}


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"mode": "MODEL_MODE_AUTO", "n": 1, "f": 1.5, "yes": True, "A.b_c-9": ""},
        {"x" * 64: "😀" * 1024},
        {f"p{i}": i for i in range(32)},
        {"Prompt": "another name"},
        {"nul": "\0"},
    ],
)
def test_params_taken(params: dict[str, Any]) -> None:
    """Names and values within the rules are kept, types and all."""
    assert spec(params=params).params == params
    assert [type(v) for v in spec(params=params).params.values()] == [type(v) for v in params.values()]


@pytest.mark.parametrize(
    ("params", "at"),
    [
        ({f"p{i}": i for i in range(33)}, "/params"),
        ([], "/params"),
        ({"a b": 1}, "/params/a b"),
        ({"": 1}, "/params/"),
        ({"x" * 65: 1}, "/params/" + "x" * 65),
        ({"é": 1}, "/params/é"),
        ({"a\n": 1}, "/params/a\n"),
        ({"a/b": 1}, "/params/a~1b"),
        *(({name: 1}, f"/params/{name}") for name in ("prompt", "country", "bypass_cache", "timeout", "api_key")),
        ({"x": None}, "/params/x"),
        ({"x": []}, "/params/x"),
        ({"x": {}}, "/params/x"),
        ({"x": "y" * 1025}, "/params/x"),
    ],
)
def test_params_refused(params: object, at: str) -> None:
    """The refusal points at the parameter that is wrong."""
    assert set(faults(JOB | {"params": params})) == {at}


def test_metadata_is_measured_as_compact_utf8() -> None:
    """4,096 bytes are taken and 4,097 are not, whatever they are made of."""
    fits = {"m": "é" * 2044}  # {"m":""} takes 8
    assert spec(metadata=fits).metadata == fits
    assert set(faults(JOB | {"metadata": {"m": "é" * 2044 + "x"}})) == {"/metadata"}
    assert spec(metadata={"a": [None, {"b": "\0"}], "": 1.5}).metadata == {"a": [None, {"b": "\0"}], "": 1.5}
    others: list[object] = [[], "x", 1, True]
    for wrong in others:
        assert faults(JOB | {"metadata": wrong}) == {"/metadata": "must be an object"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer x", "X-Trace": "a\tb c"},
        {"!#$%&'*+-.^_`|~": ""},
        {"x": "y" * 4096},
        {f"h{i}": "v" for i in range(20)},
        {"hosts": "not Host", "contents": "x", "cookies": "x"},
    ],
)
def test_headers_taken(headers: dict[str, str]) -> None:
    """Tokens and visible ASCII, Authorization included."""
    assert spec(callback_headers=headers).callback.headers == headers


@pytest.mark.parametrize(
    "name",
    [
        *("Host", "HOST", "Content-Type", "content-length", "Content-Anything", "webhook-id", "Webhook-X"),
        *("relay-attempt", "User-Agent", "Accept-Encoding", "Expect", "Cookie", "Proxy-Authorization", "proxy-x"),
        *("Connection", "Keep-Alive", "TE", "Trailer", "Transfer-Encoding", "Upgrade"),
        *("", " ", "a b", "a:", "é", "a\r\nb", "a\0"),
    ],
)
def test_header_names_refused(name: str) -> None:
    """What is no token, describes the message or the connection, or is the relay's own."""
    assert set(faults(JOB | {"callback_headers": {name: "x"}})) == {pointer("callback_headers", name)}


@pytest.mark.parametrize("value", ["a\r\nb: c", "\n", "\0", "é", "\x7f", "😀", "x" * 4097, 1, None, True, []])
def test_header_values_refused(value: object) -> None:
    """What is not visible ASCII, space or tab, or too long, or no string; the refusal does not quote it."""
    found = faults(JOB | {"callback_headers": {"X": value}})
    assert set(found) == {"/callback_headers/X"}
    assert str(value) not in found["/callback_headers/X"] or value in (1, None)


def test_headers_together() -> None:
    """At most 20, 16 KiB in all, each name once whatever its case."""
    assert set(faults(JOB | {"callback_headers": {f"h{i}": "v" for i in range(21)}})) == {"/callback_headers"}
    assert set(faults(JOB | {"callback_headers": {f"h{i}": "v" * 4096 for i in range(4)}})) == {"/callback_headers"}
    assert set(faults(JOB | {"callback_headers": {"X-A": "1", "x-a": "2"}})) == {"/callback_headers"}


def test_events() -> None:
    """Known names, each once, at least one; a job may name the batch's event too."""
    assert spec(callback_events=["batch.completed", "job.failed"]).callback.events == (
        EventType.BATCH_COMPLETED,
        EventType.JOB_FAILED,
    )
    whole: list[object] = [[], ["job.failed", "job.failed"], "job.failed", {}]
    for wrong in whole:
        assert set(faults(JOB | {"callback_events": wrong})) == {"/callback_events"}
    inside: list[object] = [["job.done"], ["JOB.FAILED"], [1], [None]]
    for wrong in inside:
        assert set(faults(JOB | {"callback_events": wrong})) == {"/callback_events/0"}


def test_thin_needs_an_address_to_link_to() -> None:
    """A thin callback is refused where the relay does not know its own address."""
    assert spec(callback_payload="thin").callback.payload is PayloadKind.THIN
    found = faults(JOB | {"callback_payload": "thin"}, rules=Rules(SCRAPERS, thin=False))
    assert "RELAY_PUBLIC_URL" in found["/callback_payload"]


@pytest.mark.parametrize("name", ["callback_payload", "callback_format"])
@pytest.mark.parametrize("value", ["Full", "", 1, True, [], {}])
def test_choices_refused(name: str, value: object) -> None:
    """Only the words of the contract."""
    assert set(faults(JOB | {name: value})) == {f"/{name}"}


def test_all_faults_are_told_at_once() -> None:
    """A body with several mistakes is answered with all of them."""
    found = faults({"prompt": "", "callback_url": 1, "timeout": "x", "zzz": 1})
    assert set(found) == {"/scraper", "/prompt", "/callback_url", "/timeout", "/zzz"}


# Batches


def batch(document: dict[str, Any]) -> list[JobSpec]:
    """The jobs that a batch makes."""
    intake.check_batch_size(document)
    drafted = intake.draft_batch(validate(BatchRequest, document, RULES))
    return [intake.spec_of(draft, LEADS) for draft in drafted.jobs]


def test_every_prompt_to_every_scraper() -> None:
    """Prompts times scrapers, prompt by prompt."""
    made = batch({"prompts": ["a", "b"], "scrapers": ["grok", "copilot"], "callback_url": URL, "country": "DE"})
    assert [(job.prompt, job.scraper) for job in made] == [
        ("a", "grok"),
        ("a", "copilot"),
        ("b", "grok"),
        ("b", "copilot"),
    ]
    assert {job.country for job in made} == {"DE"}


def test_top_level_fields_are_defaults() -> None:
    """A job's own field wins; null in a job takes the batch's."""
    made = batch(
        {
            "jobs": [{"prompt": "a"}, {"prompt": "b", "country": "FR", "timeout": None, "metadata": {}}],
            "scraper": "grok",
            "country": "DE",
            "timeout": 20,
            "metadata": {"m": 1},
            "callback_url": URL,
        }
    )
    assert [(j.scraper, j.country, j.timeout_s, j.deadline_s, j.metadata) for j in made] == [
        ("grok", "DE", 20, 120, {"m": 1}),
        ("grok", "FR", 20, 120, {}),
    ]


@pytest.mark.parametrize(
    ("document", "places"),
    [
        ({}, {""}),
        ({"jobs": None, "prompts": None, "scrapers": None}, {""}),
        ({"jobs": []}, {"/jobs"}),
        ({"jobs": {}}, {"/jobs"}),
        ({"jobs": [JOB], "prompts": ["a"]}, {"/prompts"}),
        ({"jobs": [JOB], "scrapers": ["grok"], "prompts": ["a"]}, {"/prompts", "/scrapers"}),
        ({"prompts": ["a"]}, {"/scrapers"}),
        ({"scrapers": ["grok"], "callback_url": URL}, {"/prompts"}),
        ({"prompts": [], "scrapers": []}, {"/prompts", "/scrapers"}),
        ({"prompts": ["a", ""], "scrapers": ["grok", "x"], "callback_url": URL}, {"/prompts/1", "/scrapers/1"}),
        ({"prompts": ["a"], "scrapers": ["grok"], "prompt": "b", "callback_url": URL}, {"/prompt"}),
        ({"prompts": ["a", "b"], "scrapers": ["grok"]}, {"/callback_url"}),
        ({"prompts": ["a", "b"], "scrapers": ["grok"], "country": "JP", "callback_url": URL}, {"/country"}),
        ({"jobs": [JOB, 1]}, {"/jobs/1"}),
        ({"jobs": [JOB, JOB | {"country": "XX"}]}, {"/jobs/1/country"}),
        ({"jobs": [JOB, JOB | {"scraper": "grok", "country": "JP"}]}, {"/jobs/1/country"}),
        ({"jobs": [JOB, JOB | {"scraper": "grok"}], "country": "JP"}, {"/country"}),
        ({"jobs": [{"prompt": "a"}], "scraper": "grok"}, {"/jobs/0/callback_url"}),
        ({"jobs": [JOB], "country": "xx"}, {"/country"}),
        ({"jobs": [JOB | {"jobs": []}]}, {"/jobs/0/jobs"}),
        ({"jobs": [JOB | {"params": {"a~/": 1}}]}, {"/jobs/0/params/a~0~1"}),
    ],
)
def test_batches_refused(document: object, places: set[str]) -> None:
    """Each mistake is pointed at where it was made, once."""
    assert set(faults(document, BatchRequest)) == places


def test_faults_are_limited() -> None:
    """A batch in which everything is wrong has an answer of bearable size."""
    assert (
        len(faults({"jobs": [{"prompt": ""}] * 5000, "scraper": "grok", "callback_url": URL}, BatchRequest))
        == MAX_FAULTS
    )


@pytest.mark.parametrize(
    "document",
    [
        {"jobs": [JOB] * (MAX_BATCH + 1)},
        {"jobs": [None] * (MAX_BATCH + 1)},
        {"prompts": ["a"] * 101, "scrapers": ["grok"] * 100},
        {"prompts": ["a"] * (MAX_BATCH + 1)},
    ],
)
def test_too_many_jobs(document: dict[str, Any]) -> None:
    """One more than 10,000 is refused before anything else is looked at."""
    with pytest.raises(Problem) as caught:
        batch(document)
    assert caught.value.code == "batch_too_large"
    assert caught.value.faults


def test_a_full_batch() -> None:
    """10,000 jobs are a batch."""
    assert len(batch({"prompts": ["a"] * 2500, "scrapers": list(SCRAPERS[:4]), "callback_url": URL})) == MAX_BATCH


def test_the_batch_callback() -> None:
    """It needs a top-level address, and that `batch.completed` is among the top-level events."""

    def own(**fields: object) -> Any:
        return intake.draft_batch(validate(BatchRequest, {"jobs": [JOB]} | fields, RULES)).own

    assert own() is None
    assert own(callback_url=URL, callback_events=["job.failed"]) is None
    callback = intake.callback_of(
        own(callback_url=URL, callback_headers={"X": "1"}, callback_format="cloudevents"), LEADS
    )
    assert (callback.url, callback.headers, callback.format) == (URL, {"X": "1"}, CallbackFormat.CLOUDEVENTS)


# What an idempotency key stands for


def test_equal_requests_have_equal_hashes() -> None:
    """The order of fields and spelled-out defaults make no difference; any other change does."""
    one = intake.body_hash("job", [spec(metadata={"a": 1, "b": 2})])
    assert one == intake.body_hash("job", [spec(timeout=300.0, country=None, metadata={"b": 2, "a": 1})])
    assert len(one) == 64
    others = [
        intake.body_hash("batch", [spec(metadata={"a": 1, "b": 2})]),
        intake.body_hash("job", [spec(metadata={"a": 1, "b": 3})]),
        intake.body_hash("job", [spec(metadata={"a": 1, "b": 2}, callback_headers={"X": "1"})]),
        intake.body_hash("job", [spec(metadata={"a": 1, "b": 2}, timeout=300.5)]),
    ]
    assert len({one, *others}) == 5


# Redelivering


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-01-01T00:00:00Z", 1_767_225_600_000),
        ("2026-01-01t01:00:00.5+01:00", 1_767_225_600_500),
        ("2025-12-31T23:00:00-01:00", 1_767_225_600_000),
        ("2026-01-01T00:00:00.1234Z", 1_767_225_600_124),
        ("2026-01-01T00:00:00.1230000Z", 1_767_225_600_123),
        ("0001-01-01T00:00:00+23:59", -62_135_683_140_000),
    ],
)
def test_moments(text: str, ms: int) -> None:
    """RFC 3339 with any offset; fractions of a millisecond round up, so that whole ones compare rightly."""
    assert epoch_ms(text) == ms


@pytest.mark.parametrize(
    "text",
    [
        *("", "2026-01-01", "2026-01-01T00:00:00", "2026-01-01 00:00:00Z", "2026-13-01T00:00:00Z"),
        *("2026-02-30T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T00:00:00+24:00", "1767225600"),
        *("0000-01-01T00:00:00Z", "２０２６-01-01T00:00:00Z", "2026-01-01T00:00:00.Z"),
    ],
)
def test_moments_refused(text: str) -> None:
    """What is no RFC 3339 moment, or needs a guess."""
    with pytest.raises(Problem) as caught:
        validate(RedeliverRequest, {"since": text}, RULES)
    assert [fault.at for fault in caught.value.faults] == ["/since"]


@pytest.mark.parametrize(
    "field", [{"delivery": "pending"}, {"delivery": 1}, {"until": 5}, {"callback_host": ""}, {"x": 1}]
)
def test_redeliver_refused(field: dict[str, Any]) -> None:
    """Wrong filters are refused rather than ignored."""
    with pytest.raises(Problem) as caught:
        validate(RedeliverRequest, field, RULES)
    assert [fault.at for fault in caught.value.faults] == ["/" + next(iter(field))]
