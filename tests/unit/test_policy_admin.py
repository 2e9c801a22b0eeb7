"""The policies of policy.networking.k8s.io, judged by whom they let through.

Expectations are those of the types' comments and of the conformance tests of sigs.k8s.io/network-policy-api.
"""

from collections.abc import Callable
from typing import Any

import pytest

from kube_policies import EVERYONE, destinations, labels, only, problem, sources
from towpath.policy.convert_admin import (
    convert_admin_network_policy,
    convert_baseline_admin_network_policy,
    convert_cluster_network_policy,
)
from towpath.policy.convert_networking import convert as convert_network_policy
from towpath.policy.converted import Converted
from towpath.policy.ir import SCTP, TCP, UDP, Ports

ALL: dict[str, Any] = {"namespaces": {}}


def _object(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"subject": ALL, **spec}}


def cnp(name: str = "p", tier: str = "Admin", priority: int = 10, **spec: Any) -> Converted:
    return convert_cluster_network_policy(_object(name, {"tier": tier, "priority": priority, **spec}))


def anp(name: str = "p", priority: int = 10, **spec: Any) -> Converted:
    return convert_admin_network_policy(_object(name, {"priority": priority, **spec}))


def banp(**spec: Any) -> Converted:
    return convert_baseline_admin_network_policy(_object("default", spec))


def rule(action: str, *peers: dict[str, Any], key: str = "from", **fields: Any) -> dict[str, Any]:
    return {"action": action, key: list(peers or (ALL,)), **fields}


def isolated(namespace: str) -> Converted:
    """A NetworkPolicy that allows nothing."""
    return convert_network_policy({"metadata": {"name": "np", "namespace": namespace}, "spec": {}})


def opened(namespace: str) -> Converted:
    """A NetworkPolicy that allows everything."""
    return convert_network_policy(
        {"metadata": {"name": "np", "namespace": namespace}, "spec": {"ingress": [{}]}}
    )


IN_PODS = {"x/web", "x/db", "y/web", "y/cli"}


def test_places() -> None:
    assert (only(cnp()).tier, only(cnp()).order) == ("kube-admin", 10)
    assert (only(cnp(tier="Baseline")).tier, str(only(cnp()))) == ("kube-baseline", "ClusterNetworkPolicy/p")
    assert (only(anp()).tier, str(only(anp()))) == ("adminnetworkpolicy", "AdminNetworkPolicy/p")
    assert only(banp()).tier == "baselineadminnetworkpolicy"


@pytest.mark.parametrize("convert", [cnp, anp])
def test_admin_rules_come_before_network_policies(convert: Callable[..., Converted]) -> None:
    accept = "Accept" if convert is cnp else "Allow"
    deny = convert(ingress=[rule("Deny")])
    allow = convert(ingress=[rule(accept)])
    assert sources("x/db", deny, opened("x")) == {"x/db", "n1", "n2", "out"}
    assert sources("x/db", allow, isolated("x")) == IN_PODS
    assert sources("x/db", convert(ingress=[rule("Pass"), rule("Deny")]), opened("x")) == EVERYONE
    assert sources("x/db", convert(ingress=[rule("Pass"), rule(accept)]), isolated("x")) == {"x/db"}


@pytest.mark.parametrize("convert", [lambda **spec: cnp(tier="Baseline", **spec), banp])
def test_baseline_rules_come_after_network_policies(convert: Callable[..., Converted]) -> None:
    deny = convert(ingress=[rule("Deny")])
    assert sources("x/db", deny) == {"x/db", "n1", "n2", "out"}
    assert sources("x/db", deny, opened("x")) == EVERYONE
    assert sources("x/db", convert(), isolated("x")) == {"x/db"}


def test_priority_and_order_of_rules() -> None:
    first = cnp(
        name="b", priority=1, ingress=[rule("Accept", {"namespaces": labels(team="blue")}), rule("Deny")]
    )
    second = cnp(
        name="a", priority=2, ingress=[rule("Deny", {"namespaces": labels(team="blue")}), rule("Accept")]
    )
    assert sources("x/db", first, second) == {"x/db", "y/web", "y/cli", "n1", "n2", "out"}


