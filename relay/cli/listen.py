"""`listen`: callbacks on a developer's desk. Alone knows how they are passed on to another program."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Annotated
from urllib.parse import urlsplit

import aiohttp
import typer
from aiohttp import web

from relay.cli.options import DataOption, JsonOption, Secrets, find_secrets
from relay.cli.render import answered_line, callback_document, notes, print_json, print_line
from relay.cli.services import HostOption, PortOption, until_told
from relay.client import Misconfigured
from relay.client.transport import check_address, is_loopback
from relay.core.errors import ConfigurationError
from relay.dev.folder import DEFAULT_FOLDER
from relay.dev.inbox import Forward, Inbox, Received
from relay.dev.system import receiving

MORE = """\b
Examples:
  scrapellm-relay listen --port 9000
  scrapellm-relay listen --forward-to http://localhost:3000/webhooks
  scrapellm-relay listen --json | jq .body.data.id

\b
Each line: when it came, whether it is genuine, the event, the id, and what was answered:
  12:00:01 ✓ verified  job.completed   job_01…  → 204 in 3 ms
Paths make it fail on purpose: /fail/503 always, /fail/503/2 the first two times, /slow/20 after 20 s.

\b
Exit codes: 0 stopped by Ctrl-C, 2 a secret is missing, or the port is in use.
"""

#: The relay gives up after 15 s; what it hears until then is the program's own answer.
_ANSWER_WITHIN_S = 14.0
_ANSWER_BYTES = 1024 * 1024
#: What belongs to one connection (RFC 9110, section 7.6.1), or is made anew for the next one.
_OF_THE_HOP = frozenset(
    {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host", "content-length", "expect"}
)
#: What of an answer tells the relay something.
_TELLING = ("Content-Type", "Retry-After", "Location")


def listen(
    *,
    port: PortOption = 8090,
    host: HostOption = "127.0.0.1",
    forward_to: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Pass each callback on, byte for byte, and answer what comes back."),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(metavar="whsec_…", help="A signing secret; several while rotating. [env: RELAY_SIGNING_SECRET]"),
    ] = None,
    data: DataOption = DEFAULT_FOLDER,
    with_bodies: Annotated[bool, typer.Option("--print-json", help="Print each body below its line.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Receive callbacks on any path, verify their signatures and print them, until stopped."""
    secrets = find_secrets(secret or [], data)
    if forward_to is not None:
        try:
            check_address(forward_to.partition("?")[0])
        except Misconfigured:
            raise ConfigurationError("--forward-to: must be an address, such as http://localhost:3000/hook") from None

    def show(received: Received, status: int, took_ms: float) -> None:
        if as_json:
            answer = {"status": status, "duration_ms": round(took_ms, 1)}
            print_json(callback_document(received) | {"answer": answer})
            return
        print_line(answered_line(received, status, took_ms))
        if with_bodies:
            print_json(received.body)

    asyncio.run(until_told(_listen(secrets, host, port, forward_to, show)))


async def _listen(
    secrets: Secrets, host: str, port: int, forward_to: str | None, show: Callable[[Received, int, float], None]
) -> None:
    async with _forwarding(forward_to) as forward:
        inbox = Inbox(secrets.secrets, on_answer=show, forward=forward)
        async with receiving(inbox, host, port) as chosen:
            hint = ", ".join(f"whsec_…{secret[-4:]}" for secret in secrets.secrets)
            notes().print(f"verifying with the signing secret of {secrets.source} ({hint})", markup=False)
            onward = "" if forward_to is None else f", passing on to {_shown(forward_to)}"
            notes().print(f"listening for callbacks at http://{host}:{chosen}/ (Ctrl-C ends){onward}", markup=False)
            await asyncio.Event().wait()


@asynccontextmanager
async def _forwarding(url: str | None) -> AsyncIterator[Forward | None]:
    """What passes a callback on to `url`; answers 502 or 504 itself where nothing comes back."""
    if url is None:
        yield None
        return
    async with aiohttp.ClientSession(
        trust_env=not is_loopback(url),
        timeout=aiohttp.ClientTimeout(total=_ANSWER_WITHIN_S),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
    ) as http:

        async def forward(headers: Mapping[str, str], raw: bytes) -> web.Response:
            passed_on = [(name, value) for name, value in headers.items() if name.lower() not in _OF_THE_HOP]
            try:
                async with http.post(url, data=raw, headers=passed_on, allow_redirects=False) as answer:
                    body = await answer.content.read(_ANSWER_BYTES)
                    told = {name: answer.headers[name] for name in _TELLING if name in answer.headers}
                    return web.Response(status=answer.status, body=body, headers=told)
            except TimeoutError:
                return _nothing(504, f"{_shown(url)} did not answer within {_ANSWER_WITHIN_S:.0f} s")
            except aiohttp.ClientConnectorError as error:
                number = error.os_error.errno
                why = os.strerror(number).lower() if number else "connection failed"
                return _nothing(502, f"nobody answers at {_shown(url)}: {why}; is your program running?")
            except aiohttp.ClientError:
                return _nothing(502, f"{_shown(url)} broke off the connection")

        yield forward


def _nothing(status: int, why: str) -> web.Response:
    notes().print(why, style="red", markup=False)
    return web.Response(status=status, text=why)


def _shown(url: str) -> str:
    """`url` without its query, which may hold a token."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"
