"""Logs and metrics, set up the same way for relay and worker.

Alone knows the format of log lines and which metrics every process has. Nothing here is global but what `logging`
and structlog make global: each process makes its own registry and hands it on.
"""

import asyncio
import atexit
import logging
import platform
import sys
from typing import Any, BinaryIO

import msgspec
import structlog
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Gauge,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from relay import __version__
from relay.core.settings import Settings

#: What the name of each of our metrics begins with.
NAMESPACE = "scrapellm_relay"
#: How long a log line may wait to be written with others; a process that is killed loses so much.
_GATHER_S = 0.05
_BUFFER_BYTES = 64 * 1024
#: The Content-Type of what `render` returns.
METRICS_CONTENT_TYPE = CONTENT_TYPE_LATEST


def configure_logging(settings: Settings) -> None:
    """Send every log line of this process to standard error, as JSON or for a person, by `RELAY_LOG_FORMAT`.

    Lines of libraries (through `logging`) and Python warnings come out in the same form. Call it once, first.
    """
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    _configure_own(shared, level, as_json=as_json)
    _configure_libraries(shared, level, as_json=as_json)


def _configure_own(shared: list[structlog.typing.Processor], level: int, *, as_json: bool) -> None:
    if as_json:
        # A line per request must be cheap: bytes go straight to the descriptor, many lines at a time, also where Python
        # was told not to buffer.
        lines = _Lines(open(sys.stderr.fileno(), "wb", _BUFFER_BYTES, closefd=False))  # noqa: SIM115 - for good
        atexit.register(lines.flush)
        structlog.configure(
            processors=[*shared, structlog.processors.format_exc_info, _json],
            wrapper_class=structlog.make_filtering_bound_logger(level),
            logger_factory=lambda *_: lines,
            cache_logger_on_first_use=True,
        )
    else:
        structlog.configure(
            processors=[*shared, _console()],
            wrapper_class=structlog.make_filtering_bound_logger(level),
            logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
            cache_logger_on_first_use=True,
        )


class _Lines:
    """Writes lines, those of a moment together; at once where no event loop runs. What structlog takes for a logger."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._alarm: tuple[asyncio.AbstractEventLoop, asyncio.TimerHandle] | None = None

    def msg(self, line: bytes) -> None:
        self._file.write(line + b"\n")
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._file.flush()
            return
        if self._alarm is None or self._alarm[0] is not loop:
            self._alarm = loop, loop.call_later(_GATHER_S, self.flush)

    debug = info = warning = error = critical = exception = msg

    def flush(self) -> None:
        """Write what waits."""
        self._alarm = None
        self._file.flush()


def _configure_libraries(shared: list[structlog.typing.Processor], level: int, *, as_json: bool) -> None:
    last: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()] if as_json else [_console()]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(capture=True)


def _console() -> structlog.dev.ConsoleRenderer:
    # Without the values of variables, which the default prints beside a trace: prompts and keys are among them.
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)


def _json(_logger: object, _method: str, event: structlog.typing.EventDict) -> bytes:
    return msgspec.json.encode(event, enc_hook=_plain)


def _plain(value: Any) -> str:
    # A value that JSON has no form for must not cost the line.
    return repr(value)


def new_registry(service: str) -> CollectorRegistry:
    """A registry with the process' own metrics and `scrapellm_relay_build_info`. `service` is `relay` or `worker`."""
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    build = Gauge(
        "build_info",
        "What runs; always 1.",
        ("service", "version", "python"),
        namespace=NAMESPACE,
        registry=registry,
    )
    build.labels(service, __version__, platform.python_version()).set(1)
    return registry


def render(registry: CollectorRegistry) -> bytes:
    """All metrics of `registry` in the text format of Prometheus, to be served as METRICS_CONTENT_TYPE."""
    return generate_latest(registry)
