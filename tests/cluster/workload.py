"""A Deployment's pods: how many there are, and how new ones take the places of old ones. Plays its controller."""

import asyncio
from collections.abc import Callable, Sequence

from tests.cluster.plan import WorkloadPlan
from tests.cluster.pod import Pod, last_words
from tests.processes import until

NODES = ("node-a", "node-b")
#: One pod's start, with everything else that two cores do then.
_READY_S = 40.0


class Workload:
    """The pods of one Deployment."""

    def __init__(self, plan: WorkloadPlan, make: Callable[[str], Pod], changed: Callable[[], None]) -> None:
        self.plan = plan
        self.replicas = 0
        self._make = make
        self._changed = changed
        self._news = asyncio.Event()
        #: Every pod there ever was.
        self.all: list[Pod] = []
        self.pods: list[Pod] = []
        self._ending: set[asyncio.Task[None]] = set()
        #: The fewest that were ready and the most there were, since the last rollout began.
        self.fewest_ready = self.most = 0

    def notice(self) -> None:
        """A pod of it has changed."""
        self.fewest_ready = min(self.fewest_ready, len(self.ready()))
        self.most = max(self.most, len(self.pods))
        self._news.set()
        self._changed()

    def ready(self) -> Sequence[Pod]:
        """The pods that take work."""
        return [pod for pod in self.pods if pod.ready]

    async def scale(self, replicas: int) -> None:
        """Have so many; returns when the new ones are ready, and the others have ended."""
        self.resize(replicas)
        await self.settle()

    def resize(self, replicas: int) -> None:
        """Have so many from now on: make what is missing, and end the newest of what is too much."""
        self.replicas = replicas
        while len(self.pods) > replicas:
            self._end(self.pods[-1])
        while len(self.pods) < replicas:
            self._begin()

    async def rollout(self) -> None:
        """Replace every pod by a new one, within maxSurge and maxUnavailable."""
        old = list(self.pods)
        self.fewest_ready, self.most = len(self.ready()), len(self.pods)
        while old or len(self.ready()) < self.replicas:
            self._news.clear()
            if len(self.pods) < self.replicas + self.plan.surge and len(self.pods) - len(old) < self.replicas:
                self._begin()
            elif old and len(self.ready()) > self.replicas - self.plan.unavailable:
                self._end(old.pop(0))
            else:
                await asyncio.wait_for(self._news.wait(), _READY_S)
        await self.settle()

    async def settle(self) -> None:
        """Wait until all are ready, and what was to end has ended."""
        await until(
            lambda: len(self.ready()) >= self.replicas,
            _READY_S,
            lambda: "\n".join(last_words(pod) for pod in self.pods if not pod.ready),
        )
        while self._ending:
            await asyncio.wait(self._ending)

    async def lose(self, node: str) -> None:
        """The pods on a node are gone. Nothing takes their places yet."""
        gone = [pod for pod in self.pods if pod.node == node]
        await asyncio.gather(*(pod.lose() for pod in gone))

    async def replace_lost(self) -> None:
        """The cluster has noticed which are gone; returns when others are ready in their places."""
        self.pods = [pod for pod in self.pods if pod.is_alive()]
        self.notice()
        await self.scale(self.replicas)

    def _begin(self) -> None:
        # The node with the fewest of them.
        node = min(NODES, key=lambda name: sum(pod.node == name for pod in self.pods))
        pod = self._make(node)
        self.all.append(pod)
        self.pods.append(pod)
        pod.start()
        self.notice()

    def _end(self, pod: Pod) -> None:
        self.pods.remove(pod)
        task = asyncio.create_task(pod.terminate())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
