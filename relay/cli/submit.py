"""`submit`: one prompt to one scraper."""

import asyncio
import math
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from relay.cli import options
from relay.cli.inputs import Document, InputError, parse_object, parse_pairs
from relay.cli.render import clean, notes, print_json, result_text, said, styled
from relay.client import Unreachable
from relay.core.errors import ConfigurationError
from relay.core.model import CallbackFormat, EventType, JobStatus
from relay.core.settings import SCRAPERS
from relay.dev.folder import DEFAULT_FOLDER, running_in

MORE = """\b
Examples:
  scrapellm-relay submit "Best GPUs of the year?" -s grok --param mode=MODEL_MODE_EXPERT \\
      --callback-url https://example.com/hook --wait
  ID=$(scrapellm-relay submit - -s chatgpt --callback-url https://example.com/hook < prompt.txt)

\b
Exit codes: 0 accepted (with --wait: done), 1 failed or timed out, 2 refused, 3 no relay answers.
"""

ScraperOption = Annotated[
    str,
    typer.Option(
        "--scraper", "-s", metavar="NAME", help="Such as chatgpt or perplexity.", autocompletion=lambda: list(SCRAPERS)
    ),
]
CallbackUrlOption = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Where the outcome is announced. Under `dev` its inbox, unless given."),
]
CountryOption = Annotated[str | None, typer.Option(metavar="CODE", help="ISO 3166-1 alpha-2, such as DE.")]
TimeoutOption = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="ScrapeLLM's limit for one scrape, 10 to 600.")
]
DeadlineOption = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="When the job ends in any case, 1 to 86400.")
]
BypassOption = Annotated[bool, typer.Option("--bypass-cache", help="Have ScrapeLLM not answer from its cache.")]
CoalesceOption = Annotated[
    bool, typer.Option("--coalesce", help="Share one job of ScrapeLLM with equal unfinished jobs that ask for it too.")
]
ParamOption = Annotated[
    list[str] | None, typer.Option(metavar="NAME=VALUE", help="A parameter of the scraper; may be repeated.")
]
MetadataOption = Annotated[
    str | None, typer.Option(metavar="JSON", help="An object that every answer and callback echoes.")
]
HeaderOption = Annotated[
    list[str] | None, typer.Option(metavar="NAME:VALUE", help="A header for the callback; may be repeated.")
]
EventOption = Annotated[
    list[EventType] | None,
    typer.Option(metavar="EVENT", help="An event to announce; may be repeated. All, unless given."),
]
ThinOption = Annotated[bool, typer.Option("--thin", help="Announce a link to the result in place of the result.")]
FormatOption = Annotated[CallbackFormat | None, typer.Option("--callback-format", help="The callback's shape.")]
IdempotencyOption = Annotated[
    str | None, typer.Option(metavar="KEY", help="The same key never makes a second job within 24 hours.")
]


def submit(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="The prompt; - reads it from standard input.")],
    scraper: ScraperOption,
    *,
    callback_url: CallbackUrlOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the outcome and print the result.")] = False,
    country: CountryOption = None,
    timeout: TimeoutOption = None,
    deadline: DeadlineOption = None,
    bypass_cache: BypassOption = False,
    coalesce: CoalesceOption = False,
    param: ParamOption = None,
    metadata: MetadataOption = None,
    callback_header: HeaderOption = None,
    callback_event: EventOption = None,
    thin: ThinOption = False,
    callback_format: FormatOption = None,
    idempotency_key: IdempotencyOption = None,
    url: options.UrlOption = None,
    api_key: options.KeyOption = None,
    data: options.DataOption = DEFAULT_FOLDER,
    as_json: options.JsonOption = False,
) -> None:
    """Submit one prompt; prints the job's id, or with --wait the result."""
    target = options.find_target(url, api_key, data)
    job: Document = {
        "scraper": scraper,
        "prompt": read_standard_input() if prompt == "-" else prompt,
        "callback_url": default_callback_url(callback_url, target, data),
    }
    job |= job_fields(
        country=country,
        timeout=timeout,
        deadline=deadline,
        bypass_cache=bypass_cache,
        coalesce=coalesce,
        param=param,
        metadata=metadata,
        callback_header=callback_header,
        callback_event=callback_event,
        thin=thin,
        callback_format=callback_format,
    )
    raise typer.Exit(asyncio.run(_submit(target, job, checked_key(idempotency_key), wait=wait, as_json=as_json)))


