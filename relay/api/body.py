"""Reads request bodies: 415, 413, 408, then 400, in this order (docs/api.md, "Errors"). Alone touches the raw bytes."""

import asyncio
from urllib.parse import parse_qsl

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from multidict import MultiDict

from relay.api import strict_json
from relay.api.context import LIMITS
from relay.api.problems import Problem

#: Larger bodies are parsed in a thread, so that other requests go on meanwhile.
_OFF_LOOP_BYTES = 64 * 1024
_FORM_FIELDS = 200
_UTF8 = frozenset({"utf-8", "utf8"})


async def read_json(request: web.Request, limit: int) -> object:
    """The strictly parsed body of a call that needs one; at most `limit` bytes are read.

    Raises Problem: 415, 413, 408, or 400.
    """
    _check_type(request)
    return await _parse(await _read(request, limit))


async def read_optional_json(request: web.Request, limit: int) -> object:
    """The same for a call whose body may be left out, which counts as an empty object."""
    if not request.can_read_body:
        return {}
    if "Content-Type" in request.headers or "Content-Encoding" in request.headers:
        _check_type(request)
        body = await _read(request, limit)
    elif body := await _read(request, limit):
        _check_type(request)
    return await _parse(body) if body else {}


async def read_form(request: web.Request, limit: int) -> MultiDict[str]:
    """The fields of an HTML form, in order, with plain line feeds; at most `limit` bytes are read.

    Raises Problem: 415, 413, 408, or 400.
    """
    if request.content_type != "application/x-www-form-urlencoded" or "Content-Encoding" in request.headers:
        raise Problem("unsupported_media_type", "Send a form, with Content-Type: application/x-www-form-urlencoded.")
    body = await _read(request, limit)
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_FORM_FIELDS)
    except ValueError:
        raise Problem("malformed_request", "The form is not URL-encoded UTF-8.") from None
    return MultiDict((name, value.replace("\r\n", "\n")) for name, value in pairs)


async def _parse(body: bytes) -> object:
    try:
        if len(body) > _OFF_LOOP_BYTES:
            return await asyncio.to_thread(strict_json.parse, body)
        return strict_json.parse(body)
    except strict_json.InvalidJson as error:
        raise Problem("invalid_json", str(error)) from None


def _check_type(request: web.Request) -> None:
    if any(coding.strip().lower() != "identity" for coding in request.headers.getall("Content-Encoding", [])):
        raise Problem("unsupported_media_type", "Send the body uncompressed, without Content-Encoding.")
    types = request.headers.getall("Content-Type", [])
    if len(types) != 1 or request.content_type != "application/json":
        raise Problem("unsupported_media_type", "Send JSON, with Content-Type: application/json.")
    if (request.charset or "utf-8").lower() not in _UTF8:
        raise Problem("unsupported_media_type", "JSON is UTF-8: leave the charset out.")


async def _read(request: web.Request, limit: int) -> bytes:
    if request.content_length is not None and request.content_length > limit:
        raise _too_large(limit)
    timeout_s = request.app[LIMITS].body_timeout_s
    try:
        if request.content.is_eof() and "Expect" not in request.headers:
            # It came with the head, so there is nothing to wait for.
            return await _rest(request, limit)
        async with asyncio.timeout(timeout_s):
            await _ask_for_body(request)
            return await _rest(request, limit)
    except TimeoutError:
        raise _hang_up("request_timeout", f"The body was not complete within {timeout_s:g} s.") from None
    except (web.RequestPayloadError, HttpProcessingError, ConnectionError):
        raise _hang_up("malformed_request", "The body ended early or its framing is not valid HTTP.") from None


async def _rest(request: web.Request, limit: int) -> bytes:
    body = bytearray()
    while chunk := await request.content.readany():
        body += chunk
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


async def _ask_for_body(request: web.Request) -> None:
    if request.version >= (1, 1) and request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # That line is no part of the answer, of which nothing has been sent yet.
        request.writer.output_size = 0


def _too_large(limit: int) -> Problem:
    return _hang_up("too_large", f"The body is larger than {limit} bytes.")


def _hang_up(code: str, detail: str) -> Problem:
    return Problem(code, detail, hang_up=True)
