"""What a test knows of the system that its browser looks at, and how it makes jobs there without the browser."""

import json
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Site:
    """A running `dev`."""

    #: What it says of itself.
    announced: Mapping[str, Any]
    #: The link to the dashboard that logs in.
    login_url: str

    @property
    def url(self) -> str:
        """Where the relay answers."""
        return str(self.announced["url"]).rstrip("/")

    @property
    def key(self) -> str:
        """The client's API key."""
        return str(self.announced["api_key"])

    @property
    def secret(self) -> str:
        """What callbacks are signed with."""
        return str(self.announced["signing_secret"])

    @property
    def inbox(self) -> str:
        """Where callbacks are taken."""
        return f"{str(self.announced['inbox_url']).rstrip('/')}/hook"

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What the API answers."""
        request = urllib.request.Request(  # noqa: S310 - the system's own address
            f"{self.url}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - as above
            return dict(json.loads(response.read()))

    def submit(self, prompt: str, **fields: Any) -> dict[str, Any]:
        """Hand in a job."""
        return self.call(
            "POST", "/v1/jobs", {"scraper": "chatgpt", "prompt": prompt, "callback_url": self.inbox} | fields
        )

    def settled(self, job_id: str, *deliveries: str, within_s: float = 30) -> dict[str, Any]:
        """The job, once its delivery has one of these states (delivered without any)."""
        give_up = time.monotonic() + within_s
        while (job := self.call("GET", f"/v1/jobs/{job_id}?wait=5"))["delivery"]["status"] not in (
            deliveries or ("delivered",)
        ):
            assert time.monotonic() < give_up, job
            time.sleep(0.05)
        return job

    def arrivals(self, webhook_id: str) -> list[dict[str, Any]]:
        """What the inbox has received of one event."""
        url = f"{self.announced['inbox_url'].rstrip('/')}/{webhook_id}"
        with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310 - as above
            return list(json.loads(response.read())["data"])
