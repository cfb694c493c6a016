"""From a validated request to what the store accepts: defaults filled in, rules across fields checked, URLs judged.

Alone knows which value stands in for one that was left out, and what of a request an idempotency key stands for.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from relay.api.problems import Fault, Problem, invalid
from relay.api.schemas import MAX_BATCH, BatchJob, BatchRequest, JobFields, JobRequest
from relay.api.validation import MAX_FAULTS, pointer
from relay.core.egress import CallbackGuard, CallbackUrl, RefusedUrl
from relay.core.model import Callback, CallbackFormat, EventType, JobSpec, PayloadKind
from relay.core.settings import Client
from relay.core.upstream_rules import refuses_country

_ALL_EVENTS = tuple(EventType)
_NO_FIELDS = BatchJob()
_DEFAULTS: Mapping[str, Any] = {
    "country": "US",
    "bypass_cache": False,
    "coalesce": False,
    "timeout": 300,
    "params": {},
    "deadline": None,
    "metadata": {},
    "callback_headers": {},
    "callback_events": _ALL_EVENTS,
    "callback_payload": PayloadKind.FULL,
    "callback_format": CallbackFormat.STANDARD,
}


@dataclass(frozen=True, slots=True)
class Draft:
    """A job whose fields are all there, before its callback URL is judged."""

    fields: Mapping[str, Any]
    #: Where the URL was given: a pointer into the body.
    url_pointer: str

    @property
    def url(self) -> str:
        """The callback URL as the client wrote it."""
        return str(self.fields["callback_url"])


@dataclass(frozen=True, slots=True)
class DraftBatch:
    """A batch before its callback URLs are judged."""

    jobs: Sequence[Draft]
    #: The batch's own callback; None where it has no address or `batch.completed` was not asked for.
    own: Draft | None
    #: The top-level `callback_url`, which is judged even if nothing uses it.
    url: str | None


def draft_job(request: JobRequest) -> Draft:
    """The draft of a single job. Raises Problem (422) where fields contradict each other."""
    draft, faults = _draft(request, _NO_FIELDS, "", {})
    if draft is None or faults:
        raise invalid(faults)
    return draft


def check_batch_size(document: object) -> None:
    """Refuse a batch that is too large before anything is done with its jobs. Raises Problem (`batch_too_large`)."""
    if not isinstance(document, dict):
        return
    jobs, prompts, scrapers = (document.get(name) for name in ("jobs", "prompts", "scrapers"))
    if isinstance(jobs, list) and len(jobs) > MAX_BATCH:
        raise _too_many(len(jobs), "/jobs")
    if isinstance(prompts, list) and len(prompts) * (len(scrapers) if isinstance(scrapers, list) else 1) > MAX_BATCH:
        raise _too_many(len(prompts) * (len(scrapers) if isinstance(scrapers, list) else 1), "/prompts")


def draft_batch(request: BatchRequest) -> DraftBatch:
    """The drafts of a batch, in order. Raises Problem (422) with at most 100 faults."""
    drafts: list[Draft] = []
    faults: list[Fault] = _form_faults(request)
    if faults:
        raise invalid(faults)
    for own, prefix, given in _members(request):
        draft, wrong = _draft(own, request, prefix, given)
        faults += wrong
        if len(faults) >= MAX_FAULTS:
            break
        if draft is not None:
            drafts.append(draft)
    if faults:
        # What is wrong with the batch's own fields is wrong for every job; once is enough.
        raise invalid(list(dict.fromkeys(faults))[:MAX_FAULTS])
    announced = request.callback_events is None or EventType.BATCH_COMPLETED in request.callback_events
    own_draft = None
    if request.callback_url is not None and announced:
        values = {name: _pick(request, request, name) for name in _DEFAULTS}
        own_draft = Draft(values | {"callback_url": request.callback_url}, "/callback_url")
    return DraftBatch(drafts, own_draft, request.callback_url)


def _form_faults(request: BatchRequest) -> list[Fault]:
    if request.jobs is not None:
        return [
            Fault("cannot be combined with jobs", pointer(name))
            for name in ("prompts", "scrapers")
            if getattr(request, name) is not None
        ]
    if request.prompts is None and request.scrapers is None:
        return [Fault("must have jobs, or prompts and scrapers", "")]
    missing = [
        Fault("is required with the other one of prompts and scrapers", pointer(name))
        for name in ("prompts", "scrapers")
        if getattr(request, name) is None
    ]
    return missing + [
        Fault("cannot be combined with prompts and scrapers", pointer(name))
        for name in ("prompt", "scraper")
        if getattr(request, name) is not None
    ]


def _members(request: BatchRequest) -> Iterator[tuple[JobFields, str, Mapping[str, str]]]:
    """Each job's own fields, where they are in the body, and what else is known of it."""
    if request.jobs is not None:
        for number, job in enumerate(request.jobs):
            yield job, f"/jobs/{number}", {}
        return
    for prompt in request.prompts or ():
        for scraper in request.scrapers or ():
            yield _NO_FIELDS, "", {"prompt": prompt, "scraper": scraper}


