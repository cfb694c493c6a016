"""Log lines come out soon, in order, and before the process ends."""

import json
import subprocess
import sys

_PROGRAM = """
import asyncio
import structlog
from relay.core.observability import configure_logging
from relay.core.settings import Settings

configure_logging(Settings.load(_env_file=None, log_format="json"))
log = structlog.get_logger()

async def main(name):
    log.info(name)
    log.warning(name)

log.info("before")
asyncio.run(main("first"))
log.info("between")
asyncio.run(main("second"))
"""


def test_lines_come_out_soon_and_in_order() -> None:
    """With a loop and without, in a second loop, and at the end."""
    done = subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=30, check=True
    )
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in told] == ["before", "first", "first", "between", "second", "second"]
    assert {line["level"] for line in told} == {"info", "warning"}


_WAITING = """
import asyncio
import structlog
from relay.core.observability import configure_logging
from relay.core.settings import Settings

configure_logging(Settings.load(_env_file=None, log_format="json"))

async def main():
    structlog.get_logger().info("here")
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_line_does_not_wait_for_the_next() -> None:
    """Nor for the end."""
    command = [sys.executable, "-c", _WAITING]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603 - this interpreter
        assert process.stderr is not None
        try:
            assert json.loads(process.stderr.readline())["event"] == "here"
        finally:
            process.kill()
