"""Clusters and policies as manifests, drawn by hypothesis: what a user writes, before anything has read it.

Few labels, values, ports and networks, so that what is drawn overlaps. Networks are outside of the pods'.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from hypothesis import strategies as st

from towpath.api.core import Namespace, Pod
from towpath.policy.convert_admin import (
    convert_admin_network_policy,
    convert_baseline_admin_network_policy,
    convert_cluster_network_policy,
)
from towpath.policy.convert_calico import convert_global_network_policy, convert_network_policy, convert_tier
from towpath.policy.convert_calico_endpoints import (
    convert_global_network_set,
    convert_host_endpoint,
    convert_network_set,
)
from towpath.policy.convert_networking import convert
from towpath.policy.converted import Converted
from towpath.policy.endpoints import namespace_labels, pod_endpoint
from towpath.policy.ir import Endpoint, World

Manifest = dict[str, Any]

CALICO = "projectcalico.org/v3"
KUBERNETES = "networking.k8s.io/v1"
NAMESPACES = ("x", "y", "z")
KEYS, VALUES = ("app", "env"), ("a", "b", "ab")
NETS = ("192.0.2.0/24", "192.0.2.0/26", "192.0.2.8/32", "198.51.100.0/25")
EXCEPT = {"192.0.2.0/24": ("192.0.2.0/26", "192.0.2.64/30"), "192.0.2.0/26": ("192.0.2.8/32",)}
NOT_NETS = ("192.0.2.8/32", "192.0.2.64/30")
SETS = (("192.0.2.0/26", "192.0.2.64/28"), ("198.51.100.0/25",))
OUTSIDE = ("192.0.2.1", "192.0.2.8", "192.0.2.65", "192.0.2.200", "198.51.100.1", "203.0.113.9")
PORTS = (80, 81, 443)
NAMES = ("http", "dns")


def world(manifests: Iterable[Mapping[str, Any]]) -> World:
    """What our converters make of them. They find nothing wrong."""
    found = list(manifests)
    namespaces = {
        one["metadata"]["name"]: namespace_labels(msgspec.convert(one, Namespace))
        for one in found
        if one["kind"] == "Namespace"
    }
    pods: list[Endpoint] = []
    for one in found:
        if one["kind"] == "Pod":
            endpoint = pod_endpoint(msgspec.convert(one, Pod), namespaces[one["metadata"]["namespace"]])
            pods += [endpoint] if endpoint else []
    converted = [_converted(one) for one in found if one["kind"] not in ("Namespace", "Pod")]
    assert [finding for one in converted for finding in one.findings] == []
    return World(
        tiers=tuple(tier for one in converted for tier in one.tiers),
        policies=tuple(policy for one in converted for policy in one.policies),
        endpoints=(*pods, *(endpoint for one in converted for endpoint in one.endpoints)),
        network_sets=tuple(networks for one in converted for networks in one.network_sets),
    )


_CONVERTERS: dict[tuple[str, str], Callable[[Mapping[str, Any]], Converted]] = {
    ("NetworkPolicy", "networking.k8s.io"): convert,
    ("ClusterNetworkPolicy", "policy.networking.k8s.io"): convert_cluster_network_policy,
    ("AdminNetworkPolicy", "policy.networking.k8s.io"): convert_admin_network_policy,
    ("BaselineAdminNetworkPolicy", "policy.networking.k8s.io"): convert_baseline_admin_network_policy,
    ("NetworkPolicy", "projectcalico.org"): convert_network_policy,
    ("GlobalNetworkPolicy", "projectcalico.org"): convert_global_network_policy,
    ("Tier", "projectcalico.org"): convert_tier,
    ("NetworkSet", "projectcalico.org"): convert_network_set,
    ("GlobalNetworkSet", "projectcalico.org"): convert_global_network_set,
    ("HostEndpoint", "projectcalico.org"): convert_host_endpoint,
}


def _converted(manifest: Mapping[str, Any]) -> Converted:
    group = manifest["apiVersion"].partition("/")[0].removeprefix("crd.")
    return _CONVERTERS[manifest["kind"], group](manifest)


def pod(name: str, address: str, ports: Iterable[tuple[str, int, str]] = (), **labels: str) -> Manifest:
    """``NAMESPACE/NAME``; ports as name, number, protocol."""
    namespace, _, short = name.partition("/")
    declared = [{"name": p, "containerPort": n, "protocol": protocol} for p, n, protocol in ports]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": short, "namespace": namespace, "labels": labels},
        "spec": {"containers": [{"name": "c", "image": "c", "ports": declared}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    }


def namespace(name: str, **labels: str) -> Manifest:
    """A Namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def kubernetes_policy(name: str, **spec: Any) -> Manifest:
    """``NAMESPACE/NAME``."""
    inside, _, short = name.partition("/")
    return {
        "apiVersion": KUBERNETES,
        "kind": "NetworkPolicy",
        "metadata": {"name": short, "namespace": inside},
        "spec": spec,
    }


