"""Every page in every form: for screen readers, dark and light, on a phone, and without JavaScript."""

from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.browser.site import Site

pytestmark = [pytest.mark.acceptance]

_RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


@pytest.fixture(name="paths", scope="module")
def fixture_paths(site: Site) -> list[str]:
    """All pages, with something on each."""
    bad = site.submit("It fails twice [latency=1]", callback_url=site.inbox.replace("/hook", "/fail/503"))
    good = site.submit("What is <b>bold</b>?", metadata={"order": 17})
    batch = site.call(
        "POST",
        "/v1/batches",
        {"prompts": ["One", "[fail] Two"], "scrapers": ["chatgpt", "grok"], "callback_url": site.inbox},
    )
    site.settled(good["id"])
    site.settled(bad["id"], "retrying", "exhausted")
    return [
        *(
            "/dashboard",
            "/dashboard?range=30d",
            "/dashboard/jobs",
            "/dashboard/jobs?status=failed",
            "/dashboard/batches",
        ),
        *("/dashboard/jobs?q=nothing-of-the-kind", f"/dashboard/jobs/{good['id']}", f"/dashboard/jobs/{bad['id']}"),
        *(f"/dashboard/batches/{batch['id']}", "/dashboard/destinations", "/dashboard/account", "/dashboard/compose"),
        *("/dashboard/inbox", "/dashboard/jobs/job_unknown"),
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_accessible(page: Page, paths: list[str], scheme: str) -> None:
    """axe-core finds nothing against WCAG 2.2 AA or its own advice, in either colour."""
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce")
    axe = Axe()
    found: dict[str, list[str]] = {}
    for path in [*paths, "/dashboard/login"]:
        page.goto(path)
        if path in ("/dashboard", "/dashboard/jobs"):
            expect(page.get_by_role("button", name="Live updates")).to_be_visible()
        violations = axe.run(page, options=_RULES).response["violations"]
        if violations:
            found[path] = [f"{v['id']}: {[node['html'][:120] for node in v['nodes']][:3]}" for v in violations]
    assert found == {}


def test_a_theme_is_remembered(page: Page) -> None:
    """What was chosen stays after a reload, whatever the system says."""
    page.emulate_media(color_scheme="light")
    page.goto("/dashboard/account")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Dark or light").click()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark != light
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark


def test_it_fits_a_phone(page: Page, paths: list[str]) -> None:
    """No page is wider than the screen, and its navigation can be reached."""
    page.set_viewport_size({"width": 390, "height": 844})
    for path in paths:
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
    page.goto("/dashboard")
    page.get_by_role("navigation", name="Dashboard").get_by_role("link", name="Jobs").click()
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()


@pytest.fixture(name="plain")
def fixture_plain(chromium: Browser, site: Site) -> Iterator[Page]:
    """A logged-in page in which no script runs."""
    context = chromium.new_context(base_url=site.url, java_script_enabled=False)
    page = context.new_page()
    page.goto(site.login_url)
    yield page
    context.close()


def test_it_works_without_scripts(plain: Page, paths: list[str], site: Site) -> None:
    """Every page reads, filters filter, and buttons do what they say."""
    for path in paths:
        plain.goto(path)
        expect(plain.get_by_role("heading").first).to_be_visible()
        assert "Connecting" not in plain.locator("main").inner_text()
    job = site.submit("No scripts")
    site.settled(job["id"])
    plain.goto("/dashboard/jobs")
    plain.get_by_role("searchbox", name="Search").fill("No scripts")
    plain.get_by_role("button", name="Search").click()
    plain.locator(f'tr[data-job="{job["id"]}"] a').click()
    plain.get_by_role("button", name="Redeliver").click()
    site.settled(job["id"])
    plain.reload()
    expect(plain.locator("#timeline")).to_contain_text("Attempt 2")
