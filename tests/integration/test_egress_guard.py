"""The guard at acceptance and the resolver: names, mixed answers, slow and silent name servers."""

import asyncio
import ipaddress
import struct
from collections.abc import AsyncIterator, Sequence
from typing import cast

import pytest

from relay.core.egress import AresResolver, BlockedAddress, CallbackGuard, CallbackUrl, RefusedUrl
from relay.core.model import ClientName
from relay.core.settings import Client, Settings

PUBLIC, PRIVATE = "93.184.216.34", "10.0.0.7"


class StaticResolver:
    """Answers from a table, and counts; a name without an entry has no address, None never answers."""

    def __init__(self, table: dict[str, Sequence[str] | None]) -> None:
        self.table = table
        self.asked: list[str] = []

    async def resolve_host(self, host: str) -> list[str]:
        self.asked.append(host)
        answer = self.table.get(host, ())
        if answer is None:
            await asyncio.Event().wait()
        if not answer:
            raise OSError(None, "no such name")
        return list(answer)

    async def close(self) -> None:
        """Nothing to give back."""


def guard_over(resolver: StaticResolver, **overrides: object) -> CallbackGuard:
    """A guard with settings of its own, which no environment reaches."""
    return CallbackGuard(Settings.load(_env_file=None, **overrides), resolver)


def client_with(*hosts: str) -> Client:
    """A client that may call `hosts` only."""
    return Client(
        name=ClientName("acme"),
        api_key_hashes=(),
        signing_secrets=(),
        upstream_api_key=None,
        callback_hosts=hosts,
        max_unfinished_jobs=1,
        jobs_per_minute=1,
    )


@pytest.mark.parametrize(
    ("addresses", "refused"),
    [
        ([PUBLIC], False),
        ([PUBLIC, "2606:4700::1"], False),
        ([PRIVATE], True),
        ([PUBLIC, PRIVATE], True),
        ([PRIVATE, PUBLIC], True),
        ([PUBLIC, "::1"], True),
        (["::ffff:127.0.0.1"], True),
        ([PUBLIC, "64:ff9b::a9fe:a9fe"], True),
        (["fe80::1%eth0"], True),
        (["127.1"], True),
    ],
)
async def test_a_name_with_any_refused_address_is_refused(addresses: list[str], refused: bool) -> None:
    """One private address among public ones is enough, wherever it stands in the answer."""
    guard = guard_over(StaticResolver({"hook.example": addresses}))
    if refused:
        with pytest.raises(RefusedUrl, match="not public") as caught:
            await guard.judge("https://hook.example/")
        assert not any(address in caught.value.reason for address in addresses)
        with pytest.raises(BlockedAddress):
            await guard.addresses("hook.example")
    else:
        assert (await guard.judge("https://hook.example/")).destination == "hook.example:443"
        assert await guard.addresses("hook.example") == addresses
    await guard.close()


async def test_a_name_without_an_answer_is_accepted() -> None:
    """NXDOMAIN at acceptance is no fault of the client's: the address is judged when the callback is sent."""
    guard = guard_over(StaticResolver({}))
    assert (await guard.judge("https://nowhere.example/")).host == "nowhere.example"
    with pytest.raises(OSError, match="no such name"):
        await guard.addresses("nowhere.example")
    await guard.close()


async def test_silent_name_servers_hold_acceptance_up_for_two_seconds() -> None:
    """However many names of a batch get no answer, all of them together wait 2 s, and are accepted."""
    names: dict[str, Sequence[str] | None] = {f"h{number}.example": None for number in range(200)}
    guard = guard_over(StaticResolver({**names, "bad.example": [PRIVATE]}))
    urls = ["https://bad.example/", *(f"https://{name}/" for name in names)]
    began_at = asyncio.get_running_loop().time()
    verdicts = dict(await guard.judge_all(urls))
    assert 1.5 < asyncio.get_running_loop().time() - began_at < 4
    assert isinstance(verdicts.pop("https://bad.example/"), RefusedUrl)
    assert all(isinstance(verdict, CallbackUrl) for verdict in verdicts.values())
    assert len(verdicts) == 200
    await guard.close()


async def test_a_host_is_resolved_once_for_a_batch_and_its_like() -> None:
    """Ten thousand jobs with one receiver ask the DNS once, in any spelling, and so do requests that follow."""
    resolver = StaticResolver({"hook.example": [PUBLIC], "bad.example": [PRIVATE]})
    guard = guard_over(resolver)
    urls = [f"https://hook.example/{number}" for number in range(1000)]
    verdicts = await guard.judge_all([*urls, "https://HOOK.example./", "https://bad.example/", "https://127.0.0.1/"])
    assert sum(isinstance(verdict, CallbackUrl) for verdict in verdicts.values()) == 1001
    assert isinstance(verdicts["https://bad.example/"], RefusedUrl)
    assert isinstance(verdicts["https://127.0.0.1/"], RefusedUrl)
    await asyncio.gather(*(guard.judge("https://hook.example/again") for _ in range(50)))
    assert sorted(resolver.asked) == ["bad.example", "hook.example"]
    await guard.close()


async def test_a_cancelled_request_leaves_the_lookup_to_others() -> None:
    """A client that hangs up while its URL is judged does not change the verdict for the next one."""
    released = asyncio.Event()

    class Slow(StaticResolver):
        async def resolve_host(self, host: str) -> list[str]:
            await released.wait()
            return await super().resolve_host(host)

    guard = guard_over(Slow({"bad.example": [PRIVATE]}))
    first = asyncio.create_task(guard.judge("https://bad.example/1"))
    second = asyncio.create_task(guard.judge("https://bad.example/2"))
    await asyncio.sleep(0)
    first.cancel()
    released.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    with pytest.raises(RefusedUrl):
        await second
    await guard.close()


