"""Files of prompts and options with values, as `batch` and `submit` read them."""

from typing import Any

import pytest

from relay.cli.inputs import FileFormat, InputError, Row, format_of, parse_object, parse_pairs, read_rows


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("prompts.txt", FileFormat.TXT),
        ("a.b/PROMPTS.CSV", FileFormat.CSV),
        ("prompts.tsv", FileFormat.CSV),
        ("jobs.jsonl", FileFormat.JSONL),
        ("jobs.ndjson", FileFormat.JSONL),
    ],
)
def test_the_name_tells_the_format(name: str, form: FileFormat) -> None:
    """The suffix counts, in any case."""
    assert format_of(name) is form


def test_a_name_that_tells_nothing_is_refused() -> None:
    """The message names the option that helps."""
    with pytest.raises(InputError, match="--format"):
        format_of("prompts")


def test_txt_has_one_prompt_a_line_as_it_is() -> None:
    """Blank lines are passed over, and nothing of a prompt is trimmed but its line end."""
    data = "\ufefffirst\r\n\n   \n  second \u2028 still second\t\nlast".encode()
    assert read_rows(data, FileFormat.TXT, "p.txt") == [
        Row(1, {"prompt": "first"}),
        Row(4, {"prompt": "  second \u2028 still second\t"}),
        Row(5, {"prompt": "last"}),
    ]


def test_csv_columns_become_fields_of_the_right_type() -> None:
    """Numbers, booleans, objects and lists are those of the API; empty cells leave a field out."""
    data = (
        b"prompt,scraper,timeout,deadline,bypass_cache,coalesce,metadata.row,params.mode,callback_events,country\n"
        b'"a, b\nc",grok,30,90.5,yes,no,1,MODEL_MODE_FAST,job.completed job.failed,\n'
        b"d,,,,,,,,,DE\n"
    )
    first: dict[str, Any] = {
        "prompt": "a, b\nc",
        "scraper": "grok",
        "timeout": 30,
        "deadline": 90.5,
        "bypass_cache": True,
        "coalesce": False,
        "metadata": {"row": "1"},
        "params": {"mode": "MODEL_MODE_FAST"},
        "callback_events": ["job.completed", "job.failed"],
    }
    assert read_rows(data, FileFormat.CSV, "p.csv") == [Row(2, first), Row(4, {"prompt": "d", "country": "DE"})]


@pytest.mark.parametrize("header", ["metadata.b,metadata", "metadata,metadata.b"])
def test_csv_members_join_the_object_of_their_row(header: str) -> None:
    """`metadata` and `metadata.NAME` may stand side by side, in either order."""
    cells = {"metadata": '"{""a"": 1}"', "metadata.b": "2"}
    data = f"prompt,{header}\nx,{','.join(cells[name] for name in header.split(','))}\n".encode()
    assert read_rows(data, FileFormat.CSV, "p.csv") == [Row(2, {"prompt": "x", "metadata": {"a": 1, "b": "2"}})]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_delimiters_are_those_of_spreadsheets(delimiter: str) -> None:
    """Whichever of them the header has is meant."""
    data = f"scraper{delimiter}prompt\r\ngrok{delimiter}x\r\n".encode()
    assert read_rows(data, FileFormat.CSV, "p.csv") == [Row(2, {"scraper": "grok", "prompt": "x"})]


def test_jsonl_lines_are_jobs_as_they_are() -> None:
    """Nothing is checked here that the relay checks: unknown fields and all go through."""
    data = b'{"prompt": "x", "timeout": 30}\n\n{"anything": null}\n'
    assert read_rows(data, FileFormat.JSONL, "p.jsonl") == [
        Row(1, {"prompt": "x", "timeout": 30}),
        Row(3, {"anything": None}),
    ]


@pytest.mark.parametrize(
    ("form", "data", "message"),
    [
        (FileFormat.TXT, b"a\n\xff\n", "line 2: not UTF-8"),
        (FileFormat.TXT, b"\n  \n", "no prompt"),
        (FileFormat.CSV, b"", "no prompt"),
        (FileFormat.CSV, b"question\nx\n", "column `prompt`"),
        (FileFormat.CSV, b"prompt,colour\nx,red\n", "unknown column colour"),
        (FileFormat.CSV, b"prompt,\nx,y\n", r"unknown column \(without a name\)"),
        (FileFormat.CSV, b"prompt,prompt\nx,y\n", "there twice"),
        (FileFormat.CSV, b"prompt,timeout\nx,soon\n", "line 2, timeout: 'soon' is not a number"),
        (FileFormat.CSV, b"prompt,timeout\nx,inf\n", "not a number"),
        (FileFormat.CSV, b"prompt,bypass_cache\nx,maybe\n", "neither true nor false"),
        (FileFormat.CSV, b"prompt,scraper\nx,grok\none, two,grok\n", "line 3: 3 cells, but 2 columns"),
        (FileFormat.CSV, b'prompt\n"x', "line 2"),
        (FileFormat.CSV, b"prompt,metadata\nx,[]\n", "metadata: not a JSON object"),
        (FileFormat.JSONL, b'{"prompt": "x"}\n{"prompt":\n', "line 2: not JSON"),
        (FileFormat.JSONL, b"[]\n", "line 1: not a JSON object"),
        (FileFormat.JSONL, b'{"timeout": NaN}\n', "NaN"),
        (FileFormat.JSONL, b'{"a": 1, "a": 2}\n', "twice"),
        (FileFormat.JSONL, b"[" * 100_000, "nested too deeply"),
        (FileFormat.JSONL, b'{"a": ' + b"9" * 5_000 + b"}", "not JSON"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place(form: FileFormat, data: bytes, message: str) -> None:
    """One line that says which line of which file is wrong, and how."""
    with pytest.raises(InputError, match=message) as caught:
        read_rows(data, form, "the-file")
    assert "the-file" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pairs_become_an_object() -> None:
    """The first separator counts, so that a value may hold it too."""
    assert parse_pairs(["mode=a=b", "empty="], "--param", "=") == {"mode": "a=b", "empty": ""}
    assert parse_pairs(["X-Token: a:b"], "--callback-header", ":") == {"X-Token": "a:b"}


@pytest.mark.parametrize("pairs", [["secret"], ["=secret"], ["a=1", "a=secret"]])
def test_a_wrong_pair_is_refused_without_its_value(pairs: list[str]) -> None:
    """Values may be secret, so the message holds none."""
    with pytest.raises(InputError, match="--param") as caught:
        parse_pairs(pairs, "--param", "=")
    assert "secret" not in str(caught.value)


def test_an_object_must_be_one() -> None:
    """A list is valid JSON and no object."""
    assert parse_object('{"a": [1]}', "--metadata") == {"a": [1]}
    with pytest.raises(InputError, match="--metadata: not a JSON object"):
        parse_object("[1]", "--metadata")
