"""Traces by OpenTelemetry, sent by OTLP over HTTP. Alone knows OpenTelemetry.

Names and attributes follow its conventions for HTTP. No URL is among them: that of a submit has the prompt, that of a
poll an id that is a secret, and that of a callback may have anything in it.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Mapping
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import structlog
from opentelemetry import trace as api
from opentelemetry.context import Context as OtelContext
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import (
    HTTP_REQUEST_METHOD,
    HTTP_REQUEST_RESEND_COUNT,
    HTTP_RESPONSE_STATUS_CODE,
    HTTP_ROUTE,
)
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from ulid import ULID

from relay import __version__
from relay.core.trace_context import HEADERS, TraceContext
from relay.core.tracing import Service, Span, Tracing

_SUBJECT = "scrapellm_relay.id"
#: Of the conventions, but not among their stable ones yet.
_URL_TEMPLATE = "url.template"
_NAMES: Mapping[Service, str] = {"relay": "scrapellm-relay", "worker": "scrapellm-relay-worker"}
_CLOSE_S = 3.0
_PROTOCOL = "http/protobuf"

_propagator = TraceContextTextMapPropagator()


@dataclass(frozen=True, slots=True)
class _Step:
    """What a step belongs to, and what it is about."""

    parent: OtelContext
    subject: str


_step: ContextVar[_Step] = ContextVar("_step")


class OtelTracing(Tracing):
    """Sends to where the `OTEL_EXPORTER_OTLP_…` variables say. Raises ValueError where one of them cannot be right."""

    def __init__(self, service: Service) -> None:
        _check_variables()
        # It quotes the headers that it cannot read, and they have keys in them.
        logging.getLogger("opentelemetry.util.re").setLevel(logging.CRITICAL)
        own: dict[str, str] = {SERVICE_VERSION: __version__, SERVICE_INSTANCE_ID: str(ULID())}
        if not os.environ.get("OTEL_SERVICE_NAME"):
            own[SERVICE_NAME] = _NAMES[service]
        self._provider = TracerProvider(resource=Resource.create(own), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("scrapellm-relay", __version__)

    def serving(self, method: str, route: str, given: TraceContext | None) -> Span:
        """A span of the kind SERVER; begins a trace where there is none."""
        attributes: dict[str, str | int] = {HTTP_REQUEST_METHOD: method, HTTP_ROUTE: route}
        parent = _context_of(given) if given is not None else OtelContext()
        span = self._tracer.start_span(f"{method} {route}", parent, api.SpanKind.SERVER, attributes)
        return _Span(span, fails_from=500)

    def following(self, trace: TraceContext | None, subject: str) -> Context | None:
        """Nothing for what belongs to no trace: it was accepted by a relay that makes none."""
        if trace is None:
            return None
        context = copy_context()
        context.run(_step.set, _Step(_context_of(trace), subject))
        context.run(structlog.contextvars.bind_contextvars, trace_id=trace.trace_id)
        return context

    def sending(self, method: str, server: str, template: str = "", attempt: int = 1) -> Span:
        """A span of the kind CLIENT, in the trace that the step belongs to."""
        step = _step.get(None)
        if step is None:
            return Span()
        host, _, port = server.rpartition(":")
        attributes: dict[str, str | int] = {
            HTTP_REQUEST_METHOD: method,
            SERVER_ADDRESS: host.strip("[]"),
            SERVER_PORT: int(port),
            _SUBJECT: step.subject,
        }
        if template:
            attributes[_URL_TEMPLATE] = template
        if attempt > 1:
            attributes[HTTP_REQUEST_RESEND_COUNT] = attempt - 1
        span = self._tracer.start_span(f"{method} {template}".rstrip(), step.parent, api.SpanKind.CLIENT, attributes)
        return _Span(span, fails_from=400)

    async def close(self) -> None:
        """Send what is left. A collector that does not answer is not waited for longer than a few seconds."""
        # Not one of asyncio's own threads: those are waited for at the end.
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, _CLOSE_S)


class _Span(Span):
    """A span that is noted. A status from `fails_from` on is a failure."""

    def __init__(self, span: api.Span, fails_from: int) -> None:
        self._span = span
        self._fails_from = fails_from
        carrier: dict[str, str] = {}
        _propagator.inject(carrier, api.set_span_in_context(span, OtelContext()))
        self.trace = TraceContext.unpack(" ".join(carrier.get(name, "") for name in HEADERS).strip())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            # Its name only: what it says may quote a URL.
            self.failed(kind.__name__)
        self._span.end()

    def answered(self, status: int) -> None:
        self._span.set_attribute(HTTP_RESPONSE_STATUS_CODE, status)
        if status >= self._fails_from:
            self.failed(str(status))

    def failed(self, why: str) -> None:
        self._span.set_attribute(ERROR_TYPE, why)
        self._span.set_status(api.StatusCode.ERROR)


def _check_variables() -> None:
    """What OpenTelemetry would try in vain, again and again."""
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        if not (os.environ.get(name) or "http://").startswith(("http://", "https://")):
            raise ValueError(f"{name} must begin with http:// or https://")
    for name in ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"):
        if (os.environ.get(name) or _PROTOCOL) != _PROTOCOL:
            raise ValueError(f"{name} must be {_PROTOCOL}")


def _context_of(trace: TraceContext) -> OtelContext:
    return _propagator.extract(trace.headers(), OtelContext())
