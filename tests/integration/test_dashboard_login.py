"""Logging in to the dashboard and out of it."""

import time
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest
import structlog

from relay.core.model import ClientName
from relay.core.settings import Client, hash_api_key
from tests.integration.conftest import ACME_KEY, ACME_OTHER_KEY, UMBRELLA_KEY, RelayClient, make_client, run_relay
from tests.integration.dashboard_harness import OPERATOR_KEY, Visitor, logged_in


async def test_the_root_leads_to_the_dashboard(relay_client: RelayClient) -> None:
    """`/` and what people type lead to it, and it leads those who are not logged in to the log-in, and back."""
    visitor = Visitor(relay_client)
    assert ((root := await visitor.get("/")).status, root.location) == (302, "/dashboard")
    assert (await visitor.get("/dashboard/")).location == "/dashboard"
    first = await visitor.get("/dashboard/jobs?status=done")
    assert (first.status, first.location) == (303, "/dashboard/login?next=/dashboard/jobs%3Fstatus%3Ddone")
    form = await visitor.get(first.location)
    assert 'name="next" value="/dashboard/jobs?status=done"' in form.source
    done = await visitor.post("/dashboard/login", {"key": ACME_KEY, "next": "/dashboard/jobs?status=done"})
    assert (done.status, done.location) == (303, "/dashboard/jobs?status=done")
    assert (await visitor.get(done.location)).status == 200


async def test_the_cookie(relay_client: RelayClient) -> None:
    """It is for the dashboard only and not for scripts, ends after 12 hours, and has neither the key nor its hash."""
    visitor = Visitor(relay_client)
    page = await visitor.post("/dashboard/login", {"key": ACME_KEY})
    given = page.answer.headers["Set-Cookie"]
    attributes = {part.strip().lower() for part in given.split(";")[1:]}
    assert attributes == {"httponly", "max-age=43200", "path=/dashboard", "samesite=strict", "secure"}
    assert ACME_KEY not in given
    assert hash_api_key(ACME_KEY) not in given
    assert (await visitor.get("/dashboard/login")).location == "/dashboard"


@pytest.mark.parametrize(
    ("public_url", "headers", "secure"),
    [
        ("https://relay.example", {}, True),
        ("http://relay.example", {}, False),
        ("http://relay.example", {"X-Forwarded-Proto": "https"}, True),
        (None, {}, False),
    ],
)
async def test_the_cookie_is_secure_where_there_is_tls(
    store_url: str, public_url: str | None, headers: dict[str, str], *, secure: bool
) -> None:
    """`Secure` where the relay is reached by https, as the settings or the proxy in front say."""
    async with run_relay(store_url, public_url=public_url) as relay:
        page = await Visitor(relay).post("/dashboard/login", {"key": ACME_KEY}, **headers)
        assert ("secure" in page.answer.headers["Set-Cookie"].lower()) is secure


async def test_logging_out(relay_client: RelayClient) -> None:
    """The cookie is taken away."""
    visitor = await logged_in(relay_client)
    page = await visitor.send("/dashboard/logout")
    assert (page.location, visitor.cookie) == ("/dashboard/login", "")
    assert "max-age=0" in page.answer.headers["Set-Cookie"].lower()


@pytest.mark.parametrize("key", ["", "wrong", f"{ACME_KEY}x", "ключ", "a" * 10_000, hash_api_key(ACME_KEY)])
async def test_a_wrong_key(relay_client: RelayClient, key: str) -> None:
    """It gets the form again, with what to do, and no cookie; the key is not repeated, nor logged."""
    visitor = Visitor(relay_client)
    with structlog.testing.capture_logs() as lines:
        page = await visitor.post("/dashboard/login", {"key": key})
    assert (page.status, visitor.cookie) == (401, "")
    assert "This key is not known" in page.text
    if key:
        assert key not in page.source
        assert key not in repr(lines)


async def test_an_address_has_ten_wrong_keys_a_minute(relay_client: RelayClient) -> None:
    """Then even the right one has to wait, and is told how long."""
    visitor = Visitor(relay_client)
    statuses = [(await visitor.post("/dashboard/login", {"key": f"wrong-{i}"})).status for i in range(11)]
    assert statuses == [401] * 10 + [429]
    page = await visitor.post("/dashboard/login", {"key": ACME_KEY})
    assert page.status == 429
    assert 0 < int(page.answer.headers["Retry-After"]) <= 60
    assert "Too many wrong keys" in page.text


