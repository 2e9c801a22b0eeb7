"""Calico's network sets, host endpoints, staged policies and failsafe ports."""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from msgspec.structs import replace

from kube_policies import ENDPOINTS, EVERYONE, NAMESPACES, flow, labels, problem
from towpath.model.failsafe import EVERYWHERE, INBOUND, OUTBOUND, Failsafe
from towpath.policy.calico_staged import unstage
from towpath.policy.convert_calico import convert_global_network_policy, convert_network_policy
from towpath.policy.convert_calico_endpoints import (
    convert_global_network_set,
    convert_host_endpoint,
    convert_network_set,
)
from towpath.policy.convert_networking import convert as convert_kubernetes
from towpath.policy.converted import Converted
from towpath.policy.endpoints import namespace_labels
from towpath.policy.evaluate import Flow, verdict
from towpath.policy.ir import SCTP, TCP, UDP, Endpoint, NamedPort, World

CRD = "crd.projectcalico.org/v1"
INHERITED = {name: namespace_labels(namespace) for name, namespace in NAMESPACES.items()}
# Between a node with host endpoints and its own pods nobody is asked (``test_policy_passage``).
ELSEWHERE = tuple(replace(endpoint, node="") for endpoint in ENDPOINTS)


def raw(kind: str, name: str, spec: Any, namespace: str | None = None, **labels: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "labels": labels}
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": CRD, "kind": kind, "metadata": metadata, "spec": spec}


def global_set(*nets: Any, name: str = "s", **labels: Any) -> Converted:
    return convert_global_network_set(raw("GlobalNetworkSet", name, {"nets": [*nets]}, **labels))


def network_set(namespace: str, *nets: Any, **labels: Any) -> Converted:
    return convert_network_set(raw("NetworkSet", "s", {"nets": [*nets]}, namespace, **labels), INHERITED)


def ingress(
    *rules: dict[str, Any], namespace: str | None = None, selector: str = "app == 'web'"
) -> Converted:
    spec = {"selector": selector, "types": ["Ingress"], "ingress": [*rules]}
    if namespace:
        return convert_network_policy(raw("NetworkPolicy", "p", spec, namespace))
    return convert_global_network_policy(raw("GlobalNetworkPolicy", "p", spec))


def rule(action: str, **source: str) -> dict[str, Any]:
    return {"action": action, "source": source}


def sources(destination: str, *converted: Converted) -> set[str]:
    world = World(
        policies=tuple(policy for one in converted for policy in one.policies),
        endpoints=(*ELSEWHERE, *(endpoint for one in converted for endpoint in one.endpoints)),
        network_sets=tuple(networks for one in converted for networks in one.network_sets),
    )
    return {name for name in EVERYONE if verdict(world, flow(name, destination))}


def test_sets_are_peers_by_their_labels() -> None:
    outside = global_set("203.0.113.0/24", "2001:db8::/32", role="office")
    (networks,) = outside.network_sets
    assert networks.name == "GlobalNetworkSet/s"
    assert networks.nets == (ip_network("203.0.113.0/24"), ip_network("2001:db8::/32"))
    assert outside.findings == ()
    assert sources("x/web", outside, ingress(rule("Allow", selector="role == 'office'"))) == {"x/web", "out"}
    assert sources("x/web", outside, ingress(rule("Allow", selector="role == 'home'"))) == {"x/web"}
    # A bare address is a network; one that is in the set may not.
    node = global_set("192.0.2.11", role="node")
    assert sources("x/web", node, ingress(rule("Allow", notSelector="has(role)"))) == EVERYONE - {"n1"}


def test_global_sets_are_in_no_namespace_and_others_in_their_own() -> None:
    nets = ("203.0.113.0/24",)
    lying = {"projectcalico.org/namespace": "x", "pcns.team": "red", "towpath.io/kind": "pod", "role": "a"}
    for policy, global_counts, local_counts in (
        (ingress(rule("Allow", selector="has(role)"), namespace="x"), False, True),
        (
            ingress(rule("Allow", selector="has(role)", namespaceSelector="global()"), namespace="x"),
            True,
            False,
        ),
        (ingress(rule("Allow", selector="has(role)", namespaceSelector="team == 'red'")), False, True),
        (ingress(rule("Allow", selector="has(role)", namespaceSelector="team == 'blue'")), False, False),
        (ingress(rule("Allow", selector="has(role)")), True, True),
        (ingress(rule("Allow", namespaceSelector="all()", selector="role == 'a'")), False, True),
    ):
        assert ("out" in sources("x/web", global_set(*nets, **lying), policy)) is global_counts
        assert ("out" in sources("x/web", network_set("x", *nets, **lying), policy)) is local_counts


