"""A typed client of the relay's API.

    from relay.client import ask
    job = ask(lambda relay: relay.submit(scraper="chatgpt", prompt="Why?", callback_url="https://example.com/hook"))
    print(ask(lambda relay: relay.wait(job)).result)

With an event loop it is `RelayClient`; `verify` is for receivers of callbacks; the errors are those of
`relay.client.errors`.
"""

from relay.client.callbacks import Callback, verify
from relay.client.client import DEFAULT_URL, RelayClient, ask
from relay.client.documents import (
    AcceptedBatch,
    Attempt,
    Batch,
    BatchFields,
    Delivery,
    Destination,
    Job,
    JobFailure,
    JobFields,
    JobOptions,
    JobOutcome,
)
from relay.client.errors import (
    ClientError,
    Conflict,
    FieldError,
    Gone,
    Invalid,
    Misconfigured,
    NotFound,
    RateLimited,
    Refused,
    Unauthorized,
    Unexpected,
    Unreachable,
    Unverified,
)
from relay.client.sse import Change, ChangeKind
from relay.core.model import DeliveryStatus, DestinationState, JobStatus

__all__ = [
    "DEFAULT_URL",
    "AcceptedBatch",
    "Attempt",
    "Batch",
    "BatchFields",
    "Callback",
    "Change",
    "ChangeKind",
    "ClientError",
    "Conflict",
    "Delivery",
    "DeliveryStatus",
    "Destination",
    "DestinationState",
    "FieldError",
    "Gone",
    "Invalid",
    "Job",
    "JobFailure",
    "JobFields",
    "JobOptions",
    "JobOutcome",
    "JobStatus",
    "Misconfigured",
    "NotFound",
    "RateLimited",
    "Refused",
    "RelayClient",
    "Unauthorized",
    "Unexpected",
    "Unreachable",
    "Unverified",
    "ask",
    "verify",
]
