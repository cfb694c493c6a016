"""Taking callback URLs apart: what is refused and why, and what reaches the wire."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.egress import RefusedUrl, UrlPolicy, parse_callback_url
from relay.core.egress.addresses import is_refused
from relay.core.settings import REFUSED_PORTS

POLICY = UrlPolicy(refused_ports=frozenset(REFUSED_PORTS))
LOOPBACK = UrlPolicy(allowed_networks=(ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")))

REFUSED = [
    # Not a URL of the right kind.
    ("", "empty"),
    ("https://example.com/" + "a" * 2029, "2,048"),
    ("example.com", "begin with"),
    ("//127.0.0.1", "begin with"),
    ("//example.com/x", "begin with"),
    ("/hook", "begin with"),
    ("http:example.com", "begin with"),
    ("http:/example.com", "begin with"),
    ("gopher://example.com/", "begin with"),
    ("file:///etc/passwd", "begin with"),
    ("ftp://example.com/", "begin with"),
    ("javascript:alert(1)//http://example.com", "begin with"),
    ("xhttp://example.com", "begin with"),
    ("http+unix://example.com", "begin with"),
    # Characters.
    (" https://example.com/", "white space"),
    ("https://example.com/ ", "white space"),
    ("https://example.com/a b", "white space"),
    ("https://exa\tmple.com/", "white space"),
    ("https://example.com/\r\nX: y", "white space"),
    ("https://example.com/\x00", "white space"),
    ("https://example.com/\x7f", "white space"),
    ("https://example.com/\x85", "white space"),
    ("https://example.com/\u00a0", "white space"),
    ("https://example.com/\u2028", "white space"),
    ("https://example.com/\ud800", "white space"),
    ("http://ex.com\\@127.0.0.1", "backslash"),
    ("https://example.com/a\\b", "backslash"),
    ("http:\\\\example.com", "backslash"),
    # The authority.
    ("http:///hook", "no host"),
    ("http://", "no host"),
    ("http://?x", "no host"),
    ("http://:80/", "no host"),
    ("http://user@example.com/", "user name"),
    ("http://user:pw@example.com/", "user name"),
    ("http://@example.com/", "user name"),
    ("http://foo@127.0.0.1:80@ex.com", "user name"),
    ("http://ex%61mple.com/", "percent"),
    ("http://127.0.0.1%2f.example.com/", "percent"),
    ("http://[fe80::1%25lo]/", "percent"),
    ("http://[fe80::1%lo]/", "percent"),
    ("http://[::1/", "brackets"),
    ("http://[]/", "brackets"),
    ("http://[example.com]/", "brackets"),
    ("http://[1.2.3.4]/", "brackets"),
    ("http://[v1.x]/", "brackets"),
    ("http://[2606:4700::1]x/", "brackets"),
    ("http://[2606:4700::1].example.com/", "brackets"),
    ("http://::1/", "no host"),
    ("http://1[::1]/", "port"),
    # Ports.
    ("http://example.com:0/", "1 to 65535"),
    ("http://example.com:65536/", "1 to 65535"),
    ("http://example.com:-1/", "1 to 65535"),
    ("http://example.com:/", "1 to 65535"),
    ("http://example.com:80:80/", "1 to 65535"),
    ("http://example.com:8o/", "1 to 65535"),
    ("http://example.com:+80/", "1 to 65535"),
    ("http://example.com:\uff18\uff10/", "1 to 65535"),
    ("http://example.com:000080/", "1 to 65535"),
    ("http://example.com:22/", "Port 22"),
    ("http://example.com:6379/", "Port 6379"),
    ("http://example.com:06379/", "Port 6379"),
    # Names.
    ("http://localhost/", "own machine"),
    ("http://LOCALHOST/", "own machine"),
    ("http://localhost./", "own machine"),
    ("http://a.localhost/", "own machine"),
    ("http://localhost.localdomain/", "own machine"),
    ("http://ip6-localhost/", "own machine"),
    ("http://ip6-loopback/", "own machine"),
    ("http://metadata.google.internal/", "private network"),
    ("http://metadata.google.internal./", "private network"),
    ("http://internal/", "private network"),
    ("http://printer.local/", "private network"),
    ("http://x.svc.cluster.local/", "private network"),
    ("http://nas.lan/", "private network"),
    ("http://nas.home.arpa/", "private network"),
    ("http://wiki.corp/", "private network"),
    ("http://wiki.intranet/", "private network"),
    ("http://x.localdomain/", "private network"),
    ("http://x.cluster.local/", "private network"),
    ("http://nas.home/", "private network"),
    ("http://hook.default.svc/", "private network"),
    ("http://router/", "private network"),
    ("http://ROUTER./", "private network"),
    ("http://instance-data/", "private network"),
    ("http://com/", "private network"),
    ("http://svc/", "private network"),
    ("http://b\u00fccher/", "private network"),
    ("http://broadcasthost/", "private network"),
    ("http://ip6-allnodes/", "private network"),
    ("http://1.0.0.127.in-addr.arpa/", "private network"),
    ("http://ex..com/", "empty part"),
    ("http://.example.com/", "empty part"),
    ("http://example.com../", "empty part"),
    ("http://./", "empty part"),
    ("http://" + "a" * 64 + ".com/", "1 to 63"),
    ("http://" + "a." * 130 + "com/", "253"),
    ("http://-/", "without a letter"),
    ("http://--.example.com/", "without a letter"),
    ("http://_/", "without a letter"),
    ("http://exa!mple.com/", "1 to 63"),
    ("http://exa,mple.com/", "1 to 63"),
    ("http://*.example.com/", "1 to 63"),
    # Names that fold into something else.
    ("http://\u2460\u2461\u2466.\u24ea.\u24ea.\u2460/", "plain letters"),
    ("http://\uff11\uff12\uff17.0.0.1/", "plain letters"),
    ("http://\uff18.\uff18.\uff18.\uff18/", "plain letters"),
    ("http://127\u30020\u30020\u30021/", "plain letters"),
    ("http://\uff4c\uff4f\uff43\uff41\uff4c\uff48\uff4f\uff53\uff54/", "plain letters"),
    ("http://loc\u00adalhost/", "plain letters"),
    ("http://ex\u200bample.com/", "plain letters"),
    ("http://b\u00fccher\uff0elocal/", "1 to 63"),
    ("http://a\u2100b.com/", "internationalised"),
    ("http://\u2603.net/", "internationalised"),
    ("http://xn--/", "internationalised"),
    ("http://xn--.example.com/", "internationalised"),
    ("http://xn--a/", "internationalised"),
    ("http://XN--localhost-/", "internationalised"),
    ("http://xn--99999999.example.com/", "internationalised"),
    # Numbers that are not addresses, or old spellings of them.
    ("http://2130706433/", "looks like a number"),
    ("http://0177.0.0.1/", "looks like a number"),
    ("http://127.1/", "looks like a number"),
    ("http://127.0.1/", "looks like a number"),
    ("http://0x7f000001/", "looks like a number"),
    ("http://0X7F000001/", "looks like a number"),
    ("http://0x7f.0.0.0x1/", "looks like a number"),
    ("http://017700000001/", "looks like a number"),
    ("http://127.0.0.1.1/", "looks like a number"),
    ("http://127.0.0.256/", "looks like a number"),
    ("http://example.1/", "looks like a number"),
    ("http://example.0x/", "looks like a number"),
    ("http://8.8.8.08/", "looks like a number"),
    # Addresses.
    *(
        (f"http://{host}/", "not public")
        for host in (
            *("127.0.0.1", "127.0.0.1.", "0.0.0.0", "10.0.0.1", "172.31.255.255", "192.168.0.1", "169.254.169.254"),
            *("100.64.0.1", "198.18.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "168.63.129.16"),
            *("192.0.0.192", "192.88.99.1", "127.0.0.1:8080", "[::]", "[::1]", "[::1]:8080", "[::ffff:127.0.0.1]"),
            *("[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::a9fe:a9fe]", "[2002:7f00:1::]", "[fd00:ec2::254]"),
            *("[fe80::1]", "[fec0::1]", "[ff02::1]", "[2001:db8::1]", "[2001::1]", "[0:0:0:0:0:0:0:1]"),
        )
    ),
]


@pytest.mark.parametrize(("raw", "fault"), REFUSED)
def test_refused_urls_say_what_is_wrong(raw: str, fault: str) -> None:
    """Each fault is named in one sentence, which does not repeat the URL."""
    with pytest.raises(RefusedUrl, match=fault) as caught:
        parse_callback_url(raw, POLICY)
    reason = caught.value.reason
    assert reason.endswith(".")
    assert "\n" not in reason
    assert len(raw) < 12 or raw not in reason


@pytest.mark.parametrize(
    ("raw", "destination", "url"),
    [
        ("https://example.com", "example.com:443", "https://example.com/"),
        ("http://example.com", "example.com:80", "http://example.com/"),
        ("HTTPS://Example.COM./Hook", "example.com:443", "https://example.com/Hook"),
        ("https://example.com:443/", "example.com:443", "https://example.com/"),
        ("https://example.com:8443/", "example.com:8443", "https://example.com:8443/"),
        ("http://example.com:443/", "example.com:443", "http://example.com:443/"),
        ("http://example.com:00080/", "example.com:80", "http://example.com/"),
        ("https://8.8.8.8:8443/x", "8.8.8.8:8443", "https://8.8.8.8:8443/x"),
        ("https://8.8.8.8./x", "8.8.8.8:443", "https://8.8.8.8/x"),
        ("https://[2606:4700:0::1]/", "[2606:4700::1]:443", "https://[2606:4700::1]/"),
        ("https://[2606:4700::1]:8443/", "[2606:4700::1]:8443", "https://[2606:4700::1]:8443/"),
        ("https://b\u00fccher.example/", "xn--bcher-kva.example:443", "https://xn--bcher-kva.example/"),
        ("https://B\u00dcCHER.example/", "xn--bcher-kva.example:443", "https://xn--bcher-kva.example/"),
        ("https://xn--bcher-kva.example/", "xn--bcher-kva.example:443", "https://xn--bcher-kva.example/"),
        ("https://xn--fuball-cta.example/", "xn--fuball-cta.example:443", "https://xn--fuball-cta.example/"),
        ("https://xn--i-7iq.example/", "xn--i-7iq.example:443", "https://xn--i-7iq.example/"),
        ("https://my_host-1.example.com/", "my_host-1.example.com:443", "https://my_host-1.example.com/"),
        ("https://1a.example.com?x=1", "1a.example.com:443", "https://1a.example.com/?x=1"),
        ("https://localhost.example.com/", "localhost.example.com:443", "https://localhost.example.com/"),
        ("https://internal.example.com/", "internal.example.com:443", "https://internal.example.com/"),
        ("https://example.com/?u=a@b:c", "example.com:443", "https://example.com/?u=a@b:c"),
        ("https://example.com/a#fragment?not=query", "example.com:443", "https://example.com/a"),
        ("https://example.com#@127.0.0.1", "example.com:443", "https://example.com/"),
        ("https://example.com?@127.0.0.1/", "example.com:443", "https://example.com/?@127.0.0.1/"),
    ],
)
def test_accepted_urls_have_one_spelling_of_their_host(raw: str, destination: str, url: str) -> None:
    """Host and port are normalised, so that permits and allow lists see one name for one receiver."""
    target = parse_callback_url(raw, POLICY)
    assert target.destination == destination
    assert str(target.url) == url
    assert target.host == target.url.raw_host


@pytest.mark.parametrize(
    "path",
    [
        "/a/../b/./c",
        "//double//slash",
        "/%2e%2e/%2F%zz%",
        "/a;b=c,d/(e)!*'~",
        "/h?q=a+b&x=%20&x=&=&&y[]=1",
        "/h?next=https://example.com/%3Fa=b",
        '/"<>|{}^`',
        "/:@/?/?",
    ],
)
def test_path_and_query_reach_the_wire_as_given(path: str) -> None:
    """Signed or pre-encoded URLs keep working: not one byte of the request target is rewritten."""
    assert parse_callback_url("https://example.com" + path, POLICY).url.raw_path_qs == path


def test_what_is_not_ascii_is_percent_encoded() -> None:
    """A request target is ASCII; everything else goes as UTF-8 in percent-encoding, as browsers send it."""
    url = parse_callback_url("https://example.com/\u00fc?q=\U0001f600", POLICY).url
    assert url.raw_path_qs == "/%C3%BC?q=%F0%9F%98%80"


def test_the_longest_url_passes() -> None:
    """2,048 characters are allowed."""
    raw = "https://example.com/".ljust(2048, "a")
    assert len(str(parse_callback_url(raw, POLICY).url)) == 2048


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST.", "app.localhost", "ip6-localhost", "127.0.0.1", "127.9.9.9", "[::1]"]
)
def test_loopback_is_usable_where_it_is_allowed(host: str) -> None:
    """Developers write http://localhost:9000."""
    assert parse_callback_url(f"http://{host}:9000/", LOOPBACK).port == 9000


