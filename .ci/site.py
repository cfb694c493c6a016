"""What mkdocs does beyond its own: hooks of the documentation site. Alone knows how the repository becomes a site.

- The reference of the HTTP interface is made from the OpenAPI document that the relay serves.
- Files outside docs/ that a page links to (the changelog, examples and their code) are pages of the site as well, so
  that each link works here and in the repository.
- Pictures are put into their pages, where they take the page's colours.
"""

import json
import posixpath
import re
from pathlib import Path
from typing import Any

from api_pages import pages as api_pages
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

from relay.api.openapi import build
from relay.core.settings import Settings

ROOT = Path(__file__).parents[1]
#: Where in the site the repository's other files are.
PROJECT = "project"

_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)(?P<path>[^)\s#]+)(?=[)#])")
_PICTURE = re.compile(r"^!\[(?P<text>[^\]]+)\]\((?P<path>[^)\s]+\.svg)\)$", re.MULTILINE)
_NAMED = re.compile(r"\[[\w./-]+\.md\](?=\((?P<path>[^)\s#]+))")
_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
_FENCE = "~~~~~~"
_LANGUAGES = {".mjs": "js", ".py": "python", ".sh": "bash", ".toml": "toml", ".yaml": "yaml"}


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add what is generated, and what the pages link to outside of docs/."""
    document = build(Settings.model_construct())
    files.append(File.generated(config, "openapi.json", content=json.dumps(document, indent=2, ensure_ascii=False)))
    for name, text in api_pages(document).items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    waiting = [path for file in files.documentation_pages() if (path := repository_path(file.src_uri))]
    while waiting:
        path = waiting.pop()
        if not path.startswith("docs/"):
            place = site_path(path)
            if files.get_file_from_path(place) is not None:
                continue
            files.append(File.generated(config, place, content=_as_page(path), inclusion=InclusionLevel.NOT_IN_NAV))
        if path.endswith(".md"):
            waiting += [target for target in _targets(path) if not target.startswith("docs/")]


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Turn links between files of the repository into links between pages of the site, and put pictures in.

    A link that is called after its file is called by the title of the page.
    """
    path = repository_path(page.file.src_uri)
    if path is None or not path.endswith(".md"):
        return markdown

    def moved(match: re.Match[str]) -> str:
        target = _resolved(path, match["path"])
        if target is None:
            return match["path"]
        return posixpath.relpath(site_path(target), posixpath.dirname(page.file.src_uri) or ".")

    def named(match: re.Match[str]) -> str:
        target = _resolved(path, match["path"])
        title = target and _TITLE.search((ROOT / target).read_text())
        return f"[{title[1]}]" if title else match[0]

    markdown = _PICTURE.sub(lambda match: _picture((ROOT / path).parent / match["path"], match["text"]), markdown)
    return _LINK.sub(moved, _NAMED.sub(named, markdown))


def repository_path(page: str) -> str | None:
    """The file of the repository that a page of the site is made of; None where it is generated."""
    if page.startswith("reference/"):
        return None
    if page.startswith(f"{PROJECT}/"):
        path = page.removeprefix(f"{PROJECT}/")
        return path if (ROOT / path).is_file() else path.removesuffix(".md")
    return f"docs/{page}"


def site_path(path: str) -> str:
    """The page of the site that a file of the repository becomes."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"{PROJECT}/{path}" if path.endswith(".md") else f"{PROJECT}/{path}.md"


def _resolved(path: str, link: str) -> str | None:
    """The file that a link in `path` leads to; None where there is none, of which mkdocs will say so."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
    if (ROOT / target).is_dir():
        target += "/README.md"
    return target if (ROOT / target).is_file() else None


def _targets(path: str) -> list[str]:
    found = (_resolved(path, match["path"]) for match in _LINK.finditer((ROOT / path).read_text()))
    return [target for target in found if target is not None]


def _as_page(path: str) -> str:
    text = (ROOT / path).read_text()
    if path.endswith(".md"):
        return text
    language = _LANGUAGES.get(Path(path).suffix, "text")
    return f"# {path}\n\n{_FENCE}{language}\n{text.rstrip()}\n{_FENCE}\n"


def _picture(path: Path, text: str) -> str:
    svg = path.read_text().strip().replace("<svg", f'<svg role="img" aria-label="{text}"', 1)
    return f"<figure>\n{svg}\n</figure>"  # Markdown leaves alone what is in a block of HTML.
