"""NetworkPolicy, judged by whom it lets through. Expectations are the API reference's."""

from typing import Any

import pytest

from kube_policies import EVERYONE, destinations, flow, labels, only, problem, sources, world
from towpath.policy.convert_networking import convert
from towpath.policy.converted import Converted
from towpath.policy.evaluate import verdict
from towpath.policy.ir import TCP, UDP, Ports


def policy(namespace: str = "x", **spec: Any) -> Converted:
    return convert(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "p", "namespace": namespace},
            "spec": {"podSelector": {}, **spec},
        }
    )


def peers(*given: dict[str, Any]) -> Converted:
    return policy(ingress=[{"from": list(given)}])


def ports(*given: dict[str, Any]) -> Converted:
    return policy(podSelector=labels(app="web"), ingress=[{"ports": list(given)}])


def test_its_place_is_calicos() -> None:
    converted = only(policy())
    assert (converted.tier, converted.order, converted.rank) == ("default", 1000, "knp.default.p")
    assert str(converted) == "NetworkPolicy/x/p"


def test_what_it_selects_is_isolated_and_nothing_else() -> None:
    closed = policy(podSelector=labels(app="web"))
    assert sources("x/web", closed) == {"x/web"}
    assert sources("x/db", closed) == sources("y/web", closed) == EVERYONE
    assert destinations("x/web", closed) == EVERYONE


def test_a_spec_may_be_empty() -> None:
    empty = convert({"metadata": {"name": "p", "namespace": "x"}})
    assert not empty.findings
    assert sources("x/db", empty) == {"x/db"}
    assert destinations("x/db", empty) == EVERYONE - {"x/web"}


@pytest.mark.parametrize(
    ("spec", "ingress", "egress"),
    [
        ({}, True, False),
        ({"policyTypes": []}, True, False),
        ({"policyTypes": None, "egress": None}, True, False),
        ({"egress": []}, True, False),
        ({"egress": [{"to": [{"podSelector": {}}]}]}, True, True),
        ({"policyTypes": ["Ingress"], "egress": [{"to": [{"podSelector": {}}]}]}, True, False),
        ({"policyTypes": ["Egress"]}, False, True),
        ({"policyTypes": ["Egress"], "ingress": [{}]}, False, True),
        ({"policyTypes": ["Ingress", "Egress"]}, True, True),
    ],
)
def test_directions(spec: dict[str, Any], ingress: bool, egress: bool) -> None:
    converted = policy(**spec)
    assert (only(converted).ingress is not None, only(converted).egress is not None) == (ingress, egress)
    assert ("out" not in sources("x/db", converted)) == ingress
    assert ("out" not in destinations("x/db", converted)) == egress


@pytest.mark.parametrize("rule", [{}, {"from": []}, {"from": None}, {"ports": []}, {"ports": None}])
def test_a_rule_that_asks_nothing_allows_everything(rule: dict[str, Any]) -> None:
    assert sources("x/db", policy(ingress=[rule])) == EVERYONE
    assert sources("x/db", policy(ingress=[rule]), protocol="icmp", port=0) == EVERYONE


@pytest.mark.parametrize(
    ("peer", "allowed"),
    [
        ({"podSelector": {}}, {"x/web"}),
        ({"podSelector": {}, "namespaceSelector": None}, {"x/web"}),
        ({"podSelector": labels(app="web")}, {"x/web"}),
        ({"podSelector": labels(app="cli")}, set()),
        ({"namespaceSelector": {}}, {"x/web", "y/web", "y/cli"}),
        ({"namespaceSelector": labels(team="blue")}, {"y/web", "y/cli"}),
        ({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "x"}}}, {"x/web"}),
        ({"namespaceSelector": {}, "podSelector": labels(app="web")}, {"x/web", "y/web"}),
        ({"namespaceSelector": labels(team="blue"), "podSelector": {}}, {"y/web", "y/cli"}),
        ({"namespaceSelector": labels(team="blue"), "podSelector": labels(app="web")}, {"y/web"}),
        ({"ipBlock": {"cidr": "10.0.0.0/30"}}, {"x/web", "y/web"}),
        ({"ipBlock": {"cidr": "10.0.0.3/30"}}, {"x/web", "y/web"}),
        ({"ipBlock": {"cidr": "10.0.0.0/24", "except": ["10.0.0.2/31"]}}, {"x/web", "y/cli"}),
        ({"ipBlock": {"cidr": "0.0.0.0/0", "except": []}}, EVERYONE),
        ({"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "192.0.2.0/24"]}}, {"out"}),
        ({"ipBlock": {"cidr": "::/0"}}, set()),
    ],
)
def test_peers(peer: dict[str, Any], allowed: set[str]) -> None:
    converted = peers(peer)
    assert not converted.findings
    assert sources("x/db", converted) == allowed | {"x/db"}


