"""Files of prompts and options with values in them, read into what the API takes. Alone knows the files' formats.

What a prompt or a field may be is for the relay to judge; here it only becomes JSON, with the line that it came from.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePath
from typing import Any, NoReturn

#: A document as the API speaks it.
Document = dict[str, Any]


class InputError(Exception):
    """A file or an option cannot be read. The message is one line that names the place."""


class FileFormat(StrEnum):
    """How a file holds its prompts."""

    TXT = "txt"
    CSV = "csv"
    JSONL = "jsonl"


@dataclass(frozen=True, slots=True)
class Row:
    """The fields of one job, and the line of the file that they came from."""

    line: int
    fields: dict[str, Any]


_SUFFIXES = {
    ".txt": FileFormat.TXT,
    ".text": FileFormat.TXT,
    ".csv": FileFormat.CSV,
    ".tsv": FileFormat.CSV,
    ".jsonl": FileFormat.JSONL,
    ".ndjson": FileFormat.JSONL,
}
_DELIMITERS = ",;\t"
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def format_of(name: str) -> FileFormat:
    """The format that a file's name tells. Raises InputError."""
    found = _SUFFIXES.get(PurePath(name).suffix.lower())
    if found is None:
        raise InputError(f"{name}: cannot tell the format by the name; give --format txt, csv or jsonl")
    return found


def read_rows(data: bytes, form: FileFormat, name: str) -> list[Row]:
    """The jobs in `data`, in order; blank lines are none. Raises InputError, also where there is no job."""
    try:
        # Spreadsheets put a byte order mark in front.
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(f"{name}, line {line}: not UTF-8") from None
    readers: Mapping[FileFormat, Callable[[str, str], list[Row]]] = {
        FileFormat.TXT: _read_txt,
        FileFormat.CSV: _read_csv,
        FileFormat.JSONL: _read_jsonl,
    }
    rows = readers[form](text, name)
    if not rows:
        raise InputError(f"{name}: there is no prompt in it")
    return rows


def _lines(text: str) -> list[str]:
    # Not splitlines(): a prompt may hold other characters that count as line ends there.
    return [line.removesuffix("\r") for line in text.split("\n")]


def _read_txt(text: str, _name: str) -> list[Row]:
    # Prompts are never trimmed.
    return [Row(number, {"prompt": line}) for number, line in enumerate(_lines(text), 1) if line.strip()]


def _read_jsonl(text: str, name: str) -> list[Row]:
    rows = []
    for number, line in enumerate(_lines(text), 1):
        if not line.strip():
            continue
        document = parse_json(line, f"{name}, line {number}")
        if not isinstance(document, dict):
            raise InputError(f"{name}, line {number}: not a JSON object")
        rows.append(Row(number, document))
    return rows


def _read_csv(text: str, name: str) -> list[Row]:
    first = next((line for line in _lines(text) if line.strip()), "")
    delimiter = max(_DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[Row] = []
    columns: list[str] | None = None
    while True:
        # A quoted prompt may span lines, so a record's first line is the one after the last record's.
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{name}, line {number}: {error}") from error
        if cells is None:
            return rows
        if not any(cell.strip() for cell in cells):
            continue
        if columns is None:
            columns = _columns(cells, name)
            continue
        if len(cells) > len(columns):
            raise InputError(
                f"{name}, line {number}: {len(cells)} cells, but {len(columns)} columns; "
                "quote a prompt that has the delimiter in it"
            )
        rows.append(Row(number, _fields(dict(zip(columns, cells, strict=False)), f"{name}, line {number}")))


def _columns(cells: Sequence[str], name: str) -> list[str]:
    columns = [cell.strip() for cell in cells]
    if "prompt" not in columns:
        raise InputError(f"{name}: the first line must be a header with a column `prompt`")
    unknown = [c for c in columns if c not in _COLUMNS and not c.startswith(("params.", "metadata."))]
    if unknown:
        raise InputError(
            f"{name}: unknown column {unknown[0] or '(without a name)'}; columns are {', '.join(_COLUMNS)}, "
            "params.NAME and metadata.NAME"
        )
    twice = sorted({c for c in columns if columns.count(c) > 1})
    if twice:
        raise InputError(f"{name}: the column {twice[0]} is there twice")
    return columns


def _fields(cells: Mapping[str, str], place: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for column, cell in cells.items():
        # An empty cell leaves the field out, so that its default holds; not so the prompt, which has none.
        if not cell and column != "prompt":
            continue
        group, dot, member = column.partition(".")
        if dot:
            inner = fields.setdefault(group, {})
            if not isinstance(inner, dict):
                raise InputError(f"{place}: {group} is not an object, so {column} has no place in it")
            inner[member] = cell
            continue
        value = _COLUMNS[column](cell, f"{place}, {column}")
        if isinstance(value, dict) and isinstance(fields.get(column), dict):
            value = value | fields[column]
        fields[column] = value
    return fields


def _text(cell: str, _place: str) -> str:
    return cell


def _number(cell: str, place: str) -> int | float:
    try:
        value = float(cell)
    except ValueError:
        raise InputError(f"{place}: {cell!r} is not a number") from None
    if not math.isfinite(value):
        raise InputError(f"{place}: {cell!r} is not a number")
    return int(value) if value.is_integer() else value


def _boolean(cell: str, place: str) -> bool:
    value = _WORDS.get(cell.strip().lower())
    if value is None:
        raise InputError(f"{place}: {cell!r} is neither true nor false")
    return value


def _object(cell: str, place: str) -> dict[str, Any]:
    return parse_object(cell, place)


def _names(cell: str, _place: str) -> list[str]:
    return cell.replace(";", " ").replace(",", " ").split()


#: What a cell of each column becomes.
_COLUMNS: Mapping[str, Callable[[str, str], Any]] = {
    "prompt": _text,
    "scraper": _text,
    "country": _text,
    "timeout": _number,
    "deadline": _number,
    "bypass_cache": _boolean,
    "coalesce": _boolean,
    "params": _object,
    "metadata": _object,
    "callback_url": _text,
    "callback_events": _names,
    "callback_payload": _text,
    "callback_format": _text,
    "callback_headers": _object,
}


def parse_json(text: str, place: str) -> Any:
    """The JSON value in `text`. Raises InputError."""
    try:
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_unique)
    except RecursionError:
        raise InputError(f"{place}: nested too deeply") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{place}: not JSON: {error.msg} at column {error.colno}") from None
    except ValueError as error:
        raise InputError(f"{place}: not JSON: {error}") from None


def parse_object(text: str, place: str) -> dict[str, Any]:
    """The JSON object in `text`. Raises InputError."""
    value = parse_json(text, place)
    if not isinstance(value, dict):
        raise InputError(f"{place}: not a JSON object")
    return value


def parse_pairs(pairs: Sequence[str], option: str, separator: str) -> dict[str, str]:
    """`name=value` options, or whatever separates them, as an object. Raises InputError."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, given, value = pair.partition(separator)
        name = name.strip()
        if not given or not name:
            # Not quoted: a header's value is a secret.
            raise InputError(f"{option}: give it as NAME{separator}VALUE")
        if name in found:
            raise InputError(f"{option}: {name} is given twice")
        found[name] = value.strip() if separator == ":" else value
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a name is there twice in one object")
    return document
