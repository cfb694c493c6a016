"""What several commands take: which relay to talk to, as whom, and how to answer. Alone knows where those are found.

An option goes before the environment, that before `.env`, and all before what a `dev` in this folder says of itself.
"""

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from relay.cli.client import Target, is_loopback
from relay.core.errors import ConfigurationError
from relay.core.settings import NOT_UTF8
from relay.core.signing import check_secret
from relay.dev.folder import DEFAULT_FOLDER, credentials_in, running_in

DEFAULT_URL = "http://127.0.0.1:8080"

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
    _check_url(chosen)
    key = api_key or (environment.api_key.get_secret_value() if environment.api_key else None)
    if not key and is_loopback(chosen):
        # Another machine's relay is not told the key of this folder.
        credentials = credentials_in(folder)
        key = credentials.api_key if credentials else None
    if not key:
        raise ConfigurationError("no API key: give --api-key, or set RELAY_API_KEY")
    if not key.isascii() or any(c.isspace() or not c.isprintable() for c in key):
        raise ConfigurationError("RELAY_API_KEY must be ASCII without white space")
    return Target(chosen, key)


def find_secrets(secrets: list[str], folder: Path = DEFAULT_FOLDER) -> list[str]:
    """The signing secrets to verify callbacks with. Raises ConfigurationError."""
    found = list(secrets)
    environment = _environment()
    if not found and environment.signing_secret is not None:
        found = [environment.signing_secret.get_secret_value()]
    if not found:
        credentials = credentials_in(folder)
        found = [credentials.signing_secret] if credentials else []
    if not found:
        raise ConfigurationError("no signing secret: give --secret whsec_…, or set RELAY_SIGNING_SECRET")
    for secret in found:
        try:
            check_secret(secret)
        except ValueError as error:
            raise ConfigurationError(f"the signing secret {error}") from None
    return found


def _check_url(url: str) -> None:
    try:
        parsed = urlsplit(url)
        good = parsed.scheme in ("http", "https") and bool(parsed.hostname) and parsed.port != 0
        # A password there would end up in messages.
        good = good and parsed.username is None
    except ValueError:
        good = False
    if not good or parsed.query or parsed.fragment or any(c.isspace() for c in url):
        raise ConfigurationError("RELAY_URL, --url: must be the address of a relay, such as https://relay.example.com")