@pytest.mark.parametrize(
    ("requirement", "allowed"),
    [
        ({"key": "app", "operator": "In", "values": ["web", "cli"]}, {"x/web", "y/web", "y/cli"}),
        ({"key": "app", "operator": "NotIn", "values": ["web"]}, {"y/cli"}),
        ({"key": "env", "operator": "NotIn", "values": ["prod"]}, {"x/web", "y/web"}),
        ({"key": "env", "operator": "Exists"}, {"y/cli"}),
        ({"key": "env", "operator": "DoesNotExist", "values": []}, {"x/web", "y/web"}),
    ],
)
def test_requirements(requirement: dict[str, Any], allowed: set[str]) -> None:
    selector = {"matchExpressions": [requirement]}
    converted = peers({"namespaceSelector": {}, "podSelector": selector})
    assert not converted.findings
    assert sources("x/db", converted) == allowed | {"x/db"}
    nothing = {"matchLabels": {"app": "db"}, "matchExpressions": [{**requirement, "key": "no.such/key"}]}
    holds = requirement["operator"] in ("NotIn", "DoesNotExist")
    assert (sources("x/db", policy(podSelector=nothing)) == {"x/db"}) == holds


def test_peers_of_a_rule_are_alternatives_and_ports_go_with_them() -> None:
    rule = {
        "from": [{"podSelector": labels(app="web")}, {"ipBlock": {"cidr": "203.0.113.0/24"}}],
        "ports": [{"port": 80}],
    }
    converted = policy(ingress=[rule, {"ports": [{"port": 81}]}])
    assert sources("x/db", converted) == {"x/db", "x/web", "out"}
    assert sources("x/db", converted, port=81) == EVERYONE
    assert [r.path for r in only(converted).ingress or ()] == [
        "spec.ingress[0].from[0]",
        "spec.ingress[0].from[1]",
        "spec.ingress[1]",
    ]


def test_both_families() -> None:
    here = world([peers({"podSelector": labels(app="web")})])
    assert verdict(here, flow("x/web", "x/db", family=6))
    assert not verdict(here, flow("y/web", "x/db", family=6))
    here = world([peers({"ipBlock": {"cidr": "2001:db8::/32", "except": ["2001:db8::/126"]}})])
    assert verdict(here, flow("out", "x/db", family=6))
    assert not verdict(here, flow("y/web", "x/db", family=6))


@pytest.mark.parametrize(
    ("port", "open_ports"),
    [
        ({}, {("tcp", 80), ("tcp", 81), ("tcp", 8080)}),
        ({"protocol": "UDP"}, {("udp", 80), ("udp", 5353)}),
        ({"protocol": "SCTP"}, {("sctp", 80)}),
        ({"port": 80}, {("tcp", 80)}),
        ({"protocol": "UDP", "port": 80}, {("udp", 80)}),
        ({"port": 80, "endPort": 81}, {("tcp", 80), ("tcp", 81)}),
        ({"port": 80, "endPort": 80}, {("tcp", 80)}),
        ({"port": "http"}, {("tcp", 8080)}),
        ({"port": "dns"}, set()),
        ({"port": "dns", "protocol": "UDP"}, {("udp", 5353)}),
        ({"port": "other"}, set()),
    ],
)
def test_ports(port: dict[str, Any], open_ports: set[tuple[str, int]]) -> None:
    converted = ports(port)
    assert not converted.findings
    tried = [("tcp", 80), ("tcp", 81), ("tcp", 8080), ("udp", 80), ("udp", 5353), ("sctp", 80), ("icmp", 0)]
    here = world([converted])
    reached = {(p, n) for p, n in tried if verdict(here, flow("out", "x/web", n, p))}
    assert reached == open_ports


def test_ports_of_one_protocol_are_one_rule() -> None:
    converted = ports(
        {"port": 8080},
        {"port": "http"},
        {"port": 81, "endPort": 90},
        {"port": 80},
        {"port": 53, "protocol": "UDP"},
    )
    assert [(r.protocol, r.destination_ports) for r in only(converted).ingress or ()] == [
        (TCP, Ports(((80, 90), (8080, 8080)), ("http",))),
        (UDP, Ports(((53, 53),))),
    ]
    whole = ports({"port": 80}, {"protocol": "TCP"})
    assert [(r.protocol, r.destination_ports) for r in only(whole).ingress or ()] == [(TCP, None)]


def test_named_ports_are_the_destinations_in_egress() -> None:
    converted = policy(policyTypes=["Egress"], egress=[{"ports": [{"port": "http"}]}])
    assert destinations("x/db", converted, port=8080) == {"x/db", "x/web"}
    assert destinations("x/db", converted, port=80) == {"x/db", "y/web"}


