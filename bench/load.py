"""`python -m bench.load`: asks for jobs as fast as it is answered, or at a steady rate, and prints how that went.

Lean, and the same for whatever it is pointed at: one request at a time on each connection.
"""

import argparse
import asyncio
import itertools
import random
import re
import sys
import time
from collections.abc import Iterator
from typing import cast

import msgspec
import uvloop

from bench.findings import rank

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, idle: "asyncio.Queue[Client]", took_s: list[float], refused: list[bytes]) -> None:
        self._idle, self._took_s, self._refused = idle, took_s, refused
        self._buffer = bytearray()
        self._sent_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It may be used."""
        self._transport = cast("asyncio.Transport", transport)
        self._idle.put_nowait(self)

    def send(self, request: bytes, since_s: float) -> None:
        """Ask. `since_s` is when that was due."""
        self._sent_s = since_s
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Part of an answer, or all of it."""
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self._buffer, 0, end)
        if len(self._buffer) < end + 4 + (int(length[1]) if length else 0):
            return
        self._took_s.append(time.monotonic() - self._sent_s)
        if not self._buffer.startswith(b"HTTP/1.1 202"):
            self._refused.append(bytes(self._buffer))
        self._buffer.clear()
        self._idle.put_nowait(self)


async def main(given: argparse.Namespace) -> None:
    """Ask for `seconds`, then wait for the answers that are under way."""
    loop = asyncio.get_running_loop()
    idle: asyncio.Queue[Client] = asyncio.Queue()
    took_s: list[float] = []
    refused: list[bytes] = []
    for _ in range(given.connections):
        await loop.create_connection(lambda: Client(idle, took_s, refused), "127.0.0.1", given.port)
    requests = _requests(given)
    began_s = time.monotonic()
    for number in itertools.count():
        due_s = began_s + number / given.per_s if given.per_s else time.monotonic()
        if due_s - began_s >= given.seconds:
            break
        if (wait_s := due_s - time.monotonic()) > 0:
            await asyncio.sleep(wait_s)
        client = await idle.get()
        client.send(next(requests), due_s)
    for _ in range(given.connections):
        await idle.get()
    wall_s = time.monotonic() - began_s
    figures = {
        "per_s": len(took_s) / wall_s,
        "answered": len(took_s),
        "refused": len(refused),
        "first_refusal": refused[0].decode(errors="replace") if refused else "",
        "p50_s": rank(took_s, 0.5),
        "p99_s": rank(took_s, 0.99),
    }
    sys.stdout.write(msgspec.json.encode(figures).decode() + "\n")


def _requests(given: argparse.Namespace) -> Iterator[bytes]:
    rng, name = random.Random(time.time_ns()), f"{time.time_ns():x}"
    head = (
        f"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1:{given.port}\r\nAuthorization: Bearer {given.key}\r\n"
        "Content-Type: application/json\r\nContent-Length: "
    ).encode()
    for number in itertools.count():
        prompt = f"[latency={rng.uniform(*given.latency):.3f}] {name} {number} ".ljust(200, "x")
        body = msgspec.json.encode({"scraper": "chatgpt", "prompt": prompt, "callback_url": given.callback_url})
        yield b"%b%d\r\n\r\n%b" % (head, len(body), body)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("key")
    parser.add_argument("callback_url")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--per-s", type=float, default=0.0, help="0: as fast as it is answered")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--latency", type=float, nargs=2, default=(3.0, 8.0), help="of the jobs, from and to")
    return parser.parse_args()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(_arguments()))