def _draft(own: JobFields, base: BatchJob, prefix: str, given: Mapping[str, str]) -> tuple[Draft | None, list[Fault]]:
    values: dict[str, Any] = {name: _pick(own, base, name) for name in _DEFAULTS}
    faults: list[Fault] = []
    for name in ("scraper", "prompt", "callback_url"):
        places = (given.get(name), getattr(own, name), getattr(base, name))
        value = values[name] = next((place for place in places if place is not None), None)
        if value is None:
            faults.append(Fault("is required", f"{prefix}/{name}"))
    if values["deadline"] is None:
        values["deadline"] = 3 * values["timeout"] + 60
    scraper, country = values["scraper"], values["country"]
    if scraper is not None and refuses_country(scraper, country):
        at = f"{prefix}/country" if own.country is not None else "/country"
        faults.append(Fault(f"must not be {country} for {scraper}, which does not serve it", at))
    url_pointer = f"{prefix}/callback_url" if getattr(own, "callback_url", None) is not None else "/callback_url"
    return (None if faults else Draft(values, url_pointer)), faults


def _pick(own: JobFields, base: JobFields, name: str) -> Any:
    for fields in (own, base):
        value = getattr(fields, name)
        if value is not None:
            return value
    return _DEFAULTS[name]


def _too_many(count: int, at: str) -> Problem:
    detail = f"makes {count} jobs; a batch has at most {MAX_BATCH}"
    return Problem("batch_too_large", f"{at} {detail}.", faults=[Fault(detail, at)])


async def judge(
    guard: CallbackGuard, client: Client, drafts: Iterable[Draft], extra: str | None = None
) -> Mapping[str, CallbackUrl]:
    """Where each URL of `drafts`, and `extra` (the batch's own), leads. Takes about 2 s at most.

    Raises Problem (`callback_url_refused`) with at most 100 faults.
    """
    places: dict[str, list[str]] = {} if extra is None else {extra: ["/callback_url"]}
    for draft in drafts:
        where = places.setdefault(draft.url, [])
        if draft.url_pointer not in where[-1:]:
            where.append(draft.url_pointer)
    verdicts = await guard.judge_all(places.keys(), client)
    faults: list[Fault] = []
    leads: dict[str, CallbackUrl] = {}
    for url, verdict in verdicts.items():
        if isinstance(verdict, RefusedUrl):
            faults += [Fault(verdict.reason, at) for at in places[url]]
        else:
            leads[url] = verdict
    if faults:
        more = f" ({len(faults) - 1} more are refused.)" if len(faults) > 1 else ""
        raise Problem("callback_url_refused", faults[0].detail + more, faults=faults[:MAX_FAULTS])
    return leads


def spec_of(draft: Draft, leads: Mapping[str, CallbackUrl]) -> JobSpec:
    """What the store keeps of a job."""
    values = draft.fields
    return JobSpec(
        scraper=values["scraper"],
        prompt=values["prompt"],
        country=values["country"],
        timeout_s=values["timeout"],
        bypass_cache=values["bypass_cache"],
        deadline_s=values["deadline"],
        callback=callback_of(draft, leads),
        params=values["params"],
        metadata=values["metadata"],
        coalesce=values["coalesce"],
    )


def callback_of(draft: Draft, leads: Mapping[str, CallbackUrl]) -> Callback:
    """Where and how an outcome is announced."""
    values = draft.fields
    return Callback(
        url=draft.url,
        destination=leads[draft.url].destination,
        events=tuple(values["callback_events"]),
        payload=values["callback_payload"],
        format=values["callback_format"],
        headers=values["callback_headers"],
    )


def body_hash(call: str, specs: Sequence[JobSpec], callback: Callback | None = None) -> str:
    """The SHA-256, in hex, of what a request asks for: validated, defaulted, whatever the order of its fields.

    `call` keeps a batch of one job apart from the job.
    """
    content = msgspec.json.encode([call, specs, callback], order="sorted")
    return hashlib.sha256(content).hexdigest()
