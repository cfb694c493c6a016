"""What commands print: lines for people and for programs, and nothing that steers a terminal."""

import json
from typing import Any

import pytest
from rich.text import Text

from relay.cli.render import callback_line, clean, counts, excerpt, print_json, print_table, result_text, said
from relay.dev.inbox import Received


def received(body: dict[str, Any], **changes: Any) -> Received:
    """A callback that came a second after its job was accepted."""
    fields: dict[str, Any] = {
        "webhook_id": "msg_1",
        "event": str(body.get("type", "")),
        "body": body,
        "raw": b"",
        "verified": True,
        "reason": "",
        "attempt": 1,
        "received_ms": 1_767_225_601_000,
        "path": "/hook",
        "content_type": "application/json",
        "repeated": False,
    }
    return Received(**fields | changes)


def job(**fields: Any) -> dict[str, Any]:
    """The body of a callback about a job."""
    data = {"id": "job_1", "scraper": "grok", "status": "done", "created_at": "2026-01-01T00:00:00.000Z"} | fields
    return {"type": "job.completed", "data": data}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2Jgone", "\ufffd[2Jgone"),
        ("\x9b2J", "\ufffd2J"),
        ("a\rb\x07\x08", "a\ufffdb\ufffd\ufffd"),
        ("right \u202eot left", "right \ufffdot left"),
        ("two\nlines\tkept", "two\nlines\tkept"),
        ("émoji 🎉", "émoji 🎉"),
    ],
)
def test_nothing_that_steers_a_terminal_gets_through(text: str, shown: str) -> None:
    """Prompts and results are other people's: their control characters are shown, not obeyed."""
    assert clean(text) == shown


def test_an_excerpt_is_one_short_line() -> None:
    """Line ends become spaces, and what is too long ends in an ellipsis."""
    assert excerpt("a\n b\t c") == "a b c"
    assert excerpt("x" * 100, 10) == "x" * 9 + "…"


def test_a_callback_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """When, verified, event, scraper, status, time since acceptance, and what it is about."""
    line = callback_line(received(job(result={"result": "Because\nof Rayleigh."})))
    assert isinstance(line, Text)
    words = line.plain.split()
    assert words[1:] == ["✓", "verified", "job.completed", "grok", "done", "1.0", "s", "Because", "of", "Rayleigh."]


@pytest.mark.parametrize(
    ("callback", "shown"),
    [
        (received(job(), verified=False, reason="No matching signature found"), "✗ UNVERIFIED"),
        (received(job(), verified=False, reason="No matching signature found"), "No matching signature found"),
        (received(job(), attempt=3), "attempt 3"),
        (received(job(result=None, result_url="https://x.example/token")), "thin"),
        (received(job(status="failed", error={"code": "upstream_failed", "message": "no"})), "upstream_failed: no"),
        (received({"type": "batch.completed", "data": {"status": {"done": 3, "failed": 0}}}), "3 done"),
        (received({}), "(no event)"),
        (received({"type": "x", "data": [1]}), "x"),
        (received({"type": 7, "data": {"created_at": "?", "status": []}}), "7"),
    ],
)
def test_a_callback_of_any_kind_is_shown(callback: Received, shown: str) -> None:
    """Whatever somebody posts to the inbox is shown in one line, and never an error."""
    line = callback_line(callback).plain
    assert shown in line
    assert "\n" not in line


def test_the_link_to_a_result_is_not_printed() -> None:
    """Whoever has the link can read the result."""
    assert "token" not in callback_line(received(job(result_url="https://x.example/token"))).plain


def test_a_table_in_a_pipe_has_tabs_and_whole_cells(capsys: pytest.CaptureFixture[str]) -> None:
    """A program gets a header and one line a row, uncut, whatever is in the cells."""
    print_table(("id", "prompt"), [["job_1", "x" * 300], ["job_2", "a\tb\nc\x1b"]])
    assert capsys.readouterr().out == f"id\tprompt\njob_1\t{'x' * 300}\njob_2\ta b c\ufffd\n"


def test_json_in_a_pipe_is_one_line_that_steers_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Every character survives, and those that a terminal would obey are escaped."""
    document = {"text": "é\x1b\x7f\x9b\ud800\n"}
    print_json(document)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == document
    assert out.rstrip("\n").isprintable()


def test_small_words() -> None:
    """Counts leave out what is none; a result's text is its text, or all of it as JSON."""
    assert counts({"done": 2, "failed": 0, "queued": 1}) == "2 done, 1 queued"
    assert counts(None) == ""
    assert said({"error": None}) == ""
    assert result_text({"result": {"result": "text", "links": []}}) == "text"
    assert result_text({"result": {"result_markdown": "# text"}}) == "# text"
    assert result_text({"result": {"links": []}}) == '{"links": []}'
    assert result_text({"result": None}) == ""


def test_a_table_on_a_narrow_terminal_keeps_ids_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eighty columns cut the prompt, never what one would copy."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    job_id = "job_01m84rtt5vdr543cdy5g3pgsrp"
    print_table(("job", "status", "prompt"), [[job_id, "done", "x" * 300]])
    out = capsys.readouterr().out
    assert job_id in out
    assert "…" in out
    assert out.count("\n") == 2