def test_a_direction_without_rules_is_not_spoken_of() -> None:
    converted = only(cnp(ingress=[rule("Deny")], egress=[]))
    assert converted.ingress and converted.egress is None
    assert only(anp()).ingress is None


@pytest.mark.parametrize(
    ("subject", "hit"),
    [
        ({"namespaces": {}}, IN_PODS),
        ({"namespaces": labels(team="red")}, {"x/web", "x/db"}),
        ({"pods": {"namespaceSelector": labels(team="red"), "podSelector": labels(app="web")}}, {"x/web"}),
        ({"pods": {"namespaceSelector": {}, "podSelector": labels(app="web")}}, {"x/web", "y/web"}),
        ({"pods": {"podSelector": labels(app="web")}}, {"x/web", "y/web"}),
    ],
)
def test_subjects(subject: dict[str, Any], hit: set[str]) -> None:
    converted = cnp(subject=subject, egress=[rule("Deny", {"networks": ["203.0.113.0/24"]}, key="to")])
    assert not converted.findings
    assert {name for name in EVERYONE if "out" not in destinations(name, converted)} == hit


@pytest.mark.parametrize("convert", [cnp, anp])
@pytest.mark.parametrize(
    ("peer", "hit"),
    [
        ({"namespaces": labels(team="blue")}, {"y/web", "y/cli"}),
        ({"pods": {"namespaceSelector": labels(team="blue"), "podSelector": labels(app="web")}}, {"y/web"}),
        ({"nodes": {}}, {"n1", "n2"}),
        ({"nodes": labels(role="worker")}, {"n1"}),
        ({"networks": ["203.0.113.0/24", "10.0.0.2/32"]}, {"out", "x/db"}),
        ({"networks": ["0.0.0.0/0"]}, EVERYONE - {"x/web"}),
        ({"networks": ["::/0"]}, set()),
    ],
)
def test_egress_peers(peer: dict[str, Any], hit: set[str], convert: Callable[..., Converted]) -> None:
    converted = convert(egress=[rule("Deny", peer, key="to")])
    assert not converted.findings
    assert destinations("x/web", converted) == EVERYONE - hit


PORT_LISTS: list[tuple[dict[str, Any], list[tuple[int, Ports]]]] = [
    ({"ports": [{"portNumber": {"port": 80}}]}, [(TCP, Ports(((80, 80),)))]),
    ({"ports": [{"portNumber": {"port": 53, "protocol": "UDP"}}]}, [(UDP, Ports(((53, 53),)))]),
    ({"ports": [{"portRange": {"start": 80, "end": 90}}]}, [(TCP, Ports(((80, 90),)))]),
    (
        {
            "ports": [
                {"portRange": {"protocol": "SCTP", "start": 1, "end": 2}},
                {"portNumber": {"port": 1}},
                {"portNumber": {"protocol": "SCTP", "port": 3}},
            ]
        },
        [(TCP, Ports(((1, 1),))), (SCTP, Ports(((1, 3),)))],
    ),
    (
        {"ports": [{"namedPort": "http"}]},
        [(protocol, Ports((), ("http",))) for protocol in (TCP, UDP, SCTP)],
    ),
    ({"protocols": [{"tcp": {"destinationPort": {"number": 80}}}]}, [(TCP, Ports(((80, 80),)))]),
    (
        {
            "protocols": [
                {"udp": {"destinationPort": {"range": {"start": 1, "end": 9}}}},
                {"sctp": {"destinationPort": {"number": 7}}},
            ]
        },
        [(UDP, Ports(((1, 9),))), (SCTP, Ports(((7, 7),)))],
    ),
    (
        {"protocols": [{"destinationNamedPort": "http"}, {"udp": {"destinationPort": {"number": 53}}}]},
        [(TCP, Ports((), ("http",))), (UDP, Ports(((53, 53),), ("http",))), (SCTP, Ports((), ("http",)))],
    ),
]


@pytest.mark.parametrize(("fields", "expected"), PORT_LISTS, ids=repr)
def test_ports(fields: dict[str, Any], expected: list[tuple[int, Ports]]) -> None:
    converters: list[Callable[..., Converted]] = [cnp] if "protocols" in fields else [cnp, anp, banp]
    for convert in converters:
        rules = only(convert(ingress=[rule("Deny", **fields)])).ingress or ()
        assert [(r.protocol, r.destination_ports) for r in rules] == expected
        assert {r.path for r in rules} == {"spec.ingress[0].from[0]"}


