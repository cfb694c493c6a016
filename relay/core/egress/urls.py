"""What a callback URL may look like. Alone knows how one is taken apart; pure.

The string is checked raw and taken apart once, here. What is sent is built from those parts, so that no second parser
can read another host out of it.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import quote

import idna
from yarl import URL

from relay.core.egress.addresses import Network, allowed_loopback, is_refused
from relay.core.errors import RelayError
from relay.core.settings import Settings

MAX_CHARACTERS = 2048

#: Names of this machine (RFC 6761, 6.3, and what systems write into their hosts files), and all below `localhost`.
_LOOPBACK_NAMES = frozenset(
    (
        *("localhost", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback", "loopback"),
        *("localhost.localdomain", "localhost4.localdomain4", "localhost6.localdomain6"),
    )
)
_LOOPBACK_SUFFIX = ".localhost"

#: Names that mean something only inside some network, and so never a public receiver.
_INNER_NAMES = frozenset(
    ("broadcasthost", "ip6-localnet", "ip6-mcastprefix", "ip6-allnodes", "ip6-allrouters", "ip6-allhosts")
)
_INNER_DOMAINS = (
    *("local", "internal", "localdomain", "localdomain4", "localdomain6", "lan", "home.arpa", "home", "corp"),
    *("intranet", "private", "in-addr.arpa", "ip6.arpa"),
)
#: Services of a Kubernetes cluster, by the name that its search list completes.
_CLUSTER_SUFFIX = ".svc"

_URL = re.compile(r"(?P<scheme>[A-Za-z]+)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?", re.DOTALL)
#: White space of every script, C0 and C1 controls, lone surrogates.
_UNFIT = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_PORT = re.compile(r"[0-9]{1,5}")
_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
_CHARACTER = re.compile(r"[a-z0-9]")
#: What international labels begin with in ASCII (RFC 5890, 2.3.2.5).
_ACE = "xn--"
#: WHATWG URL, "ends in a number": a resolver may take such a host for an address in some old spelling.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
#: Everything visible in ASCII goes out as it came; only what is not ASCII has to be encoded.
_ASCII = "".join(map(chr, range(0x21, 0x7F)))
_DEFAULT_PORTS = {"http": 80, "https": 443}


class RefusedUrl(RelayError):
    """A callback URL that nothing is sent to. `reason` is one sentence without the URL in it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class UrlPolicy:
    """What the operator lets through."""

    allowed_networks: tuple[Network, ...] = ()
    refused_ports: frozenset[int] = frozenset()
    https_only: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The policy that the settings describe."""
        return cls(
            allowed_networks=tuple(settings.callback_allowed_networks),
            refused_ports=frozenset(settings.callback_refused_ports),
            https_only=settings.callback_https_only,
        )


@dataclass(frozen=True, slots=True)
class CallbackUrl:
    """A URL that passed every check short of asking the DNS."""

    #: What is requested; path and query as the client wrote them. Not in the repr: queries carry tokens.
    url: URL = field(repr=False)
    #: Lower case, IDNA-encoded, without a trailing dot, IPv6 without brackets.
    host: str
    port: int
    is_literal: bool

    @property
    def destination(self) -> str:
        """`host:port`, IPv6 in brackets: what permits and health are counted by."""
        return f"{_bracketed(self.host)}:{self.port}"


def parse_callback_url(raw: str, policy: UrlPolicy) -> CallbackUrl:
    """Take a callback URL apart and judge all that can be judged without the DNS.

    Path and query reach the receiver as given (but for what is not ASCII, which is percent-encoded as UTF-8); the
    fragment is dropped. Raises RefusedUrl.
    """
    _check_characters(raw)
    match = _URL.match(raw)
    scheme = match["scheme"].lower() if match else ""
    if match is None or scheme not in _DEFAULT_PORTS:
        raise RefusedUrl("The URL must begin with http:// or https://.")
    if policy.https_only and scheme != "https":
        raise RefusedUrl("The URL must begin with https://: this relay sends no callback in the clear.")
    host_text, port_text = _split_authority(match["authority"])
    port = _port(port_text, policy) if port_text is not None else _DEFAULT_PORTS[scheme]
    host, is_literal = _host(host_text, policy.allowed_networks)
    netloc = _bracketed(host) if port == _DEFAULT_PORTS[scheme] else f"{_bracketed(host)}:{port}"
    path, query = quote(match["path"] or "/", safe=_ASCII), quote(match["query"] or "", safe=_ASCII)
    url = URL.build(scheme=scheme, authority=netloc, path=path, query_string=query, encoded=True)
    return CallbackUrl(url=url, host=host, port=port, is_literal=is_literal)


def is_loopback_name(host: str) -> bool:
    """Whether `host` (lower case, no trailing dot) is a name of the machine itself."""
    return host in _LOOPBACK_NAMES or host.endswith(_LOOPBACK_SUFFIX)


def _check_characters(raw: str) -> None:
    if not raw:
        raise RefusedUrl("The URL is empty.")
    if len(raw) > MAX_CHARACTERS:
        raise RefusedUrl(f"The URL is longer than {MAX_CHARACTERS:,} characters.")
    if "\\" in raw:
        raise RefusedUrl("The URL must not contain a backslash.")
    if _UNFIT.search(raw):
        raise RefusedUrl("The URL must not contain white space or control characters.")


def _split_authority(authority: str) -> tuple[str, str | None]:
    """Host (IPv6 still in its brackets) and port as text, None where there is none."""
    if "@" in authority:
        raise RefusedUrl("The URL must not contain a user name or password: send credentials in callback_headers.")
    if "%" in authority:
        raise RefusedUrl("The host must not contain a percent sign.")
    if authority.startswith("["):
        host, bracket, rest = authority.partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise RefusedUrl("The host is not an IPv6 address in brackets.")
        return host + bracket, rest[1:] if rest else None
    host, colon, port = authority.partition(":")
    if not host:
        raise RefusedUrl("The URL has no host.")
    return host, port if colon else None


def _port(text: str, policy: UrlPolicy) -> int:
    # ASCII digits only: int() would read full-width ones too.
    port = int(text) if _PORT.fullmatch(text) else 0
    if not 1 <= port <= 65535:
        raise RefusedUrl("The port must be a number from 1 to 65535.")
    if port in policy.refused_ports:
        raise RefusedUrl(f"Port {port} is not allowed: it belongs to another protocol than HTTP.")
    return port


def _host(text: str, allowed: Sequence[Network]) -> tuple[str, bool]:
    """The host in its one spelling, and whether it is an address."""
    if text.startswith("["):
        try:
            address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.IPv6Address(text[1:-1])
        except ValueError:
            raise RefusedUrl("The host is not an IPv6 address in brackets.") from None
    else:
        name = _ascii_name(text)
        if not _NUMBER.fullmatch(name.rpartition(".")[2]):
            _check_name(name, allowed)
            return name, False
        try:
            address = ipaddress.IPv4Address(name)
        except ValueError:
            raise RefusedUrl("The host looks like a number but is not an IPv4 address such as 192.0.2.1.") from None
    if is_refused(address, allowed):
        raise RefusedUrl("The host is an address that is not public, and callbacks go to public addresses only.")
    return str(address), True


def _ascii_name(text: str) -> str:
    """The name in lower-case ASCII without its trailing dot, each label checked."""
    name = ".".join(_ascii_label(label) for label in text.removesuffix(".").split("."))
    if len(name) > 253:
        raise RefusedUrl("The host name is longer than 253 characters.")
    return name


def _ascii_label(label: str) -> str:
    if not label:
        raise RefusedUrl("The host name has an empty part between its dots.")
    if label.isascii():
        encoded = label.lower()
    else:
        try:
            encoded = idna.encode(label, uts46=True).decode("ascii")
        except UnicodeError:
            raise RefusedUrl("The host name is not a valid internationalised name.") from None
        # Circled or full-width digits and letters, soft hyphens and foreign dots all fold into plain ASCII: a name
        # that reads as another. Real international labels become xn--….
        if not encoded.startswith(_ACE):
            raise RefusedUrl("The host name must be written with plain letters, digits and dots.")
    if not _LABEL.fullmatch(encoded):
        raise RefusedUrl("The host name has a part that is not 1 to 63 letters, digits, hyphens or underscores.")
    if not _CHARACTER.search(encoded):
        raise RefusedUrl("The host name has a part without a letter or digit.")
    if encoded.startswith(_ACE) and not _is_international(encoded.removeprefix(_ACE)):
        raise RefusedUrl("The host name is not a valid internationalised name.")
    return encoded


def _is_international(encoded: str) -> bool:
    """Whether this stands for a label that is not ASCII, as what follows `xn--` must."""
    try:
        label = encoded.encode("ascii").decode("punycode")
    except UnicodeError:
        return False
    return label.isprintable() and not label.isascii()


def _check_name(name: str, allowed: Sequence[Network]) -> None:
    if is_loopback_name(name):
        if not allowed_loopback(allowed):
            raise RefusedUrl("The host is a name of the relay's own machine.")
    elif name in _INNER_NAMES or any(name == domain or name.endswith("." + domain) for domain in _INNER_DOMAINS):
        raise RefusedUrl("The host is a name that is valid only inside a private network.")
    elif not allowed and ("." not in name or name.endswith(_CLUSTER_SUFFIX)):
        # Completed by a search list, or known to one network only. Where the operator lets some of it through, as for
        # the services of a compose file, the addresses decide.
        raise RefusedUrl("The host is a name that is valid only inside a private network.")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
