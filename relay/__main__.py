"""`python -m relay`: serve until told to stop."""

import asyncio
import signal
import sys

import structlog

from relay.api.context import STORE
from relay.api.server import listening
from relay.app import build_app
from relay.core.collector import set_up_collector
from relay.core.errors import ConfigurationError
from relay.core.observability import configure_logging
from relay.core.settings import Settings

#: What a wrong setting ends the process with.
EXIT_CONFIGURATION = 2
log = structlog.get_logger(component="relay")


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; running requests are answered first.

    Raises ConfigurationError: at once, or once the store is reached and turns out to be one that would drop jobs.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    app = build_app(settings)
    async with listening(app, settings.host, settings.port) as port:
        log.info("listening", host=settings.host, port=port)
        refused = app[STORE].refused
        refused.add_done_callback(lambda _: stop.set())
        await stop.wait()
        log.info("stopping")
        if refused.done():
            raise refused.result()


def main() -> int:
    """Run the service with the settings of the environment; returns the exit code."""
    try:
        settings = Settings.load()
        configure_logging(settings)
        set_up_collector()
        _run(settings)
    except ConfigurationError as error:
        sys.stderr.write(f"scrapellm-relay relay: {error}\n")
        return EXIT_CONFIGURATION
    return 0


def _run(settings: Settings) -> None:
    try:
        import uvloop  # noqa: PLC0415 - where there is none, asyncio's own loop does
    except ImportError:
        asyncio.run(serve(settings))
    else:
        uvloop.run(serve(settings))


if __name__ == "__main__":
    sys.exit(main())
