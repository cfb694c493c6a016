"""Who may speak to whom, by the rendered NetworkPolicies and the ways in."""

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from relay.app import build_app
from relay.core.egress.addresses import GLOBAL_IPV6, REFUSED_IPV4, REFUSED_IPV6
from relay.core.settings import Settings
from relay.core.signing import new_secret
from tests.rendered import ALL, DEV, OPERATORS, OVERLAYS, PRODUCTION, Document, every, only, workloads

#: Routes that stay inside: `/metrics` names clients, and probes come from the node.
INSIDE = {"/healthz", "/readyz", "/metrics"}


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a `podSelector` with equalities only means a pod with these labels."""
    assert selector.keys() <= {"matchLabels"}
    wanted: Mapping[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= labels.items()


def rules(name: str, component: str, direction: str) -> Iterator[Document]:
    """What policies allow the pods of one component of the relay: `ingress` or `egress` rules."""
    labels = {"app.kubernetes.io/name": "scrapellm-relay", "app.kubernetes.io/component": component}
    for policy in every(name, "NetworkPolicy"):
        if selects(policy["spec"]["podSelector"], labels):
            yield from policy["spec"].get(direction, ())


def blocks(name: str, component: str) -> list[Document]:
    """The address blocks that a component may connect to."""
    return [peer["ipBlock"] for rule in rules(name, component, "egress") for peer in rule["to"] if "ipBlock" in peer]


@pytest.mark.parametrize("name", ALL)
def test_what_is_not_allowed_is_refused(name: str) -> None:
    """One policy means every pod, both directions, and allows nothing."""
    spec = only(name, "NetworkPolicy", "deny-by-default")["spec"]
    assert spec == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


@pytest.mark.parametrize("name", ALL)
def test_every_policy_says_what_it_is_about(name: str) -> None:
    """No policy has a rule without peers or ports, which would mean all of them, and each names its directions."""
    for policy in every(name, "NetworkPolicy"):
        spec = policy["spec"]
        given = {direction.capitalize() for direction in ("ingress", "egress") if direction in spec}
        assert given <= set(spec["policyTypes"])
        # Between pods of the trial's own namespace and cluster every port is meant.
        trial = policy["metadata"]["name"] in ("within-the-namespace", "send-callbacks-within-the-cluster")
        for rule in (*spec.get("ingress", ()), *spec.get("egress", ())):
            assert rule.get("from") or rule.get("to")
            assert rule.get("ports") or (name == DEV and trial)


@pytest.mark.parametrize("name", ALL)
def test_the_worker_reaches_what_the_guard_lets_through_and_no_more(name: str) -> None:
    """The policy shuts out the addresses that the address guard refuses, those of clouds' metadata among them."""
    public = [block for block in blocks(name, "worker") if block.get("except")]
    assert public == [
        {"cidr": "0.0.0.0/0", "except": [str(network) for network in REFUSED_IPV4]},
        {
            "cidr": str(GLOBAL_IPV6),
            "except": [str(network) for network in REFUSED_IPV6 if network.subnet_of(GLOBAL_IPV6)],
        },
    ]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("component", ["relay", "worker"])
def test_nothing_reaches_the_metadata_address(name: str, component: str) -> None:
    """No rule of relay or worker leads to the address of a cloud's metadata, by IPv4 or IPv6."""
    for text in ("169.254.169.254", "fd00:ec2::254", "168.63.129.16", "100.100.100.200"):
        address = ipaddress.ip_address(text)
        for block in blocks(name, component):
            held = [ipaddress.ip_network(network) for network in block.get("except", ())]
            allowed = address in ipaddress.ip_network(block["cidr"]) and not any(address in one for one in held)
            assert not allowed, f"{block['cidr']} has {text}"


@pytest.mark.parametrize("name", ALL)
def test_the_relay_sends_nothing_to_the_internet(name: str) -> None:
    """The relay resolves names and speaks to the store; only the worker connects to receivers and ScrapeLLM."""
    for block in blocks(name, "relay"):
        assert ipaddress.ip_network(block["cidr"]).num_addresses <= 256


@pytest.mark.parametrize("component", ["relay", "worker"])
@pytest.mark.parametrize("name", ALL)
def test_names_can_be_resolved(name: str, component: str) -> None:
    """Both services may ask the cluster's name servers, by UDP and TCP."""
    asked = [
        rule for rule in rules(name, component, "egress") if {"protocol": "UDP", "port": 53} in rule.get("ports", ())
    ]
    assert len(asked) == 1
    assert {"protocol": "TCP", "port": 53} in asked[0]["ports"]
    namespace = {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}
    assert {"namespaceSelector": namespace, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}} in asked[0]["to"]


def test_nobody_connects_to_a_worker_but_prometheus() -> None:
    """A worker's port has health and metrics, and one policy leads to it."""
    for name in (PRODUCTION, OPERATORS):
        (rule,) = rules(name, "worker", "ingress")
        assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]


def test_the_store_has_to_be_named() -> None:
    """Until somebody says where the store is, production reaches none: the block in its place is documentation's."""
    for name in (PRODUCTION, OPERATORS):
        (block,) = only(name, "NetworkPolicy", "to-the-store")["spec"]["egress"][0]["to"]
        network = ipaddress.IPv4Network(block["ipBlock"]["cidr"])
        assert network in REFUSED_IPV4
        assert not network.is_global


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_policy_means_somebody(name: str) -> None:
    """No policy selects pods that are not there."""
    labels = [workload["spec"]["template"]["metadata"]["labels"] for workload in workloads(name)]
    for policy in every(name, "NetworkPolicy"):
        assert any(selects(policy["spec"]["podSelector"], one) for one in labels), policy["metadata"]["name"]


def ways_in(name: str) -> list[tuple[str, str]]:
    """The paths that lead in from outside: how each is meant (`Exact`, or by its first parts) and the path."""
    if name == PRODUCTION:
        (rule,) = only(name, "Ingress")["spec"]["rules"]
        return [(path["pathType"], path["path"]) for path in rule["http"]["paths"]]
    matches = [match["path"] for rule in only(name, "HTTPRoute")["spec"]["rules"] for match in rule["matches"]]
    return [(match["type"], match["value"]) for match in matches]


@pytest.mark.parametrize("name", [PRODUCTION, OPERATORS])
def test_clients_reach_every_route_but_the_operators(name: str) -> None:
    """What a client, a receiver or a browser may call is led in; health and metrics are not."""
    ways = ways_in(name)

    def is_led_in(path: str) -> bool:
        return any(path == way or (kind != "Exact" and path.startswith(f"{way}/")) for kind, way in ways)

    service = build_app(Settings.load(_env_file=None, api_key="any", signing_secret=new_secret()))
    assert {way.canonical for way in service.router.resources() if not is_led_in(way.canonical)} == INSIDE


@pytest.mark.parametrize("name", [PRODUCTION, OPERATORS])
def test_the_way_in_is_the_address_that_receivers_are_told(name: str) -> None:
    """Its host is that of RELAY_PUBLIC_URL, and it has TLS."""
    host = only(name, "ConfigMap")["data"]["RELAY_PUBLIC_URL"].removeprefix("https://")
    if name == PRODUCTION:
        spec = only(name, "Ingress")["spec"]
        assert spec["tls"][0]["hosts"] == [rule["host"] for rule in spec["rules"]] == [host]
    else:
        spec = only(name, "HTTPRoute")["spec"]
        assert spec["hostnames"] == [host]
        assert spec["parentRefs"][0]["sectionName"] == "https"
