"""The emulator's HTTP side: the two calls of the API, and how it is served."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from aiohttp import web

from relay.core.settings import hash_api_key
from relay.core.upstream_rules import COUNTRIES, refuses_country
from relay.dev.emulator import control
from relay.dev.emulator.answers import CREDITS_USED_UP, Refusal, json_answer, problem, rate_limited
from relay.dev.emulator.control import STATE
from relay.dev.emulator.faults import carry_out
from relay.dev.emulator.journal import Journal
from relay.dev.emulator.scrapers import Ask
from relay.dev.emulator.settings import EmulatorSettings, Fault
from relay.dev.emulator.state import EmulatedJob, State

_JOURNAL = web.AppKey("journal", Journal)
#: A legal prompt of 4,000 emoji is a query string of about 48 kB; aiohttp's own limit is 8,190 bytes.
_LINE_BYTES = 128 * 1024
_DOCUMENTED = frozenset({"prompt", "country", "bypass_cache", "timeout", "api_key"})
_TRUE, _FALSE = frozenset({"true", "1"}), frozenset({"false", "0"})

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_app(settings: EmulatorSettings) -> web.Application:
    """The emulator as an application. It needs a runner that takes long request lines: see `start`.

    Raises ConfigurationError where its journal cannot be had.
    """
    app = web.Application(middlewares=[_answers])
    state = app[STATE] = State(settings)
    journal = app[_JOURNAL] = Journal(settings.journal)
    now_s = time.time()
    state.restore(journal.read(now_s - settings.retention_s), now_s)
    app.add_routes([web.post("/scrapers/{scraper}/jobs", _submit), web.get("/jobs/{job_id}", _poll), *control.routes()])
    return app


async def start(settings: EmulatorSettings, host: str, port: int) -> web.AppRunner:
    """Serve in this loop; port 0 is any free one. The caller cleans the runner up.

    Raises OSError where it cannot listen, ConfigurationError where its journal cannot be had.
    """
    runner = web.AppRunner(
        build_app(settings),
        access_log=None,
        handle_signals=False,
        shutdown_timeout=0.1,
        max_line_size=_LINE_BYTES,
        max_field_size=_LINE_BYTES,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except BaseException:
        await runner.cleanup()
        raise
    return runner


async def run(settings: EmulatorSettings, host: str, port: int) -> None:
    """Serve until cancelled. Raises what `start` does."""
    runner = await start(settings, host, port)
    try:
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


@web.middleware
async def _answers(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Everything that is common to the answers: errors in the documented shape, and their delay."""
    settings = request.app[STATE].settings
    # Whatever is set, it can be watched and set otherwise.
    is_control = request.path.startswith("/_emulator/")
    if settings.max_url_bytes and len(request.raw_path) > settings.max_url_bytes and not is_control:
        return json_answer(414, problem("URI too long."))
    try:
        response = await handler(request)
    except Refusal as refusal:
        response = json_answer(refusal.status, problem(refusal.detail))
    except web.HTTPException as error:
        response = json_answer(error.status, problem(error.reason))
    if settings.answer_delay_s and not is_control:
        await asyncio.sleep(settings.answer_delay_s)
    return response


async def _submit(request: web.Request) -> web.StreamResponse:
    state, now_s = request.app[STATE], time.time()
    settings = state.settings
    fault = state.faults.next("submit", settings.faults)
    if fault is not None and not fault.takes_the_job:
        return await _carry_out(request, fault)
    key = _key_of(request, settings)
    scraper = request.match_info["scraper"]
    if scraper not in settings.scrapers:
        raise Refusal(404, f"Unknown scraper '{scraper}'.")
    ask = _ask_of(request, scraper)
    is_bypassing = _is_bypassing(request)
    _check_timeout(request)
    asked_status = state.markers_of(ask.prompt).status
    if asked_status is not None:
        raise Refusal(asked_status, "As the prompt asked.")
    if settings.rate_limit_per_s and state.accounts.is_over_rate(key, settings.rate_limit_per_s, now_s):
        state.counts["rate_limited"] += 1
        return rate_limited(settings.retry_after_s)
    if state.credits_left(key, now_s) < settings.credits_per_job:
        state.counts["credit_limited"] += 1
        raise Refusal(429, CREDITS_USED_UP)
    job = state.submit(
        key,
        ask,
        timeout=request.query.get("timeout", ""),
        bypass_cache=request.query.get("bypass_cache", ""),
        is_bypassing=is_bypassing,
        now_s=now_s,
    )
    request.app[_JOURNAL].append(job)
    if fault is not None:
        return await _carry_out(request, fault)
    return json_answer(202, {"job_id": job.id, "status": "pending"})


