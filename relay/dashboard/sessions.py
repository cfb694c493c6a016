"""Who is logged in. Alone knows how the cookie is sealed, and what the token in every form is.

Nothing is kept on our side: the cookie says who it is for and until when, under a MAC whose key comes from the client's
own key hash and signing secret. So every relay can check it, it never holds the key, and it ends when either goes.
"""

import base64
import hmac
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from relay.core import signing
from relay.core.model import ClientName
from relay.core.settings import Client, hash_api_key

LIFETIME_S = 12 * 3600
_COOKIE = b"scrapellm-relay dashboard session v1\n"
_FORM = b"form\n"
#: Neither in the names of clients nor in base64, and allowed in cookies.
_SEPARATOR = "~"


@dataclass(frozen=True, slots=True)
class Session:
    """A log-in that has not expired."""

    #: None: the operator.
    client: ClientName | None
    expires_s: int
    #: What every form of this session carries.
    form_token: str


class Sessions:
    """Makes and checks the cookies of clients and of the operator. Times are Unix seconds."""

    def __init__(
        self, clients: Mapping[ClientName, Client], operator_hashes: Sequence[str], dev_login_hash: str | None
    ) -> None:
        self._clients = clients
        self._operator_hashes = operator_hashes
        self._dev_login_hash = dev_login_hash
        #: No client knows all of them, so none can make an operator's cookie.
        self._all_secrets = "\n".join(secret for name in sorted(clients) for secret in clients[name].signing_secrets)

    def log_in(self, key: str, now_s: float) -> str | None:
        """The cookie of whoever has this key; None for an unknown one. The time taken tells nothing about the key."""
        given = hash_api_key(key)
        found: tuple[ClientName | None, str] | None = None
        for name, key_hash in self._known():
            if hmac.compare_digest(key_hash, given):
                found = name, key_hash
        return None if found is None else self._cookie(*found, now_s)

    def log_in_dev(self, token: str, now_s: float) -> str | None:
        """The cookie of the one client of a `dev`, for the token of its link."""
        if self._dev_login_hash is None or not hmac.compare_digest(self._dev_login_hash, hash_api_key(token)):
            return None
        name, client = next(iter(self._clients.items()))
        return self._cookie(name, client.api_key_hashes[0], now_s)

    def check(self, cookie: str, now_s: float) -> Session | None:
        """The session of a cookie; None where it is not ours, has expired, or its key or secret is gone."""
        body, _, mac = cookie.rpartition(_SEPARATOR)
        parts = body.split(_SEPARATOR)
        if not cookie.isascii() or len(parts) != 3 or not parts[1].isdecimal() or len(parts[1]) > 12:
            return None
        client = ClientName(parts[0]) if parts[0] else None
        expires_s = int(parts[1])
        good: bytes | None = None
        for sealing in self._sealing_keys(client):
            if hmac.compare_digest(_mac(sealing, _COOKIE, body), mac):
                good = sealing
        if good is None or expires_s <= now_s:
            return None
        return Session(client, expires_s, _mac(good, _FORM, body))

    def _cookie(self, client: ClientName | None, key_hash: str, now_s: float) -> str:
        body = _SEPARATOR.join((client or "", str(int(now_s) + LIFETIME_S), secrets.token_urlsafe(16)))
        sealing = signing.derived_key(self._secrets(client)[0], _COOKIE + key_hash.encode())
        return f"{body}{_SEPARATOR}{_mac(sealing, _COOKIE, body)}"

    def _known(self) -> Iterator[tuple[ClientName | None, str]]:
        for name, client in self._clients.items():
            for key_hash in client.api_key_hashes:
                yield name, key_hash
        for key_hash in self._operator_hashes:
            yield None, key_hash

    def _sealing_keys(self, client: ClientName | None) -> list[bytes]:
        """One for each live key and secret, so that a session outlives the rotation of another of them."""
        if client is not None and client not in self._clients:
            return []
        hashes = self._operator_hashes if client is None else self._clients[client].api_key_hashes
        return [
            signing.derived_key(secret, _COOKIE + key_hash.encode())
            for secret in self._secrets(client)
            for key_hash in hashes
        ]

    def _secrets(self, client: ClientName | None) -> Sequence[str]:
        return (self._all_secrets,) if client is None else self._clients[client].signing_secrets


def _mac(key: bytes, purpose: bytes, body: str) -> str:
    return base64.urlsafe_b64encode(hmac.digest(key, purpose + body.encode(), "sha256")).rstrip(b"=").decode()
