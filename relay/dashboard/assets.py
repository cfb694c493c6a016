"""The style sheet, the scripts and the icon: read once, and kept by browsers until they change."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from aiohttp import web

from relay.api.problems import not_found

_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_FILES: Mapping[str, bytes] = {
    path.name: path.read_bytes() for path in sorted((Path(__file__).parent / "static").iterdir())
}
#: One for all of them, since the scripts import each other by plain names.
_VERSION = hashlib.sha256(b"\n".join(_FILES.values())).hexdigest()[:16]
_HEADERS = {"Cache-Control": "public, max-age=31536000, immutable"}


def asset_url(name: str) -> str:
    """Where a file is, by a URL that changes with the files."""
    return f"/dashboard/static/{_VERSION}/{name}"


async def asset(request: web.Request) -> web.StreamResponse:
    """`GET /dashboard/static/{version}/{file}`: as it is now, whatever the version."""
    name = request.match_info["file"]
    if name not in _FILES:
        raise not_found()
    # Another version is a page of another relay, while one takes over from the other.
    headers = _HEADERS if request.match_info["version"] == _VERSION else {"Cache-Control": "no-store"}
    return web.Response(body=_FILES[name], content_type=_TYPES[Path(name).suffix], charset="utf-8", headers=headers)
