"""Pictures of every page, for whoever wants to look at them: `make screenshots`."""

import os
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.site import Site

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.skipif("SCREENSHOTS" not in os.environ, reason="pictures are taken by `make screenshots`"),
    pytest.mark.timeout(300),
]

_QUESTIONS = (
    "Which running shoes do reviewers prefer for flat feet?",
    "Compare heat pumps for a terraced house",
    "What do people say about our returns policy?",
    "Best espresso machines under 500 euros",
    "Who leads the market for solar inverters in Spain?",
    "Is there a quieter dishwasher than the Bosch 800?",
)
_DESK, _PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}


@pytest.fixture(name="pages", scope="module")
def fixture_pages(site: Site) -> dict[str, str]:
    """The address of each page, by its name, with what makes it worth looking at."""
    for number, question in enumerate(_QUESTIONS * 4):
        site.submit(f"{question} [latency={1 + number % 5}]", scraper=("chatgpt", "perplexity", "gemini")[number % 3])
    site.submit("[fail] Which of these links still work?")
    retried = site.submit(
        "Summarise this week's mentions of our brand",
        callback_url=site.inbox.replace("/hook", "/fail/503/1"),
        metadata={"order": 17, "team": "insights"},
    )
    failing = site.submit("What changed in the terms?", callback_url=site.inbox.replace("/hook", "/fail/500"))
    batch = site.call(
        "POST",
        "/v1/batches",
        {
            "prompts": [f"{question} [latency=8]" for question in _QUESTIONS] + ["[fail] Nothing"],
            "scrapers": ["chatgpt", "grok"],
            "callback_url": site.inbox,
        },
    )
    site.settled(retried["id"])
    site.settled(failing["id"], "retrying", "exhausted")
    paths = {name: f"/dashboard/{name}" for name in ("jobs", "batches", "destinations", "account", "compose", "inbox")}
    return {
        "overview": "/dashboard",
        "job": f"/dashboard/jobs/{retried['id']}",
        "failing-job": f"/dashboard/jobs/{failing['id']}",
        "batch": f"/dashboard/batches/{batch['id']}",
        "not-found": "/dashboard/jobs/job_unknown",
        **paths,
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures_are_taken(page: Page, pages: dict[str, str], scheme: str) -> None:
    """On a desk and on a phone."""
    folder = Path(os.environ["SCREENSHOTS"])
    folder.mkdir(exist_ok=True)
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    for form, size in (("desk", _DESK), ("phone", _PHONE)):
        page.set_viewport_size({"width": size["width"], "height": size["height"]})
        for name, path in pages.items():
            page.goto(path)
            expect(page.get_by_role("heading").first).to_be_visible()
            if page.locator("[data-live-toggle]").count():
                expect(page.get_by_role("button", name="Live updates")).to_be_visible()
            page.screenshot(path=folder / f"{name}-{form}-{scheme}.png")


def test_the_login_is_taken(stranger: Page, context: BrowserContext) -> None:
    """As well."""
    stranger.goto("/dashboard/login")
    stranger.screenshot(path=Path(os.environ["SCREENSHOTS"]) / "login-desk-light.png")
    assert context.pages == [stranger]
