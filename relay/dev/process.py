"""Child processes: started, watched, started again when they die, and ended. Alone knows what a dead child means.

They live in sessions of their own, so that a Ctrl-C reaches them in the order that their parent chooses, and they are
tied to the parent, so that none outlives it, however it ends.
"""

import asyncio
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from relay.core.errors import RelayError

#: The exit code of a process whose settings are wrong: another start would end the same way.
_WRONG_SETTINGS = 2
_DEATHS = 3
_DEATHS_WITHIN_S = 30.0
_RESTART_AFTER_S = 0.5
_LOOK_EVERY_S = 0.05
_LOG_TAIL_BYTES = 4096
_TETHER = Path(__file__).with_name("tether.py")
_ROOT = Path(__file__).resolve().parent.parent.parent


class ProgramFailed(RelayError):
    """A child could not be started, or does not stay up. The message is one line with its last words."""


@dataclass(frozen=True, slots=True)
class Program:
    """What is to run, and what it means that it runs."""

    name: str
    command: Sequence[str]
    #: Holds keys.
    environment: Mapping[str, str] = field(repr=False)
    log: Path
    #: Whether it does its work; asked until it does.
    is_ready: Callable[[], Awaitable[bool]]
    folder: Path | None = None
    #: How long it may take from its start until it is ready, and from SIGTERM until it is gone.
    ready_within_s: float = 30.0
    gone_within_s: float = 30.0
    #: What the kernel sends it when this process dies.
    on_parents_death: signal.Signals = signal.SIGKILL
    #: Descriptors that it inherits.
    inherits: tuple[int, ...] = ()


def module_command(module: str) -> list[str]:
    """The command that runs one of our own modules, whatever lies in the working directory."""
    # Without -P a folder of the user's called `worker` would be run instead of ours.
    return [sys.executable, "-P", "-m", module]


def module_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment`, in which `module_command` finds our modules: also where they are a checkout, not installed."""
    if _ROOT.name in ("site-packages", "dist-packages"):
        return dict(environment)
    paths = [str(_ROOT), *filter(None, [environment.get("PYTHONPATH")])]
    return {**environment, "PYTHONPATH": os.pathsep.join(paths)}


class Child:
    """One program as a process, and as the next one when that dies."""

    def __init__(self, program: Program, say: Callable[[str], None]) -> None:
        """`say` gets a line for a person whenever the program is started again."""
        self.program = program
        self._say = say
        self._process: asyncio.subprocess.Process | None = None
        self._deaths: deque[float] = deque(maxlen=_DEATHS - 1)
        program.log.write_bytes(b"")

    @property
    def pid(self) -> int | None:
        """The id of the process; None before the first one."""
        return None if self._process is None else self._process.pid

    async def spawn(self) -> None:
        """Start the process. Call it from the main thread: the kernel ties children to the thread that forks."""
        program = self.program
        tether = [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid()), str(int(program.on_parents_death))]
        with program.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *tether,
                *program.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=program.folder,
                env=dict(program.environment),
                pass_fds=program.inherits,
                start_new_session=True,
            )

    async def ready(self) -> None:
        """Wait until the program does its work. Raises ProgramFailed where it ends, or takes too long."""
        give_up = time.monotonic() + self.program.ready_within_s
        while True:
            process = self._process
            if process is None or process.returncode is not None:
                raise ProgramFailed(self._obituary())
            if await self.program.is_ready():
                return
            if time.monotonic() > give_up:
                raise ProgramFailed(
                    f"{self.program.name} is not ready after {self.program.ready_within_s:.0f} s{self._last_words()}"
                )
            await asyncio.sleep(_LOOK_EVERY_S)

    async def watch(self) -> None:
        """Start the program again whenever it dies; runs until cancelled.

        Raises ProgramFailed where a new start would not help: its settings are wrong, or it has died thrice in 30 s.
        """
        while True:
            if self._process is not None:
                await self._process.wait()
            now = time.monotonic()
            often = len(self._deaths) == _DEATHS - 1 and now - self._deaths[0] < _DEATHS_WITHIN_S
            if often or (self._process is not None and self._process.returncode == _WRONG_SETTINGS):
                raise ProgramFailed(self._obituary())
            self._deaths.append(now)
            self._say(f"{self._obituary()}; starting it again")
            await asyncio.sleep(_RESTART_AFTER_S)
            await self.spawn()

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL where that takes too long; returns when the process is gone."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        _send(process, signal.SIGTERM)
        try:
            async with asyncio.timeout(self.program.gone_within_s):
                await process.wait()
        except TimeoutError:
            self._say(f"{self.program.name} did not stop in time and was killed")
        finally:
            if process.returncode is None:
                _send(process, signal.SIGKILL)
                await process.wait()

    def kill(self) -> None:
        """SIGKILL, at once; `stop` then returns as soon as the process is gone."""
        if self._process is not None and self._process.returncode is None:
            _send(self._process, signal.SIGKILL)

    def _obituary(self) -> str:
        code = None if self._process is None else self._process.returncode
        if code is None:
            return f"{self.program.name} did not start"
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"{self.program.name} {how}{self._last_words()}"

    def _last_words(self) -> str:
        log = self.program.log
        try:
            with log.open("rb") as file:
                file.seek(max(0, log.stat().st_size - _LOG_TAIL_BYTES))
                lines = file.read().decode(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        said = f": {lines[-1].strip()}" if lines else ""
        return f"{said} (see {log})"


def _send(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except ProcessLookupError:
        # It ended a moment ago, and the loop has not heard of it yet.
        return
