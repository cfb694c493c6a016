"""The callback as it goes out: the same bytes that a worker signs, with a signature of now.

The headers that a client has added are its secrets: they are counted, and never shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from relay.core.callback import Message, message_of, own_headers_of
from relay.core.egress import USER_AGENT
from relay.core.model import Batch, Job, JobStatus
from relay.core.settings import Client
from relay.dashboard.examples import curl_callback

#: A larger body is not put into a command: terminals and shells have limits.
_IN_COMMAND_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Preview:
    """One callback, ready to be looked at."""

    event: str
    url: str
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    #: Headers of the client's own that go along.
    more_headers: int
    #: A command that sends the same once more by hand.
    curl: str = field(repr=False)
    #: Whether that command reads the body from a file.
    by_file: bool


def preview_of(subject: Job | Batch, client: Client, now_ms: int) -> Preview | None:
    """The callback of `subject`, as its next attempt would be signed; None where there is nothing to announce."""
    message = announced(subject)
    if message is None:
        return None
    delivery = subject.delivery
    attempt = (delivery.attempts if delivery else 0) or 1
    own = own_headers_of(message, client.signing_secrets, attempt=attempt, now_s=now_ms // 1000)
    headers = {"User-Agent": USER_AGENT, **own}
    by_file = len(message.body) > _IN_COMMAND_BYTES
    return Preview(
        event=message.event,
        url=message.callback.url,
        body=message.body,
        headers=headers,
        more_headers=len(message.callback.headers),
        curl=curl_callback(message.callback.url, headers, None if by_file else message.body),
        by_file=by_file,
    )


def announced(subject: Job | Batch) -> Message | None:
    """The message that announces the outcome of `subject`; None without one, or without a callback."""
    if isinstance(subject, Job):
        silent = not subject.status.is_outcome or subject.status is JobStatus.CANCELLED
    else:
        silent = subject.completed_ms is None or subject.callback is None
    return None if silent else message_of(subject)
