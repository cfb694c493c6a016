"""What somebody does on the dashboard, from logging in to sending a callback once more."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Dialog, Locator, Page, expect

from tests.browser.site import Site

pytestmark = [pytest.mark.acceptance]


def row_of(page: Page, job_id: str) -> Locator:
    """A job's row in the list."""
    return page.locator(f'tr[data-job="{job_id}"]')


class TestLogin:
    """Coming in, and going out."""

    def test_with_a_key(self, stranger: Page, site: Site) -> None:
        """A client's key leads to the page that was wanted; going out leads back."""
        stranger.goto("/dashboard/batches")
        expect(stranger).to_have_title(re.compile("Log in"))
        stranger.get_by_label("API key").fill(site.key)
        stranger.get_by_role("button", name="Log in").click()
        expect(stranger.get_by_role("heading", name="Batches", exact=True)).to_be_visible()
        stranger.get_by_role("button", name="Log out").click()
        stranger.goto("/dashboard/batches")
        expect(stranger.get_by_label("API key")).to_be_visible()

    def test_with_a_wrong_key(self, stranger: Page) -> None:
        """It is said, and what was typed is in no address."""
        stranger.goto("/dashboard")
        stranger.get_by_label("API key").fill("srk_wrong")
        stranger.get_by_role("button", name="Log in").click()
        expect(stranger.get_by_role("alert")).to_contain_text("key")
        assert "srk_wrong" not in stranger.url

    def test_by_the_link_of_dev(self, stranger: Page, site: Site) -> None:
        """The link in the terminal is all that is needed."""
        stranger.goto(site.login_url)
        expect(stranger.get_by_role("heading", name="Overview")).to_be_visible()
        assert "token" not in stranger.url


def test_the_list_is_live(page: Page, site: Site) -> None:
    """A job appears, changes and ends, without anybody reloading."""
    page.goto("/dashboard/jobs")
    expect(page.get_by_role("button", name="Live updates")).to_be_visible()
    job = site.submit("[latency=2] What is live?")
    row = row_of(page, job["id"])
    expect(row).to_contain_text("pending")
    expect(row).to_contain_text("done", timeout=15_000)
    expect(row).to_contain_text("delivered")


def test_lists_are_filtered_and_searched(page: Page, site: Site) -> None:
    """By status, by words, by id."""
    good, bad = site.submit("Zebra crossings"), site.submit("[fail] Quaggas")
    site.settled(good["id"])
    site.settled(bad["id"])
    page.goto("/dashboard/jobs")
    page.locator("#filters summary").click()
    page.locator("label", has_text=re.compile("^failed$")).click()
    page.get_by_role("button", name="Apply").click()
    expect(row_of(page, bad["id"])).to_be_visible()
    expect(row_of(page, good["id"])).to_have_count(0)
    for text in ("zEbra", good["id"]):
        page.goto("/dashboard/jobs")
        page.get_by_role("searchbox", name="Search").fill(text)
        page.keyboard.press("Enter")
        expect(row_of(page, good["id"])).to_be_visible()
        expect(row_of(page, bad["id"])).to_have_count(0)


