"""How times, durations, numbers and JSON are written on pages."""

import re

import msgspec
from markupsafe import Markup, escape

from relay.core.wire import iso

#: JSON that is shown at most; longer is cut, and can be downloaded.
_SHOWN_CHARACTERS = 64 * 1024
#: Larger JSON is not laid out, which would take too long.
_LAID_OUT_BYTES = 1024 * 1024
#: A string, and whether it is a name; a number or a word. A string that was cut goes to the end of the text: if it were
#: no token, each quote in it would be tried as the beginning of one, in time that grows with the square of its length.
_TOKEN = re.compile(
    r'(?P<text>"(?:[^"\\]|\\.)*(?:"|\\?\Z))(?P<colon>(?=\s*:))?|(?P<word>-?\b\d[\d.eE+-]*|\b(?:true|false|null)\b)',
    re.DOTALL,
)
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def moment(ms: int | None, form: str = "moment") -> Markup:
    """A time in UTC, which a script writes in the reader's own zone.

    `form` says how: `moment`, `minute`, `day`, or `relative` for the distance from now.
    """
    if ms is None:
        return Markup('<span class="none">—</span>')
    stamp = iso(ms) or ""
    text = f"{stamp[:10]} {stamp[11:19]} UTC"
    if form == "minute":
        text = stamp[11:16]
    elif form == "day":
        text = stamp[:10]
    return Markup('<time datetime="{}" data-form="{}">{}</time>').format(stamp, form, text)


def duration(ms: float | None) -> str:
    """A span of time with two units at most: `850 ms`, `12.3 s`, `4 min 10 s`, `3 d 2 h`."""
    if ms is None:
        return "—"
    if ms < 1_000:
        return f"{ms:.0f} ms"
    if ms < 60_000:
        return f"{ms / 1000:.1f} s".replace(".0 ", " ")
    left_s = round(ms / 1000)
    parts = []
    for size, unit in _UNITS:
        if left_s >= size:
            parts.append(f"{left_s // size} {unit}")
            left_s %= size
        elif parts:
            break
    return " ".join(parts[:2])


def number(value: float) -> str:
    """A number with separators, and decimals only where it has them."""
    return f"{value:,.2f}".rstrip("0").rstrip(".") if value % 1 else f"{value:,.0f}"


def size(count: int) -> str:
    """A number of bytes."""
    if count < 1_000:
        return f"{count} B"
    return f"{count / 1_000:,.1f} kB" if count < 1_000_000 else f"{count / 1_000_000:,.1f} MB"


def excerpt(text: str, length: int = 90) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text[: length * 2].split())
    return line if len(line) <= length and len(text) <= length * 2 else line[: length - 1].rstrip() + "…"


def words(name: str) -> str:
    """A status or an outcome as people write it."""
    return name.replace("_", " ")


def pretty(document: object) -> str:
    """JSON laid out for reading; bytes are taken for JSON already. At most 64 Ki characters, then `…`."""
    raw = document if isinstance(document, bytes) else msgspec.json.encode(document)
    if len(raw) <= _LAID_OUT_BYTES:
        raw = msgspec.json.format(raw, indent=2)
    text = raw[: _SHOWN_CHARACTERS * 4].decode(errors="ignore")
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "\n…"


def coloured(text: str) -> Markup:
    """JSON text with its names, strings and words marked, for the style sheet."""
    parts: list[Markup] = []
    end = 0
    for found in _TOKEN.finditer(text):
        kind = "key" if found["colon"] is not None else "str" if found["text"] is not None else "lit"
        shown = found["text"] or found["word"]
        parts += (escape(text[end : found.start()]), Markup('<i class="{}">{}</i>').format(kind, shown))
        end = found.start() + len(shown)
    return Markup("").join([*parts, escape(text[end:])])


def is_cut(raw: bytes) -> bool:
    """Whether `pretty` shows only the beginning."""
    return pretty(raw).endswith("\n…")


def plural(count: int, thing: str, things: str | None = None) -> str:
    """A count with its noun."""
    return f"{number(count)} {thing if count == 1 else things or thing + 's'}"


def breakable(text: str) -> Markup:
    """A long name that may be broken after its dots, slashes and colons."""
    marked = str(escape(text))
    for sign in "./:":
        marked = marked.replace(sign, f"{sign}<wbr>")
    return Markup(marked)  # noqa: S704 - escaped above
