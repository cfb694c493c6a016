"""`/_emulator/`: watch and steer the emulator from outside, so that tests on real processes can account for it.

`GET stats` counts · `GET submits` says how often each prompt was submitted (`?prompt=` for one) · `GET jobs/{id}` shows
a job as it was received · `GET settings` shows the settings, `POST settings` changes some while it runs.
"""

import time

import msgspec
from aiohttp import web

from relay.core.errors import ConfigurationError
from relay.dev.emulator.answers import Refusal, json_answer
from relay.dev.emulator.settings import EmulatorSettings
from relay.dev.emulator.state import State

STATE = web.AppKey("state", State)
#: Read at the start only.
_FIXED = ("journal", "seed")
_COUNTS = ("submits", "polls", "rate_limited", "credit_limited")


def routes() -> list[web.RouteDef]:
    """The routes under `/_emulator/`."""
    return [
        web.get("/_emulator/stats", _stats),
        web.get("/_emulator/submits", _submits),
        web.get("/_emulator/jobs/{job_id}", _job),
        web.get("/_emulator/settings", _show),
        web.post("/_emulator/settings", _change),
    ]


async def _stats(request: web.Request) -> web.Response:
    state, now_s = request.app[STATE], time.time()
    state.settle(now_s)
    return json_answer(
        200,
        {
            **{name: state.counts[name] for name in _COUNTS},
            "faults": dict(state.faults.met),
            "jobs": dict(state.statuses(now_s)),
            "repeated_submits": sum(count - 1 for count in state.submits_of.values()),
            "credits_used": state.accounts.spent_by_all(),
        },
    )


async def _submits(request: web.Request) -> web.Response:
    wanted = request.query.get("prompt")
    rows = [
        {"scraper": scraper, "prompt": prompt, "submits": count}
        for (scraper, prompt), count in request.app[STATE].submits_of.items()
        if wanted is None or wanted == prompt
    ]
    return json_answer(200, {"data": rows})


async def _job(request: web.Request) -> web.Response:
    now_s = time.time()
    job = request.app[STATE].find(request.match_info["job_id"], now_s)
    if job is None:
        raise Refusal(404, "Job not found or expired.")
    return json_answer(
        200,
        {
            "job_id": job.id,
            "status": job.status(now_s),
            "scraper": job.ask.scraper,
            "prompt": job.ask.prompt,
            "country": job.ask.country,
            "timeout": job.timeout,
            "bypass_cache": job.bypass_cache,
            "params": job.ask.params,
            "credits": job.credits,
            "cached": job.cached,
        },
    )


async def _show(request: web.Request) -> web.Response:
    return json_answer(200, request.app[STATE].settings.model_dump(mode="json", exclude={"api_keys"}))


async def _change(request: web.Request) -> web.Response:
    """Change settings: a JSON object with names of EmulatorSettings. All of it or, with 422, nothing."""
    state = request.app[STATE]
    try:
        changes = msgspec.json.decode(await request.read(), type=dict[str, object])
    except (ValueError, RecursionError):
        raise Refusal(422, "The body must be a JSON object.") from None
    unknown = changes.keys() - EmulatorSettings.model_fields.keys()
    if unknown:
        raise Refusal(422, f"There is no setting {min(unknown)!r}.")
    try:
        changed = EmulatorSettings.load(**state.settings.model_dump() | changes)
    except ConfigurationError as error:
        raise Refusal(422, str(error)) from None
    for name in _FIXED:
        if getattr(changed, name) != getattr(state.settings, name):
            raise Refusal(422, f"{name} cannot be changed while it runs.")
    state.settings = changed
    if "fault_sequence" in changes:
        state.faults.put_in_line(state.settings.fault_sequence)
    return await _show(request)