def test_of_a_namespace_not_yet_known_the_name_counts() -> None:
    (networks,) = convert_network_set(raw("NetworkSet", "s", {"nets": []}, "new")).network_sets
    assert networks.name == "NetworkSet/new/s"
    assert networks.labels == {
        "towpath.io/kind": "networkset",
        "projectcalico.org/namespace": "new",
        "pcns.projectcalico.org/name": "new",
        "pcns.kubernetes.io/metadata.name": "new",
    }


@pytest.mark.parametrize(
    "net", ["203.0.113.0/33", "office", "", None, 7, "010.0.0.0/8", "::ffff:10.0.0.0/104"]
)
def test_a_set_with_a_network_that_cannot_be_read(net: Any) -> None:
    """What is missing may be anything: denials grow, permissions shrink."""
    broken = global_set("203.0.113.0/24", net, role="a")
    whole = global_set("192.0.2.0/24", name="whole", role="b")
    assert problem(broken).startswith("TP5040 GlobalNetworkSet/s: spec.nets[1]: ")
    others = EVERYONE - {"x/web"}

    def reach(*rules: dict[str, Any]) -> set[str]:
        return sources("x/web", broken, whole, ingress(*rules)) - {"x/web"}

    readable = {"out"} if net is not None else set()  # no list of networks may have null in it
    assert reach(rule("Allow", selector="role == 'a'")) == readable
    assert reach(rule("Allow", notSelector="role == 'a'")) == set()
    assert reach(rule("Deny", selector="role == 'a'"), rule("Allow")) == set()
    assert reach(rule("Deny", notSelector="role == 'a'"), rule("Allow")) == readable
    assert reach(rule("Pass", selector="role == 'a'")) == readable
    # Nobody else's rules are touched, and no rule of Kubernetes' speaks of sets.
    assert reach(rule("Deny", selector="role == 'b'"), rule("Allow")) == others - {"n1", "n2"}
    assert reach(rule("Allow", notSelector="role == 'b'")) == others - {"n1", "n2"}
    assert reach(rule("Deny", selector="role == 'a'", notSelector="has(role)"), rule("Allow")) == others
    pods = {"podSelector": labels(app="web"), "ingress": [{"from": [{"namespaceSelector": {}}]}]}
    everyone = {"metadata": {"name": "k", "namespace": "x"}, "spec": pods}
    assert sources("x/web", broken, convert_kubernetes(everyone)) == {"x/web", "x/db", "y/web", "y/cli"}


@pytest.mark.parametrize(
    ("spec", "metadata"),
    [
        ("x", {}),
        ({"nets": "10.0.0.0/8"}, {}),
        ({"nets": ["203.0.113.0/24"], "allowedEgressDomains": ["example.org"]}, {}),
        ({"nets": ["203.0.113.0/24"]}, {"labels": {"role": "a", "size": 7}}),
        ({"nets": ["203.0.113.0/24"]}, {"labels": ["role"]}),
    ],
)
def test_sets_not_understood_are_everything_to_denials(spec: Any, metadata: dict[str, Any]) -> None:
    object_ = raw("GlobalNetworkSet", "s", spec, role="a")
    object_["metadata"] |= metadata
    broken = convert_global_network_set(object_)
    assert "TP5040 GlobalNetworkSet/s" in problem(broken)
    denial = rule("Deny", selector="role == 'a' || !has(role)")
    assert sources("x/web", broken, ingress(denial, rule("Allow"))) == {"x/web"}
    if "labels" in metadata:  # it is not known who it is, so nobody is allowed by it
        assert sources("x/web", broken, ingress(rule("Allow", selector="!has(size)"))).isdisjoint({"out"})


def host(name: str = "h", spec: dict[str, Any] | None = None, **labels: Any) -> dict[str, Any]:
    spec = {"node": "n1", "interfaceName": "eth0", "expectedIPs": ["192.0.2.11", "fd02::11"], **(spec or {})}
    return raw("HostEndpoint", name, spec, **labels)