async def _submit(target: options.Target, job: Document, key: str | None, *, wait: bool, as_json: bool) -> int:
    async with target.client() as client:
        accepted = await client.submit(**job, idempotency_key=key)
        if not wait:
            if as_json:
                print_json(accepted.document)
            else:
                typer.echo(accepted.id)
            return 0
        notes().print(f"{accepted.id} accepted; waiting", style="bright_black")
        notes().print(f"how its callback fares: scrapellm-relay jobs {accepted.id}", style="bright_black")
        try:
            ended = await client.wait(accepted)
        except (asyncio.CancelledError, Unreachable):
            notes().print(f"the job goes on by itself; to see how it stands: scrapellm-relay jobs {accepted.id}")
            raise
    if as_json:
        print_json(ended.document)
    elif ended.status is JobStatus.DONE:
        typer.echo(clean(result_text(ended.document)))
    else:
        notes().print(styled(ended.status), said(ended.document))
    return 0 if ended.status is JobStatus.DONE else 1


def job_fields(
    *,
    country: str | None,
    timeout: float | None,
    deadline: float | None,
    bypass_cache: bool,
    coalesce: bool,
    param: list[str] | None,
    metadata: str | None,
    callback_header: list[str] | None,
    callback_event: list[EventType] | None,
    thin: bool,
    callback_format: CallbackFormat | None,
) -> Document:
    """The optional fields of a job that were given. Raises InputError."""
    fields: dict[str, Any] = {
        "country": country,
        "timeout": _plain(timeout, "--timeout"),
        "deadline": _plain(deadline, "--deadline"),
        "bypass_cache": bypass_cache or None,
        "coalesce": coalesce or None,
        "params": parse_pairs(param or [], "--param", "=") or None,
        "metadata": None if metadata is None else parse_object(metadata, "--metadata"),
        "callback_headers": parse_pairs(callback_header or [], "--callback-header", ":") or None,
        "callback_events": [str(event) for event in callback_event] if callback_event else None,
        "callback_payload": "thin" if thin else None,
        "callback_format": None if callback_format is None else str(callback_format),
    }
    return {name: value for name, value in fields.items() if value is not None}


def default_callback_url(given: str | None, target: options.Target, folder: Path) -> str:
    """The callback URL: the given one, or the inbox of the `dev` that is talked to. Raises ConfigurationError."""
    if given is not None:
        return given
    dev = running_in(folder)
    if dev is None or dev.url != target.url:
        raise ConfigurationError(
            f"--callback-url is missing, and no `dev` in {folder} with an inbox to take its place runs at {target.url}"
        )
    return f"{dev.inbox_url}/hook"


def checked_key(key: str | None) -> str | None:
    """The idempotency key, if it can be sent at all. Raises InputError."""
    if key is not None and not all(0x20 < ord(c) < 0x7F for c in key):
        raise InputError("--idempotency-key: must be ASCII without spaces and control characters")
    return key


def read_standard_input() -> str:
    """Standard input as a prompt, less the line end that shells put after it. Raises InputError."""
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n")
    except UnicodeDecodeError:
        raise InputError("standard input is not UTF-8") from None


def _plain(seconds: float | None, option: str) -> int | float | None:
    if seconds is not None and not math.isfinite(seconds):
        raise InputError(f"{option}: must be a number of seconds")
    return int(seconds) if seconds is not None and seconds.is_integer() else seconds
