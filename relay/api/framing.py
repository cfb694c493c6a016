"""What aiohttp's parsers let through, and a proxy in front may read differently (RFC 9112, sections 3.2, 6.1 and 7).

Alone knows which requests are refused for that, and after which the connection cannot be trusted.
"""

import re

from aiohttp import HttpVersion10, HttpVersion11, web

from relay.api.problems import Problem

#: `uri-host [":" port]` as people write hosts. Empty is legal, and says that the target has no authority.
_HOST = re.compile(r"(?:[A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")


def check(request: web.BaseRequest) -> None:
    """Refuse what has a length, a version or a host that others may not see. Raises Problem (400), and hangs up."""
    if request.version not in {HttpVersion10, HttpVersion11}:
        raise _malformed("The protocol must be HTTP/1.1 or HTTP/1.0.")
    codings = request.headers.getall("Transfer-Encoding", [])
    if codings and (request.version != HttpVersion11 or [coding.lower() for coding in codings] != ["chunked"]):
        raise _malformed("Transfer-Encoding must be chunked and nothing else, and needs HTTP/1.1.")
    if not all(_HOST.fullmatch(host) for host in request.headers.getall("Host", [])):
        raise _malformed("Host must be a name or an address, with or without a port.")


def is_last(request: web.BaseRequest) -> bool:
    """Whether the connection has to end with the answer, because what follows may be misread.

    aiohttp's C parser takes the last trailer of a chunked body for a header of the next request, skips what came
    together with an upgrade, and takes the body of CONNECT for a request.
    """
    headers = request.headers
    return "Transfer-Encoding" in headers or "Upgrade" in headers or request.method == "CONNECT"


def _malformed(detail: str) -> Problem:
    return Problem("malformed_request", detail, hang_up=True)