@pytest.mark.parametrize("fields", [{}, {"ports": None}, {"ports": []}])
def test_without_ports_any_protocol_is_meant(fields: dict[str, Any]) -> None:
    assert sources("x/db", anp(ingress=[rule("Deny", **fields)]), protocol="icmp") == {
        "x/db",
        "n1",
        "n2",
        "out",
    }


def test_named_ports_are_the_destinations() -> None:
    converted = cnp(egress=[rule("Deny", key="to", protocols=[{"destinationNamedPort": "http"}])])
    assert destinations("x/db", converted, port=8080) == EVERYONE - {"x/web"}
    assert destinations("x/db", converted, port=80) == EVERYONE - {"y/web"}
    assert destinations("x/db", converted, port=80, protocol="udp") == EVERYONE


BROKEN: list[dict[str, Any]] = [
    {"from": []},
    {"from": None},
    {"from": ALL},
    {"from": [None]},
    {"from": [{}]},
    {"from": [{"namespaces": {}, "pods": {"podSelector": {}}}]},
    {"from": [{"namespaces": {"matchLabels": {"team": None}}}]},
    {"from": [{"namespaces": {"sameLabels": ["team"]}}]},
    {"from": [{"pods": {"namespaceSelector": {}}}]},
    {"from": [{"pods": {"namespaceSelector": {}, "podSelector": {}, "new": 1}}]},
    {"from": [{"nodes": {}}]},
    {"from": [{"networks": ["10.0.0.0/8"]}]},
    {"from": [ALL], "to": [ALL]},
    {"from": [ALL], "ports": {}},
    {"from": [ALL], "ports": [{}]},
    {"from": [ALL], "ports": [{"portNumber": {}}]},
    {"from": [ALL], "ports": [{"portNumber": {"port": "80"}}]},
    {"from": [ALL], "ports": [{"portNumber": {"port": 80, "protocol": "ICMP"}}]},
    {"from": [ALL], "ports": [{"portNumber": {"port": 80}, "namedPort": "http"}]},
    {"from": [ALL], "ports": [{"portRange": {"start": 2, "end": 1}}]},
    {"from": [ALL], "ports": [{"portRange": {"start": 1}}]},
    {"from": [ALL], "ports": [{"namedPort": "80"}]},
    {"from": [ALL], "protocols": [{"tcp": {}}]},
    {"from": [ALL], "protocols": [{"tcp": {"destinationPort": {}}}]},
    {"from": [ALL], "protocols": [{"tcp": {"destinationPort": {"number": 0}}}]},
    {
        "from": [ALL],
        "protocols": [{"tcp": {"destinationPort": {"number": 1, "range": {"start": 1, "end": 2}}}}],
    },
    {"from": [ALL], "protocols": [{"tcp": {"destinationPort": {"number": 1}, "sourcePort": {"number": 1}}}]},
    {"from": [ALL], "protocols": [{"icmp": {}}]},
    {"from": [ALL], "protocols": [{"destinationNamedPort": ""}]},
    {
        "from": [ALL],
        "protocols": [{"destinationNamedPort": "http"}],
        "ports": [{"namedPort": "http"}],
    },
    {"from": [ALL], "schedule": "nights"},
]


@pytest.mark.parametrize("fields", BROKEN, ids=repr)
def test_a_rule_that_cannot_be_understood_fails_closed(fields: dict[str, Any]) -> None:
    blue = rule("Accept", {"namespaces": labels(team="blue")})
    for action, allowed in (
        ("Accept", {"x/db", "y/web", "y/cli"}),
        ("Deny", {"x/db"}),
        ("Pass", {"x/db"}),
        ("Permit", {"x/db"}),
    ):
        converted = cnp(ingress=[{"action": action, **fields}, blue])
        assert problem(converted).startswith("TP5001 ClusterNetworkPolicy/p: spec.ingress[0]")
        assert sources("x/db", converted, isolated("x")) == allowed


