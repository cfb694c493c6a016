"""One pod as a node runs it: a process, its probes, and its end. Plays the kubelet."""

import asyncio
import contextlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.cluster.plan import PodPlan, Probe

_ROOT = Path(__file__).parents[2]
#: A container that ended is started again after this; the kubelet waits longer each time.
_AGAIN_S = 1.0


@dataclass(eq=False)
class Pod:
    """A pod with an address of its own, so that those of one workload have the same ports."""

    name: str
    node: str
    address: str
    plan: PodPlan
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    #: Told whenever readiness or termination changes.
    changed: Callable[[], None]
    ready: bool = False
    terminating: bool = False
    #: How often the container was started again, because it ended or its liveness probe failed.
    restarts: int = 0
    #: What a graceful end came to: the exit code, or -9 where the grace was over.
    exit_code: int | None = None
    #: Probes so far, by what they ask for and whether it was well.
    probes: "Counter[tuple[str, bool]]" = field(default_factory=Counter)
    _process: asyncio.subprocess.Process | None = None
    _keeper: "asyncio.Task[None] | None" = None

    def start(self) -> None:
        """Have it kept running."""
        self._keeper = asyncio.create_task(self._keep(), name=self.name)

    async def terminate(self, *, at_once: bool = False) -> None:
        """End it as Kubernetes does: preStop, unless `at_once`, SIGTERM, and SIGKILL when the grace is over."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + self.plan.grace_s
        self.terminating = True
        self.changed()
        await self._let_go()
        process = self._running()
        if process.returncode is not None:
            return
        await asyncio.sleep(0 if at_once else self.plan.pre_stop_s)
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout_at(ends):
                self.exit_code = await process.wait()
        except TimeoutError:
            process.kill()
            self.exit_code = await process.wait()

    async def lose(self) -> None:
        """End it with its node, at once; it does not come again. Nobody is told: that takes the cluster a while."""
        await self._let_go()
        process = self._running()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    def is_kept(self) -> bool:
        """Whether it was started, and nobody has ended it; its process may have ended, and would be started again."""
        return self._keeper is not None and not self._keeper.done()

    def is_alive(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.returncode is None

    def memory_mib(self) -> float:
        """The most memory that its process has held."""
        lines = Path(f"/proc/{self._running().pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024

    def _running(self) -> asyncio.subprocess.Process:
        assert self._process is not None, f"{self.name} was not started"
        return self._process

    async def _let_go(self) -> None:
        assert self._keeper is not None
        self._keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._keeper

    async def _keep(self) -> None:
        while True:
            with self.log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *self.command, env=self.environment, cwd=_ROOT, stdout=log, stderr=log
                )
            ended = asyncio.create_task(self._process.wait())
            probed = asyncio.create_task(self._probe_until_dead())
            try:
                await asyncio.wait({ended, probed}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                ended.cancel()
                probed.cancel()
                await asyncio.wait({ended, probed})
            if self._process.returncode is None:
                # Kubernetes would give it its grace; what no longer answers hardly uses it.
                self._process.kill()
                await self._process.wait()
            self._set_ready(ready=False)
            self.restarts += 1
            await asyncio.sleep(_AGAIN_S)

    async def _probe_until_dead(self) -> None:
        """Probe for as long as the container may live."""
        if not await self._started():
            return
        async with asyncio.TaskGroup() as group:
            readiness = group.create_task(self._watch_readiness())
            await self._watch_liveness()
            readiness.cancel()

    async def _started(self) -> bool:
        probe, failed = self.plan.startup, 0
        if probe is None:
            return True
        await asyncio.sleep(probe.initial_delay_s)
        while not await self._ask("startup", probe):
            failed += 1
            if failed == probe.failures:
                return False
            await asyncio.sleep(probe.period_s)
        return True

    async def _watch_liveness(self) -> None:
        """Return when the container is to be killed."""
        probe, failed = self.plan.liveness, 0
        if probe is None:
            await asyncio.Event().wait()
            return
        await asyncio.sleep(probe.initial_delay_s)
        while failed < probe.failures:
            failed = 0 if await self._ask("liveness", probe) else failed + 1
            await asyncio.sleep(probe.period_s)

    async def _watch_readiness(self) -> None:
        probe = self.plan.readiness
        if probe is None:
            self._set_ready(ready=True)
            return
        await asyncio.sleep(probe.initial_delay_s)
        in_a_row = 0
        while True:
            well = await self._ask("readiness", probe)
            in_a_row = 0 if well == self.ready else in_a_row + 1
            if in_a_row >= (probe.successes if well else probe.failures):
                in_a_row = 0
                self._set_ready(ready=well)
            await asyncio.sleep(probe.period_s)

    async def _ask(self, what: str, probe: Probe) -> bool:
        try:
            async with asyncio.timeout(probe.timeout_s):
                well = await (self._get(probe) if probe.path else self._connect(probe))
        except (aiohttp.ClientError, OSError, TimeoutError):
            well = False
        self.probes[what, well] += 1
        return well

    async def _get(self, probe: Probe) -> bool:
        async with (
            aiohttp.ClientSession(trust_env=False) as http,
            http.get(f"http://{self.address}:{probe.port}{probe.path}", allow_redirects=False) as response,
        ):
            return 200 <= response.status < 400

    async def _connect(self, probe: Probe) -> bool:
        _, writer = await asyncio.open_connection(self.address, probe.port)
        writer.close()
        return True

    def _set_ready(self, *, ready: bool) -> None:
        if ready != self.ready:
            self.ready = ready
            self.changed()


def environment_of(plan: Mapping[str, str]) -> dict[str, str]:
    """A container's environment, and what finds programs and takes coverage here."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(("COV_CORE_", "COVERAGE_"))}
    return kept | {"PATH": os.environ["PATH"], **plan}


def command_of(plan: Sequence[str], replacements: Mapping[str, str]) -> list[str]:
    """A container's command, with the image's python and other words in place of some."""
    known = {"python": sys.executable, **replacements}
    return [known.get(word, word) for word in plan]


def last_words(pod: Pod) -> str:
    """What a pod that does not come up has said."""
    return f"{pod.name} is not ready; {dict(pod.probes)}; it said:\n{pod.log.read_text()[-1_000:]}"
