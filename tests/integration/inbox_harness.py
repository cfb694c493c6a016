"""An inbox on a real port, and a sender that signs what it posts."""

import contextlib
import io
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from relay.core.signing import new_secret, sign
from relay.dev.inbox import Inbox
from relay.dev.system import HOST, receiving

SECRET, OTHER, STRANGE = new_secret(), new_secret(), new_secret()
BODY = b'{"type": "job.completed", "data": {"id": "job_1"}}'


@dataclass(frozen=True)
class Sender:
    """Posts to an inbox, and reads what it lists."""

    url: str
    http: aiohttp.ClientSession

    async def post(self, headers: Mapping[str, str], body: bytes = BODY, path: str = "/hook") -> int:
        """Post a callback; returns the status of the answer."""
        async with self.http.post(self.url + path, data=io.BytesIO(body), headers=headers) as response:
            return response.status

    async def get(self, path: str) -> tuple[int, Any]:
        """The status and the document at `path`."""
        async with self.http.get(self.url + path) as response:
            return response.status, await response.json()


@contextlib.asynccontextmanager
async def sending_to(inbox: Inbox) -> AsyncIterator[Sender]:
    """Serve `inbox`, and be who sends to it."""
    async with receiving(inbox, HOST, 0) as port, aiohttp.ClientSession(trust_env=False) as http:
        yield Sender(f"http://{HOST}:{port}", http)


def signed(
    body: bytes = BODY, *, by: Sequence[str] = (SECRET,), webhook_id: str = "msg_1", age_s: int = 0, **more: str
) -> dict[str, str]:
    """The headers of a callback that was signed so long ago; `more` replaces some of them."""
    at_s = int(time.time()) - age_s
    headers = {
        "Content-Type": "application/json",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": sign(by, webhook_id, at_s, body),
        "relay-attempt": "1",
    }
    return headers | {name.replace("_", "-"): value for name, value in more.items()}


def resigned(pattern: str) -> dict[str, str]:
    """The headers of a good callback, whose signature is put into `pattern`."""
    headers = signed()
    return headers | {"webhook-signature": pattern.format(headers["webhook-signature"])}


def without(name: str) -> dict[str, str]:
    """The headers of a good callback but one."""
    headers = signed()
    del headers[name]
    return headers
