"""What every page goes through: the log-in, the checks of forms, and errors that become pages.

Alone knows where the session is in a request, and by what a form of ours is told from another site's.
"""

import hmac
import time
from collections.abc import Awaitable, Callable
from urllib.parse import quote, urlsplit

from aiohttp import web
from multidict import MultiDict

from relay.api.answers import Handler
from relay.api.body import read_form
from relay.api.context import CLIENT, CLIENTS, LIMITS, SETTINGS
from relay.api.middleware import problem_of
from relay.api.problems import Problem, not_found
from relay.dashboard.render import see, show, show_problem
from relay.dashboard.sessions import LIFETIME_S, Session, Sessions
from relay.dashboard.throttle import Throttle
from relay.dashboard.viewer import Viewer, viewer_of

Form = MultiDict[str]
PageHandler = Callable[[web.Request, Viewer], Awaitable[web.StreamResponse]]
ActionHandler = Callable[[web.Request, Viewer, Form], Awaitable[web.StreamResponse]]

SESSIONS: web.AppKey[Sessions] = web.AppKey("sessions", Sessions)
THROTTLE: web.AppKey[Throttle] = web.AppKey("throttle", Throttle)
COOKIE = "relay_session"
FORM_TOKEN = "form_token"  # noqa: S105 - the name of a field


def page(handler: PageHandler) -> Handler:
    """Make `handler` a page for those who are logged in; others are led to the log-in, and back."""

    async def answer(request: web.Request) -> web.StreamResponse:
        session = session_of(request)
        if session is None:
            return _log_in_first(request)
        viewer: Viewer | None = None
        try:
            viewer = _enter(request, session)
            return await handler(request, viewer)
        except web.HTTPException:
            raise
        except Exception as error:  # noqa: BLE001 - logged there
            return show_problem(request, viewer, problem_of(request, error))

    return answer


def action(handler: ActionHandler) -> Handler:
    """Make `handler` what a form of a page does: nothing that another site sends, or without the session's token."""

    async def answer(request: web.Request) -> web.StreamResponse:
        viewer: Viewer | None = None
        try:
            check_origin(request)
            session = session_of(request)
            if session is None:
                return see("/dashboard/login")
            viewer = _enter(request, session)
            form = await read_form(request, request.app[LIMITS].body_bytes)
            _check_token(form, session)
            return await handler(request, viewer, form)
        except web.HTTPException:
            raise
        except Exception as error:  # noqa: BLE001 - logged there
            return show_problem(request, viewer, problem_of(request, error))

    return answer


def open_to_all(handler: Handler) -> Handler:
    """Make `handler` a page that needs no log-in."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException:
            raise
        except Exception as error:  # noqa: BLE001 - logged there
            return show_problem(request, None, problem_of(request, error))

    return answer


@page
async def nowhere(_request: web.Request, _viewer: Viewer) -> web.StreamResponse:
    """Whatever else is below `/dashboard/`."""
    raise not_found()


def session_of(request: web.Request) -> Session | None:
    """The session of the request's cookie."""
    return request.app[SESSIONS].check(request.cookies.get(COOKIE, ""), time.time())


def check_origin(request: web.Request) -> None:
    """Raise Problem (403) for a form that another site sent. Every browser tells one or the other."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        ours = site == "same-origin"
    else:
        # Browsers leave the other one out where the connection is plain HTTP.
        public = request.app[SETTINGS].public_url
        hosts = {request.host.lower(), _host(public or "")}
        ours = _host(request.headers.get("Origin", "")) in hosts - {""}
    if not ours:
        raise Problem("forbidden", "The form was not sent by a page of this dashboard.")


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:  # such as "http://["
        return ""


def _check_token(form: Form, session: Session) -> None:
    if not hmac.compare_digest(form.get(FORM_TOKEN, "").encode(), session.form_token.encode()):
        raise Problem("forbidden", "The form is of another session. Load the page again, and repeat it.")


def set_cookie(request: web.Request, response: web.Response, value: str) -> web.Response:
    """Put the session's cookie on `response`, or with an empty `value` take it away."""
    public = request.app[SETTINGS].public_url or ""
    # A proxy in front says how it was reached; who lies about it makes only the own cookie stricter.
    by_tls = request.secure or request.headers.get("X-Forwarded-Proto", "") == "https"
    response.set_cookie(
        COOKIE,
        value,
        max_age=LIFETIME_S if value else 0,
        path="/dashboard",
        secure=by_tls or public.startswith("https://"),
        httponly=True,
        samesite="Strict",
    )
    return response


def _enter(request: web.Request, session: Session) -> Viewer:
    if session.client is not None:
        request[CLIENT] = session.client
    return viewer_of(session, request.app[CLIENTS], request.query)


def _log_in_first(request: web.Request) -> web.StreamResponse:
    if request.headers.get("Sec-Fetch-Site") == "cross-site" and request.method in ("GET", "HEAD"):
        # The browser came by a link from elsewhere and kept the cookie to itself: asked for from here, it sends it.
        return show(request, None, "again.html")
    return see(f"/dashboard/login?next={quote(request.path_qs, safe='/')}")
