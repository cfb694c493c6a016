"""Logging in and out."""

import asyncio
import re
import time

import structlog
from aiohttp import web

from relay.api.body import read_form
from relay.api.context import LIMITS
from relay.api.problems import Problem
from relay.dashboard.entrance import (
    SESSIONS,
    THROTTLE,
    Form,
    action,
    check_origin,
    open_to_all,
    session_of,
    set_cookie,
)
from relay.dashboard.render import see, show
from relay.dashboard.viewer import Viewer

#: Pages of ours, with their query: nothing that a browser could take for another host, or for a step up and out.
_NEXT = re.compile(r"/dashboard(?:/[A-Za-z0-9_/-]*)?(?:\?[A-Za-z0-9._~:%=&+,*\[\]-]*)?")
#: A wrong key is answered so late.
_WRONG_KEY_S = 0.3
log = structlog.get_logger(component="dashboard")


@open_to_all
async def form(request: web.Request) -> web.StreamResponse:
    """`GET /dashboard/login`; with the token of `dev`'s link it logs in."""
    leads_to = _next(request.query.get("next", ""))
    if session_of(request) is not None:
        return see(leads_to)
    token = request.query.get("token")
    if token is not None:
        _check_patience(request)
        cookie = request.app[SESSIONS].log_in_dev(token, time.time())
        if cookie is not None:
            return set_cookie(request, see(leads_to), cookie)
        return await _refused(
            request, leads_to, "The link is of an earlier start of dev: use the newest one, or the key."
        )
    return show(request, None, "login.html", leads_to=leads_to, error=None)


@open_to_all
async def log_in(request: web.Request) -> web.StreamResponse:
    """`POST /dashboard/login`."""
    check_origin(request)
    _check_patience(request)
    given = await read_form(request, request.app[LIMITS].body_bytes)
    leads_to = _next(given.get("next", ""))
    cookie = request.app[SESSIONS].log_in(given.get("key", "").strip(), time.time())
    if cookie is None:
        return await _refused(request, leads_to, "This key is not known. Use a client's API key, or the operator's.")
    return set_cookie(request, see(leads_to), cookie)


@action
async def log_out(request: web.Request, _viewer: Viewer, _form: Form) -> web.StreamResponse:
    """`POST /dashboard/logout`."""
    return set_cookie(request, see("/dashboard/login"), "")


async def _refused(request: web.Request, leads_to: str, error: str) -> web.Response:
    request.app[THROTTLE].failed(request.remote or "", time.monotonic())
    log.warning("login_refused", peer=request.remote)
    await asyncio.sleep(_WRONG_KEY_S)
    return show(request, None, "login.html", status=401, leads_to=leads_to, error=error)


def _check_patience(request: web.Request) -> None:
    wait_s = request.app[THROTTLE].wait_s(request.remote or "", time.monotonic())
    if wait_s > 0:
        seconds = str(int(wait_s) + 1)
        raise Problem(
            "rate_limited",
            f"Too many wrong keys came from this address. Try again in {seconds} s.",
            headers={"Retry-After": seconds},
        )


def _next(given: str) -> str:
    return given if _NEXT.fullmatch(given) and "//" not in given else "/dashboard"
