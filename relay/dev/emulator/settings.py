"""What can be turned on the emulator (environment, prefix `EMULATOR_`)."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from relay.core.errors import ConfigurationError
from relay.core.settings import NOT_UTF8, SCRAPERS, said


class Fault(StrEnum):
    """What can go wrong with one request: the call, and the kind of fault."""

    #: Nothing goes wrong: a place in `fault_sequence`.
    SUBMIT_OK = "submit_ok"
    SUBMIT_400 = "submit_400"
    SUBMIT_401 = "submit_401"
    SUBMIT_408 = "submit_408"
    SUBMIT_429 = "submit_429"
    SUBMIT_CREDITS = "submit_credits"
    SUBMIT_500 = "submit_500"
    SUBMIT_503 = "submit_503"
    SUBMIT_504 = "submit_504"
    SUBMIT_GARBAGE = "submit_garbage"
    #: No answer for `hang_s`, then the connection is cut; no job is taken.
    SUBMIT_HANG = "submit_hang"
    #: The connection is cut; no job is taken.
    SUBMIT_RESET = "submit_reset"
    #: The job is taken and charged, then the connection is cut.
    SUBMIT_LOST = "submit_lost"
    #: The job is taken and charged, then no answer for `hang_s`.
    SUBMIT_STALL = "submit_stall"
    POLL_OK = "poll_ok"
    POLL_404 = "poll_404"
    POLL_408 = "poll_408"
    POLL_429 = "poll_429"
    POLL_500 = "poll_500"
    POLL_503 = "poll_503"
    POLL_504 = "poll_504"
    POLL_GARBAGE = "poll_garbage"
    POLL_HANG = "poll_hang"
    POLL_RESET = "poll_reset"

    @property
    def call(self) -> str:
        """`submit` or `poll`."""
        return self.value.partition("_")[0]

    @property
    def kind(self) -> str:
        """What happens to it."""
        return self.value.partition("_")[2]

    @property
    def takes_the_job(self) -> bool:
        """Whether the job exists and is charged although its answer is lost."""
        return self in (Fault.SUBMIT_LOST, Fault.SUBMIT_STALL)


class EmulatorSettings(BaseSettings):
    """Every setting of the emulator. `load()` is the way to get one."""

    model_config = SettingsConfigDict(
        env_prefix="EMULATOR_",
        env_file=".env",
        extra="ignore",
        populate_by_name=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    scrapers: Annotated[tuple[str, ...], NoDecode] = Field(SCRAPERS, description="The scrapers that exist.")
    api_keys: Annotated[tuple[str, ...], NoDecode] = Field(
        (), repr=False, description="The keys that are accepted; none named: any that is not empty."
    )
    credits: int = Field(1_000_000, ge=0, le=1_000_000_000_000, description="Credits that each key has.")
    credits_per_job: int = Field(3, ge=0, le=1_000_000, description="Credits that one job takes.")
    rate_limit_per_s: float = Field(
        0.0, ge=0, le=1_000_000, description="Submits that each key may make in a second; 0: any number."
    )
    retry_after_s: int = Field(2, ge=0, le=86_400, description="`Retry-After` of a rate-limited submit.")
    latency_scale: float = Field(1.0, gt=0, le=1_000, description="What every drawn latency is multiplied by.")
    cached_latency_s: float = Field(1.0, ge=0, le=86_400, description="Latency of a prompt that was answered before.")
    failure_rate: float = Field(0.02, ge=0, le=1, description="Share of jobs that fail.")
    retention_s: float = Field(
        86_400.0, gt=0, le=1_000_000_000, description="How long after its submission a job is known."
    )
    max_jobs: int = Field(200_000, ge=1, description="Jobs kept; the oldest are forgotten first.")
    max_url_bytes: int = Field(0, ge=0, description="Longer request targets are answered with 414; 0: none are.")
    markers: bool = Field(True, description="Whether `[fail]`, `[never]`, `[latency=2]` and the like in prompts count.")
    result_bytes: int = Field(
        0, ge=0, le=100_000_000, description="Pad each result's text to at least this many bytes."
    )
    answer_delay_s: float = Field(
        0.0, ge=0, le=3_600, description="How long each answer takes, after what it answers was done."
    )
    hang_s: float = Field(60.0, gt=0, le=3_600, description="How long a request that hangs hangs.")
    faults: Mapping[Fault, float] = Field(
        default_factory=dict, description='The share of requests that each fault meets, as JSON: {"submit_lost": 0.1}.'
    )
    fault_sequence: Annotated[tuple[Fault, ...], NoDecode] = Field(
        (),
        description="The faults that the next requests meet, before chance decides: `submit_503,submit_ok,poll_500`.",
    )
    journal: Path | None = Field(None, description="A file in which jobs outlive a restart.")
    seed: int | None = Field(None, description="Makes what is drawn repeatable.")

    @field_validator("scrapers", "api_keys", "fault_sequence", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("faults")
    @classmethod
    def _shares(cls, value: Mapping[Fault, float]) -> Mapping[Fault, float]:
        if any(not 0 <= share <= 1 for share in value.values()):
            raise ValueError("shares are 0 to 1")
        for call in ("submit", "poll"):
            # What is written in decimals may add up to a little more than it should.
            if sum(share for fault, share in value.items() if fault.call == call) > 1 + 1e-9:
                raise ValueError(f"the shares of a {call} are at most 1 together")
        return value

    @classmethod
    def load(cls, **overrides: object) -> Self:
        """Read the environment. Raises ConfigurationError with one line that names the setting."""
        try:
            return cls(**overrides)  # type: ignore[arg-type]  # the names are checked by pydantic
        except SettingsError as error:
            # Of all settings only this one is read as JSON.
            raise ConfigurationError('EMULATOR_FAULTS: must be JSON such as {"submit_lost": 0.1}') from error
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            name = str(first["loc"][0]) if first["loc"] else ""
            raise ConfigurationError(f"EMULATOR_{name.upper()}: {said(error)}") from error
        except UnicodeDecodeError as error:
            raise ConfigurationError(NOT_UTF8) from error