def calico_policy(name: str, **spec: Any) -> Manifest:
    """``NAMESPACE/NAME``, or ``NAME`` of a GlobalNetworkPolicy."""
    inside, _, short = name.rpartition("/")
    metadata = {"name": short, "namespace": inside} if inside else {"name": short}
    kind = "NetworkPolicy" if inside else "GlobalNetworkPolicy"
    return {"apiVersion": CALICO, "kind": kind, "metadata": metadata, "spec": spec}


def _maybe(draw: st.DrawFn, odds: float = 0.5) -> bool:
    return draw(st.integers(1, 100)) <= odds * 100


_labels = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES))
_ports = st.lists(
    st.sampled_from((("http", 80, "TCP"), ("http", 81, "TCP"), ("dns", 53, "UDP"), ("dns", 81, "TCP"))),
    max_size=2,
    unique_by=lambda port: port[0],
)


@st.composite
def clusters(draw: st.DrawFn) -> list[Manifest]:
    """Three namespaces and their pods, each of which has a label of its own: ``pod``."""
    found = [namespace(name, **draw(_labels)) for name in NAMESPACES]
    for number in range(7):
        inside = NAMESPACES[number % 3]
        labels = {**draw(_labels), "pod": f"p{number}"}
        found.append(pod(f"{inside}/p{number}", f"10.0.0.{number + 1}", draw(_ports), **labels))
    return found


@st.composite
def calico_ends(draw: st.DrawFn) -> list[Manifest]:
    """Host endpoints, on addresses of their own, and network sets that do not overlap."""
    found: list[Manifest] = []
    for number in range(draw(st.integers(0, 2))):
        labels = {**draw(_labels), "host": f"h{number}"}
        found.append(host_endpoint(f"h{number}", f"203.0.113.{number + 1}", **labels))
    for number, nets in enumerate(SETS[: draw(st.integers(0, 2))]):
        drawn = draw(st.lists(st.sampled_from(nets), min_size=1, unique=True))
        found.append(network_set(f"s{number}", *drawn, **draw(_labels)))
    return found


def network_set(name: str, *nets: str, **labels: str) -> Manifest:
    """A GlobalNetworkSet."""
    return _cluster_wide("GlobalNetworkSet", name, labels, {"nets": list(nets)})


def host_endpoint(name: str, address: str, **labels: str) -> Manifest:
    """A HostEndpoint of all interfaces."""
    spec = {"node": f"node-{name}", "interfaceName": "*", "expectedIPs": [address]}
    return _cluster_wide("HostEndpoint", name, labels, spec)


def _cluster_wide(kind: str, name: str, labels: Manifest, spec: Manifest) -> Manifest:
    metadata = {"name": name, "labels": labels}
    return {"apiVersion": CALICO, "kind": kind, "metadata": metadata, "spec": spec}


# networking.k8s.io/v1


