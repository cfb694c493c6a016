"""`scrapellm-relay` in a terminal of its own, as a person sees it."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.dev_process import COMMAND, clean_environment

_COLOUR = re.compile(r"\x1b\[[0-9;]*?(?:3[0-8]|9[0-7])(?:;[0-9;]*)?m")
_CONTROL = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]")


class Terminal:
    """Runs a command in a terminal of 30 lines and 120 columns; what is left of it is killed at the end."""

    def __init__(self, *arguments: str, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self._arguments: Sequence[str] = arguments
        self._folder = folder
        self._environment = clean_environment({"TERM": "xterm-256color", **(environment or {})})
        del self._environment["COLUMNS"]
        self._said = b""

    def __enter__(self) -> Self:
        self._end, far_end = pty.openpty()
        fcntl.ioctl(far_end, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            [*COMMAND, *self._arguments],
            cwd=self._folder,
            env=self._environment,
            stdin=far_end,
            stdout=far_end,
            stderr=far_end,
            # The terminal is the one that Ctrl-C is typed in.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no threads in the child yet
            start_new_session=True,
        )
        os.close(far_end)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)
        os.close(self._end)

    @property
    def raw(self) -> str:
        """All that was written to the terminal."""
        return self._said.decode(errors="replace")

    @property
    def text(self) -> str:
        """The same without what steers the terminal."""
        return _CONTROL.sub("", self.raw)

    @property
    def is_coloured(self) -> bool:
        """Whether anything was in a colour."""
        return _COLOUR.search(self.raw) is not None

    def wait_for(self, what: str | re.Pattern[str], within_s: float = 20) -> None:
        """Wait until it has shown a text, or what a pattern describes."""
        give_up = time.monotonic() + within_s
        pattern = re.compile(re.escape(what)) if isinstance(what, str) else what
        while not pattern.search(self.text):
            assert time.monotonic() < give_up, f"{what!r} was not shown within {within_s} s:\n{self.text[-2000:]}"
            assert self._read(), f"it ended with {self._process.wait(10)}:\n{self.text[-2000:]}"

    def interrupt(self) -> None:
        """Type Ctrl-C."""
        os.write(self._end, b"\x03")

    def end(self, within_s: float = 20) -> int:
        """Wait for its end; returns the exit code."""
        give_up = time.monotonic() + within_s
        while self._read():
            assert time.monotonic() < give_up, f"it did not end within {within_s} s:\n{self.text[-2000:]}"
        return self._process.wait(10)

    def _read(self) -> bool:
        """Take what is there, waiting a moment; False once nothing more will come."""
        ready, _, _ = select.select([self._end], [], [], 0.1)
        if not ready:
            return True
        try:
            data = os.read(self._end, 65_536)
        except OSError:
            # How Linux says that the other end is closed.
            return False
        self._said += data
        return bool(data)
