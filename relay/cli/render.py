"""What commands print. Alone knows terminals: colours and tables there, plain lines where a program reads.

What comes from outside (prompts, results, responses) may hold control characters, which never reach the terminal.
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from relay.dev.inbox import Received

_STYLES = {
    **dict.fromkeys(("done", "delivered", "job.completed", "batch.completed"), "green"),
    **dict.fromkeys(("failed", "timed_out", "exhausted", "gone", "job.failed", "job.timed_out"), "red"),
    **dict.fromkeys(("pending", "retrying", "failing"), "yellow"),
    **dict.fromkeys(("unresponsive", "paused"), "red"),
    "healthy": "green",
    **dict.fromkeys(("queued", "waiting", "skipped", "cancelled"), "bright_black"),
}
_EXCERPT = 60
_INSTEAD = "\N{REPLACEMENT CHARACTER}"
#: C0, DEL and C1, but for tab and line feed; and what reorders the text around it.
_CONTROL = {
    **{code: _INSTEAD for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in (9, 10)},
    **dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xD800, 0xE000)), _INSTEAD),
}


def output() -> Console:
    """Standard output. Not wrapped: a line stays one line, on a terminal and in a pipe."""
    return Console(highlight=False, soft_wrap=True)


def notes() -> Console:
    """Standard error, for what is said beside the output."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def clean(text: str) -> str:
    """`text` without characters that would steer a terminal."""
    return text.translate(_CONTROL)


def excerpt(text: str, length: int = _EXCERPT) -> str:
    """The beginning of `text` in one line."""
    line = " ".join(clean(text[: length * 4]).split())
    return line if len(line) <= length else line[: length - 1] + "…"


def styled(word: str) -> Text:
    """A status or an event in its colour."""
    return Text(clean(word), style=_STYLES.get(word, ""))


def print_json(document: object) -> None:
    """Print JSON: to be read on a terminal, on one line elsewhere."""
    text = json.dumps(document, ensure_ascii=not _takes_unicode(), indent=2 if sys.stdout.isatty() else None)
    sys.stdout.write(text.translate({code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), *range(0xD800, 0xE000))}))
    sys.stdout.write("\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, giving_way: int = 1) -> None:
    """Print a table; where a program reads, lines with tabs between the cells, uncut.

    On a narrow terminal the last `giving_way` columns are cut, and ids and states are not.
    """
    console = output()
    if not console.is_terminal:
        for row in (columns, *rows):
            print_row(row)
        return
    console.print(table(columns, rows, giving_way=giving_way), soft_wrap=False)


def print_row(cells: Sequence[str]) -> None:
    """Print a line with tabs between the cells, for a program."""
    sys.stdout.write("\t".join(" ".join(clean(cell).split()) for cell in cells) + "\n")
    sys.stdout.flush()


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, giving_way: int = 1, caption: str | None = None
) -> Table:
    """A table for a terminal, which cuts the last `giving_way` columns where it is narrow."""
    made = Table(box=None, pad_edge=False, header_style="bold", caption=caption, caption_justify="left")
    for number, column in enumerate(columns, 1):
        made.add_column(column, no_wrap=number <= len(columns) - giving_way)
    for row in rows:
        cells = [styled(cell) for cell in row]
        for cell in cells:
            cell.no_wrap, cell.overflow = True, "ellipsis"
        made.add_row(*cells)
    return made


def print_fields(fields: Mapping[str, str]) -> None:
    """Print names and values, one a line."""
    output().print(fields_text(fields))


def fields_text(fields: Mapping[str, str]) -> Text:
    """Names and values, one a line."""
    width = max(map(len, fields), default=0)
    lines = [Text.assemble((f"{name:<{width}}  ", "bold"), styled(value)) for name, value in fields.items()]
    return Text("\n").join(lines)


def job_fields(job: Mapping[str, Any]) -> dict[str, str]:
    """What a person wants to know of one job."""
    delivery = job.get("delivery") or {}
    fields = {
        "job": str(job.get("id", "")),
        "status": str(job.get("status", "")),
        "scraper": f"{job.get('scraper', '')} ({job.get('country', '')})",
        "prompt": excerpt(str(job.get("prompt", "")), 200),
        "batch": str(job.get("batch_id") or ""),
        "created": str(job.get("created_at") or ""),
        "deadline": str(job.get("deadline_at") or ""),
        "completed": str(job.get("completed_at") or ""),
        "error": said(job),
        "callback": str(delivery.get("callback_url", "")),
        "delivery": str(delivery.get("status", "")),
        "attempts": str(delivery.get("attempts", "")),
        "next attempt": str(delivery.get("next_attempt_at") or ""),
        "delivered": str(delivery.get("delivered_at") or ""),
        "result": excerpt(result_text(job), 200),
    }
    return {name: value for name, value in fields.items() if value}


def batch_fields(batch: Mapping[str, Any]) -> dict[str, str]:
    """What a person wants to know of one batch."""
    fields = {
        "batch": str(batch.get("id", "")),
        "jobs": str(batch.get("count", "")),
        "status": counts(batch.get("status")),
        "delivery": counts(batch.get("delivery")),
        "created": str(batch.get("created_at") or ""),
        "completed": str(batch.get("completed_at") or ""),
    }
    return {name: value for name, value in fields.items() if value}


def attempt_row(attempt: Mapping[str, Any]) -> list[str]:
    """One attempt as a row of ATTEMPT_COLUMNS."""
    said_back = attempt.get("response_excerpt") or attempt.get("error") or ""
    return [
        str(attempt.get("number", "")),
        str(attempt.get("started_at", "")),
        f"{attempt.get('duration_ms', '')} ms",
        str(attempt.get("outcome", "")),
        str(attempt.get("http_status") or ""),
        excerpt(str(said_back)),
    ]


