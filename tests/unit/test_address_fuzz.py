"""Whatever a callback URL looks like, what passes leads where it says: judged by what a socket would connect to."""

import contextlib
import ipaddress
import socket
from urllib.parse import urlsplit

from hypothesis import example, given, settings
from hypothesis import strategies as st
from yarl import URL

from relay.core.egress import RefusedUrl, UrlPolicy, parse_callback_url
from relay.core.egress.addresses import is_refused

POLICY = UrlPolicy()

_NUMBERS = st.one_of(
    st.integers(0, 2**32).map(str),
    st.integers(0, 2**32).map(hex),
    st.integers(0, 2**32).map(lambda n: f"0{n:o}"),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda a: f"[{a}]"),
    st.ip_addresses(v=4).map(lambda a: f"[::ffff:{a}]"),
    st.lists(st.sampled_from(["127", "0", "1", "0x7f", "0177", "255", "256", "8"]), min_size=1, max_size=5).map(
        ".".join
    ),
)
_FULL_WIDTH = str.maketrans("0123456789.", "\uff10\uff11\uff12\uff13\uff14\uff15\uff16\uff17\uff18\uff19\u3002")
_HOSTS = st.one_of(
    _NUMBERS,
    _NUMBERS.map(lambda host: host.translate(_FULL_WIDTH)),
    _NUMBERS.map(lambda host: host + "."),
    st.sampled_from(
        ["localhost", "LOCALHOST.", "ex.com", "bücher.example", "①②⑦.⓪.⓪.①", "xn--", "a..b", "metadata.internal"]
    ),
    st.text(max_size=12),
)
_DECORATED = st.tuples(
    st.sampled_from(["http://", "https://", "HTTP://", "http:/", "//", "http:\\\\", "gopher://", ""]),
    st.sampled_from(["", "", "", "user@", "ex.com@", "127.0.0.1:80@", "ex.com\\@", "%40"]),
    _HOSTS,
    st.sampled_from(["", "", ":80", ":443", ":0", ":65536", ":8080", ":\uff18\uff10", ":", "\\@ex.com", "%00.ex.com"]),
    st.sampled_from(["", "/", "/hook?x=1", "#@ex.com", "/..//@ex.com", "?@ex.com", "/\u202e"]),
).map("".join)


def numeric(host: str) -> str | None:
    """The address that a socket connects to for `host` without asking any name server; None where it is a name."""
    with contextlib.suppress(OSError, UnicodeError):
        return str(socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0][4][0])
    return None


@settings(max_examples=1_500, deadline=None)
@given(st.one_of(_DECORATED, st.text(max_size=40).map("http://".__add__)))
@example("http://0x7f000001/")
@example("http://2130706433/")
@example("http://127.1/")
@example("http://foo@127.0.0.1:80@ex.com/")
@example("http://ex.com\\@127.0.0.1/")
@example("http://①②⑦.⓪.⓪.①/")
def test_what_passes_leads_where_it_says(raw: str) -> None:
    """No accepted URL has a host that a socket takes for a refused address, or that other parsers read differently."""
    try:
        target = parse_callback_url(raw, POLICY)
    except RefusedUrl:
        return
    address = numeric(target.host)
    assert (address is not None) == target.is_literal, (raw, target.host, address)
    if address is not None:
        assert not is_refused(ipaddress.ip_address(address)), (raw, address)
        assert ipaddress.ip_address(address) == ipaddress.ip_address(target.host)
    # What is sent is built anew, and reads the same for whoever takes it apart.
    sent = str(target.url)
    for host in (URL(sent).raw_host, urlsplit(sent).hostname):
        assert (host or "").rstrip(".") == target.host, (raw, sent)
    assert (URL(sent).port, urlsplit(sent).port or {"http": 80, "https": 443}[urlsplit(sent).scheme]) == (
        target.port,
        target.port,
    )
    assert urlsplit(sent).username is None
