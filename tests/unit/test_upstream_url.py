"""The address of the upstream, as it is set."""

import pytest

from relay.core.errors import ConfigurationError
from relay.core.settings import Settings


@pytest.mark.parametrize("url", ["http://127.0.0.1:8082", "https://api.scrapellm.com/", "https://[::1]:8443/v2"])
def test_addresses_of_servers_are_taken(url: str) -> None:
    """A scheme and a host, with or without a port and a path."""
    assert Settings.load(_env_file=None, upstream_url=url).upstream_url == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    ["", "api.scrapellm.com", "ftp://x", "http://", "http:///jobs", "https://:8443", "http://x:99999", "http://[x"],
)
def test_what_is_no_address_stops_the_process(url: str) -> None:
    """One line names the setting, before anything is sent anywhere."""
    with pytest.raises(ConfigurationError, match=r"^RELAY_UPSTREAM_URL: "):
        Settings.load(_env_file=None, upstream_url=url)