def only(converted: Converted) -> Endpoint:
    (endpoint,) = converted.endpoints
    return endpoint


def test_a_host_endpoint() -> None:
    ports = [
        {"name": "ssh", "protocol": "TCP", "port": 22},
        {"name": "dns", "protocol": 17, "port": 53},
        {"name": "s", "protocol": "sctp", "port": 1},
    ]
    converted = convert_host_endpoint(
        host(spec={"ports": ports}, role="worker", **{"pcns.team": "red", "projectcalico.org/namespace": "x"})
    )
    assert converted.findings == ()
    assert only(converted) == Endpoint(
        name="HostEndpoint/h",
        labels={"role": "worker", "towpath.io/kind": "hostendpoint"},
        addresses=(ip_address("192.0.2.11"), ip_address("fd02::11")),
        ports=(NamedPort("ssh", TCP, 22), NamedPort("dns", UDP, 53), NamedPort("s", SCTP, 1)),
        unmatched="deny",
        node="n1",
        interface="eth0",
    )


def test_where_a_host_endpoint_is() -> None:
    def place(**spec: Any) -> tuple[str, str]:
        endpoint = only(convert_host_endpoint(host(spec=spec)))
        return endpoint.node, endpoint.interface

    assert place() == ("n1", "eth0")
    assert place(interfaceName="*", expectedIPs=[]) == ("n1", "*")
    assert place(interfaceName="") == ("n1", "")
    nowhere: tuple[dict[str, Any], ...] = (
        {"node": ""},
        {"node": None},
        {"interfaceName": None, "expectedIPs": []},
        {"interfaceName": 7},
        {"interfaceName": "eth*"},
        {"interfaceName": 'eth0" accept'},
        {"interfaceName": "far-too-long-for-one"},
    )
    for spec in nowhere:
        assert place(**spec) == ("", "")
        assert "TP5041 HostEndpoint/h: spec" in problem(convert_host_endpoint(host(spec=spec)))


def test_profiles() -> None:
    def unmatched(*profiles: str) -> str:
        return only(convert_host_endpoint(host(spec={"profiles": [*profiles]}), INHERITED)).unmatched

    assert unmatched() == "deny"
    assert unmatched("projectcalico-default-allow") == "allow"
    assert unmatched("kns.x") == "allow"
    assert unmatched("kns.nobody") == "deny"
    endpoint = only(convert_host_endpoint(host(spec={"profiles": ["kns.x", "kns.y"]}, role="r"), INHERITED))
    assert endpoint.labels["pcns.team"] == "red"  # the first profile that has it
    assert endpoint.labels["pcns.env"] == "prod"
    for profiles in (["ksa.x.default"], ["projectcalico-default-allow", "mine"], "x", [7]):
        converted = convert_host_endpoint(host(spec={"profiles": profiles}), INHERITED)
        assert "spec.profiles" in problem(converted)
        assert only(converted).unmatched == "deny"


def test_policies_of_host_endpoints() -> None:
    closed, open_ = host(role="w"), host(spec={"profiles": ["projectcalico-default-allow"]}, role="w")

    def reach(raw: dict[str, Any], *converted: Converted) -> set[str]:
        return sources("n1", convert_host_endpoint(raw), *converted) - {"n1"}

    assert reach(closed) == set()
    assert reach(open_) == EVERYONE - {"n1"}
    from_pods = ingress(rule("Allow", selector="has(app)"), selector="role == 'w'")
    assert reach(closed, from_pods) == reach(open_, from_pods) == {"x/web", "x/db", "y/web", "y/cli"}
    # and as a peer
    allow_host = ingress(rule("Allow", selector="role == 'w'"))
    assert sources("x/web", convert_host_endpoint(open_), allow_host) == {"x/web", "n1"}


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"expectedIPs": ["192.0.2.11", "eth0"]}, "spec.expectedIPs[1]: 'eth0' is no address"),
        ({"expectedIPs": [7]}, "is no text"),
        ({"ports": [{"name": "a", "protocol": "TCP"}]}, "spec.ports[0].port"),
        ({"ports": [{"name": "a", "protocol": "ICMP", "port": 1}]}, "has no ports"),
        ({"ports": [{"protocol": "TCP", "port": 1}]}, "spec.ports[0].name"),
        ({"ports": "x"}, "spec.ports"),
        ({"more": 1}, "spec.more"),
    ],
)
def test_a_host_endpoint_not_understood_denies_what_no_policy_decides(
    spec: dict[str, Any], says: str
) -> None:
    converted = convert_host_endpoint(
        host(spec={"profiles": ["projectcalico-default-allow"], **spec}, role="w")
    )
    assert says in problem(converted)
    assert only(converted).unmatched == "deny"
    # Its address may be anybody's: a denial of it is one of everybody.
    denied = sources("x/web", converted, ingress(rule("Deny", selector="role == 'w'"), rule("Allow")))
    assert (denied == {"x/web"}) is ("ports" not in spec)