@pytest.mark.parametrize(
    "peer",
    [
        {"domainNames": ["*.kubernetes.io"]},
        {"networks": []},
        {"networks": ["10.0.0.1"]},
        {"networks": ["10.0.0.0/8", "300.0.0.0/8"]},
        {"nodes": {"matchLabels": {"towpath.io/kind": "pod"}}},
        {"nodes": {}, "networks": ["10.0.0.0/8"]},
    ],
    ids=repr,
)
def test_egress_peers_that_cannot_be_understood(peer: dict[str, Any]) -> None:
    accept, deny = rule("Accept", peer, key="to"), rule("Deny", key="to")
    assert destinations("x/db", cnp(egress=[accept, deny])) == EVERYONE - IN_PODS | {"x/db"}
    assert destinations("x/db", cnp(egress=[rule("Deny", peer, key="to")])) == {"x/db"}


@pytest.mark.parametrize("peer", [{"nodes": {}}, {"networks": ["10.0.0.0/8"]}])
def test_networks_and_nodes_have_no_named_ports(peer: dict[str, Any]) -> None:
    protocols = [{"destinationNamedPort": "http"}]
    converted = cnp(egress=[rule("Accept", ALL, peer, key="to", protocols=protocols)])
    assert "a named port, which only pods have" in problem(converted)
    assert only(cnp(egress=[rule("Accept", ALL, key="to", protocols=protocols)])).egress


@pytest.mark.parametrize("action", ["Allow", "Log", "accept", "", None, 7])
def test_an_unknown_action_denies(action: Any) -> None:
    assert sources("x/db", cnp(ingress=[{"action": action, "from": [ALL]}])) == {"x/db"}
    assert sources("x/db", banp(ingress=[{"action": "Pass", "from": [ALL]}])) == {"x/db"}


RULES = [
    rule("Accept", {"namespaces": labels(team="blue")}),
    rule("Pass", {"pods": {"podSelector": labels(app="web")}}),
    rule("Deny", {"pods": {"podSelector": labels(app="cli")}}),
]


@pytest.mark.parametrize(
    ("spec", "first"),
    [
        ({"subject": None}, False),
        ({"subject": {}}, False),
        ({"subject": {"namespaces": {}, "pods": {"podSelector": {}}}}, False),
        ({"subject": {"namespaces": {"matchLabels": {"team": 7}}}}, False),
        ({"subject": {"pods": {"podSelector": {}, "serviceAccountSelector": {}}}}, False),
        ({"tier": "Middle"}, True),
        ({"priority": 1001}, True),
        ({"priority": "1"}, True),
        ({"priority": None}, True),
        ({"schedule": "nights"}, True),
    ],
    ids=repr,
)
def test_a_policy_that_cannot_be_understood_only_denies(spec: dict[str, Any], first: bool) -> None:
    converted = cnp(**{"subject": {"namespaces": labels(team="blue")}, "ingress": RULES, **spec})
    assert problem(converted).startswith("TP5002 ClusterNetworkPolicy/p: spec")
    assert [r.action for r in converted.policies[0].ingress or ()] == ["deny", "deny"]
    some = EVERYONE - {"x/web", "y/web", "y/cli"}
    assert sources("x/db", converted) == some
    earlier = cnp(name="earlier", priority=0, ingress=[rule("Accept")])
    assert sources("x/db", converted, earlier) == (some if first else EVERYONE)


def test_rules_that_are_no_list_deny_everything() -> None:
    converted = cnp(ingress={"action": "Accept"}, egress=7)
    assert [finding.code for finding in converted.findings] == ["TP5001", "TP5001"]
    assert sources("x/db", converted) == {"x/db"} == destinations("x/db", converted)


@pytest.mark.parametrize("raw", [None, 7, "x", [], {}, {"spec": []}, {"spec": 7, "metadata": {"name": {}}}])
def test_no_object_at_all(raw: Any) -> None:
    for convert in (
        convert_cluster_network_policy,
        convert_admin_network_policy,
        convert_baseline_admin_network_policy,
        convert_network_policy,
    ):
        converted = convert(raw)
        assert converted.findings and len(converted.policies) == 1
        assert converted.policies[0].name == "?"
