"""The settings of relay and worker, read from the environment (`RELAY_…`), `.env` and the clients file.

Alone knows where configuration comes from. Everything else is handed a `Settings`.
"""

import fnmatch
import hashlib
import ipaddress
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Self

import yarl
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from relay.core import signing
from relay.core.errors import ConfigurationError
from relay.core.model import ClientName

SCRAPERS = ("chatgpt", "perplexity", "grok", "copilot", "gemini", "google_ai_mode", "amazon_rufus")

#: What browsers refuse to connect to (WHATWG Fetch, "bad ports"), and Redis' own two.
REFUSED_PORTS = (
    *(1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104),
    *(109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515),
    *(526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049),
    *(3659, 4045, 4190, 5060, 5061, 6000, 6379, 6380, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080),
)

_LONGEST_S = 366 * 86_400.0
SCHEDULE_S = (0.0, 5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: What is said where `.env` cannot be read as text.
NOT_UTF8 = ".env: is not UTF-8"
_HOST = re.compile(r"[A-Za-z0-9._*?-]+|[0-9a-fA-F:.]+")
_SCRAPER = re.compile(r"[A-Za-z0-9_.-]{1,64}")
#: For those of pydantic's words that speak of Python.
_WORDS = {
    "too_short": "must not be empty",
    "tuple_type": "must be a list",
    "model_type": "must be a section with the keys of a client",
    "ip_v4_network": "must be networks such as 10.0.0.0/8 or fd00::/8, without host bits",
    "ip_v6_network": "must be networks such as 10.0.0.0/8 or fd00::/8, without host bits",
    "string_type": "must be a string",
    "int_type": "must be an integer",
}


def _split(value: object) -> object:
    """Turn a comma-separated environment value into a list; leave anything else alone."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


class ClientConfig(BaseModel):
    """One client, as the clients file describes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    api_key_sha256: tuple[str, ...] = Field(min_length=1)
    signing_secrets: tuple[SecretStr, ...] = Field(min_length=1)
    upstream_api_key: SecretStr | None = None
    callback_hosts: tuple[str, ...] = ()
    max_unfinished_jobs: int = Field(default=20_000, ge=1, strict=True)
    jobs_per_minute: int = Field(default=6_000, ge=1, strict=True)

    @field_validator("upstream_api_key")
    @classmethod
    def _upstream_key(cls, value: SecretStr | None) -> SecretStr | None:
        return _checked_upstream_key(value)

    @field_validator("callback_hosts")
    @classmethod
    def _hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            if not _HOST.fullmatch(host):
                raise ValueError(f"{host!r} is not a host such as hooks.acme.com or *.acme.com")
        return value

    @field_validator("api_key_sha256")
    @classmethod
    def _hashes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _checked_hashes(value)

    @field_validator("signing_secrets")
    @classmethod
    def _secrets(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for item in value:
            signing.check_secret(item.get_secret_value())
        return value


@dataclass(frozen=True, slots=True)
class Client:
    """One client: who it is, what it may, and what signs its callbacks."""

    name: ClientName
    api_key_hashes: tuple[str, ...]
    signing_secrets: tuple[str, ...] = field(repr=False)
    upstream_api_key: str | None = field(repr=False)
    callback_hosts: tuple[str, ...]
    max_unfinished_jobs: int
    jobs_per_minute: int

    def allows_callback_host(self, host: str) -> bool:
        """Whether a callback may go to `host` (lower case, no port). `*.acme.com` does not match `acme.com`."""
        return not self.callback_hosts or any(fnmatch.fnmatchcase(host, p.lower()) for p in self.callback_hosts)


class Settings(BaseSettings):
    """Every setting, with its default. `load()` is the way to get one."""

    model_config = SettingsConfigDict(
        env_prefix="RELAY_",
        env_file=".env",
        extra="ignore",
        populate_by_name=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        description="The store: `redis://`, `rediss://` or `unix://`, with the database; with Sentinel "
        "`redis+sentinel://HOST:PORT,HOST:PORT/NAME/DATABASE`.",
    )
    key_prefix: str = Field(
        "relay:",
        pattern=r"^[A-Za-z0-9_.:{}-]{1,32}$",
        description="What every key in the store begins with, but for arq's, which begin with `arq:`.",
    )
    durability: Literal["normal", "strict"] = Field(
        "normal",
        description="`strict` has the store confirm that its append-only file is synced before a job is accepted; with "
        "`appendfsync always` that is certain.",
    )
    durable_replicas: int = Field(
        0,
        ge=0,
        le=10,
        description="With `strict`: replicas that must have synced too, so that a failover loses nothing.",
    )
    store_timeout_s: float = Field(5.0, gt=0, le=60, description="The longest wait for one answer of the store.")

    upstream_url: str = Field("https://api.scrapellm.com", description="The base URL of ScrapeLLM.")
    upstream_api_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("RELAY_UPSTREAM_API_KEY", "SCRAPELLM_API_KEY", "upstream_api_key"),
        description="The ScrapeLLM key; `SCRAPELLM_API_KEY` works too.",
    )
    upstream_timeout_s: float = Field(
        10.0, gt=0, le=120, description="The longest that one request to ScrapeLLM may take."
    )
    upstream_max_bytes: int = Field(
        16 * 1024 * 1024, ge=1024, description="The largest answer that is read from ScrapeLLM."
    )
    scrapers: Annotated[tuple[str, ...], NoDecode] = Field(
        SCRAPERS, description="The scrapers that jobs may name.", min_length=1
    )

    max_unfinished_jobs: int = Field(
        1_000_000, ge=1, description="Jobs without an outcome that all clients together may have."
    )
    store_full_share: float = Field(
        0.9, gt=0, le=1, description="New jobs get 503 while the store uses more than this share of its `maxmemory`."
    )

    host: str = Field("0.0.0.0", description="The address that the relay listens on.")  # noqa: S104 - a container's service
    port: int = Field(8080, ge=0, le=65535, description="The relay's port.")
    worker_host: str = Field("0.0.0.0", description="Where the worker serves health and metrics.")  # noqa: S104 - as above
    worker_port: int = Field(9090, ge=0, le=65535, description="The worker's port for health and metrics.")
    public_url: str | None = Field(
        None, description="The relay's own address as receivers see it; thin callbacks need it."
    )

    api_key: SecretStr | None = Field(None, description="The key of the one client, where there is no clients file.")
    signing_secret: SecretStr | None = Field(None, description="What signs that client's callbacks: `whsec_…`.")
    clients_file: Path | None = Field(None, description="A TOML file with many clients.")
    operator_key_sha256: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        max_length=2,
        description="SHA-256 of the key with which an operator sees every client in the dashboard, in lower-case hex; "
        "two while it is being replaced. None: there is no operator.",
    )

    callback_allowed_networks: Annotated[tuple[Network, ...], NoDecode] = Field(
        (), description="Networks that the address guard lets through, as CIDRs."
    )
    callback_refused_ports: Annotated[tuple[int, ...], NoDecode] = Field(
        REFUSED_PORTS, description="Ports that no callback goes to."
    )
    callback_https_only: bool = Field(False, description="Refuse `http` callback URLs.")
    callback_timeout_s: float = Field(15.0, gt=0, le=60, description="The longest that one attempt may take in all.")
    callback_schedule: Annotated[tuple[float, ...], NoDecode] = Field(
        SCHEDULE_S, min_length=1, max_length=100, description="Seconds before each attempt, the first included."
    )
    callback_concurrency: int = Field(
        50,
        ge=1,
        description="Attempts at one destination that may run at once, over all workers; at one worker no more than a "
        "fifth of `RELAY_DELIVER_SLOTS`.",
    )

    destination_closes_after: int = Field(
        10,
        ge=0,
        description="Attempts in a row without answer after which a destination is left alone for a while; 0: never.",
    )
    destination_closed_s: float = Field(
        60.0,
        gt=0,
        le=3600,
        description="The longest that it is left alone then, and at most a tenth of the schedule's longest delay.",
    )
    destination_pauses_after_s: float = Field(
        259_200.0,
        ge=1,
        le=_LONGEST_S,
        description="A destination that fails for so long is paused: its callbacks wait.",
    )
    destination_paused_try_s: float = Field(
        3_600.0, ge=1, le=86_400, description="How often a paused destination is tried all the same."
    )

    poll_min_interval_s: float = Field(1.0, ge=0.1, le=60, description="Never poll a job more often than this.")
    poll_interval_s: float = Field(3.0, ge=0.1, le=3_600, description="The time between two polls of a job.")
    poll_strategy: Literal["learned", "fixed"] = Field(
        "learned",
        description="`learned` polls when jobs like this one usually end, once enough were seen; `fixed` at the "
        "interval above.",
    )
    poll_lambda: Literal["auto", "thrifty"] | float = Field(
        "auto",
        description="What a learned schedule aims at. `auto`: no more polls than at the fixed interval, and outcomes "
        "found sooner. `thrifty`: outcomes found as soon, with fewer polls. A number: so many seconds of lateness "
        "are worth one poll.",
    )
    submit_window_s: float = Field(
        900.0, ge=1, le=86_400, description="How long a submit is tried before the job fails."
    )
    on_ambiguous_submit: Literal["resubmit", "fail"] = Field(
        "resubmit", description="What becomes of a submit whose answer was lost: again (may cost twice), or fail."
    )
    lease_s: float = Field(15.0, ge=3, le=120, description="After a worker died, its jobs are taken up after this.")
    submit_slots: int = Field(50, ge=1, description="Submits that one worker has under way at once.")
    poll_slots: int = Field(250, ge=1, description="Polls that one worker has under way at once.")
    deliver_slots: int = Field(
        250,
        ge=1,
        description="Callbacks that one worker has under way at once. A client has at most 80 % of them, less where "
        "receivers have not answered; a destination at most a fifth.",
    )
    stop_grace_s: float = Field(
        25.0, ge=1, le=3_600, description="How long a worker finishes what it began when it is stopped."
    )

    result_ttl_s: float = Field(
        86_400.0,
        ge=1,
        le=_LONGEST_S,
        description="How long a finished job is kept after its callback was delivered or given up by choice.",
    )
    undelivered_ttl_s: float = Field(
        604_800.0,
        ge=1,
        le=_LONGEST_S,
        description="How long a finished job is kept whose callback did not get through.",
    )
    compress_above_bytes: int = Field(16_384, ge=0, description="Results larger than this are stored compressed.")
    events_kept: int = Field(10_000, ge=100, description="How many events per client can be resumed from.")

    otel: bool = Field(
        False,
        description="Send traces by OpenTelemetry: OTLP over HTTP, to where the standard `OTEL_EXPORTER_OTLP_ENDPOINT` "
        "says. Takes the extra `otel`.",
    )
    dev_inbox_url: str | None = Field(
        None, description="Set by `scrapellm-relay dev`: where its inbox is, for two more pages of the dashboard."
    )
    dev_login_sha256: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="Set by `scrapellm-relay dev`: SHA-256 of the token in the link that logs in to the dashboard.",
    )

    log_format: Literal["json", "console", "auto"] = Field(
        "auto", description="`auto` is console on a terminal and JSON elsewhere."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least that is logged.")

    _split_lists = field_validator(
        *("scrapers", "callback_refused_ports", "callback_schedule", "callback_allowed_networks"),
        "operator_key_sha256",
        mode="before",
    )(_split)

    @field_validator("upstream_api_key", "clients_file", "public_url", mode="before")
    @classmethod
    def _blank(cls, value: object) -> object:
        # As templates of `.env` leave them: what may be missing is missing where it has no value.
        return None if isinstance(value, str) and not value.strip() else value

    @field_validator("upstream_api_key")
    @classmethod
    def _upstream_key(cls, value: SecretStr | None) -> SecretStr | None:
        return _checked_upstream_key(value)

    @field_validator("operator_key_sha256")
    @classmethod
    def _operator_hashes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _checked_hashes(value)

    @field_validator("poll_lambda", mode="before")
    @classmethod
    def _aim(cls, value: object) -> object:
        try:
            if value in ("auto", "thrifty") or 0 < float(str(value)) <= 3_600:
                return value
        except ValueError:
            pass
        raise ValueError("must be auto, thrifty, or a number of seconds above 0 and up to 3600")

    @field_validator("scrapers")
    @classmethod
    def _names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not _SCRAPER.fullmatch(name):
                raise ValueError(f"{name!r} is not a name of 1 to 64 of A-Z a-z 0-9 _ . -")
        return value

    @field_validator("callback_refused_ports")
    @classmethod
    def _ports(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        for port in value:
            if not 1 <= port <= 65_535:
                raise ValueError(f"{port} is no port: they are 1 to 65535")
        return value

    @field_validator("callback_schedule")
    @classmethod
    def _delays(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 <= d <= 604_800 for d in value):
            raise ValueError("delays are 0 to 604800 seconds")
        return value

    @field_validator("public_url", "upstream_url", "dev_inbox_url")
    @classmethod
    def _base_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        try:
            host = yarl.URL(value).host
        except ValueError:
            host = None
        if not host:
            raise ValueError("must be a URL with a host")
        if "?" in value or "#" in value:
            raise ValueError("must have neither a query nor a fragment")
        return value.rstrip("/")

    @classmethod
    def load(cls, **overrides: object) -> Self:
        """Read the environment and check it.

        Raises ConfigurationError, whose message is one line naming the first setting that is wrong.
        """
        try:
            return cls(**overrides)  # type: ignore[arg-type]  # the names are checked by pydantic
        except ValidationError as error:
            raise ConfigurationError(_one_line(error)) from error
        except UnicodeDecodeError as error:
            raise ConfigurationError(NOT_UTF8) from error

    def clients(self) -> dict[ClientName, Client]:
        """The configured clients by name.

        Raises ConfigurationError where there are none, where the clients file is wrong, or a client has the operator's
        key.
        """
        clients = self._clients()
        for client in clients.values():
            if set(client.api_key_hashes) & set(self.operator_key_sha256):
                raise ConfigurationError(f"RELAY_OPERATOR_KEY_SHA256: {client.name} has the same key")
        return clients

    def _clients(self) -> dict[ClientName, Client]:
        if self.clients_file is not None:
            return _read_clients(self.clients_file)
        if self.api_key is None:
            raise ConfigurationError("RELAY_API_KEY is missing (or RELAY_CLIENTS_FILE for several clients)")
        if self.signing_secret is None:
            raise ConfigurationError("RELAY_SIGNING_SECRET is missing: make one with `scrapellm-relay keygen`")
        key = self.api_key.get_secret_value()
        if not key or not key.isascii() or any(c.isspace() for c in key):
            raise ConfigurationError("RELAY_API_KEY must be ASCII without white space")
        try:
            config = ClientConfig(
                api_key_sha256=(hash_api_key(key),),
                signing_secrets=(SecretStr(self.signing_secret.get_secret_value()),),
            )
        except ValidationError as error:
            raise ConfigurationError(f"RELAY_SIGNING_SECRET {said(error)}") from error
        name = ClientName("default")
        return {name: _client(name, config)}


def hash_api_key(key: str) -> str:
    """What is kept of an API key: its SHA-256 in hex. Keys are random, so a slow hash would add nothing."""
    return hashlib.sha256(key.encode()).hexdigest()


def _checked_hashes(value: tuple[str, ...]) -> tuple[str, ...]:
    for item in value:
        if len(item) != 64 or any(c not in "0123456789abcdef" for c in item):
            raise ValueError("is not 64 lower-case hex digits: give the key's SHA-256, not the key")
    return value


def _checked_upstream_key(value: SecretStr | None) -> SecretStr | None:
    """A key that a header can carry; None where it is blank. Raises ValueError."""
    key = "" if value is None else value.get_secret_value()
    if not key.isascii() or not key.isprintable() or any(c.isspace() for c in key):
        raise ValueError("must be ASCII without white space")
    return value if key else None


def _client(name: ClientName, config: ClientConfig) -> Client:
    return Client(
        name=name,
        api_key_hashes=config.api_key_sha256,
        signing_secrets=tuple(s.get_secret_value() for s in config.signing_secrets),
        upstream_api_key=config.upstream_api_key.get_secret_value() if config.upstream_api_key else None,
        callback_hosts=config.callback_hosts,
        max_unfinished_jobs=config.max_unfinished_jobs,
        jobs_per_minute=config.jobs_per_minute,
    )


def _read_clients(path: Path) -> dict[ClientName, Client]:
    try:
        # Editors of some systems put a byte order mark in front.
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigurationError(f"RELAY_CLIENTS_FILE {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"RELAY_CLIENTS_FILE {path} is not TOML: {error}") from error
    sections = document.get("clients")
    if not isinstance(sections, dict) or not sections or set(document) != {"clients"}:
        raise ConfigurationError(f"RELAY_CLIENTS_FILE {path} must have sections [clients.NAME] and nothing else")
    clients: dict[ClientName, Client] = {}
    owners: dict[str, str] = {}
    for name, section in sections.items():
        if not name or not all(c.isalnum() or c in "_-." for c in name) or not name.isascii() or len(name) > 64:
            raise ConfigurationError(f"RELAY_CLIENTS_FILE {path}: the name {name!r} is not of [A-Za-z0-9_.-]{{1,64}}")
        try:
            config = ClientConfig.model_validate(section)
        except ValidationError as error:
            raise ConfigurationError(f"RELAY_CLIENTS_FILE {path}: clients.{name}.{_where(error)}") from error
        for key_hash in config.api_key_sha256:
            if owners.setdefault(key_hash, name) != name:
                raise ConfigurationError(f"RELAY_CLIENTS_FILE {path}: {owners[key_hash]} and {name} share an API key")
        clients[ClientName(name)] = _client(ClientName(name), config)
    return clients


def _where(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {said(error)}"


def _one_line(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    return f"{name if name.startswith('RELAY_') else 'RELAY_' + name.upper()}: {said(error)}"


def said(error: ValidationError) -> str:
    """What is wrong first, in words for an operator; never the value, which may be a secret."""
    first = error.errors(include_url=False, include_input=False)[0]
    words = _WORDS.get(first["type"])
    if words is not None:
        return words
    return str(first["msg"]).removeprefix("Value error, ")
