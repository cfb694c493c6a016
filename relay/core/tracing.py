"""Traces of what relay and worker do, in words of our own. Off unless `RELAY_OTEL` is on, and then free of charge.

What is here is tracing that is off: nothing is noted. `relay.core.otel`, which is imported only where it is asked for,
has the same with something behind it.
"""

from contextvars import Context
from types import TracebackType
from typing import Literal, Self

from relay.core.errors import ConfigurationError
from relay.core.settings import Settings
from relay.core.trace_context import TraceContext

Service = Literal["relay", "worker"]


class Span:
    """Something that takes as long as the context does."""

    #: What follows from it goes on from here; None where nothing was noted.
    trace: TraceContext | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """An exception is one of its failures."""

    def answered(self, status: int) -> None:
        """Note the status of the answer that was given or came."""

    def failed(self, why: str) -> None:
        """Note that it failed; `why` is one of a few words."""


_NOTHING = Span()


class Tracing:
    """How a process tells of what it does."""

    def serving(self, method: str, route: str, given: TraceContext | None) -> Span:
        """Answering a request to a route's template; `given` is what its client said it belongs to."""
        del method, route, given
        return _NOTHING

    def following(self, trace: TraceContext | None, subject: str) -> Context | None:
        """The context for a task that is a step with `subject`, a job or batch; None: any will do.

        What is sent in it, and its log lines, belong to `trace`.
        """
        del trace, subject
        return None

    def sending(self, method: str, server: str, template: str = "", attempt: int = 1) -> Span:
        """Sending a request to `host:port`, in a step. `template` is its path without anything that may be secret."""
        del method, server, template, attempt
        return _NOTHING

    async def close(self) -> None:
        """Send what was noted and not sent yet, within a few seconds."""


def start_tracing(settings: Settings, service: Service) -> Tracing:
    """Tracing as the settings say. Raises ConfigurationError."""
    if not settings.otel:
        return Tracing()
    try:
        from relay.core.otel import OtelTracing  # noqa: PLC0415 - an extra, which need not be installed
    except ImportError as error:
        raise ConfigurationError(
            "RELAY_OTEL: OpenTelemetry is not installed; install scrapellm-relay with the extra `otel`"
        ) from error
    try:
        return OtelTracing(service)
    except ValueError as error:
        raise ConfigurationError(f"RELAY_OTEL: OpenTelemetry cannot be set up: {error}") from error
