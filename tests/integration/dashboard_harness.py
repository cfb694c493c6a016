"""Somebody at the dashboard: a browser's manners, without a browser."""

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode

from tests.integration.conftest import ACME_KEY, Answer, RelayClient

OPERATOR_KEY = "operator-key-0123456789"
_TOKEN = re.compile(r'name="form_token" value="([^"]+)"')


@dataclass(slots=True)
class Page:
    """An answer, as a browser has it."""

    answer: Answer

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.answer.status

    @property
    def source(self) -> str:
        """The HTML."""
        return self.answer.body.decode()

    @property
    def text(self) -> str:
        """What there is to read, without tags."""
        inline = re.sub(r"</?(?:i|b|code|small|wbr)(?:\s[^>]*)?>", "", self.source)
        return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", inline)))

    @property
    def location(self) -> str:
        """Where it leads."""
        return self.answer.headers["Location"]

    @property
    def jobs(self) -> list[str]:
        """The ids of the jobs in a list, in order."""
        return re.findall(r'<tr data-key="[^"]+" data-job="([^"]+)"', self.source)


@dataclass(slots=True)
class Visitor:
    """Visits the dashboard of a relay; keeps its cookie, and sends forms as a page of it would."""

    relay: RelayClient
    cookie: str = ""
    headers: Mapping[str, str] = field(default_factory=lambda: {"Sec-Fetch-Site": "same-origin"})

    async def get(self, path: str, **headers: str) -> Page:
        """Look at a page."""
        return await self._ask("GET", path, headers={name.replace("_", "-"): text for name, text in headers.items()})

    async def post(self, path: str, fields: Mapping[str, object] | None = None, **headers: str) -> Page:
        """Send a form exactly as it is given."""
        own = {"Content-Type": "application/x-www-form-urlencoded"}
        own |= {name.replace("_", "-"): text for name, text in headers.items()}
        return await self._ask("POST", path, headers=own, data=urlencode(fields or {}, doseq=True).encode())

    async def send(
        self, path: str, fields: Mapping[str, object] | None = None, *, of: str = "/dashboard/account"
    ) -> Page:
        """Send a form with the token that the page `of` has."""
        return await self.post(path, {"form_token": await self.token(of), **(fields or {})})

    async def token(self, of: str = "/dashboard/account") -> str:
        """The token of this visitor's forms."""
        found = _TOKEN.search((await self.get(of)).source)
        assert found is not None
        return found[1]

    async def log_in(self, key: str = ACME_KEY) -> "Visitor":
        """Log in; what it was led to is not looked at."""
        page = await self.post("/dashboard/login", {"key": key})
        assert page.status == 303, page.text
        return self

    async def _ask(self, method: str, path: str, *, headers: Mapping[str, str], data: bytes | None = None) -> Page:
        own = dict(self.headers) | ({"Cookie": f"relay_session={self.cookie}"} if self.cookie else {})
        answer = await self.relay.call(method, path, key=None, headers=own | dict(headers), data=data)
        given = answer.headers.get("Set-Cookie", "")
        if given.startswith("relay_session="):
            self.cookie = given.removeprefix("relay_session=").partition(";")[0].strip('"')
        return Page(answer)


async def logged_in(relay: RelayClient, key: str = ACME_KEY) -> Visitor:
    """A visitor who has logged in."""
    return await Visitor(relay).log_in(key)
