"""`python -m worker`: the worker as the container starts it."""

import asyncio
import logging
import signal
import sys

import uvloop

from relay.core.collector import set_up_collector
from relay.core.errors import ConfigurationError
from relay.core.observability import configure_logging
from relay.core.settings import Settings
from worker import service


def main() -> int:
    """Run a worker; 0 after a graceful stop, 2 where a setting is wrong."""
    try:
        settings = Settings.load()
        configure_logging(settings)
        # arq says a line for each task; ours say what matters.
        logging.getLogger("arq").setLevel(logging.WARNING)
        set_up_collector()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run_until_told(settings))
    except ConfigurationError as error:
        sys.stderr.write(f"scrapellm-relay worker: {error}\n")
        return 2
    return 0


async def _run_until_told(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT, then stop gracefully."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await service.run(settings, stop)


if __name__ == "__main__":
    raise SystemExit(main())
