"""Child processes that die, don't come up, or must go."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from relay.dev.process import Child, Program, ProgramFailed, module_command, module_environment
from tests.dev_process import wait_until_gone
from tests.integration.process_harness import BOUND_S, watched
from tests.processes import until

#: Says when it runs, and goes on until it is ended.
STAYS = "import time; print('up', flush=True); time.sleep(60)"


@dataclass
class Part:
    """A child that runs a line of Python, and what is said of it."""

    child: Child
    log: Path
    said: list[str] = field(default_factory=list)

    async def until_logged(self, text: str, *, times: int = 1) -> None:
        """Wait until it has printed `text` so often."""
        await until(lambda: self.log.read_text().count(text) >= times, BOUND_S, self.log.read_text)

    async def until_other_pid(self, pid: int | None) -> int:
        """Wait until the process is another one than `pid`; returns that one's."""
        await until(lambda: self.child.pid != pid, BOUND_S, lambda: f"still {pid}")
        assert self.child.pid is not None
        return self.child.pid


MakePart = Callable[..., Part]


async def ready() -> bool:
    """Ready at once."""
    return True


async def never_ready() -> bool:
    """Not ready, ever."""
    return False


@pytest.fixture(name="part")
async def fixture_part(tmp_path: Path) -> AsyncIterator[MakePart]:
    """Makes children that are not started, and that are gone when the test is."""
    made: list[Child] = []

    def make(
        code: str, *, command: Sequence[str] = (), is_ready: Callable[[], Awaitable[bool]] = ready, within_s: float = 5
    ) -> Part:
        said: list[str] = []
        log = tmp_path / "part.log"
        program = Program(
            name="part",
            command=command or [sys.executable, "-c", code],
            environment=dict(os.environ),
            log=log,
            is_ready=is_ready,
            ready_within_s=within_s,
            gone_within_s=5,
        )
        made.append(Child(program, said.append))
        return Part(made[-1], log, said)

    yield make
    for child in made:
        child.kill()
        await child.stop()


async def test_a_child_that_dies_is_started_again(part: MakePart) -> None:
    """Another process takes its place, and it is told what ended the last one and what that said."""
    stays = part(STAYS)
    await stays.child.spawn()
    async with watched(stays.child):
        await stays.until_logged("up")
        first = stays.child.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        second = await stays.until_other_pid(first)
        await stays.until_logged("up", times=2)
        os.kill(second, 0)
    assert stays.said == [f"part was ended by SIGKILL: up (see {stays.log}); starting it again"]


async def test_a_child_that_has_died_long_ago_may_die_again(part: MakePart) -> None:
    """Deaths count for half a minute, however many there were before: the third of a row is still one too many."""
    dies = part("raise SystemExit(7)")
    now = time.monotonic()
    # Nobody waits for minutes to see that.
    dies.child._deaths.extend(now - age_s for age_s in (300, 200, 100))
    await dies.child.spawn()
    with pytest.raises(ProgramFailed, match="exit code 7"):
        async with asyncio.timeout(BOUND_S):
            await dies.child.watch()
    assert len(dies.said) == 2


async def test_a_child_that_ends_before_it_is_ready_is_told(part: MakePart) -> None:
    """Its last words are in the error, which is a single line."""
    dies = part("print('first'); print('  no luck  '); raise SystemExit(3)", is_ready=never_ready)
    await dies.child.spawn()
    with pytest.raises(ProgramFailed) as caught:
        await dies.child.ready()
    assert str(caught.value) == f"part ended with exit code 3: no luck (see {dies.log})"


async def test_a_child_that_does_not_get_ready_is_told(part: MakePart) -> None:
    """It has its time, and no more; what it said is told."""
    slow = part(STAYS, is_ready=never_ready, within_s=0.3)
    await slow.child.spawn()
    await slow.until_logged("up")
    with pytest.raises(ProgramFailed, match=r"part is not ready after 0 s: up \(see "):
        await slow.child.ready()


async def test_a_child_is_asked_until_it_is_ready(part: MakePart) -> None:
    """It is ready when it says so, not when it has started."""
    answers = iter([False, False, True])

    async def third_time() -> bool:
        return next(answers)

    slow = part(STAYS, is_ready=third_time)
    await slow.child.spawn()
    await slow.child.ready()
    assert list(answers) == []


async def test_a_program_that_is_not_there_is_told(part: MakePart, tmp_path: Path) -> None:
    """The line names what could not be run."""
    missing = part("", command=[str(tmp_path / "nothing")], is_ready=never_ready)
    await missing.child.spawn()
    with pytest.raises(ProgramFailed, match=r"exit code 1: .*nothing: No such file"):
        await missing.child.ready()


async def test_last_words_may_be_missing_or_no_text(part: MakePart) -> None:
    """A log that is empty, gone or not UTF-8 does not keep the end from being told."""
    for code, words in [("", ""), (r"import os; os.write(1, b'\xff\xfe!')", ": \ufffd\ufffd!")]:
        dies = part(code, is_ready=never_ready)
        await dies.child.spawn()
        with pytest.raises(ProgramFailed) as caught:
            await dies.child.ready()
        assert str(caught.value) == f"part ended with exit code 0{words} (see {dies.log})"
    dies.log.unlink()
    with pytest.raises(ProgramFailed, match=r"exit code 0 \(see "):
        await dies.child.ready()


async def test_a_child_that_was_not_started_needs_no_end(part: MakePart) -> None:
    """It has no id, is not ready, and can be stopped and killed all the same; so can one that has ended."""
    stays = part(STAYS)
    assert stays.child.pid is None
    with pytest.raises(ProgramFailed, match="did not start"):
        await stays.child.ready()
    for _ in range(2):
        stays.child.kill()
        await stays.child.stop()
        await stays.child.spawn()
    pid = stays.child.pid
    assert pid is not None
    stays.child.kill()
    await stays.child.stop()
    wait_until_gone([pid], 1)
    stays.child.kill()
    await stays.child.stop()
    assert stays.said == []


async def test_stopping_that_is_cancelled_leaves_nobody_behind(part: MakePart) -> None:
    """A child that is deaf to SIGTERM is killed when nobody waits for it any more."""
    deaf = part(f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {STAYS}")
    await deaf.child.spawn()
    await deaf.until_logged("up")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await deaf.child.stop()
    assert deaf.child.pid is not None
    wait_until_gone([deaf.child.pid], 1)
    assert deaf.said == []


def test_our_modules_are_found() -> None:
    """A module of ours runs from anywhere, and the user's own paths are kept behind it."""
    root = str(Path(__file__).parent.parent.parent)
    assert module_command("worker") == [sys.executable, "-P", "-m", "worker"]
    assert module_environment({"A": "b"}) == {"A": "b", "PYTHONPATH": root}
    assert module_environment({"PYTHONPATH": "/x"})["PYTHONPATH"] == f"{root}{os.pathsep}/x"
