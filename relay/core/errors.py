"""The exceptions of the core: our side failed, or a caller asked for what cannot be.

An upstream's or a receiver's bad answer is an outcome, not an exception, and nothing here knows HTTP.

RelayError
├── ConfigurationError       a setting is missing or wrong
├── StoreUnavailable         the store is unreachable, full, loading or read-only
└── Refused                  the store said no, for a reason that the caller can act on
    ├── NotFound             no such thing of this client's
    ├── Conflict             the thing is not in a state that allows it
    ├── NotRedeliverable     no ended delivery to repeat
    ├── IdempotencyKeyReused the key was used with another body
    ├── JobExpired           the key's job has been purged
    ├── RateLimited          too many requests; has retry_after_s
    └── TooManyUnfinished    too many jobs without an outcome; has retry_after_s
"""


class RelayError(Exception):
    """The root of what the core raises."""


class ConfigurationError(RelayError):
    """A setting is missing or wrong. The message is one line that names the setting and the cure."""


class StoreUnavailable(RelayError):
    """The store cannot do it now: unreachable, loading, read-only, out of memory or disk."""


class Refused(RelayError):
    """The store said no."""


class NotFound(Refused):
    """There is no such thing, or it belongs to another client."""


class Conflict(Refused):
    """The thing is in a state that does not allow this."""


class NotRedeliverable(Refused):
    """There is no ended delivery to repeat."""


class IdempotencyKeyReused(Refused):
    """The idempotency key was used before, with another body."""


class JobExpired(Refused):
    """The idempotency key is known, and what it made has been purged."""


class _TryLater(Refused):
    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"retry after {retry_after_s} s")
        self.retry_after_s = retry_after_s


class RateLimited(_TryLater):
    """The client has used up its requests; one more is allowed after `retry_after_s`."""


class TooManyUnfinished(_TryLater):
    """The client, or with `of_all` all clients together, have as many jobs without an outcome as they may have.

    `alone`: what was asked for is more than that by itself.
    """

    def __init__(self, retry_after_s: int, *, of_all: bool = False, alone: bool = False) -> None:
        super().__init__(retry_after_s)
        self.of_all = of_all
        self.alone = alone
