"""A collector of traces on the loopback interface: takes what OpenTelemetry sends, and keeps the spans."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SentSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status


@dataclass(frozen=True, slots=True)
class Noted:
    """One span."""

    service: str
    name: str
    #: SERVER or CLIENT.
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: Mapping[str, str | int]
    is_error: bool


@dataclass
class Collector:
    """What has arrived."""

    spans: list[Noted] = field(default_factory=list)
    #: As it came.
    bodies: list[bytes] = field(default_factory=list)
    url: str = ""

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["Collector"]:
        """Take what is sent to `url`, while the context lasts."""
        app = web.Application()
        app.add_routes([web.post("/v1/traces", self._take)])
        runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = site.name
            yield self
        finally:
            await runner.cleanup()

    def settings(self) -> Mapping[str, str]:
        """What has a process send here, and soon."""
        return {
            "RELAY_OTEL": "on",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.url,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }

    def named(self, name: str, trace_id: str = "") -> list[Noted]:
        """The spans of that name, of one trace or of all."""
        return [span for span in self.spans if span.name == name and trace_id in ("", span.trace_id)]

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.bodies.append(body)
        for of_service in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = {pair.key: _value(pair.value) for pair in of_service.resource.attributes}["service.name"]
            self.spans += [_noted(str(service), span) for scope in of_service.scope_spans for span in scope.spans]
        return web.Response(
            body=ExportTraceServiceResponse().SerializeToString(), content_type="application/x-protobuf"
        )


def _noted(service: str, span: SentSpan) -> Noted:
    return Noted(
        service=service,
        name=span.name,
        kind=SentSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        attributes={pair.key: _value(pair.value) for pair in span.attributes},
        is_error=span.status.code == Status.STATUS_CODE_ERROR,
    )


def _value(value: AnyValue) -> str | int:
    return value.int_value if value.WhichOneof("value") == "int_value" else value.string_value
