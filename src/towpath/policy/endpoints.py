"""Pods and nodes as endpoints, with the labels that ``ir`` promises.

What an endpoint has of its namespace and its service account stands under prefixes of their own, so that a
change of these needs no pod: ``with_inherited``. Pods' own labels of such names do not count: nobody may
give himself those of another namespace.
"""

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address
from sys import intern

import msgspec

from towpath.api.core import Container, Namespace, Node, Pod, ServiceAccount
from towpath.model.net import Addr
from towpath.policy.ir import (
    KIND,
    METADATA_NAME,
    NAMESPACE,
    NAMESPACE_NAME,
    NAMESPACE_PREFIX,
    ORCHESTRATOR,
    SERVICE_ACCOUNT,
    SERVICE_ACCOUNT_NAME,
    SERVICE_ACCOUNT_PREFIX,
    Endpoint,
    NamedPort,
)
from towpath.policy.port_matches import PROTOCOLS
from towpath.policy.reading import RESERVED_PREFIXES

_INHERITED = (NAMESPACE_PREFIX, SERVICE_ACCOUNT_PREFIX)
_OVERRIDDEN = {NAMESPACE, SERVICE_ACCOUNT, ORCHESTRATOR}
_FINISHED = ("Succeeded", "Failed")
_NODE_ADDRESSES = ("InternalIP", "ExternalIP")
_OCTETS = {str(octet): octet for octet in range(256)}
_CALICO_POD_IP = "cni.projectcalico.org/podIP"


def namespace_labels(namespace: Namespace) -> dict[str, str]:
    """What its pods inherit. The name counts whatever a label says."""
    name = namespace.metadata.name
    labels = _prefixed(NAMESPACE_PREFIX, namespace.metadata.labels)
    return labels | {NAMESPACE_NAME: name, NAMESPACE_PREFIX + METADATA_NAME: name}


def service_account_labels(account: ServiceAccount) -> dict[str, str]:
    """What its pods inherit. The name counts whatever a label says."""
    labels = _prefixed(SERVICE_ACCOUNT_PREFIX, account.metadata.labels)
    return labels | {SERVICE_ACCOUNT_NAME: account.metadata.name}


def pod_endpoint(
    pod: Pod, namespace: Mapping[str, str], account: Mapping[str, str] | None = None
) -> Endpoint | None:
    """A pod, with the labels of ``namespace_labels`` and, if known, ``service_account_labels``.

    None for a pod that has no network of its own (any more): on the host's network; finished; or being
    deleted and already without its network (Calico's CNI plugin says so in an annotation). Its address may be
    another's by now.
    """
    if pod.spec.host_network or pod.status.phase in _FINISHED or _is_unplugged(pod):
        return None
    name = pod.spec.service_account_name
    labels = _own(pod.metadata.labels, _OVERRIDDEN)
    labels.update(namespace)
    if name:
        labels.update(account or ())
        labels[SERVICE_ACCOUNT] = labels[SERVICE_ACCOUNT_NAME] = name
    labels[KIND] = "pod"
    labels[ORCHESTRATOR] = "k8s"
    labels[NAMESPACE] = pod.metadata.namespace
    addresses = [ip.ip for ip in pod.status.pod_ips or ()] or [pod.status.pod_ip]
    return Endpoint(
        name=f"Pod/{pod.metadata.namespace}/{pod.metadata.name}",
        labels=labels,
        addresses=addresses_of(addresses),
        ports=_named_ports((*(pod.spec.containers or ()), *(pod.spec.init_containers or ()))),
        node=intern(pod.spec.node_name),
    )


def same_endpoint(one: Pod, other: Pod) -> bool:
    """Whether ``pod_endpoint`` is sure to make the same of two states of a pod."""
    return (
        one.spec == other.spec
        and one.status.pod_ips == other.status.pod_ips
        and one.status.pod_ip == other.status.pod_ip
        and one.metadata.labels == other.metadata.labels
        and one.metadata.name == other.metadata.name
        and one.metadata.namespace == other.metadata.namespace
        and (one.status.phase in _FINISHED) == (other.status.phase in _FINISHED)
        and _is_unplugged(one) == _is_unplugged(other)
    )


def with_inherited(
    endpoint: Endpoint, namespace: Mapping[str, str], account: Mapping[str, str] | None = None
) -> Endpoint:
    """The pod after a change of its namespace's or service account's labels.

    ``namespace`` and ``account`` as for ``pod_endpoint``: complete, both of them.
    """
    labels = {key: value for key, value in endpoint.labels.items() if not key.startswith(_INHERITED)}
    labels.update(namespace)
    name = labels.get(SERVICE_ACCOUNT)
    if name is not None:
        labels.update(account or ())
        labels[SERVICE_ACCOUNT_NAME] = name
    return msgspec.structs.replace(endpoint, labels=labels)


def node_endpoint(node: Node) -> Endpoint:
    """A node as a peer. No policy selects it, and so it allows everything.

    Its addresses are those that its status calls internal and external: ClusterNetworkPolicy's ``nodes`` asks
    for all addresses there are in it.
    """
    addresses = node.status.addresses or ()
    return Endpoint(
        name=f"Node/{node.metadata.name}",
        labels=_own(node.metadata.labels) | {KIND: "node"},
        addresses=addresses_of(address.address for address in addresses if address.type in _NODE_ADDRESSES),
        unmatched="allow",
    )


def _own(labels: Mapping[str, str] | None, overridden: Iterable[str] = ()) -> dict[str, str]:
    """The few different values of hundreds of thousands of pods' labels are kept once each."""
    return {
        intern(key): intern(value)
        for key, value in (labels or {}).items()
        if not key.startswith(RESERVED_PREFIXES) and key not in overridden
    }


def _prefixed(prefix: str, labels: Mapping[str, str] | None) -> dict[str, str]:
    return {prefix + key: value for key, value in (labels or {}).items()}


def _is_unplugged(pod: Pod) -> bool:
    return (
        pod.metadata.deletion_timestamp is not None
        and (pod.metadata.annotations or {}).get(_CALICO_POD_IP) == ""
    )


def addresses_of(texts: Iterable[str]) -> tuple[Addr, ...]:
    """Those that are addresses: nothing else can be in a packet. Each once, in order."""
    found: list[Addr] = []
    for text in texts:
        address = _address(text)
        if address is not None and address not in found:
            found.append(address)
    return tuple(found)


def _address(text: str) -> Addr | None:
    try:
        if ":" not in text:  # a third of what IPv4Address takes for a text
            a, b, c, d = text.split(".")
            return IPv4Address(_OCTETS[a] << 24 | _OCTETS[b] << 16 | _OCTETS[c] << 8 | _OCTETS[d])
        address = IPv6Address(text)
    except (KeyError, ValueError):
        return None
    return None if address.scope_id is not None else address.ipv4_mapped or address


def _named_ports(containers: Iterable[Container]) -> tuple[NamedPort, ...]:
    """Of all containers; sidecars are init containers, and the others' ports are named while they run."""
    found: dict[NamedPort, None] = {}
    for container in containers:
        for port in container.ports or ():
            protocol = PROTOCOLS.get(port.protocol or "TCP")
            if port.name and protocol is not None and 0 < port.container_port < 65536:
                found[NamedPort(port.name, protocol, port.container_port)] = None
    return tuple(found)
