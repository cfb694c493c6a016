"""The outbound HTTP sessions. Alone builds them, and alone knows how aiohttp is kept from doing more than was asked.

Neither session follows redirects, reads proxies or passwords from the environment, keeps cookies, or repeats a
request by itself.
"""

import socket
import ssl
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from relay import __version__
from relay.core.egress.guard import BlockedAddress, CallbackGuard
from relay.core.egress.limits import TimeLimits
from relay.core.settings import Settings

USER_AGENT = f"scrapellm-relay/{__version__}"

#: Idle connections are dropped before common servers (5 s and more) drop theirs: a POST that meets a connection which
#: is just being closed is lost, and for a submit that may cost money.
_KEEP_ALIVE_S = 4.0
#: aiohttp buffers up to twice this before it stops reading from the socket.
_CALLBACK_BUFFER_BYTES = 16 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

#: What the connect under way was refused; each call of `connect` has its own list, shared with its sub-tasks.
_blocked: ContextVar[list[BlockedAddress]] = ContextVar("_blocked")


class ConnectionLost(aiohttp.ClientConnectionError):
    """The connection to the upstream broke after the request was, or may have been, sent."""


class RedirectRefused(aiohttp.ClientError):
    """The upstream answered with a redirect, which would carry the key to another place."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the upstream answered with a redirect ({status})")
        self.status = status


@dataclass(frozen=True, slots=True)
class CallbackSession:
    """The session for callbacks; `post_callback` is the way to use it. The guard is the builder's to close."""

    guard: CallbackGuard
    http: aiohttp.ClientSession
    limits: TimeLimits = field(default_factory=TimeLimits)

    async def close(self) -> None:
        """Close the connections."""
        await self.http.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def callback_session(settings: Settings, guard: CallbackGuard, tls: ssl.SSLContext | None = None) -> CallbackSession:
    """The one builder of sessions for callbacks; call it in the loop that will use it.

    Every address is judged by `guard` when its name is resolved and once more at connect, bodies are left as they
    come, and the caller sets the time limit. `tls` takes the place of the system's trust store.
    """
    connector = _GuardedConnector(
        guard, resolver=_GuardedResolver(guard), tls=tls, limit=settings.deliver_slots + settings.poll_slots
    )
    http = aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
        auto_decompress=False,
        trust_env=False,
        read_bufsize=_CALLBACK_BUFFER_BYTES,
    )
    return CallbackSession(guard, http)


def upstream_session(settings: Settings) -> aiohttp.ClientSession:
    """The session for ScrapeLLM; call it in the loop that will use it, and read answers with `read_bounded`.

    The address is the operator's and not guarded. A request is sent once: a connection that breaks afterwards raises
    ConnectionLost, one that cannot be made aiohttp.ClientConnectorError (nothing was sent), a redirect RedirectRefused.
    """
    return aiohttp.ClientSession(
        # As many connections as there are slots: a request never waits for one.
        connector=aiohttp.TCPConnector(
            limit=settings.submit_slots + settings.poll_slots, keepalive_timeout=_KEEP_ALIVE_S
        ),
        timeout=aiohttp.ClientTimeout(total=settings.upstream_timeout_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": USER_AGENT},
        trust_env=False,
        middlewares=(_once,),
    )


async def _once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Turn what aiohttp would answer with a second request into an error that it passes on.

    aiohttp repeats idempotent requests after ClientOSError and ServerDisconnectedError on a kept-alive connection: a
    second poll at once, without the caller's knowledge. And it follows redirects, with X-API-Key.
    """
    try:
        response = await send(request)
    except aiohttp.ClientConnectorError:  # a ClientOSError too, but nothing was sent, and aiohttp lets it be
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise ConnectionLost("the connection to the upstream broke") from error
    if response.status in _REDIRECTS:
        response.close()
        raise RedirectRefused(response.status)
    return response


class _GuardedResolver(AbstractResolver):
    """Hands aiohttp only answers that the guard let through whole."""

    def __init__(self, guard: CallbackGuard) -> None:
        self._guard = guard

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002 - aiohttp's signature; all families are judged
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in await self._guard.addresses(host)
        ]

    async def close(self) -> None:
        """The guard is closed by who made it."""


class _GuardedConnector(aiohttp.TCPConnector):
    """Judges each address when a socket is made for it: aiohttp asks no resolver for IP literals.

    An error at that point alone would only move aiohttp on to the next address; here it ends the connect.
    """

    def __init__(
        self, guard: CallbackGuard, *, resolver: AbstractResolver, tls: ssl.SSLContext | None, limit: int
    ) -> None:
        super().__init__(
            resolver=resolver,
            ssl=True if tls is None else tls,
            limit=limit,
            keepalive_timeout=_KEEP_ALIVE_S,
            socket_factory=self._open_socket,
        )
        self._guard = guard

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> Connection:
        blocked: list[BlockedAddress] = []
        token = _blocked.set(blocked)
        try:
            connection = await super().connect(req, traces, timeout)
        except aiohttp.ClientConnectorError:
            if blocked:
                raise blocked[0] from None
            raise
        finally:
            _blocked.reset(token)
        if blocked:
            connection.close()
            raise blocked[0]
        return connection

    def _open_socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        try:
            self._guard.check_address(address[0])
        except BlockedAddress as error:
            _blocked.get().append(error)
            raise
        return socket.socket(family=family, type=kind, proto=protocol)