@pytest.mark.parametrize("host", ["10.0.0.1", "[::ffff:10.0.0.1]", "printer.local", "127.1", "2130706433"])
def test_allowed_loopback_opens_nothing_else(host: str) -> None:
    """Other private hosts, and odd spellings of loopback, stay refused."""
    with pytest.raises(RefusedUrl):
        parse_callback_url(f"http://{host}/", LOOPBACK)


@pytest.mark.parametrize("host", ["hook", "hook:8000", "hook.default.svc"])
def test_names_of_an_own_network_need_one_that_is_allowed(host: str) -> None:
    """Where some private network is let through, the address decides on a service's short name."""
    policy = UrlPolicy(allowed_networks=(ipaddress.ip_network("172.18.0.0/16"),))
    assert parse_callback_url(f"http://{host}/", policy).host == host.partition(":")[0]
    with pytest.raises(RefusedUrl, match="private network"):
        parse_callback_url(f"http://{host}/", POLICY)


@pytest.mark.parametrize("host", ["-", "xn--", "instance-data.internal", "hook.default.svc.cluster.local"])
def test_an_allowed_network_makes_no_other_name_fit(host: str) -> None:
    """What is no name, and what is refused by its ending, stays refused."""
    with pytest.raises(RefusedUrl):
        parse_callback_url(f"http://{host}/", LOOPBACK)