async def test_a_cookie_that_was_tampered_with(relay_client: RelayClient) -> None:
    """Whatever is changed in it, it is none: neither another client's, nor the operator's, nor a longer one."""
    good = (await logged_in(relay_client)).cookie
    name, expires, salt, mac = good.split("~")
    for bad in (
        *(
            "",
            "~",
            "~~~",
            "~~~~",
            good[:-1],
            f"{good}x",
            f"{good}~",
            good.upper(),
            "a" * 4000,
            f"{name}~9~{salt}~{mac}",
        ),
        *(f"umbrella~{expires}~{salt}~{mac}", f"~{expires}~{salt}~{mac}", f"nobody~{expires}~{salt}~{mac}"),
        *(f"{name}~{int(expires) + 1}~{salt}~{mac}", f"{name}~{'9' * 400}~{salt}~{mac}", f"{name}~{expires}~~{mac}"),
    ):
        assert (await Visitor(relay_client, bad).get("/dashboard/jobs")).status == 303, bad
    assert (await Visitor(relay_client, good).get("/dashboard/jobs")).status == 200


async def test_a_session_is_good_on_every_relay_and_outlives_the_rotation_of_another_key(
    relay_client: RelayClient, store_url: str
) -> None:
    """Another relay takes it; it ends with the key that it was made by, with the secret, and with the client."""
    visitor = await logged_in(relay_client, ACME_OTHER_KEY)
    acme = relay_client.clients[ClientName("acme")]
    first_hash, other_hash = acme.api_key_hashes

    async def is_good(*clients: Client) -> bool:
        known = {client.name: client for client in clients}
        async with run_relay(store_url, clients=known) as relay:
            return (await Visitor(relay, visitor.cookie).get("/dashboard/jobs")).status == 200

    assert await is_good(acme)
    assert await is_good(replace(acme, api_key_hashes=(other_hash,)))
    assert await is_good(
        replace(acme, signing_secrets=(*acme.signing_secrets, make_client("x", "y").signing_secrets[0]))
    )
    assert not await is_good(replace(acme, api_key_hashes=(first_hash,)))
    assert not await is_good(replace(acme, signing_secrets=make_client("x", "y").signing_secrets))
    assert not await is_good(make_client("other", "key"))


