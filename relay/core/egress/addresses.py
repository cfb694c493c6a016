"""Which IP addresses a callback may go to. Alone knows the lists; pure.

Sources: the IANA special-purpose registries for IPv4 and IPv6, the IPv6 unicast assignments (all global unicast is in
2000::/3), and the addresses of clouds' own services. `ipaddress.is_global` is no substitute: it passes multicast,
192.0.0.192, 192.88.99.1, 168.63.129.16 and 64:ff9b::/96 in one Python version or another.
"""

import ipaddress
from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

REFUSED_IPV4 = tuple(
    ipaddress.IPv4Network(block)
    for block in (
        "0.0.0.0/8",  # this network; Linux connects 0.0.0.0 to itself
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by carriers' NAT; some clouds keep metadata here
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's host agent: public by number, internal by use
        "169.254.0.0/16",  # link-local, and with it most clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # IETF protocol assignments, and Oracle's metadata
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT relays
        "192.88.99.0/24",  # 6to4 relays, withdrawn
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)

#: The only IPv6 block from which global unicast addresses are given out.
GLOBAL_IPV6 = ipaddress.IPv6Network("2000::/3")

REFUSED_IPV6 = tuple(
    ipaddress.IPv6Network(block)
    for block in (
        # Within GLOBAL_IPV6, and so the ones that matter:
        "2001::/23",  # IETF protocol assignments, whole: Teredo, benchmarks, ORCHID 2001:10::/28 and 2001:20::/28, …
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: carries an IPv4 address, any
        "2620:4f:8000::/48",  # AS112
        "3ffe::/16",  # the 6bone, returned
        "3fff::/20",  # documentation
        # Outside it, and named so that nobody has to wonder:
        "::/96",  # unspecified, loopback, IPv4-compatible
        "64:ff9b::/96",  # NAT64: carries an IPv4 address, any
        "64:ff9b:1::/48",  # NAT64, local use
        "100::/64",  # discard
        "5f00::/16",  # segment routing
        "fc00::/7",  # unique local
        "fe80::/10",  # link-local
        "fec0::/10",  # site-local, withdrawn
        "ff00::/8",  # multicast
    )
)

_LOOPBACK: tuple[Address, ...] = (ipaddress.IPv4Address("127.0.0.1"), ipaddress.IPv6Address("::1"))


def is_refused(address: Address, allowed: Sequence[Network] = ()) -> bool:
    """Whether no callback may go to `address`: it is not public unicast, and in no network of `allowed`.

    An IPv4-mapped IPv6 address (`::ffff:a.b.c.d`) is judged as the IPv4 address that a socket would reach by it.
    """
    unmapped = _unmapped(address)
    if any(candidate in network for network in allowed for candidate in (address, unmapped)):
        return False
    if isinstance(unmapped, ipaddress.IPv4Address):
        return any(unmapped in network for network in REFUSED_IPV4)
    return unmapped not in GLOBAL_IPV6 or any(unmapped in network for network in REFUSED_IPV6)


def is_refused_text(text: str, allowed: Sequence[Network] = ()) -> bool:
    """As `is_refused`, for what a resolver or a socket calls an address; what is not one is refused."""
    try:
        return is_refused(ipaddress.ip_address(text), allowed)
    except ValueError:
        return True


def allowed_loopback(allowed: Sequence[Network]) -> tuple[str, ...]:
    """The loopback addresses that `allowed` lets through: what `localhost` means (RFC 6761, 6.3)."""
    return tuple(str(address) for address in _LOOPBACK if not is_refused(address, allowed))


def _unmapped(address: Address) -> Address:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