ATTEMPT_COLUMNS = ("attempt", "started", "took", "outcome", "http", "response")
JOB_COLUMNS = ("job", "status", "delivery", "attempts", "scraper", "created", "prompt")


def job_row(job: Mapping[str, Any]) -> list[str]:
    """One job as a row of JOB_COLUMNS."""
    delivery = job.get("delivery") or {}
    return [
        str(job.get("id", "")),
        str(job.get("status", "")),
        str(delivery.get("status", "")),
        str(delivery.get("attempts", "")),
        str(job.get("scraper", "")),
        str(job.get("created_at", "")),
        excerpt(str(job.get("prompt", ""))),
    ]


DESTINATION_COLUMNS = ("destination", "state", "failures", "failing since", "next try", "waiting")


def destination_row(destination: Mapping[str, Any]) -> list[str]:
    """One destination as a row of DESTINATION_COLUMNS."""
    return [
        str(destination.get("destination", "")),
        str(destination.get("state", "")),
        str(destination.get("failures", "")),
        str(destination.get("failing_since") or ""),
        str(destination.get("next_try_at") or ""),
        str(destination.get("waiting", "")),
    ]


def counts(numbers: object) -> str:
    """How many stand how, without those that are none."""
    if not isinstance(numbers, Mapping):
        return ""
    return ", ".join(f"{number} {name}" for name, number in numbers.items() if number)


def said(job: Mapping[str, Any]) -> str:
    """Why a job ended without a result; empty where it did not."""
    error = job.get("error")
    return clean(f"{error.get('code')}: {error.get('message')}") if isinstance(error, Mapping) else ""


def result_text(job: Mapping[str, Any]) -> str:
    """The text of a job's result; the whole of it as JSON where it has no text."""
    result = job.get("result")
    if not isinstance(result, Mapping):
        return ""
    for name in ("result", "result_markdown"):
        if isinstance(result.get(name), str):
            return str(result[name])
    return json.dumps(result, ensure_ascii=False)


def callback_line(received: Received) -> Text:
    """One callback as it came: when, whether its signature is good, what it announces, how long after acceptance."""
    data = received.body.get("data")
    data = data if isinstance(data, Mapping) else {}
    line = _beginning(received)
    line.append_text(_padded(str(data.get("scraper") or ("batch" if received.event == "batch.completed" else "")), 15))
    status = data.get("status")
    line.append_text(_padded(status if isinstance(status, str) else "", 10))
    line.append(f"{_age(data.get('created_at'), received.received_ms):>7}  ")
    if received.attempt > 1:
        line.append(f"attempt {received.attempt}  ", style="yellow")
    line.append(_gist(received, data))
    return line


def answered_line(received: Received, status: int, took_ms: float) -> Text:
    """One callback and its answer: when, whether its signature is good, the event, the id, the status and its time."""
    data = received.body.get("data")
    subject = data.get("id") if isinstance(data, Mapping) else None
    line = _beginning(received)
    line.append(f"{excerpt(str(subject or '(no id)')):<30}  ")
    line.append(f"→ {status}", style="green" if 200 <= status < 300 else "bold red")
    line.append(f" in {took_ms:.0f} ms", style="bright_black")
    if received.attempt > 1:
        line.append(f"  attempt {received.attempt}", style="yellow")
    if received.repeated:
        line.append("  (came before)", style="yellow")
    if not received.verified:
        line.append(f"  {excerpt(received.reason)}", style="red")
    return line


def print_callback(received: Received) -> None:
    """Print one callback."""
    print_line(callback_line(received))


def print_line(line: Text) -> None:
    """Print a line, on a terminal cut to its width; uncut where a program reads."""
    console = output()
    if console.is_terminal:
        line.truncate(console.width, overflow="ellipsis")
    console.print(line)


def callback_document(received: Received) -> dict[str, object]:
    """One callback as JSON."""
    return {
        "webhook_id": received.webhook_id,
        "type": received.event,
        "verified": received.verified,
        "reason": received.reason,
        "attempt": received.attempt,
        "repeated": received.repeated,
        "received_ms": received.received_ms,
        "path": received.path,
        "body": received.body,
    }


def _beginning(received: Received) -> Text:
    line = Text()
    line.append(time.strftime("%H:%M:%S ", time.localtime(received.received_ms / 1000)), style="bright_black")
    line.append(
        "✓ verified  " if received.verified else "✗ UNVERIFIED  ", style="green" if received.verified else "bold red"
    )
    line.append_text(_padded(received.event or "(no event)", 16))
    return line


def _gist(received: Received, data: Mapping[str, Any]) -> str:
    if not received.verified:
        return f"{excerpt(received.reason)} {excerpt(str(data.get('id', '')))}".strip()
    if data.get("result_url"):
        return "(thin: the result is at its result_url)"
    if received.event == "batch.completed":
        return counts(data.get("status"))
    gist = said(data) or result_text(data)
    return excerpt(gist)


def _padded(word: str, width: int) -> Text:
    text = styled(excerpt(word))
    text.append(" " * (width - len(text)) + " ")
    return text


def _age(created_at: object, now_ms: int) -> str:
    try:
        created_s = datetime.fromisoformat(str(created_at)).timestamp()
    except ValueError:
        return ""
    return f"{max(0.0, now_ms / 1000 - created_s):.1f} s"


def _takes_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") in ("utf8", "utf8sig")