async def test_a_session_expires(relay_client: RelayClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 12 hours one logs in again."""
    visitor = await logged_in(relay_client)
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s + 12 * 3600 - 5)
    assert (await visitor.get("/dashboard/jobs")).status == 200
    monkeypatch.setattr(time, "time", lambda: now_s + 12 * 3600 + 5)
    assert (await visitor.get("/dashboard/jobs")).status == 303


@pytest.mark.parametrize(
    "given",
    [
        *(
            "https://evil.example",
            "//evil.example",
            "/\\evil.example",
            "/dashboard//evil.example",
            "javascript:alert(1)",
        ),
        *("/dashboard/../docs", "/dashboard/%2e%2e/docs", "/dashboard/.%2E/docs"),
        *("/v1/jobs", "/dashboardx", "/dashboard/\r\nX: y", "/dashboard/jobs#x", "/dashboard/@evil.example", ""),
    ],
)
async def test_the_log_in_leads_nowhere_else(relay_client: RelayClient, given: str) -> None:
    """`next` is a page of the dashboard, or it is the dashboard itself."""
    done = await Visitor(relay_client).post("/dashboard/login", {"key": ACME_KEY, "next": given})
    assert (done.status, done.location) == (303, "/dashboard")


async def test_another_site_cannot_log_anybody_in(relay_client: RelayClient) -> None:
    """A form from elsewhere, or from nowhere, is refused before the key is looked at."""
    nowhere = Visitor(relay_client, headers={})
    for headers in (
        {},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": f"http://127.0.0.1:{relay_client.port + 1}"},
    ):
        page = await nowhere.post("/dashboard/login", {"key": ACME_KEY}, **headers)
        assert (page.status, nowhere.cookie) == (403, ""), headers
    for origin in (f"http://127.0.0.1:{relay_client.port}", "https://relay.example"):
        assert (
            await Visitor(relay_client, headers={"Origin": origin}).post("/dashboard/login", {"key": ACME_KEY})
        ).status == 303


async def test_a_link_from_elsewhere_is_asked_for_again(relay_client: RelayClient) -> None:
    """Browsers keep a strict cookie to themselves then; a page of ours that loads itself gets it."""
    page = await Visitor(relay_client).get("/dashboard/jobs", Sec_Fetch_Site="cross-site")
    assert page.status == 200
    assert '<meta http-equiv="refresh" content="0">' in page.source
    assert (await Visitor(relay_client).get("/dashboard/jobs", Sec_Fetch_Site="same-origin")).status == 303


async def test_the_operator(store_url: str) -> None:
    """Each of the operator's keys logs in; without such a setting nobody is the operator."""
    hashes = f"{hash_api_key(OPERATOR_KEY)},{hash_api_key('operator-key-after-rotation')}"
    async with run_relay(store_url, operator_key_sha256=hashes) as relay:
        for key in (OPERATOR_KEY, "operator-key-after-rotation"):
            assert "Log out operator" in (await (await logged_in(relay, key)).get("/dashboard/account")).text
        cookie = (await logged_in(relay, OPERATOR_KEY)).cookie
        assert (await relay.call("GET", "/v1/jobs", key=OPERATOR_KEY)).status == 401, "it is no key of the API"
    async with run_relay(store_url, clients=relay.clients) as relay:
        assert (await Visitor(relay).post("/dashboard/login", {"key": OPERATOR_KEY})).status == 401
        assert (await Visitor(relay, cookie).get("/dashboard/account")).status == 303


async def test_the_link_of_dev(store_url: str) -> None:
    """Its token logs in as the one client; another token, or a relay without one, does not."""
    own: Any = {"dev_login_sha256": hash_api_key("token-of-dev"), "dev_inbox_url": "http://127.0.0.1:1"}
    async with run_relay(store_url, clients={ClientName("default"): make_client("default", ACME_KEY)}, **own) as relay:
        visitor = Visitor(relay)
        wrong = await visitor.get("/dashboard/login?token=another")
        assert (wrong.status, visitor.cookie) == (401, "")
        good = await visitor.get("/dashboard/login?token=token-of-dev")
        assert (good.status, urlsplit(good.location).path) == (303, "/dashboard")
        assert "Log out default" in (await visitor.get("/dashboard/account")).text
    async with run_relay(store_url) as relay:
        assert (await Visitor(relay).get("/dashboard/login?token=token-of-dev")).status == 401


async def test_forms_without_the_token_of_the_session(relay_client: RelayClient) -> None:
    """A form with no token, another session's or another client's is refused, and does nothing."""
    visitor, other = await logged_in(relay_client), await logged_in(relay_client)
    umbrella = await logged_in(relay_client, UMBRELLA_KEY)
    job_id = (await relay_client.submit()).json["id"]
    for token in ("", "x", "ü", await other.token(), await umbrella.token()):
        page = await visitor.post(f"/dashboard/jobs/{job_id}/cancel", {"form_token": token})
        assert page.status == 403
    page = await visitor.post(
        f"/dashboard/jobs/{job_id}/cancel", {"form_token": await visitor.token()}, Sec_Fetch_Site="cross-site"
    )
    assert page.status == 403
    assert (await relay_client.call("GET", f"/v1/jobs/{job_id}")).json["status"] == "queued"
    assert (await Visitor(relay_client).post(f"/dashboard/jobs/{job_id}/cancel")).location == "/dashboard/login"


async def test_bodies_that_are_no_form(relay_client: RelayClient) -> None:
    """They are refused with a page that says so."""
    visitor = await logged_in(relay_client)
    for data, content_type, status in (
        (b"{}", "application/json", 415),
        (b"form_token=%ff", "application/x-www-form-urlencoded", 400),
        (b"a=1&" * 300, "application/x-www-form-urlencoded", 400),
        (b"\xff", "application/x-www-form-urlencoded", 400),
        (b"a" * (1024 * 1024 + 1), "application/x-www-form-urlencoded", 413),
    ):
        page = await visitor._ask("POST", "/dashboard/logout", headers={"Content-Type": content_type}, data=data)
        assert page.status == status
        assert page.answer.headers["Content-Type"] == "text/html; charset=utf-8"