def _requirements(existence: bool) -> st.SearchStrategy[Manifest]:
    among: st.SearchStrategy[Manifest] = st.fixed_dictionaries(
        {
            "key": st.sampled_from(KEYS),
            "operator": st.sampled_from(("In", "NotIn")),
            "values": st.lists(st.sampled_from(VALUES), min_size=1, unique=True),
        }
    )
    exists: st.SearchStrategy[Manifest] = st.fixed_dictionaries(
        {"key": st.sampled_from(KEYS), "operator": st.sampled_from(("Exists", "DoesNotExist"))}
    )
    return st.one_of(among, exists) if existence else among


@st.composite
def _label_selectors(draw: st.DrawFn, existence: bool = True) -> Manifest:
    found: Manifest = {}
    if _maybe(draw):
        found["matchLabels"] = draw(_labels)
    if _maybe(draw, 0.4):
        found["matchExpressions"] = draw(st.lists(_requirements(existence), min_size=1, max_size=2))
    return found


@st.composite
def _kubernetes_peers(draw: st.DrawFn) -> Manifest:
    kind = draw(st.sampled_from(("pods", "namespaces", "both", "block")))
    if kind == "block":
        cidr = draw(st.sampled_from((*NETS, "2001:db8::/64")))
        block: Manifest = {"cidr": cidr}
        if cidr in EXCEPT and _maybe(draw):
            block["except"] = draw(st.lists(st.sampled_from(EXCEPT[cidr]), min_size=1, unique=True))
        return {"ipBlock": block}
    found: Manifest = {}
    if kind != "namespaces":
        # Not both of another namespace and of a label's existence: see test_policy_second_oracle.
        found["podSelector"] = draw(_label_selectors(existence=kind == "pods"))
    if kind != "pods":
        found["namespaceSelector"] = draw(_label_selectors())
    return found


@st.composite
def _kubernetes_ports(draw: st.DrawFn) -> Manifest:
    found: Manifest = {}
    if _maybe(draw, 0.7):
        found["protocol"] = draw(st.sampled_from(("TCP", "UDP", "SCTP")))
    if _maybe(draw, 0.8):
        found["port"] = draw(st.sampled_from((*PORTS, *NAMES)))
        if isinstance(found["port"], int) and _maybe(draw, 0.3):
            found["endPort"] = found["port"] + draw(st.sampled_from((0, 1, 500)))
    return found


@st.composite
def _kubernetes_rules(draw: st.DrawFn, side: str) -> list[Manifest]:
    found = []
    for _ in range(draw(st.integers(0, 3))):
        rule: Manifest = {}
        if _maybe(draw, 0.8):
            rule[side] = draw(st.lists(_kubernetes_peers(), max_size=2))
        if _maybe(draw, 0.6):
            rule["ports"] = draw(st.lists(_kubernetes_ports(), max_size=2))
        found.append(rule)
    return found


@st.composite
def kubernetes_policies(draw: st.DrawFn) -> list[Manifest]:
    """Some, of any namespace."""
    found = []
    for number in range(draw(st.integers(2, 5))):
        spec: Manifest = {"podSelector": draw(_label_selectors())}
        types = draw(st.sampled_from((("Ingress",), ("Egress",), ("Ingress", "Egress"), ())))
        if "Ingress" in types or not types:
            spec["ingress"] = draw(_kubernetes_rules("from"))
        egress = draw(_kubernetes_rules("to")) if "Egress" in types or not types else []
        if egress or types:
            spec["policyTypes"] = list(types)
        if "Egress" in types or egress:
            spec["egress"] = egress
        found.append(kubernetes_policy(f"{draw(st.sampled_from(NAMESPACES))}/k{number}", **spec))
    return found


# projectcalico.org/v3

_terms = st.one_of(
    st.just("all()"),
    st.sampled_from(KEYS).map(lambda key: f"has({key})"),
    st.builds(
        "{} {} '{}'".format, st.sampled_from(KEYS), st.sampled_from(("==", "!=")), st.sampled_from(VALUES)
    ),
    st.builds(
        "{} {} {{ {} }}".format,
        st.sampled_from(KEYS),
        st.sampled_from(("in", "not in")),
        st.lists(st.sampled_from(VALUES), min_size=1, unique=True).map(
            lambda values: ", ".join(f"'{value}'" for value in values)
        ),
    ),
    st.builds(
        "{} {} '{}'".format,
        st.sampled_from(KEYS),
        st.sampled_from(("contains", "starts with", "ends with")),
        st.sampled_from(("a", "b")),
    ),
)
_selectors = st.recursive(
    _terms,
    lambda inner: st.one_of(
        inner.map("!({})".format),
        st.builds("({}) && ({})".format, inner, inner),
        st.builds("({}) || ({})".format, inner, inner),
    ),
    max_leaves=3,
)


