"""`/dashboard/compose`: a form for a job, under `dev`. The API's own code checks and accepts it.

Alone knows how the fields of the form become the JSON that a program would send.
"""

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from relay.api import strict_json
from relay.api.context import SETTINGS
from relay.api.jobs import accept
from relay.api.parameters import Query, checked_idempotency_key
from relay.api.problems import Fault, Problem, invalid, not_found
from relay.core.model import CallbackFormat, EventType, PayloadKind
from relay.core.upstream_rules import COUNTRIES
from relay.dashboard.entrance import Form, action, page
from relay.dashboard.render import given, linker, see, show
from relay.dashboard.viewer import Viewer

_TEXTS = ("scraper", "prompt", "callback_url", "country", "callback_payload", "callback_format")
_NUMBERS = ("timeout", "deadline")
_SWITCHES = ("bypass_cache", "coalesce")
_OBJECTS = ("params", "metadata", "callback_headers")
_KEY = "idempotency_key"
#: Paths of the inbox that answer in a way of their own.
_RECEIVERS: Mapping[str, str] = {
    "/hook": "takes it",
    "/fail/503/2": "fails twice, then takes it",
    "/fail/500": "always fails",
    "/fail/410": "wants no more of it",
    "/slow/3": "takes it after 3 s",
}
#: What a problem that is nobody's field stands at.
_WHOLE = ""


@page
async def form(request: web.Request, viewer: Viewer) -> web.StreamResponse:
    """The form, with its defaults."""
    inbox_url = _inbox_url(request)
    Query(given(request), {"client"}).check()
    settings = request.app[SETTINGS]
    values = {"scraper": settings.scrapers[0], "callback_url": f"{inbox_url}/hook", "country": "US"}
    return _show(request, viewer, values, [*EventType])


@action
async def submit(request: web.Request, viewer: Viewer, sent: Form) -> web.StreamResponse:
    """Accept the job, and lead to its page; or show what is wrong beside the fields."""
    _inbox_url(request)
    events = sent.getall("callback_events", [])
    try:
        client = viewer.client(viewer.chosen)
        key = checked_idempotency_key(sent[_KEY]) if sent.get(_KEY) else None
        done = await accept(request, client, _document(sent, events), key)
    except Problem as problem:
        if problem.status not in (409, 422, 429):
            raise
        return _show(request, viewer, sent, events, faults=_by_field(problem), status=problem.status)
    did = "replayed" if done.replayed else "submitted"
    return see(linker(viewer)(f"/jobs/{done.job.id}", did=did))


def _show(
    request: web.Request,
    viewer: Viewer,
    values: Mapping[str, str],
    events: list[str],
    *,
    faults: Mapping[str, str] | None = None,
    status: int = 200,
) -> web.Response:
    settings = request.app[SETTINGS]
    return show(
        request,
        viewer,
        "compose.html",
        status=status,
        # What was typed into the headers is a secret, and shown nowhere: not even here.
        values={name: value for name, value in values.items() if name != "callback_headers"},
        events=events,
        faults=faults or {},
        whole=faults.get(_WHOLE) if faults else None,
        scrapers=settings.scrapers,
        countries=sorted(COUNTRIES),
        all_events=list(EventType),
        payloads=list(PayloadKind),
        formats=list(CallbackFormat),
        receivers=[(f"{settings.dev_inbox_url}{path}", what) for path, what in _RECEIVERS.items()],
        emulated="scrapellm.com" not in settings.upstream_url,
    )


def _document(sent: Form, events: list[str]) -> dict[str, Any]:
    """The body of the request that a program would send. Raises Problem (422) for what is no JSON where it must be."""
    document: dict[str, Any] = {name: sent[name] for name in _TEXTS if sent.get(name)}
    # A browser sends nothing for a box without a tick; a job must have an event, and the check says so.
    document["callback_events"] = events
    document |= {name: True for name in _SWITCHES if name in sent}
    faults: list[Fault] = []
    for name in (*_NUMBERS, *_OBJECTS):
        text = sent.get(name, "").strip()
        if not text:
            continue
        try:
            document[name] = strict_json.parse(text.encode())
        except strict_json.InvalidJson as error:
            kind = "a number" if name in _NUMBERS else f"JSON: {error}"
            faults.append(Fault(f"must be {kind}" if name in _NUMBERS else f"is not {kind}", f"/{name}"))
    if faults:
        raise invalid(faults)
    return document


def _by_field(problem: Problem) -> dict[str, str]:
    """What is wrong with each field; under the empty name what is wrong with none of them."""
    found: dict[str, str] = {}
    for fault in problem.faults:
        field = _KEY if fault.kind == "header" else fault.at.split("/")[1] if fault.at else _WHOLE
        inner = "/".join(fault.at.split("/")[2:]) if fault.kind == "pointer" else ""
        found.setdefault(field, f"{inner} {fault.detail}".strip())
    return found or {_WHOLE: problem.detail}


def _inbox_url(request: web.Request) -> str:
    url = request.app[SETTINGS].dev_inbox_url
    if url is None:
        raise not_found()
    return url
