"""`/openapi.json`, and `/docs`: Swagger UI from the installed package, so that it works with no internet."""

import importlib.util
from pathlib import Path

from aiohttp import web

from relay.api.context import OPENAPI
from relay.api.problems import not_found

_ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
#: Swagger UI sets styles on elements and shows icons from data: addresses; scripts come from here only.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>scrapellm-relay API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="icon" type="image/png" href="/docs/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<noscript>This page needs JavaScript. The same as a file: <a href="/openapi.json">openapi.json</a>.</noscript>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_START = """\
SwaggerUIBundle({url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null});
"""


async def document(request: web.Request) -> web.StreamResponse:
    """`GET /openapi.json`."""
    return web.Response(body=request.app[OPENAPI], content_type="application/json")


async def page(_request: web.Request) -> web.StreamResponse:
    """`GET /docs`."""
    return web.Response(text=_PAGE, content_type="text/html", headers={"Content-Security-Policy": _POLICY})


async def asset(request: web.Request) -> web.StreamResponse:
    """`GET /docs/{file}`: one of the files that the page is made of."""
    name = request.match_info["file"]
    headers = {"Cache-Control": "public, max-age=3600"}
    if name == "start.js":
        return web.Response(text=_START, content_type="text/javascript", headers=headers)
    if name not in _ASSETS:
        raise not_found()
    return web.FileResponse(_static() / name, headers=headers | {"Content-Type": _ASSETS[name]})


def _static() -> Path:
    # Found, not imported: only the files of the package are of use here.
    spec = importlib.util.find_spec("swagger_ui")
    assert spec is not None  # noqa: S101 - a dependency of this package
    assert spec.submodule_search_locations is not None  # noqa: S101 - as above
    return Path(spec.submodule_search_locations[0]) / "static"
