"""Turns a template and what it needs into an answer. Alone knows the template engine and the headers of pages."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jinja2
from aiohttp import web
from multidict import MultiDict

from relay import __version__
from relay.api.context import SETTINGS
from relay.api.parameters import Query
from relay.api.problems import Problem
from relay.dashboard import formats
from relay.dashboard.assets import asset_url
from relay.dashboard.viewer import Viewer

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Cache-Control": "no-store",
    # With `no-referrer` browsers would hide where a form was sent from, which is checked.
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    for filter_ in (
        *(formats.moment, formats.duration, formats.number, formats.size, formats.excerpt, formats.words),
        *(formats.coloured, formats.pretty, formats.plural, formats.breakable),
    ):
        environment.filters[filter_.__name__] = filter_
    environment.globals |= {"asset": asset_url, "version": __version__}
    return environment


_ENVIRONMENT = _environment()


def show(
    request: web.Request,
    viewer: Viewer | None,
    template: str,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **context: Any,
) -> web.Response:
    """The page that `template` makes of `context`. `viewer` is None where nobody is logged in."""
    text = _ENVIRONMENT.get_template(template).render(
        viewer=viewer,
        link=linker(viewer),
        path=request.path,
        dev=request.app[SETTINGS].dev_inbox_url is not None,
        **context,
    )
    return web.Response(
        text=text, status=status, content_type="text/html", charset="utf-8", headers={**_HEADERS, **(headers or {})}
    )


def show_problem(request: web.Request, viewer: Viewer | None, problem: Problem) -> web.Response:
    """The same problem that a program would get, as a page."""
    response = show(
        request, viewer, "problem.html", status=problem.status, headers=dict(problem.headers), problem=problem
    )
    if problem.hang_up:
        response.force_close()
    return response


def given(request: web.Request) -> MultiDict[str]:
    """The query without what is empty: a form sends the fields that were left empty too."""
    return MultiDict((name, value) for name, value in request.query.items() if value)


def said_of(query: Query, words: Mapping[str, str]) -> str | None:
    """What a page says was just done, by the `did` that led to it; notes a fault where that is none of `words`."""
    did = query.single("did")
    if did is not None and did not in words:
        query.fault("did", "is not something that was done")
    return None if did is None else words.get(did)


def linker(viewer: Viewer | None) -> "Link":
    """What templates write links with: an operator's choice of a client goes along."""
    chosen = viewer.chosen if viewer is not None and viewer.is_operator else None
    return Link({} if chosen is None else {"client": chosen})


class Link:
    """Writes links within the dashboard: `link('/jobs', status='done')`. None leaves a parameter out."""

    def __init__(self, always: Mapping[str, str]) -> None:
        self._always = always

    def __call__(self, path: str = "", **parameters: "str | Sequence[str] | None") -> str:
        """A link to `/dashboard{path}`. A value that is a sequence is repeated."""
        given = {name: value for name, value in {**self._always, **parameters}.items() if value}
        query = urlencode(given, doseq=True)
        return f"/dashboard{path}{'?' if query else ''}{query}"


def see(location: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """Lead elsewhere, by GET."""
    return web.Response(status=303, headers={"Location": location, "Cache-Control": "no-store", **(headers or {})})
