"""What the manifests ask of a cluster, as far as processes can be held to it. Alone knows where it stands in them.

Whatever else a container could say that would change how it runs is refused, so that nothing is left out in silence.
"""

import base64
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from tests.rendered import Document
from tests.unit.dockerfile import Dockerfile

#: What this reader knows of a container, or may leave to the kernel of a node.
_KNOWN = {
    *("command", "env", "envFrom", "image", "imagePullPolicy", "lifecycle", "name", "ports", "resources"),
    *("livenessProbe", "readinessProbe", "startupProbe", "securityContext", "volumeMounts"),
}


@dataclass(frozen=True, slots=True)
class Probe:
    """One probe, with the defaults of Kubernetes."""

    port: int
    #: None: it is enough that a connection can be had.
    path: str | None
    initial_delay_s: float
    period_s: float
    timeout_s: float
    #: So many in a row change what is thought of the container.
    failures: int
    successes: int


@dataclass(frozen=True, slots=True)
class PodPlan:
    """One pod: its only container, and how it comes and goes."""

    command: Sequence[str]
    ports: Sequence[int]
    #: As the container would find it: of the image, the ConfigMap, the Secret, and its own.
    environment: Mapping[str, str]
    startup: Probe | None
    liveness: Probe | None
    readiness: Probe | None
    pre_stop_s: float
    grace_s: float

    def moved(self, ports: Mapping[int, int]) -> "PodPlan":
        """The same, probed at other ports."""

        def other(probe: Probe | None) -> Probe | None:
            return probe and replace(probe, port=ports[probe.port])

        return replace(
            self, startup=other(self.startup), liveness=other(self.liveness), readiness=other(self.readiness)
        )


@dataclass(frozen=True, slots=True)
class WorkloadPlan:
    """A Deployment or a StatefulSet."""

    name: str
    replicas: int
    #: Pods beyond `replicas` that a rollout may make, and pods that may be missing meanwhile.
    surge: int
    unavailable: int
    pod: PodPlan


@dataclass(frozen=True, slots=True)
class Plan:
    """All workloads by name, and the ports that the Services of the same names lead from."""

    workloads: Mapping[str, WorkloadPlan]
    services: Mapping[str, int]

    @classmethod
    def read(cls, documents: Sequence[Document]) -> "Plan":
        """What rendered manifests say. Raises ValueError for what this reader does not know."""
        named = {(one["kind"], one["metadata"]["name"]): one for one in documents}
        workloads = [one for (kind, _), one in named.items() if kind in ("Deployment", "StatefulSet")]
        services = {name: one["spec"]["ports"][0]["port"] for (kind, name), one in named.items() if kind == "Service"}
        return cls({one["metadata"]["name"]: _workload(one, named) for one in workloads}, services)


def _workload(document: Document, named: Mapping[tuple[str, str], Document]) -> WorkloadPlan:
    spec = document["spec"]
    rolling = spec.get("strategy", {}).get("rollingUpdate", {})
    return WorkloadPlan(
        name=document["metadata"]["name"],
        replicas=spec.get("replicas", 1),
        surge=rolling.get("maxSurge", 0),
        unavailable=rolling.get("maxUnavailable", 1),
        pod=_pod(spec["template"]["spec"], named),
    )


def _pod(spec: Document, named: Mapping[tuple[str, str], Document]) -> PodPlan:
    if spec.keys() & {"initContainers", "ephemeralContainers"} or len(spec["containers"]) != 1:
        raise ValueError("a pod has more than one container")
    (container,) = spec["containers"]
    if unknown := container.keys() - _KNOWN:
        raise ValueError(f"a container has {unknown}")
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    lifecycle = container.get("lifecycle", {"preStop": {"sleep": {"seconds": 0}}})
    if lifecycle.keys() != {"preStop"} or lifecycle["preStop"].keys() != {"sleep"}:
        raise ValueError(f"a container has {lifecycle}")
    return PodPlan(
        command=container["command"],
        ports=list(ports.values()),
        environment=MappingProxyType(_environment(container, named)),
        startup=_probe(container.get("startupProbe"), ports),
        liveness=_probe(container.get("livenessProbe"), ports),
        readiness=_probe(container.get("readinessProbe"), ports),
        pre_stop_s=lifecycle["preStop"]["sleep"]["seconds"],
        grace_s=spec.get("terminationGracePeriodSeconds", 30),
    )


def _environment(container: Document, named: Mapping[tuple[str, str], Document]) -> dict[str, str]:
    found = _of_the_image() if container["command"][0] == "python" else {}
    for source in container.get("envFrom", ()):
        match source:
            case {"configMapRef": {"name": name}}:
                found |= named["ConfigMap", name]["data"]
            case {"secretRef": {"name": name}}:
                values = named["Secret", name]["data"].items()
                found |= {key: base64.b64decode(value).decode() for key, value in values}
            case _:
                raise ValueError(f"a container has its environment from {source}")
    for variable in container.get("env", ()):
        if "value" not in variable:
            raise ValueError(f"a container has {variable}")
        found[variable["name"]] = variable["value"]
    return found


def _of_the_image() -> dict[str, str]:
    instructions = Dockerfile.read().instructions
    last = max(number for number, (name, _) in enumerate(instructions) if name == "FROM")
    words: Iterable[str] = (word for name, rest in instructions[last:] if name == "ENV" for word in shlex.split(rest))
    pairs = dict(word.split("=", 1) for word in words)
    # Where python is, which is elsewhere here.
    pairs.pop("PATH", None)
    return pairs


def _probe(given: Document | None, ports: Mapping[str, int]) -> Probe | None:
    # A command would be the image's own, which is not here.
    if given is None or "exec" in given:
        return None
    match given:
        case {"httpGet": {"path": path, "port": port, **more}} if not more:
            pass
        case {"tcpSocket": {"port": port, **more}} if not more:
            path = None
        case _:
            raise ValueError(f"a probe is {given}")
    return Probe(
        port=ports[port],
        path=path,
        initial_delay_s=given.get("initialDelaySeconds", 0),
        period_s=given.get("periodSeconds", 10),
        timeout_s=given.get("timeoutSeconds", 1),
        failures=given.get("failureThreshold", 3),
        successes=given.get("successThreshold", 1),
    )
