"""The address guard: judges callback URLs when a job is accepted, and addresses when a callback is sent.

Alone knows when names are resolved and what follows from the answer.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Mapping
from functools import lru_cache, partial
from types import TracebackType
from typing import Self

from relay.core.egress.addresses import allowed_loopback, is_refused_text
from relay.core.egress.resolver import AresResolver, HostResolver
from relay.core.egress.urls import CallbackUrl, RefusedUrl, UrlPolicy, is_loopback_name, parse_callback_url
from relay.core.settings import Client, Settings

#: How long accepting waits for the DNS (docs/api.md, "The address guard").
_RESOLVE_WITHIN_S = 2.0
#: How long a verdict on a name serves further URLs; sending asks again in any case.
_REMEMBER_S = 5.0
_REMEMBERED_NAMES = 1024
_REMEMBERED_URLS = 1024
#: Of one request: the slow names of a large batch must not keep another one from being judged.
_LOOKUPS_AT_ONCE = 64
#: URLs of a batch that are parsed before the loop gets a turn.
_PARSED_AT_ONCE = 200

_NOT_PUBLIC = "The host name has an address that is not public, and callbacks go to public addresses only."
_HOST_NOT_LISTED = "The host is not among the callback hosts that are configured for this client."


class BlockedAddress(OSError):
    """A callback was about to go to a refused address.

    An OSError, because resolvers and connectors pass those on. The message names no address: what private names
    resolve to is none of the client's business.
    """

    def __init__(self) -> None:
        super().__init__("the host name has an address that is not public")


class CallbackGuard:
    """Judges where callbacks may go, by the settings. Serves one event loop; `close()` it there."""

    def __init__(self, settings: Settings, resolver: HostResolver | None = None) -> None:
        """`resolver` is the system's unless given; the guard closes it."""
        self._policy = UrlPolicy.of(settings)
        # A client has few addresses, and each of its jobs names one, here and again when its callback is sent.
        self._parse = lru_cache(_REMEMBERED_URLS)(partial(parse_callback_url, policy=self._policy))
        self._resolver: HostResolver = AresResolver() if resolver is None else resolver
        #: Host → (when it is forgotten, on the loop's clock; the lookup, whose result is "refused?").
        self._verdicts: OrderedDict[str, tuple[float, asyncio.Task[bool]]] = OrderedDict()
        self._running: set[asyncio.Task[bool]] = set()

    def parse(self, raw: str, client: Client | None = None) -> CallbackUrl:
        """All of the judgement that needs no DNS, the client's list of hosts included. Raises RefusedUrl."""
        target = self._parse(raw)
        if client is not None and not client.allows_callback_host(target.host):
            raise RefusedUrl(_HOST_NOT_LISTED)
        return target

    async def judge(self, raw: str, client: Client | None = None) -> CallbackUrl:
        """Judge one URL for a job that is being accepted; takes at most 2 s.

        A name with any refused address is refused; one that does not resolve in time passes, and is judged when the
        callback is sent. Raises RefusedUrl.
        """
        verdict = (await self.judge_all((raw,), client))[raw]
        if isinstance(verdict, RefusedUrl):
            raise verdict
        return verdict

    async def judge_all(
        self, raws: Collection[str], client: Client | None = None
    ) -> Mapping[str, CallbackUrl | RefusedUrl]:
        """Judge the URLs of a batch, each distinct host resolved once, and 2 s for all of them together.

        Returns the verdict by URL; raises nothing for a refused one.
        """
        verdicts: dict[str, CallbackUrl | RefusedUrl] = {}
        lookups: dict[str, asyncio.Task[bool]] = {}
        slots = asyncio.Semaphore(_LOOKUPS_AT_ONCE)
        for number, raw in enumerate(dict.fromkeys(raws), start=1):
            try:
                target = self.parse(raw, client)
            except RefusedUrl as refusal:
                verdicts[raw] = refusal
                continue
            finally:
                if number % _PARSED_AT_ONCE == 0:
                    await asyncio.sleep(0)
            verdicts[raw] = target
            if not target.is_literal and target.host not in lookups:
                lookups[target.host] = self._lookup(target.host, slots)
        unfinished = {lookup for lookup in lookups.values() if not lookup.done()}
        if unfinished:
            # Not cancelled when the time is up: another request may wait for the same name.
            await asyncio.wait(unfinished, timeout=_RESOLVE_WITHIN_S)
        for raw, verdict in verdicts.items():
            if isinstance(verdict, CallbackUrl) and verdict.host in lookups and _says_refused(lookups[verdict.host]):
                verdicts[raw] = RefusedUrl(_NOT_PUBLIC)
        return verdicts

    async def addresses(self, host: str) -> list[str]:
        """The addresses that a callback to `host` (lower case, no trailing dot) may be sent to, best first.

        Raises BlockedAddress where any address of the name is refused, and OSError where it has none.
        """
        if is_loopback_name(host):
            # Never asked of the DNS, which might answer otherwise (RFC 6761, 6.3).
            loopback = allowed_loopback(self._policy.allowed_networks)
            if not loopback:
                raise BlockedAddress
            return list(loopback)
        addresses = await self._resolver.resolve_host(host)
        for address in addresses:
            self.check_address(address)
        return addresses

    def check_address(self, address: str) -> None:
        """Judge the address that a socket is about to be, or is, connected to. Raises BlockedAddress."""
        if is_refused_text(address, self._policy.allowed_networks):
            raise BlockedAddress

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the lookups under way and close the resolver."""
        for lookup in self._running:
            lookup.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._verdicts.clear()
        await self._resolver.close()

    def _lookup(self, host: str, slots: asyncio.Semaphore) -> asyncio.Task[bool]:
        """The running or remembered lookup of `host`, or a new one."""
        now_s = asyncio.get_running_loop().time()
        known = self._verdicts.get(host)
        if known is not None and known[0] > now_s and not known[1].cancelled():
            return known[1]
        lookup = asyncio.create_task(self._is_refused(host, slots))
        self._running.add(lookup)
        lookup.add_done_callback(self._running.discard)
        self._verdicts[host] = (now_s + _REMEMBER_S, lookup)
        self._verdicts.move_to_end(host)
        while len(self._verdicts) > _REMEMBERED_NAMES:
            self._verdicts.popitem(last=False)
        return lookup

    async def _is_refused(self, host: str, slots: asyncio.Semaphore) -> bool:
        """Whether the name has a refused address; no answer in time is none."""
        try:
            async with asyncio.timeout(_RESOLVE_WITHIN_S), slots:
                await self.addresses(host)
        except BlockedAddress:
            return True
        except OSError:  # TimeoutError included
            return False
        return False


def _says_refused(lookup: asyncio.Task[bool]) -> bool:
    return lookup.done() and not lookup.cancelled() and lookup.result()