def _calico_ports(names: tuple[str, ...]) -> st.SearchStrategy[list[int | str]]:
    return st.lists(
        st.sampled_from((*PORTS, "80:81", "400:65535", *names)), min_size=1, max_size=2, unique=True
    )


@st.composite
def _rule_ends(
    draw: st.DrawFn, everywhere: bool, spaces: bool, ports: bool, names: tuple[str, ...]
) -> Manifest:
    found: Manifest = {}
    kind = draw(st.sampled_from(("any", "nets", "labels", "labels")))
    if kind == "nets":
        found["nets"] = draw(st.lists(st.sampled_from(NETS), min_size=1, max_size=2, unique=True))
        if _maybe(draw, 0.4):
            found["notNets"] = draw(st.lists(st.sampled_from(NOT_NETS), min_size=1, unique=True))
    elif kind == "labels":
        if _maybe(draw, 0.7):
            found["selector"] = draw(_selectors)
        if spaces and _maybe(draw, 0.4):
            found["namespaceSelector"] = draw(_selectors)
        if (found or everywhere) and _maybe(draw, 0.3):
            found["notSelector"] = draw(_selectors)
    if ports and _maybe(draw, 0.4):
        found[draw(st.sampled_from(("ports", "ports", "notPorts")))] = draw(_calico_ports(names))
    return found


@st.composite
def _calico_rules(draw: st.DrawFn, everywhere: bool, spaces: bool) -> Manifest:
    rule: Manifest = {"action": draw(st.sampled_from(("Allow", "Allow", "Deny", "Pass", "Log")))}
    protocol = draw(st.sampled_from((None, "TCP", "TCP", "UDP", "SCTP", "ICMP", "UDPLite", 47, "not")))
    if protocol == "not":
        rule["notProtocol"] = draw(st.sampled_from(("TCP", "UDP", "ICMP", 47)))
    elif protocol is not None:
        rule["protocol"] = protocol
    if protocol == "ICMP" and _maybe(draw):
        icmp = {"type": draw(st.sampled_from((3, 8)))}
        if _maybe(draw):
            icmp["code"] = draw(st.sampled_from((1, 2)))
        rule[draw(st.sampled_from(("icmp", "notICMP")))] = icmp
    ports = protocol in ("TCP", "UDP", "SCTP")
    for side, names in (("source", ()), ("destination", NAMES)):
        end = draw(_rule_ends(everywhere, spaces, ports, names))
        if end:
            rule[side] = end
    return rule


@st.composite
def calico_policies(draw: st.DrawFn, spaces: bool = True) -> list[Manifest]:
    """Some, global ones too, each of an order of its own, around the Kubernetes policies'. ``spaces``: with
    namespaceSelectors.
    """
    found = []
    orders = draw(st.permutations((1, 2, 500, 1500, 2000)))
    for number in range(draw(st.integers(2, 5))):
        everywhere = draw(st.booleans())
        spec: Manifest = {"order": orders[number]}
        if _maybe(draw, 0.7):
            spec["selector"] = draw(_selectors)
        if everywhere and spaces and _maybe(draw, 0.3):
            spec["namespaceSelector"] = draw(_selectors)
        spec["types"] = draw(st.sampled_from((["Ingress"], ["Egress"], ["Ingress", "Egress"])))
        for direction in spec["types"]:
            spec[direction.lower()] = draw(st.lists(_calico_rules(everywhere, spaces), max_size=3))
        name = f"c{number}" if everywhere else f"{draw(st.sampled_from(NAMESPACES))}/c{number}"
        found.append(calico_policy(name, **spec))
    return found
