"""What several commands take: which relay to talk to, as whom, and how to answer. Alone knows where those are found.

An option goes before the environment, that before `.env`, and all before what a `dev` in this folder says of itself.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from relay.client import DEFAULT_URL, Misconfigured, RelayClient
from relay.client.transport import check_address, check_key, is_loopback
from relay.core.errors import ConfigurationError
from relay.core.settings import NOT_UTF8
from relay.core.signing import check_secret
from relay.dev.folder import DEFAULT_FOLDER, credentials_in, running_in

#: A person rather reads that nobody answers than waits for somebody who might.
_PATIENCE_S = 2.0

UrlOption = Annotated[
    str | None, typer.Option("--url", metavar="URL", help=f"The relay. [env: RELAY_URL; default: {DEFAULT_URL}]")
]
KeyOption = Annotated[
    str | None,
    typer.Option("--api-key", metavar="KEY", help="Your API key. [env: RELAY_API_KEY; under `dev` it is found]"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
DataOption = Annotated[Path, typer.Option("--data", metavar="DIR", help="The folder of the `dev` that is meant.")]


class _Environment(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="RELAY_", env_file=".env", extra="ignore")

    url: str | None = None
    api_key: SecretStr | None = None
    signing_secret: SecretStr | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """Which relay to talk to, and as whom."""

    url: str
    api_key: str = field(repr=False)

    def client(self) -> RelayClient:
        """A client that talks to it."""
        return RelayClient(self.url, self.api_key, patience_s=_PATIENCE_S)


@dataclass(frozen=True, slots=True)
class Secrets:
    """What callbacks are verified with, and where it was found."""

    secrets: tuple[str, ...] = field(repr=False)
    source: str


def _environment() -> _Environment:
    try:
        return _Environment()
    except UnicodeDecodeError as error:
        raise ConfigurationError(NOT_UTF8) from error


def find_target(url: str | None, api_key: str | None, folder: Path = DEFAULT_FOLDER) -> Target:
    """The relay that is meant, and the key for it. Raises ConfigurationError."""
    environment = _environment()
    dev = running_in(folder)
    chosen = url or environment.url or (dev.url if dev else DEFAULT_URL)
    try:
        check_address(chosen)
    except Misconfigured as error:
        raise ConfigurationError(f"RELAY_URL, --url: {error}") from None
    key = api_key or (environment.api_key.get_secret_value() if environment.api_key else None)
    is_here = is_loopback(chosen)
    if not key and is_here:
        # Another machine's relay is not told the key of this folder.
        credentials = credentials_in(folder)
        key = credentials.api_key if credentials else None
    if not key:
        by_folder = f" (or with --data the folder of a `dev`: {folder} is none)" if is_here else ""
        raise ConfigurationError(f"no API key: give --api-key, or set RELAY_API_KEY{by_folder}")
    try:
        check_key(key)
    except Misconfigured as error:
        raise ConfigurationError(f"RELAY_API_KEY, --api-key: {error}") from None
    return Target(chosen, key)


def find_secrets(secrets: list[str], folder: Path = DEFAULT_FOLDER) -> Secrets:
    """The signing secrets to verify callbacks with. Raises ConfigurationError."""
    found = Secrets(tuple(secrets), "--secret")
    environment = _environment()
    if not found.secrets and environment.signing_secret is not None:
        found = Secrets((environment.signing_secret.get_secret_value(),), "RELAY_SIGNING_SECRET")
    if not found.secrets:
        credentials = credentials_in(folder)
        found = Secrets((credentials.signing_secret,) if credentials else (), f"the `dev` in {folder}")
    if not found.secrets:
        raise ConfigurationError("no signing secret: give --secret whsec_…, or set RELAY_SIGNING_SECRET")
    for secret in found.secrets:
        try:
            check_secret(secret)
        except ValueError as error:
            raise ConfigurationError(f"the signing secret of {found.source} {error}") from None
    return found