class TestJob:
    """One job's page."""

    def test_it_tells_the_whole_story(self, page: Page, site: Site) -> None:
        """What was asked, each attempt and what the receiver said, and the result."""
        job = site.submit("Who fails first?", callback_url=site.inbox.replace("/hook", "/fail/500/1"))
        site.settled(job["id"])
        page.goto(f"/dashboard/jobs/{job['id']}")
        timeline = page.locator("#timeline")
        for step in ("Accepted", "Submitted", "Polled", "Done", "Attempt 1 failed", "HTTP 500", "Attempt 2 delivered"):
            expect(timeline).to_contain_text(step)
        expect(timeline).to_contain_text("answering as the path asks")
        expect(page.locator("#result")).to_contain_text("Who fails first?")

    def test_it_shows_the_exact_callback(self, page: Page, site: Site, tmp_path: Path) -> None:
        """The bytes offered are those that the receiver got, and the code shown verifies what is sent by it."""
        job = site.submit("Exactly which bytes?")
        site.settled(job["id"])
        page.goto(f"/dashboard/jobs/{job['id']}")
        page.locator("#body-details summary").click()
        with page.expect_download() as download:
            page.get_by_role("link", name="Download the exact bytes").click()
        shown = json.loads(download.value.path().read_bytes())
        [received] = site.arrivals(f"msg_{job['id']}")
        assert shown == received["body"]
        page.locator("#curl-details summary").click()
        command = page.locator("#curl").inner_text()
        done = subprocess.run(  # noqa: S602 - what the page tells people to run
            command, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 0, done.stderr
        arrivals = site.arrivals(f"msg_{job['id']}")
        assert [arrival["verified"] for arrival in arrivals] == [True, True]

    def test_it_is_copied(self, page: Page, context: BrowserContext, site: Site) -> None:
        """The button puts what stands beside it on the clipboard, and says so."""
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        job = site.submit("Copy me")
        site.settled(job["id"])
        page.goto(f"/dashboard/jobs/{job['id']}")
        page.get_by_role("button", name="the result").first.click()
        expect(page.locator("[data-status]")).to_have_text("Copied")
        copied = page.evaluate("navigator.clipboard.readText()")
        assert json.loads(copied)["prompt"] == "Copy me"

    def test_it_is_sent_once_more(self, page: Page, site: Site) -> None:
        """The timeline grows by the new attempt, and the receiver has it twice."""
        job = site.submit("Again, please")
        site.settled(job["id"])
        page.goto(f"/dashboard/jobs/{job['id']}")
        page.get_by_role("button", name="Redeliver").click()
        expect(page.locator("#timeline")).to_contain_text("Attempt 2 delivered")
        assert len(site.arrivals(f"msg_{job['id']}")) == 2

    def test_it_is_cancelled(self, page: Page, site: Site) -> None:
        """Not where the question is answered with no; then it is, and its page says so."""
        job = site.submit("[never] Stop me")
        page.goto(f"/dashboard/jobs/{job['id']}")
        asked: list[str] = []

        def answer(dialog: Dialog) -> None:
            asked.append(dialog.message)
            if len(asked) == 1:
                dialog.dismiss()
            else:
                dialog.accept()

        page.on("dialog", answer)
        page.get_by_role("button", name="Cancel job").click()
        expect(page.locator("#summary")).not_to_contain_text("cancelled")
        page.get_by_role("button", name="Cancel job").click()
        expect(page.locator("#summary")).to_contain_text("cancelled")
        assert len(asked) == 2
        assert site.call("GET", f"/v1/jobs/{job['id']}")["status"] == "cancelled"

    def test_markup_is_text(self, page: Page, site: Site) -> None:
        """What somebody asked is shown, and never run."""
        prompt = "<script>document.title='x'</script><img src=x onerror=alert(1)> " + "long" * 300
        job = site.submit(prompt, metadata={"<b>": "</script>"})
        site.settled(job["id"])
        page.goto(f"/dashboard/jobs/{job['id']}")
        expect(page.locator("#prompt")).to_have_text(prompt)
        assert page.locator("img[src=x]").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_batch_moves(page: Page, site: Site) -> None:
    """Its bar fills while one looks, and its own callback is there at the end."""
    batch = site.call(
        "POST",
        "/v1/batches",
        {"prompts": [f"[latency=2] {n}" for n in range(6)], "scrapers": ["grok"], "callback_url": site.inbox},
    )
    page.goto("/dashboard/batches")
    row = page.locator(f'tr[data-batch="{batch["id"]}"]')
    expect(row).to_contain_text("0 of 6 ended")
    row.get_by_role("link").click()
    expect(page.locator("#summary")).to_contain_text("completed", timeout=15_000)
    expect(page.locator("#progress")).to_contain_text("done 6")
    expect(page.locator("#callback-title")).to_contain_text("batch.completed")


def test_destinations_are_listed(page: Page, site: Site) -> None:
    """With how they fare."""
    site.settled(site.submit("Where to?")["id"])
    page.goto("/dashboard/destinations")
    expect(page.locator("tr[data-destination]").first).to_contain_text("healthy")


def test_a_job_is_composed(page: Page, site: Site) -> None:
    """What is wrong is said beside the field and nothing typed is lost; then the job's page comes, and its callback."""
    page.goto("/dashboard/compose")
    page.get_by_label("Prompt").fill("Composed by hand")
    page.get_by_label("Timeout").fill("5")
    page.get_by_label("Callback URL").fill(site.inbox)
    page.get_by_role("button", name="Submit the job").click()
    expect(page.locator("#timeout-error")).to_be_visible()
    expect(page.get_by_label("Prompt")).to_have_value("Composed by hand")
    page.get_by_label("Timeout").fill("30")
    page.get_by_role("button", name="Submit the job").click()
    expect(page.locator("#timeline")).to_contain_text("Attempt 1 delivered", timeout=15_000)
    job_id = page.url.rpartition("/")[2].partition("?")[0]
    page.goto("/dashboard/inbox")
    expect(page.locator(".arrivals li", has_text=job_id)).to_contain_text("verified")


def test_the_overview_counts(page: Page, site: Site) -> None:
    """Numbers and charts are of what happened, and a chart says what the pointer is on."""
    site.settled(site.submit("Count me")["id"])
    page.goto("/dashboard")
    expect(page.locator("#n-done")).not_to_have_text("0")
    expect(page.get_by_role("figure")).not_to_have_count(0)
    reading = page.locator(".reading").first
    expect(reading).to_be_hidden()
    page.locator(".slots").first.locator("rect").last.hover()
    expect(reading).to_contain_text("done")


def test_it_is_used_by_keyboard_alone(stranger: Page, site: Site) -> None:
    """From the log-in to a redelivery; what has the focus can be seen."""
    job = site.submit("By keyboard")
    site.settled(job["id"])
    stranger.goto("/dashboard/jobs")
    stranger.keyboard.type(site.key)
    stranger.keyboard.press("Enter")
    expect(stranger.get_by_role("heading", name="Jobs")).to_be_visible()
    stranger.keyboard.press("Tab")
    expect(stranger.get_by_role("link", name="Skip to the content")).to_be_focused()
    stranger.keyboard.press("Enter")
    _tab_to(stranger, "By keyboard")
    outline = stranger.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    stranger.keyboard.press("Enter")
    expect(stranger.locator("#timeline")).to_be_visible()
    _tab_to(stranger, "Redeliver")
    stranger.keyboard.press("Enter")
    expect(stranger.locator("#timeline")).to_contain_text("Attempt 2 delivered")


def _tab_to(page: Page, text: str) -> None:
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent").strip().startswith(text):
            return
    raise AssertionError(f"{text} is not reached")


def test_the_code_shown_verifies(page: Page, site: Site, tmp_path: Path) -> None:
    """What the page shows for Python takes the callback that it shows, and no other."""
    job = site.submit("Verify me")
    site.settled(job["id"])
    page.goto(f"/dashboard/jobs/{job['id']}")
    page.locator("#python-details summary").click()
    page.locator("#body-details summary").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the exact bytes").click()
    headers = dict(line.split(": ", 1) for line in page.locator("#callback-headers").inner_text().splitlines() if line)
    program = tmp_path / "receiver.py"
    program.write_text(
        page.locator("#verify-python").inner_text()
        + "\nimport json, sys\nbody, headers = open(sys.argv[1], 'rb').read(), json.loads(sys.argv[2])\n"
        + "print(verified(body, headers)['data']['prompt'])\nverified(body + b' ', headers)\n"
    )
    done = subprocess.run(  # noqa: S603 - what the page shows
        [sys.executable, str(program), str(download.value.path()), json.dumps(headers)],
        env=os.environ | {"RELAY_SIGNING_SECRET": site.secret},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout == "Verify me\n", done.stderr
    assert "WebhookVerificationError" in done.stderr
