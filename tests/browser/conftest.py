"""A real Chromium, driven by Playwright, and a `dev` system whose dashboard it looks at."""

import os
import re
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, sync_playwright

from tests.browser.site import Site
from tests.dev_process import Running

_LOGIN = re.compile(r"http://\S+/dashboard/login\?\S+")
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: The browser does nothing by itself: whatever it asks for is the dashboard's doing.
_ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)


@pytest.fixture(name="chromium", scope="module")
def fixture_chromium() -> Iterator[Browser]:
    """The browser. Without one the tests are skipped, and fail where CI is set: there it must be."""
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        why = "no Chromium: `make test` installs Debian's as root; or install one, or name one in CHROMIUM"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(name="site", scope="module")
def fixture_site(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A running `dev`, with an upstream that is quick."""
    folder = tmp_path_factory.mktemp("dev")
    ports = [option for name in ("--port", "--inbox-port", "--emulator-port") for option in (name, "0")]
    dev = Running(
        ["dev", *ports, "--fast"], folder, {"RELAY_CALLBACK_SCHEDULE": "0,1,3600", "EMULATOR_FAILURE_RATE": "0"}
    )
    try:
        said = dev.start().wait_for("Ctrl-C")
        yield Site(dev.announced(), _LOGIN.findall(said)[0])
    finally:
        dev.stop()
        dev.bury()


@pytest.fixture(name="context")
def fixture_context(chromium: Browser, site: Site) -> Iterator[BrowserContext]:
    """A browser of nobody yet, on a desk. Nothing that it does may go elsewhere, or end in an error."""
    context = chromium.new_context(base_url=site.url, viewport={"width": 1280, "height": 860}, locale="en-GB")
    troubles: list[str] = []

    def asked(request: Request) -> None:
        if not request.url.startswith((site.url, "data:", "blob:")):
            troubles.append(f"asked for {request.url}")

    def said(message: ConsoleMessage) -> None:
        # What is refused on purpose is told to the console, too.
        if message.type == "error" and "Failed to load resource" not in message.text:
            troubles.append(f"said {message.text}")

    context.on("request", asked)
    context.on("console", said)
    context.on("weberror", lambda error: troubles.append(f"raised {error.error}"))
    yield context
    context.close()
    assert troubles == []


@pytest.fixture(name="stranger")
def fixture_stranger(context: BrowserContext) -> Page:
    """A page of somebody who has not logged in."""
    return context.new_page()


@pytest.fixture(name="page")
def fixture_page(stranger: Page, site: Site) -> Page:
    """A page of the client, logged in."""
    stranger.goto(site.login_url)
    return stranger
