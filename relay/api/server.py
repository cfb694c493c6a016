"""Listens. Alone knows aiohttp's server: its limits, and what becomes of bytes that are no HTTP request."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

import structlog
from aiohttp import EMPTY_PAYLOAD, web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import _ErrInfo

from relay.api.context import LIMITS
from relay.api.middleware import DEFAULT_HEADERS, HEADERS
from relay.api.problems import Problem
from relay.core.errors import ConfigurationError

log = structlog.get_logger(component="http")

_silent = logging.getLogger("relay.http.silent")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False

#: What a connection may send. Lines are long enough that an absurd key is answered 401 and an absurd cursor 422;
#: few enough of them that one connection cannot hold much memory.
CONNECTION: Mapping[str, Any] = MappingProxyType(
    {
        "max_line_size": 128 * 1024,
        "max_field_size": 128 * 1024,
        "max_headers": 64,
        # Longer than the idle time of common proxies, which must be the ones to hang up.
        "keepalive_timeout": 75.0,
        # Compressed bodies are refused, not read.
        "auto_decompress": False,
        # The middleware logs requests; aiohttp's own lines would quote headers that it could not read.
        "access_log": None,
        "logger": _silent,
    }
)
#: For `web.Application(handler_args=…)`: a reader that hangs up ends its long poll or stream at once.
HANDLER_ARGS: Mapping[str, Any] = MappingProxyType({**CONNECTION, "handler_cancellation": True})


class Connection(web.RequestHandler):
    """One client's connection, whose protocol errors are problem details too."""

    __slots__ = ()

    async def start(self) -> None:
        """Serve the connection until it ends. A target of which aiohttp makes no request is answered too."""
        try:
            await super().start()
        except ValueError as error:  # the host in it is no international name; nobody would ever hang up
            self._messages.appendleft((_ErrInfo(status=HTTPStatus.BAD_REQUEST, exc=error, message=""), EMPTY_PAYLOAD))
            await super().start()

    def data_received(self, data: bytes) -> None:
        """Take bytes in. A body whose framing breaks fails at once; by itself aiohttp would let it wait for more."""
        super().data_received(data)
        request = self._current_request
        broken = self._messages and isinstance(self._messages[-1][0], _ErrInfo)
        if broken and request is not None and not request.content.is_eof():
            request.content.set_exception(web.RequestPayloadError("the framing of the body is not valid HTTP"))

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - may quote a key
    ) -> web.StreamResponse:
        """Answer what never became a request, or what failed outside of the middleware; then hang up."""
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            log.error("connection_failed", exc_info=exc)
            problem = Problem("internal_error", "The request failed for a reason that is ours; it has been logged.")
        elif isinstance(exc, LineTooLong):
            problem = Problem("headers_too_large", "The request line or a header is too long.")
        else:
            problem = Problem("malformed_request", "The request line, a header or the framing is not valid HTTP.")
        if request.writer.output_size > 0:
            # Half an answer is out: the only honest end is to hang up.
            raise ConnectionError("the answer had begun")
        if problem.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            log.info("request", method=None, route="unmatched", status=problem.status, error=type(exc).__name__)
        response = problem.response()
        response.headers.update({**HEADERS, **DEFAULT_HEADERS})
        response.force_close()
        return response


@contextlib.asynccontextmanager
async def listening(app: web.Application, host: str, port: int) -> AsyncIterator[int]:
    """Serve `app` while the context lasts; yields the port (of use where `port` is 0).

    Leaving stops listening, lets running requests end, and closes the application. Raises ConfigurationError where the
    address cannot be had, and what the application's start-up raises.
    """
    runner = web.AppRunner(app, shutdown_timeout=app[LIMITS].shutdown_s)
    try:
        await runner.setup()
        server = runner.server
        assert server is not None  # noqa: S101 - setup() has just made it
        loop = asyncio.get_running_loop()
        try:
            listener = await loop.create_server(
                lambda: Connection(server, loop=loop, **CONNECTION), host, port, backlog=1024, reuse_address=True
            )
        except OSError as error:
            raise ConfigurationError(
                f"RELAY_HOST, RELAY_PORT: cannot listen on {host}:{port}: {error.strerror or error}"
            ) from error
        try:
            yield listener.sockets[0].getsockname()[1]
        finally:
            listener.close()
    finally:
        await runner.cleanup()
