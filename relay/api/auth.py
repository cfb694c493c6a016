"""Who asks: API keys in `Authorization: Bearer` or `X-API-Key`. Keys are compared as hashes, and never logged."""

import hmac
from collections.abc import Iterable

from multidict import CIMultiDictProxy

from relay.api.problems import Problem
from relay.core.settings import Client, hash_api_key

_CHALLENGE = {"WWW-Authenticate": "Bearer"}


class Authenticator:
    """Finds the client that a key belongs to."""

    def __init__(self, clients: Iterable[Client]) -> None:
        self._owners = [(h.encode(), client) for client in clients for h in client.api_key_hashes]

    def client(self, headers: CIMultiDictProxy[str]) -> Client:
        """The client whose key the headers carry.

        Raises Problem (401) for a key that is missing, empty, unknown, not ASCII, given twice in one header, under
        another scheme, or different in the two headers. The time taken tells nothing about which key came close.
        """
        bearer = _single(headers.getall("Authorization", []))
        plain = _single(headers.getall("X-API-Key", []))
        given = [key for key in (None if bearer is None else _bearer_token(bearer), plain) if key is not None]
        if not given:
            raise _unauthorized("Send the API key as `Authorization: Bearer <key>` or `X-API-Key: <key>`.")
        if len(set(given)) > 1:
            raise _unauthorized("The two headers carry different API keys.")
        key = given[0]
        if not key or not key.isascii():
            raise _unauthorized("The API key is empty or not ASCII.")
        found = self.owner(key)
        if found is None:
            raise _unauthorized("The API key is not known.")
        return found

    def owner(self, key: str) -> Client | None:
        """The client whose key this is. The time taken tells nothing about which key came close."""
        hashed = hash_api_key(key).encode()
        found: Client | None = None
        for known, client in self._owners:
            if hmac.compare_digest(known, hashed):
                found = client
        return found


def _single(values: list[str]) -> str | None:
    if len(values) > 1:
        raise _unauthorized("The header with the API key is there more than once.")
    return values[0] if values else None


def _bearer_token(value: str) -> str:
    scheme, _, token = value.strip(" \t").partition(" ")
    if scheme.lower() != "bearer":
        raise _unauthorized("The scheme of `Authorization` must be Bearer.")
    return token.strip(" \t")


def _unauthorized(detail: str) -> Problem:
    return Problem("unauthorized", detail, headers=_CHALLENGE)
