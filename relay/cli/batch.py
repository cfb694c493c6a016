"""`batch`: a file of prompts as one batch."""

import asyncio
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from relay.cli import options
from relay.cli import submit as one
from relay.cli.inputs import Document, FileFormat, InputError, Row, format_of, read_rows
from relay.cli.render import batch_fields, counts, notes, print_fields, print_json
from relay.client import Batch, FieldError, Refused, RelayClient, Unreachable
from relay.core.model import JobStatus
from relay.core.settings import SCRAPERS
from relay.dev.folder import DEFAULT_FOLDER

MORE = """\b
Examples:
  scrapellm-relay batch prompts.txt -s chatgpt -s grok --callback-url https://example.com/hook
  scrapellm-relay batch jobs.csv --callback-url https://example.com/hook --no-wait
  generate | scrapellm-relay batch - --format jsonl -s chatgpt --callback-url https://example.com/hook --json

\b
Files:
  txt    one prompt a line
  csv    a header with `prompt`; the other columns are fields of the job: scraper, country, timeout,
         deadline, bypass_cache, coalesce, callback_url, callback_events,
         callback_payload, callback_format, metadata.NAME, params.NAME; an empty cell leaves the field to the options
  jsonl  one job a line, as POST /v1/jobs takes it

\b
Exit codes: 0 all are done (with --no-wait: accepted), 1 some are not, 2 refused, 3 no relay answers.
"""

_ITEM = re.compile(r"/(jobs|prompts)/(\d+)(.*)", re.DOTALL)


def batch(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The prompts; - reads standard input (with --format).")],
    scraper: Annotated[
        list[str] | None,
        typer.Option(
            *("--scraper", "-s"),
            metavar="NAME",
            help="May be repeated: every prompt goes to every scraper.",
            autocompletion=lambda: list(SCRAPERS),
        ),
    ] = None,
    *,
    callback_url: one.CallbackUrlOption = None,
    form: Annotated[FileFormat | None, typer.Option("--format", help="Unless the file's name tells.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until all jobs have an outcome.")] = True,
    country: one.CountryOption = None,
    timeout: one.TimeoutOption = None,
    deadline: one.DeadlineOption = None,
    bypass_cache: one.BypassOption = False,
    coalesce: one.CoalesceOption = False,
    param: one.ParamOption = None,
    metadata: one.MetadataOption = None,
    callback_header: one.HeaderOption = None,
    callback_event: one.EventOption = None,
    thin: one.ThinOption = False,
    callback_format: one.FormatOption = None,
    idempotency_key: one.IdempotencyOption = None,
    url: options.UrlOption = None,
    api_key: options.KeyOption = None,
    data: options.DataOption = DEFAULT_FOLDER,
    as_json: options.JsonOption = False,
) -> None:
    """Submit a file of prompts as one batch, all or nothing, and wait until every job has an outcome."""
    target = options.find_target(url, api_key, data)
    rows = _read(file, form)
    defaults = one.job_fields(
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
    if callback_url is not None or not all("callback_url" in row.fields for row in rows):
        defaults["callback_url"] = one.default_callback_url(callback_url, target, data)
    document, lines = batch_document(rows, scraper or [], defaults, file)
    key = one.checked_key(idempotency_key)
    code = asyncio.run(_batch(target, document, Lines(file, lines), key, wait=wait, as_json=as_json))
    raise typer.Exit(code)


def _read(file: str, form: FileFormat | None) -> Sequence[Row]:
    if file == "-":
        if form is None:
            raise InputError("standard input: give --format txt, csv or jsonl")
        return read_rows(sys.stdin.buffer.read(), form, "standard input")
    form = form or format_of(file)
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from error
    return read_rows(data, form, file)


def batch_document(
    rows: Sequence[Row], scrapers: Sequence[str], defaults: Document, file: str
) -> tuple[Document, Sequence[int]]:
    """The body of the request, and for each of its jobs, or prompts, the line that it came from.

    A row that names its scraper goes there; the others go to every one of `scrapers`. Raises InputError where a row
    has none.
    """
    if all(row.fields.keys() == {"prompt"} for row in rows) and scrapers:
        prompts = [row.fields["prompt"] for row in rows]
        return {"prompts": prompts, "scrapers": list(scrapers), **defaults}, [row.line for row in rows]
    jobs: list[dict[str, Any]] = []
    lines: list[int] = []
    for row in rows:
        own: Iterable[str | None] = [None] if row.fields.get("scraper") is not None else scrapers
        if not own:
            raise InputError(f"{file}, line {row.line}: no scraper is named there, nor with --scraper")
        for name in own:
            jobs.append(row.fields if name is None else row.fields | {"scraper": name})
            lines.append(row.line)
    return {"jobs": jobs, **defaults}, lines


class Lines:
    """Which line of which file each job of a batch came from."""

    def __init__(self, file: str, lines: Sequence[int]) -> None:
        self._file, self._lines = file, lines

    def named(self, refusal: Refused) -> Refused:
        """The same refusal, in which places in the jobs are lines of the file."""
        errors = [FieldError(self._place(error.where), error.detail) for error in refusal.errors]
        return type(refusal)(refusal.status, refusal.code, refusal.detail, errors, refusal.retry_after_s)

    def _place(self, pointer: str) -> str:
        match = _ITEM.fullmatch(pointer)
        if match is None or int(match[2]) >= len(self._lines):
            return pointer
        field = match[3].removeprefix("/").replace("/", ".")
        return f"{self._file}, line {self._lines[int(match[2])]}{field and f', {field}'}"


async def _batch(
    target: options.Target, document: Document, lines: Lines, key: str | None, *, wait: bool, as_json: bool
) -> int:
    async with target.client() as client:
        try:
            accepted = await client.submit_batch(**document, idempotency_key=key)
        except Refused as refusal:
            raise lines.named(refusal) from refusal
        if not wait:
            if as_json:
                print_json(accepted.document)
            else:
                typer.echo(accepted.id)
            return 0
        notes().print(f"{accepted.id} accepted: {accepted.count} jobs", style="bright_black")
        try:
            ended = await follow_batch(client, accepted.id, accepted.count)
        except (asyncio.CancelledError, Unreachable):
            notes().print(f"the batch goes on by itself; to see how it stands: scrapellm-relay jobs {accepted.id}")
            raise
    return summary(ended, as_json=as_json)


async def follow_batch(client: RelayClient, batch_id: str, count: int | None = None) -> Batch:
    """The batch, once all of its jobs have an outcome; on a terminal a bar shows how many have one."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[states]}"),
        console=notes(),
        # Nobody watches a bar in a file.
        disable=not notes().is_terminal,
        transient=True,
    )
    with bar:
        task = bar.add_task("jobs", total=count, states="")
        async for found in client.watch_batch(batch_id):
            bar.update(task, total=found.count, completed=found.ended, states=counts(found.status))
    return found


def summary(batch: Batch, *, as_json: bool) -> int:
    """Print what became of a batch; returns the exit code that says so."""
    if as_json:
        print_json(batch.document)
    else:
        print_fields(batch_fields(batch.document))
    return 0 if batch.status.get(JobStatus.DONE) == batch.count else 1
