"""One small cluster as the API has it, and who reaches whom under policies as the API has them."""

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

from policy_worlds import PROTOCOLS
from towpath.api.core import (
    Container,
    ContainerPort,
    Namespace,
    Node,
    NodeAddress,
    NodeStatus,
    Pod,
    PodIP,
    PodSpec,
    PodStatus,
)
from towpath.api.meta import ObjectMeta
from towpath.policy.converted import Converted
from towpath.policy.endpoints import namespace_labels, node_endpoint, pod_endpoint
from towpath.policy.evaluate import Flow, verdict
from towpath.policy.ir import Endpoint, Policy, World

NAMESPACES = {
    "x": Namespace(metadata=ObjectMeta(name="x", labels={"team": "red"})),
    "y": Namespace(metadata=ObjectMeta(name="y", labels={"team": "blue", "env": "prod"})),
}


def pod(name: str, *addresses: str, ports: tuple[ContainerPort, ...] = (), **labels: str) -> Pod:
    """``NAMESPACE/NAME``, running."""
    namespace, _, short = name.partition("/")
    return Pod(
        metadata=ObjectMeta(name=short, namespace=namespace, labels=labels or None),
        spec=PodSpec(node_name="n1", service_account_name="default", containers=[Container(ports=[*ports])]),
        status=PodStatus(phase="Running", pod_ips=[PodIP(ip) for ip in addresses]),
    )


def node(name: str, *addresses: str, **labels: str) -> Node:
    """With internal addresses."""
    return Node(
        metadata=ObjectMeta(name=name, labels=labels),
        status=NodeStatus(addresses=[NodeAddress("InternalIP", address) for address in addresses]),
    )


PODS = (
    pod(
        "x/web",
        *("10.0.0.1", "fd00::1"),
        ports=(ContainerPort(8080, "http"), ContainerPort(5353, "dns", "UDP")),
        app="web",
    ),
    pod("x/db", "10.0.0.2", "fd00::2", app="db"),
    pod("y/web", "10.0.0.3", "fd00::3", ports=(ContainerPort(80, "http"),), app="web"),
    pod("y/cli", "10.0.0.4", "fd00::4", app="cli", env="prod"),
)
NODES = (node("n1", "192.0.2.11", "fd02::11", role="worker"), node("n2", "192.0.2.12", role="control"))

ENDPOINTS: tuple[Endpoint, ...] = tuple(
    endpoint
    for one in PODS
    if (endpoint := pod_endpoint(one, namespace_labels(NAMESPACES[one.metadata.namespace]))) is not None
) + tuple(map(node_endpoint, NODES))

ADDRESSES = {
    "x/web": "10.0.0.1",
    "x/db": "10.0.0.2",
    "y/web": "10.0.0.3",
    "y/cli": "10.0.0.4",
    "n1": "192.0.2.11",
    "n2": "192.0.2.12",
    "out": "203.0.113.5",
}
SIX = {"x/web": "fd00::1", "x/db": "fd00::2", "y/web": "fd00::3", "y/cli": "fd00::4", "out": "2001:db8::5"}
EVERYONE = set(ADDRESSES)


def world(converted: Iterable[Converted]) -> World:
    """The cluster under these policies."""
    return World(policies=tuple(policy for one in converted for policy in one.policies), endpoints=ENDPOINTS)


def flow(source: str, destination: str, port: int = 80, protocol: str = "tcp", family: int = 4) -> Flow:
    """Between two of the cluster, by name."""
    addresses = ADDRESSES if family == 4 else SIX
    return Flow(
        source=ip_address(addresses[source]),
        destination=ip_address(addresses[destination]),
        protocol=PROTOCOLS[protocol],
        destination_port=port,
    )


def sources(destination: str, *converted: Converted, port: int = 80, protocol: str = "tcp") -> set[str]:
    """Who reaches this port of it."""
    here = world(converted)
    return {name for name in EVERYONE if verdict(here, flow(name, destination, port, protocol))}


def destinations(source: str, *converted: Converted, port: int = 80, protocol: str = "tcp") -> set[str]:
    """Whom it reaches at this port."""
    here = world(converted)
    return {name for name in EVERYONE if verdict(here, flow(source, name, port, protocol))}


def only(converted: Converted) -> Policy:
    """The one policy of an object that nothing is wrong with."""
    assert converted.findings == ()
    (policy,) = converted.policies
    return policy


def problem(converted: Converted) -> str:
    """What is wrong with an object; one thing."""
    (finding,) = converted.findings
    return f"{finding.code} {finding.object}: {finding.message}"


def labels(**pairs: Any) -> dict[str, Any]:
    """A selector of labels."""
    return {"matchLabels": pairs}
