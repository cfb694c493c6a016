"""The outbound HTTP sessions. Alone builds them, and alone knows how aiohttp is kept from doing more than was asked.

Neither session reads proxies or passwords from the environment, keeps cookies, or repeats a request by itself; those
who use them let no redirect be followed.
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
from relay.core.limits import TimeLimits
from relay.core.settings import Settings

USER_AGENT = f"scrapellm-relay/{__version__}"

#: Idle connections are dropped before common servers (5 s and more) drop theirs: a POST that meets a connection which
#: is just being closed is lost, and for a submit that may cost money.
_KEEP_ALIVE_S = 4.0
#: aiohttp buffers up to twice this before it stops reading from the socket.
_CALLBACK_BUFFER_BYTES = 16 * 1024

#: What the connect under way was refused; each call of `connect` has its own list, shared with its sub-tasks.
_blocked: ContextVar[list[BlockedAddress]] = ContextVar("_blocked")


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

    The address is the operator's and not guarded. A request is sent once, whatever comes of it; where no connection
    can be made (nothing was sent) that is an aiohttp.ClientConnectorError. The caller sets the time limit, and asks
    with `allow_redirects=False`: a redirect would carry the key to another place.
    """
    session = aiohttp.ClientSession(
        # As many connections as there are slots: a request never waits for one.
        connector=aiohttp.TCPConnector(
            limit=settings.submit_slots + settings.poll_slots, keepalive_timeout=_KEEP_ALIVE_S
        ),
        timeout=aiohttp.ClientTimeout(total=None),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": USER_AGENT},
        trust_env=False,
    )
    # aiohttp repeats a GET at once whose kept-alive connection breaks: a second poll that nobody knows of. It has no
    # public switch for that, and a middleware takes as long as the rest of a step.
    session._retry_connection = False  # noqa: SLF001
    return session


def inbox_session() -> aiohttp.ClientSession:
    """A session for the inbox of a `dev`, whose address is the operator's and not guarded; call it in the loop."""
    return aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(), headers={"User-Agent": USER_AGENT}, trust_env=False
    )


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
