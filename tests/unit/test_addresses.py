"""The lists of addresses: table-driven, at their edges, and against the standard library's narrower idea."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.egress.addresses import (
    REFUSED_IPV4,
    REFUSED_IPV6,
    Address,
    allowed_loopback,
    is_refused,
    is_refused_text,
)

REFUSED = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "100.127.255.255"),
    *("127.0.0.1", "127.255.255.254", "168.63.129.16", "169.254.0.1", "169.254.169.254", "172.16.0.1"),
    *("172.31.255.255", "192.0.0.1", "192.0.0.9", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1"),
    *("192.31.196.1", "192.52.193.1", "192.175.48.1", "198.18.0.1", "198.19.255.255", "198.51.100.1"),
    *("203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1"),
    *("::ffff:0:127.0.0.1", "::ffff:0:8.8.8.8", "64:ff9b::a9fe:a9fe", "64:ff9b::808:808", "64:ff9b:1::1", "100::1"),
    *("2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:1::1", "2001:2::1", "2001:10::1", "2001:1f::1"),
    *("2001:20::1", "2001:2f::1", "2001:30::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::1", "3ffe::1"),
    *("3fff::1", "3fff:fff::1", "4000::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fd20:ce::254", "fe80::1"),
    *("fe80::1%lo", "fec0::1", "ff02::1", "ff0e::1", "2620:4f:8000::1", "8000::1", "1fff::1"),
]

PUBLIC = [
    *("1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255"),
    *("128.0.0.0", "168.63.129.15", "168.63.129.17", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0"),
    *("191.255.255.255", "192.0.1.0", "192.88.98.255", "192.88.100.0", "192.167.255.255", "192.169.0.0"),
    *("198.17.255.255", "198.20.0.0", "223.255.255.255", "::ffff:8.8.8.8"),
    *("2001:200::1", "2001:4860:4860::8888", "2003::1", "2606:4700:4700::1111", "2a00:1450:4001::1", "2003:ffff::1"),
]


@pytest.mark.parametrize("text", REFUSED)
def test_everything_but_public_unicast_is_refused(text: str) -> None:
    """No callback goes to an address that is private, special, or stands for another one."""
    assert is_refused(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_pass(text: str) -> None:
    """The neighbours of refused blocks, and well-known public hosts, can be called."""
    assert not is_refused(ipaddress.ip_address(text))


@pytest.mark.parametrize("block", [*REFUSED_IPV4, *REFUSED_IPV6], ids=str)
def test_blocks_are_refused_to_their_edges(block: ipaddress.IPv4Network | ipaddress.IPv6Network) -> None:
    """The first and the last address of each block are refused."""
    assert is_refused(block[0])
    assert is_refused(block[-1])


@given(st.ip_addresses(v=4))
def test_nothing_passes_that_the_standard_library_calls_private(address: ipaddress.IPv4Address) -> None:
    """Our lists contain the library's, and multicast besides, as such and mapped into IPv6."""
    if not address.is_global or address.is_multicast or address.is_reserved:
        assert is_refused(address)
    assert is_refused(ipaddress.IPv6Address(f"::ffff:{address}")) == is_refused(address)


@given(st.ip_addresses(v=6))
def test_no_ipv6_passes_that_the_standard_library_calls_private(address: ipaddress.IPv6Address) -> None:
    """Our lists contain the library's for IPv6 too."""
    if address.ipv4_mapped is None and (not address.is_global or address.is_multicast or address.is_reserved):
        assert is_refused(address)


@given(st.ip_addresses(v=4, network="2.0.0.0/7") | st.ip_addresses(v=6, network="2a00::/12"))
def test_ordinary_ranges_pass(address: Address) -> None:
    """Ranges that registries hand out to everybody hold no refused address."""
    assert not is_refused(address)


@pytest.mark.parametrize(
    ("text", "network", "refused"),
    [
        ("127.0.0.1", "127.0.0.0/8", False),
        ("::ffff:127.0.0.1", "127.0.0.0/8", False),
        ("::ffff:127.0.0.1", "::ffff:0:0/96", False),
        ("::127.0.0.1", "127.0.0.0/8", True),
        ("::1", "127.0.0.0/8", True),
        ("::1", "::1/128", False),
        ("10.1.2.3", "10.1.0.0/16", False),
        ("10.2.2.3", "10.1.0.0/16", True),
        ("64:ff9b::7f00:1", "127.0.0.0/8", True),
        ("fd00::1", "fd00::/8", False),
        ("8.8.8.8", "10.0.0.0/8", False),
    ],
)
def test_allowed_networks_let_their_own_addresses_through(text: str, network: str, refused: bool) -> None:
    """The operator's networks open what they name, mapped spelling included, and nothing that merely embeds it."""
    assert is_refused(ipaddress.ip_address(text), [ipaddress.ip_network(network)]) is refused


@pytest.mark.parametrize("text", ["", "localhost", "127.1", "0x7f000001", "8.8.8.8 ", "[2606:4700::1]"])
def test_what_is_no_address_is_refused(text: str) -> None:
    """Text that a socket would have to interpret first never counts as public."""
    assert is_refused_text(text)


def test_localhost_means_the_loopback_addresses_that_are_allowed() -> None:
    """None by default, and just the allowed ones under a development setting."""
    v4, v6 = ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")
    assert allowed_loopback([]) == ()
    assert allowed_loopback([v4]) == ("127.0.0.1",)
    assert allowed_loopback([v4, v6]) == ("127.0.0.1", "::1")