def test_staged_policies_are_what_they_would_be() -> None:
    spec = {"stagedAction": "Set", "selector": "app == 'web'", "types": ["Ingress"]}
    staged = unstage(raw("StagedNetworkPolicy", "p", spec, "x"))
    assert staged.action == "set"
    assert staged.findings == ()
    del spec["stagedAction"]
    assert staged.object == raw("NetworkPolicy", "p", spec, "x")
    (policy,) = convert_network_policy(staged.object).policies
    assert policy.key == ("NetworkPolicy.projectcalico.org", "x", "p")
    everywhere = unstage(raw("StagedGlobalNetworkPolicy", "p", {"stagedAction": "Learn", "order": 1}))
    assert everywhere.action == "set"
    assert everywhere.object == raw("GlobalNetworkPolicy", "p", {"order": 1})
    kubernetes = unstage(raw("StagedKubernetesNetworkPolicy", "p", {"podSelector": {}}, "x"))
    assert kubernetes.object["apiVersion"] == "networking.k8s.io/v1"
    converted = convert_kubernetes(kubernetes.object)
    assert converted.findings == ()
    assert converted.policies[0].key == ("NetworkPolicy", "x", "p")


def test_staged_deletions_and_what_is_ignored() -> None:
    deleted = unstage(raw("StagedNetworkPolicy", "p", {"stagedAction": "Delete"}, "x"))
    assert deleted.action == "delete"
    assert convert_network_policy(deleted.object).policies[0].name == "p"
    ignored = unstage(raw("StagedNetworkPolicy", "p", {"stagedAction": "Ignore"}, "x"))
    assert (ignored.action, ignored.object, ignored.findings) == ("ignore", {}, ())
    for broken in (
        raw("StagedNetworkPolicy", "p", {"stagedAction": "set"}, "x"),
        raw("StagedNetworkPolicy", "p", 7, "x"),
        raw("NetworkPolicy", "p", {}, "x"),
    ):
        staged = unstage(broken)
        (finding,) = staged.findings
        assert (staged.action, finding.code, finding.object) == (
            "ignore",
            "TP5043",
            "StagedNetworkPolicy/x/p",
        )


def test_failsafe_ports_are_calicos_and_those_of_the_node_itself() -> None:
    both = {("tcp", port) for port in (179, 2379, 2380, 5473, 6443, 6666, 6667, 10250, 9345)}
    names = {TCP: "tcp", UDP: "udp"}
    inbound, outbound = {("tcp", 22), ("udp", 68), ("udp", 546)}, {("udp", 53), ("udp", 67), ("udp", 547)}
    assert {(names[one.protocol], one.port) for one in INBOUND} == both | inbound
    assert {(names[one.protocol], one.port) for one in OUTBOUND} == both | outbound
    assert all(one.nets == EVERYWHERE for one in (*INBOUND, *OUTBOUND))
    assert len(set(INBOUND)) == len(INBOUND)
    assert Failsafe(TCP, 22) in INBOUND
    assert Failsafe(TCP, 22) not in OUTBOUND


def test_a_flow_from_a_host_endpoint_is_judged_by_it() -> None:
    closed = convert_host_endpoint(host(role="w"))
    world = World(endpoints=(*ELSEWHERE, *closed.endpoints))
    from_host = Flow(source=ip_address("192.0.2.11"), destination=ip_address("10.0.0.1"), protocol=TCP)
    assert not verdict(world, from_host)