BAD_PEERS: list[Any] = [
    {},
    7,
    None,
    {"podSelector": {}, "newSelector": {}},
    {"podSelector": []},
    {"podSelector": {}, "ipBlock": {"cidr": "0.0.0.0/0"}},
    {"podSelector": {"matchLabels": {"app": 7}}},
    {"podSelector": {"matchLabels": {"a b": "c"}}},
    {"podSelector": {"matchLabels": {"app": "w" * 64}}},
    {"podSelector": {"matchLabels": ["app"]}},
    {"podSelector": {"matchLabels": {"pcns.team": "blue"}}},
    {"podSelector": {"matchExpressions": [{"key": "app", "operator": "In"}]}},
    {"podSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": []}]}},
    {"podSelector": {"matchExpressions": [{"key": "app", "operator": "Exists", "values": ["a"]}]}},
    {"podSelector": {"matchExpressions": [{"key": "app", "operator": "in", "values": ["a"]}]}},
    {"podSelector": {"matchExpressions": [{"operator": "Exists"}]}},
    {"podSelector": {"matchExpressions": {"key": "app", "operator": "Exists"}}},
    {"namespaceSelector": {"matchField": {}}},
    {"ipBlock": {}},
    {"ipBlock": {"cidr": "10.0.0.0"}},
    {"ipBlock": {"cidr": "010.0.0.0/8"}},
    {"ipBlock": {"cidr": "10.0.0.0/33"}},
    {"ipBlock": {"cidr": "10.0.0.0/255.0.0.0"}},
    {"ipBlock": {"cidr": "::ffff:10.0.0.0/104"}},
    {"ipBlock": {"cidr": "fe80::%eth0/64"}},
    {"ipBlock": {"cidr": "0.0.0.0/0", "except": "10.0.0.0/8"}},
    {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0.0/8"]}},
    {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["fd00::/8"]}},
]


@pytest.mark.parametrize("peer", BAD_PEERS, ids=repr)
def test_a_rule_with_a_peer_that_cannot_be_understood_allows_nothing(peer: Any) -> None:
    good = {"podSelector": labels(app="web")}
    converted = policy(ingress=[{"from": [{"namespaceSelector": {}}, peer]}, {"from": [good]}])
    said = problem(converted)
    assert said.startswith("TP5001 NetworkPolicy/x/p: spec.ingress[0].from[1]")
    assert said.endswith("; the rule is left out")
    assert sources("x/db", converted) == {"x/db", "x/web"}


BAD_PORTS: list[Any] = [
    {"port": 0},
    {"port": 65536},
    {"port": 80.0},
    {"port": True},
    {"port": "80"},
    {"port": ""},
    {"port": "Http"},
    {"port": "http", "endPort": 90},
    {"endPort": 90},
    {"port": 80, "endPort": 79},
    {"port": 80, "protocol": "tcp"},
    {"port": 80, "protocol": "ICMP"},
    {"port": 80, "sourcePort": 53},
    "80",
    None,
]


@pytest.mark.parametrize("port", BAD_PORTS, ids=repr)
def test_a_rule_with_a_port_that_cannot_be_understood_allows_nothing(port: Any) -> None:
    converted = policy(ingress=[{"ports": [{"port": 81}, port]}, {"ports": [{"port": 82}]}])
    assert problem(converted).startswith("TP5001 NetworkPolicy/x/p: spec.ingress[0].ports[1]")
    assert sources("x/db", converted, port=81) == {"x/db"}
    assert sources("x/db", converted, port=82) == EVERYONE


def test_a_value_and_its_fix_are_told() -> None:
    (finding,) = peers({"ipBlock": {"cidr": "10.0.0.0.0/8"}}).findings
    assert (
        finding.message
        == "spec.ingress[0].from[0].ipBlock.cidr: '10.0.0.0.0/8' is no CIDR; the rule is left out"
    )
    assert finding.fix == "write a CIDR, as 10.0.0.0/8 or fd00::/8"
    assert finding.severity == "error"


@pytest.mark.parametrize(
    "spec",
    [
        {"podSelector": 7},
        {"podSelector": {"matchLabels": {"app": ["web"]}}},
        {"podSelector": labels(app="web"), "schedule": "nights"},
    ],
    ids=repr,
)
def test_a_subject_that_cannot_be_understood_is_the_whole_namespace(spec: dict[str, Any]) -> None:
    converted = policy(ingress=[{}], **spec)
    assert problem(converted).startswith("TP5002 NetworkPolicy/x/p: spec.")
    assert sources("x/web", converted) == {"x/web"}
    assert sources("x/db", converted) == {"x/db"}
    assert {"y/cli", "out"} <= sources("y/web", converted)


@pytest.mark.parametrize(
    "spec",
    [
        {"policyTypes": ["Ingress", "egress"]},
        {"policyTypes": "Ingress"},
        {"policyTypes": ["Ingress", "Egress"], "egress": {"to": []}},
        {"ingress": "all", "egress": [{}]},
    ],
    ids=repr,
)
def test_rules_that_cannot_be_told_are_none(spec: dict[str, Any]) -> None:
    converted = policy(**{"ingress": [{}], **spec})
    assert problem(converted).startswith("TP5002")
    assert sources("x/web", converted) == {"x/web"}
    assert destinations("x/web", converted) == {"x/web"}


@pytest.mark.parametrize("metadata", [None, 7, {"name": "p"}, {"name": "p", "namespace": 7}])
def test_without_a_namespace_it_is_every_pods(metadata: Any) -> None:
    converted = convert({"metadata": metadata, "spec": {"ingress": [{}]}})
    assert converted.findings[0].code == "TP5002"
    assert sources("x/web", converted) == {"x/web"}
    assert destinations("y/web", converted) == {"y/web"}