async def test_localhost_is_never_asked_of_the_dns() -> None:
    """Where loopback is allowed, its names mean the loopback addresses, whatever a name server would say."""
    resolver = StaticResolver({"localhost": [PUBLIC], "app.localhost": [PUBLIC]})
    guard = guard_over(resolver, callback_allowed_networks="127.0.0.0/8")
    assert (await guard.judge("http://localhost:9000/")).destination == "localhost:9000"
    assert await guard.addresses("app.localhost") == ["127.0.0.1"]
    assert resolver.asked == []
    strict = guard_over(resolver)
    with pytest.raises(RefusedUrl):
        await strict.judge("http://localhost:9000/")
    with pytest.raises(BlockedAddress):
        await strict.addresses("localhost")
    await guard.close()
    await strict.close()


async def test_allowed_networks_apply_to_names() -> None:
    """An operator's internal receivers are reached by name once their network is allowed."""
    guard = guard_over(StaticResolver({"hook.example": [PRIVATE]}), callback_allowed_networks="10.0.0.0/24")
    assert (await guard.judge("https://hook.example/")).host == "hook.example"
    assert await guard.addresses("hook.example") == [PRIVATE]
    await guard.close()


async def test_a_clients_list_of_hosts_is_applied() -> None:
    """A client with an allow list calls no other host, and nothing is resolved for a refused one."""
    resolver = StaticResolver({"hooks.acme.com": [PUBLIC]})
    guard = guard_over(resolver)
    client = client_with("*.acme.com")
    assert (await guard.judge("https://HOOKS.acme.com/", client)).host == "hooks.acme.com"
    for url in ("https://acme.com/", "https://hooks.acme.com.evil.example/", "https://8.8.8.8/"):
        with pytest.raises(RefusedUrl, match="configured for this client"):
            await guard.judge(url, client)
    assert resolver.asked == ["hooks.acme.com"]
    await guard.close()


class NameServer(asyncio.DatagramProtocol):
    """A name server with a table of (name, type) → addresses; names below `silent.` get no answer."""

    def __init__(self, table: dict[tuple[str, int], list[str]]) -> None:
        self._table = table
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, as Python 3.11's own datagram transport does not inherit from the class.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        labels, at = [], 12
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode().lower())
            at += 1 + data[at]
        name, (kind,) = ".".join(labels), struct.unpack("!H", data[at + 1 : at + 3])
        if name.startswith("silent."):
            return
        answers = b"".join(
            struct.pack("!HHHIH", 0xC00C, kind, 1, 0, len(packed)) + packed
            for packed in (ipaddress.ip_address(text).packed for text in self._table.get((name, kind), []))
        )
        count = len(self._table.get((name, kind), []))
        known = any(name == entry for entry, _ in self._table)
        header = data[:2] + struct.pack("!HHHHH", 0x8180 if known else 0x8183, 1, count, 0, 0)
        assert self._transport is not None
        self._transport.sendto(header + data[12 : at + 5] + answers, addr)


@pytest.fixture(name="ares")
async def fixture_ares() -> AsyncIterator[AresResolver]:
    """A resolver that asks a name server of this test."""
    table = {
        ("both.example", 1): [PUBLIC],
        ("both.example", 28): ["2606:4700::1"],
        ("mixed.example", 1): [PUBLIC, PRIVATE],
        ("v6.example", 28): ["::1"],
    }
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: NameServer(table), local_addr=("127.0.0.1", 0))
    resolver = AresResolver([f"127.0.0.1:{transport.get_extra_info('sockname')[1]}"])
    yield resolver
    await resolver.close()
    transport.close()


async def test_the_resolver_returns_all_addresses_of_both_families(ares: AresResolver) -> None:
    """What is judged does not depend on the routes of the machine that judges."""
    assert sorted(await ares.resolve_host("both.example")) == ["2606:4700::1", PUBLIC]
    assert await ares.resolve_host("v6.example") == ["::1"]


async def test_names_without_addresses_are_an_oserror(ares: AresResolver) -> None:
    """NXDOMAIN is told apart from an address that is refused."""
    with pytest.raises(OSError, match=r"\w") as caught:
        await ares.resolve_host("nowhere.example")
    assert not isinstance(caught.value, BlockedAddress)


async def test_a_silent_name_server_does_not_hold_up_other_names(ares: AresResolver) -> None:
    """While one lookup hangs, others are answered, and the hanging one can be given up."""
    hanging = asyncio.create_task(ares.resolve_host("silent.example"))
    assert sorted(await ares.resolve_host("both.example")) == ["2606:4700::1", PUBLIC]
    assert not hanging.done()
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging


async def test_the_guard_refuses_a_mixed_answer_of_a_real_name_server(ares: AresResolver) -> None:
    """From the wire to the verdict."""
    async with CallbackGuard(Settings.load(_env_file=None), ares) as guard:
        with pytest.raises(RefusedUrl, match="not public"):
            await guard.judge("https://mixed.example/")
        assert (await guard.judge("https://both.example/")).host == "both.example"


async def test_the_hosts_file_is_honoured() -> None:
    """Names of the hosts file resolve as they do for every other program of the machine."""
    resolver = AresResolver()
    assert set(await resolver.resolve_host("localhost")) <= {"127.0.0.1", "::1"}
    await resolver.close()