def test_https_only_refuses_http() -> None:
    """The operator can rule out callbacks in the clear."""
    policy = UrlPolicy(https_only=True)
    assert parse_callback_url("https://example.com/", policy).port == 443
    with pytest.raises(RefusedUrl, match="https://"):
        parse_callback_url("http://example.com/", policy)


def test_the_repr_shows_no_query() -> None:
    """Queries carry tokens, and reprs end up in logs."""
    assert "sesame" not in repr(parse_callback_url("https://example.com/hook?token=sesame", POLICY))


@given(st.text(alphabet=st.characters(), max_size=40))
def test_any_host_text_is_refused_or_harmless(text: str) -> None:
    """Whatever stands where the host stands, the outcome is a refusal or a host that would be requested as judged."""
    try:
        target = parse_callback_url(f"http://{text}/", POLICY)
    except RefusedUrl:
        return
    assert target.url.raw_host == target.host
    assert target.host.isascii()
    assert target.host == target.host.lower()
    if target.is_literal:
        assert not is_refused(ipaddress.ip_address(target.host))


@given(st.integers(0, 2**32 - 1), st.sampled_from(["{}", "{:#x}", "0{:o}"]))
def test_no_integer_spelling_of_an_address_passes(number: int, spelling: str) -> None:
    """Single-number spellings, which some resolvers take for addresses, are all refused."""
    with pytest.raises(RefusedUrl):
        parse_callback_url(f"http://{spelling.format(number)}/", POLICY)
