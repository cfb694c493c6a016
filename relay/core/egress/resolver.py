"""Names to addresses. Alone knows aiodns.

Lookups run in c-ares' own thread, off the event loop's default pool, so that slow name servers hold up nothing else.
"""

import asyncio
import socket
from collections.abc import Sequence
from typing import Protocol

import aiodns

#: The first wait for a name server, doubled with each try. Where most answers are quick, c-ares makes it a quarter of a
#: second; and an answer that comes after its own try is not heard. So there must be a try that waits for seconds.
_FIRST_WAIT_S = 1.5
_TRIES = 5
#: A lookup that nobody waits for any more ends after this.
_AT_MOST_S = 10.0


class HostResolver(Protocol):
    """What the guard asks; tests bring their own."""

    async def resolve_host(self, host: str) -> list[str]:
        """The addresses of `host`, IPv4 and IPv6, best first. Raises OSError where there are none."""
        ...

    async def close(self) -> None:
        """Give back what lookups needed."""
        ...


class AresResolver:
    """Asks the hosts file, then the DNS, as the system is configured to.

    All addresses are returned, whatever families this machine has routes for: what is judged must not depend on it.
    """

    def __init__(self, nameservers: Sequence[str] = ()) -> None:
        """`nameservers` (`address` or `address:port`) take the place of the system's."""
        self._nameservers = tuple(nameservers)
        # Made with the first lookup: it belongs to the loop that runs then.
        self._dns: aiodns.DNSResolver | None = None

    async def resolve_host(self, host: str) -> list[str]:
        """The addresses of `host`, IPv4 and IPv6, best first. Raises OSError where there are none."""
        if self._dns is None:
            self._dns = aiodns.DNSResolver(self._nameservers or None, timeout=_FIRST_WAIT_S, tries=_TRIES)
        try:
            async with asyncio.timeout(_AT_MOST_S):
                answer = await self._dns.getaddrinfo(host, family=socket.AF_UNSPEC, type=socket.SOCK_STREAM)
        except TimeoutError:
            raise OSError("no name server answered in time") from None
        except aiodns.error.DNSError as error:
            if error.args[0] == aiodns.error.ARES_ENODATA and self._dns is not None:
                # c-ares remembers for an hour that a name has no addresses, whatever the DNS says of that time. This
                # has it forget, and its lookups under way go on.
                self._dns._channel.reinit()  # noqa: SLF001 - aiodns does not offer it
            raise OSError(str(error.args[-1])) from error
        # c-ares gives bytes.
        found = [node.addr[0] for node in answer.nodes]
        addresses = [text.decode("ascii") if isinstance(text, bytes) else text for text in found]
        if not addresses:
            raise OSError("the name has no addresses")
        return addresses

    async def close(self) -> None:
        """End the lookups under way."""
        if self._dns is not None:
            await self._dns.close()
            self._dns = None
