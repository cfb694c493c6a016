"""One POST to a callback URL, and how it ended. Alone knows how aiohttp's failures are classified.

Whatever a receiver does is a `Reply`, never an exception; what is raised is our own failure.
"""

import asyncio
import errno
import io
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp

from relay.core.egress.bodies import read_excerpt
from relay.core.egress.guard import BlockedAddress
from relay.core.egress.sessions import CallbackSession
from relay.core.egress.urls import RefusedUrl
from relay.core.errors import RelayError
from relay.core.model import AttemptOutcome
from relay.core.settings import Client

_RETRY_AFTER_CHARACTERS = 128
#: Written in pieces above this; aiohttp warns from 1 MiB on that one write would hold up the loop.
_WRITTEN_WHOLE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Answered:
    """The receiver sent a status, whatever it is; redirects are among them."""

    status: int
    #: At most 1 KiB of the body, made harmless; empty where none came in time.
    excerpt: str
    #: The header as sent, cut at 128 characters.
    retry_after: str | None
    duration_ms: int


@dataclass(frozen=True, slots=True)
class NotAnswered:
    """No status came. `outcome` is TIMEOUT, CONNECTION_ERROR, TLS_ERROR or BLOCKED_ADDRESS."""

    outcome: AttemptOutcome
    #: One short line for the attempt log; holds nothing of the URL, the headers or what was received.
    error: str
    duration_ms: int


Reply = Answered | NotAnswered

#: What this machine has too little of when a socket cannot be opened; no fault of the receiver's.
_OUR_OWN = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class OutOfResources(RelayError):
    """No connection can be opened on this machine now. Nothing was sent."""


async def post_callback(
    session: CallbackSession,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    timeout_s: float,
    *,
    client: Client | None = None,
) -> Reply:
    """POST `body` to `url` once and report how it went, within `timeout_s` in all.

    The time covers DNS, connect, TLS, sending, headers and the beginning of the body. The URL is judged again, with
    the client's list of hosts where `client` is given. A status decides, even if its body stalls or never ends; 3xx
    is not followed. `headers` go out verbatim, beside Host, Accept, Content-Length and an identity Accept-Encoding.
    Raises OutOfResources.
    """
    clock = asyncio.get_running_loop().time
    began_at = clock()
    ends_at = began_at + timeout_s
    try:
        target = session.guard.parse(url, client)
        async with session.limits.within(timeout_s):
            response = await session.http.post(
                target.url,
                data=body if len(body) <= _WRITTEN_WHOLE_BYTES else io.BytesIO(body),
                headers=headers,
                allow_redirects=False,
            )
        retry_after = response.headers.get("Retry-After")
        excerpt = await read_excerpt(response, ends_at)
    except (RefusedUrl, aiohttp.ClientError, OSError) as error:  # TimeoutError included
        outcome, text = _classify(error, timeout_s)
        return NotAnswered(outcome, text, _ms(clock() - began_at))
    return Answered(
        status=response.status,
        excerpt=excerpt,
        retry_after=retry_after[:_RETRY_AFTER_CHARACTERS] if retry_after is not None else None,
        duration_ms=_ms(clock() - began_at),
    )


def _classify(error: Exception, timeout_s: float) -> tuple[AttemptOutcome, str]:
    """The outcome and its line. Texts are our own or the system's: aiohttp's may quote the URL or the answer."""
    chain = _chain(error)
    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error.errno in _OUR_OWN:
        raise OutOfResources(os.strerror(error.os_error.errno).lower()) from error
    if (known := _blocked_or_tls(chain)) is not None:
        return known
    match error:
        case aiohttp.ClientConnectorDNSError():
            text = "the host name could not be resolved"
        case aiohttp.ClientConnectorError():
            text = f"could not connect: {_system_text(chain)}"
        case TimeoutError():
            return AttemptOutcome.TIMEOUT, f"no answer within {timeout_s:g} s"
        case aiohttp.ServerDisconnectedError():
            text = "the receiver closed the connection without an answer"
        case aiohttp.ClientResponseError():
            text = "the receiver's answer is not HTTP, or its headers are too many or too long"
        case _:
            text = f"the connection broke: {_system_text(chain)}"
    return AttemptOutcome.CONNECTION_ERROR, text


def _blocked_or_tls(chain: list[BaseException]) -> tuple[AttemptOutcome, str] | None:
    """Refusals and TLS failures, which aiohttp wraps; None for anything else."""
    for cause in chain:
        if isinstance(cause, aiohttp.ClientSSLError):
            continue  # an SSLError by its bases only: what OpenSSL said is in its cause
        if isinstance(cause, RefusedUrl | BlockedAddress):
            return AttemptOutcome.BLOCKED_ADDRESS, str(cause)
        if isinstance(cause, ssl.SSLCertVerificationError):
            return AttemptOutcome.TLS_ERROR, f"the certificate was refused: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return AttemptOutcome.TLS_ERROR, f"TLS failed: {_reason(cause)}"
    return None


def _chain(error: Exception) -> list[BaseException]:
    """`error` and what caused it, outermost first."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__
    return chain


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or "the handshake was not completed").replace("_", " ").lower()


def _system_text(chain: list[BaseException]) -> str:
    """What the system calls the failure, if it had a part in it."""
    for cause in chain:
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno).lower()
    return "the receiver hung up"


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