async def _poll(request: web.Request) -> web.StreamResponse:
    state, now_s = request.app[STATE], time.time()
    state.counts["polls"] += 1
    fault = state.faults.next("poll", state.settings.faults)
    if fault is not None:
        return await _carry_out(request, fault)
    job = state.find(request.match_info["job_id"], now_s)
    if job is None:
        raise Refusal(404, "Job not found or expired.")
    return json_answer(200, _document(job, now_s))


async def _carry_out(request: web.Request, fault: Fault) -> web.StreamResponse:
    state = request.app[STATE]
    settings = state.settings
    # Now, not when it was chosen: what breaks a rule is refused, and meets no fault that takes the job.
    state.faults.met[fault] += 1
    return await carry_out(request, fault, hang_s=settings.hang_s, retry_after_s=settings.retry_after_s)


def _key_of(request: web.Request, settings: EmulatorSettings) -> str:
    """The hash of the key; in the header or, as documented, in the query."""
    key = request.headers.get("X-API-Key") or request.query.get("api_key") or ""
    if not key:
        raise Refusal(401, "API key is missing.")
    if not key.isascii() or (settings.api_keys and key not in settings.api_keys):
        raise Refusal(401, "Invalid or revoked API key.")
    return hash_api_key(key)


def _ask_of(request: web.Request, scraper: str) -> Ask:
    """What is asked, checked and defaulted (docs/upstream.md, "Submit")."""
    query = request.query
    for name in _DOCUMENTED:
        if len(query.getall(name, [])) > 1:
            raise Refusal(422, f"{name}: given more than once.")
    prompt = query.get("prompt", "")
    if not 1 <= len(prompt) <= 4_000:
        raise Refusal(422, "prompt: 1 to 4,000 characters are required.")
    country = query.get("country", "US")
    if country not in COUNTRIES or refuses_country(scraper, country):
        raise Refusal(422, f"country: '{country}' is not available for {scraper}.")
    return Ask(scraper, prompt, country, {name: query[name] for name in query if name not in _DOCUMENTED})


def _is_bypassing(request: web.Request) -> bool:
    word = request.query.get("bypass_cache", "false").lower()
    if word not in _TRUE | _FALSE:
        raise Refusal(422, "bypass_cache: must be a boolean.")
    return word in _TRUE


def _check_timeout(request: web.Request) -> None:
    try:
        timeout_s = float(request.query.get("timeout", "300"))
    except ValueError:
        raise Refusal(422, "timeout: must be a number.") from None
    if not 10 <= timeout_s <= 600:
        raise Refusal(422, "timeout: must be 10 to 600 seconds.")


def _document(job: EmulatedJob, now_s: float) -> dict[str, object]:
    status = job.status(now_s)
    document: dict[str, object] = {
        "job_id": job.id,
        "status": status,
        "scraper": job.ask.scraper,
        "prompt": job.ask.prompt,
        "country": job.ask.country,
        "created_at": _iso(job.created_s),
        "completed_at": None if status == "pending" or job.ends_s is None else _iso(job.ends_s),
    }
    if status == "done":
        document["result"] = job.result()
    if status == "failed":
        document["error"] = "execution failed"
    return document


def _iso(moment_s: float) -> str:
    return datetime.fromtimestamp(moment_s, UTC).isoformat()
