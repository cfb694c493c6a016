"""A name server on loopback whose answers a test changes while services ask it. Alone knows how DNS messages look."""

import asyncio
import contextlib
import ipaddress
import os
import struct
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import cast

_NAMES = Path(__file__).parent / "names"
_A, _AAAA = 1, 28


class Code(IntEnum):
    """How a name server says that a name has no addresses, or that it has (RFC 1035, 4.1.1)."""

    NOERROR = 0
    SERVFAIL = 2
    NXDOMAIN = 3


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said of a name, and after which time."""

    #: IPv4 and IPv6.
    addresses: tuple[str, ...] = ()
    after_s: float = 0.0
    code: Code = Code.NOERROR


_UNKNOWN = Answer(code=Code.NXDOMAIN)


class NameServer(asyncio.DatagramProtocol):
    """Answers by a table, and with NXDOMAIN what is not in it. Nobody may remember an answer: its TTL is 0."""

    def __init__(self) -> None:
        #: By name, in lower case.
        self.names: dict[str, Answer] = {}
        #: How often the IPv4 addresses of a name were asked for.
        self.asked: Counter[str] = Counter()
        self._address = ""
        self._transport: asyncio.DatagramTransport | None = None

    @property
    def settings(self) -> Mapping[str, str]:
        """The environment of services that are to ask this server."""
        path = os.pathsep.join(filter(None, (str(_NAMES), os.environ.get("PYTHONPATH"))))
        return {"PYTHONPATH": path, "NAME_SERVER": self._address}

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["NameServer"]:
        """Serve it."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        host, port = transport.get_extra_info("sockname")
        self._address = f"{host}:{port}"
        try:
            yield self
        finally:
            transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of the protocol."""
        # A cast, as Python 3.11's own datagram transport does not inherit from the class.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer a question, now or later, by what the table says now."""
        name, kind, question = _question(data)
        if kind == _A:
            self.asked[name] += 1
        answer = self.names.get(name, _UNKNOWN)
        message = data[:2] + _reply(question, kind, answer)
        if answer.after_s:
            asyncio.get_running_loop().call_later(answer.after_s, self._send, message, addr)
        else:
            self._send(message, addr)

    def _send(self, message: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.sendto(message, addr)


def _question(message: bytes) -> tuple[str, int, bytes]:
    """The name, the type, and the question as it came."""
    labels, at = [], 12
    while length := message[at]:
        labels.append(message[at + 1 : at + 1 + length].decode().lower())
        at += 1 + length
    (kind,) = struct.unpack("!H", message[at + 1 : at + 3])
    return ".".join(labels), kind, message[12 : at + 5]


def _reply(question: bytes, kind: int, answer: Answer) -> bytes:
    """An answer without its id."""
    addresses = [ipaddress.ip_address(text) for text in answer.addresses]
    packed = [address.packed for address in addresses if kind == (_A if address.version == 4 else _AAAA)]
    records = b"".join(struct.pack("!HHHIH", 0xC00C, kind, 1, 0, len(data)) + data for data in packed)
    return struct.pack("!HHHHH", 0x8180 | answer.code, 1, len(packed), 0, 0) + question + records
