"""The documentation site, as it is built and as a reader without a network has it."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import sync_playwright

from tests.acceptance.npm import need

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
MKDOCS = ROOT / ".venv-docs" / "bin" / "mkdocs"


@dataclass
class Page(HTMLParser):
    """What a page links to, what it loads, and what can be linked to in it."""

    path: Path
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value is not None}
        if "id" in given:
            self.ids.add(given["id"])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" or "src" in given:
            self.loads.append(given.get("href") or given["src"])


@pytest.fixture(name="site", scope="module")
def fixture_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does; skips where that has never been run, and fails there under CI=true."""
    if not MKDOCS.is_file():
        if os.environ.get("CI") == "true":
            pytest.fail("the site's tools are missing: run `make docs` before")
        pytest.skip("the site's tools are not installed; `make docs` does that")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(  # noqa: S603 - our own site
        [str(MKDOCS), "build", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.fixture(name="pages", scope="module")
def fixture_pages(site: Path) -> dict[Path, Page]:
    """Every page of the site."""
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def test_every_link_and_anchor_leads_somewhere(site: Path, pages: dict[Path, Page]) -> None:
    """A link within the site leads to a file of it, and one with an anchor to a place in it."""
    assert len(pages) > 30
    broken = [f"{page.path.relative_to(site)}: {link}" for page in pages.values() for link in _broken(page, pages)]
    assert broken == []


def _broken(page: Page, pages: dict[Path, Page]) -> Iterator[str]:
    if page.path.name == "404.html":
        return  # Its links start at the root of whatever serves the site.
    for link in [*page.links, *page.loads]:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
        if target.is_dir():
            target /= "index.html"
        anchored = pages.get(target)
        if not target.is_file() or (parts.fragment and anchored and unquote(parts.fragment) not in anchored.ids):
            yield link


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    """No page and no style sheet names a font, script, picture or frame of another host."""
    elsewhere = [load for page in pages.values() for load in page.loads if urlsplit(load).netloc]
    for sheet in site.rglob("*.css"):
        elsewhere += re.findall(r"url\(\s*['\"]?(?:https?:)?//[^)]+\)|@import[^;]+", sheet.read_text())
    assert elsewhere == []


def test_it_can_be_read_and_searched_as_files_without_a_network(site: Path) -> None:
    """Opened from the disk by a browser that is offline, it asks for nothing else, has no error, and finds words."""
    need("chromium")
    browser_path = shutil.which("chromium")
    asked: list[str] = []
    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_context(offline=True).new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((site / "index.html").as_uri())
        page.keyboard.press("/")
        page.keyboard.type("callback_url_refused")
        page.locator(".md-search-result__link").first.wait_for(timeout=20_000)
        found = page.locator(".md-search-result__link").first.get_attribute("href")
        browser.close()
    assert errors == []
    assert {urlsplit(url).scheme for url in asked} <= {"file", "data", "blob", "about"}
    assert found is not None
    assert found.startswith(site.as_uri())
