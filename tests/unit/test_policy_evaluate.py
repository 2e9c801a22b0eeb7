"""The oracle, against cases worked out by hand from upstream's documents.

Kubernetes: the API reference of networking.k8s.io/v1. Calico: its reference pages on policies, tiers, host
endpoints and network sets.
"""

from typing import Any

import pytest

from policy_worlds import flow, host, nets, node, pod, policy
from towpath.policy.evaluate import Decision, Flow, judge, judged, verdict, walk
from towpath.policy.ir import (
    ICMP,
    ICMPV6,
    SCTP,
    TCP,
    UDP,
    UDPLITE,
    Icmp,
    NamedPort,
    NetworkSet,
    Peer,
    Policy,
    Ports,
    Rule,
    ServiceRef,
    Tier,
    World,
    pods_only,
)
from towpath.policy.selector import NOTHING, All, equal

A = pod("x/a", "10.0.0.1", "fd00::1", app="a")
B = pod("x/b", "10.0.0.2", "fd00::2", app="b", ports=(NamedPort("http", TCP, 80), NamedPort("dns", UDP, 53)))
C = pod("y/c", "10.0.0.3", "fd00::3", app="c", ports=(NamedPort("http", TCP, 8080),))
NODE = node("n1", "192.0.2.11", role="worker")
ENDPOINTS = (A, B, C, NODE)
TO_B = flow("10.0.0.1", "10.0.0.2")
IS_A, IS_B = equal("app", "a"), equal("app", "b")


def world(*policies: Policy, **fields: Any) -> World:
    return World(**{"policies": policies, "endpoints": ENDPOINTS, **fields})


def ingress_b(*rules: Rule, **fields: Any) -> Policy:
    return policy("p", **{"selector": IS_B, "ingress": rules, **fields})


def allows(rule: Rule, *flows: Flow) -> list[bool]:
    """What each comes to when B's ingress has this rule alone."""
    return [verdict(world(ingress_b(rule)), one) for one in flows]


def test_without_policy_pods_reach_everything_and_everything_them() -> None:
    assert verdict(world(), TO_B)
    assert verdict(world(), flow("10.0.0.1", "198.51.100.1"))
    assert verdict(world(), flow("198.51.100.1", "10.0.0.1", 47))


def test_a_policy_that_speaks_of_a_direction_isolates_it_and_it_alone() -> None:
    isolated = world(ingress_b())
    assert not verdict(isolated, TO_B)
    assert verdict(isolated, flow("10.0.0.2", "10.0.0.1"))
    assert verdict(isolated, flow("10.0.0.1", "10.0.0.3"))


def test_a_flow_needs_both_sides() -> None:
    out = policy("out", selector=IS_A, egress=())
    into = ingress_b(Rule(action="allow"))
    assert not verdict(world(out, into), TO_B)
    assert judge(world(out, into), B, "ingress", TO_B)
    assert not judge(world(out, into), A, "egress", TO_B)


def test_an_endpoint_reaches_itself_by_any_of_its_addresses() -> None:
    assert verdict(world(ingress_b()), flow("10.0.0.2", "10.0.0.2"))
    assert verdict(world(policy("all", ingress=(), egress=())), flow("fd00::2", "fd00::2"))


def test_nodes_and_outside_are_peers_and_never_judged() -> None:
    closed = world(policy("all", ingress=(), egress=()))
    assert verdict(closed, flow("192.0.2.11", "198.51.100.1"))
    assert verdict(closed, flow("198.51.100.1", "192.0.2.11"))
    assert not verdict(closed, flow("192.0.2.11", "10.0.0.2"))
    rule = Rule(action="allow", source=Peer(selector=equal("role", "worker")))
    assert allows(rule, flow("192.0.2.11", "10.0.0.2"), TO_B) == [True, False]
    only_pods = Rule(action="allow", source=Peer(selector=pods_only(All())))
    assert allows(only_pods, flow("192.0.2.11", "10.0.0.2"), TO_B) == [False, True]


def test_all_selects_endpoints_not_the_world() -> None:
    rule = Rule(action="allow", source=Peer(selector=All()))
    assert allows(rule, flow("198.51.100.1", "10.0.0.2"), TO_B) == [False, True]
    anything = Rule(action="allow")
    assert allows(anything, flow("198.51.100.1", "10.0.0.2")) == [True]
    nobody = Rule(action="allow", source=Peer(selector=NOTHING))
    assert allows(nobody, flow("198.51.100.1", "10.0.0.2"), TO_B) == [False, False]


def test_selectors_hold_of_network_sets() -> None:
    partners = NetworkSet(
        name="GlobalNetworkSet/p", labels={"role": "partner"}, nets=nets("203.0.113.0/24", "10.0.0.1/32")
    )
    is_partner = equal("role", "partner")
    rule = Rule(action="allow", source=Peer(selector=is_partner))
    others = Rule(action="allow", source=Peer(not_selector=is_partner))
    for source, inside in (("203.0.113.9", True), ("10.0.0.1", True), ("10.0.0.3", False)):
        one = flow(source, "10.0.0.2")
        assert verdict(world(ingress_b(rule), network_sets=(partners,)), one) is inside
        assert verdict(world(ingress_b(others), network_sets=(partners,)), one) is not inside


def test_not_selector_holds_of_what_has_no_endpoint() -> None:
    rule = Rule(action="allow", source=Peer(not_selector=IS_A))
    assert allows(rule, TO_B, flow("10.0.0.3", "10.0.0.2"), flow("198.51.100.1", "10.0.0.2")) == [
        False,
        True,
        True,
    ]


def test_ip_block_with_except() -> None:
    rule = Rule(action="allow", source=Peer(nets=nets("10.0.0.0/24"), not_nets=nets("10.0.0.2/31")))
    assert allows(rule, TO_B, flow("10.0.0.3", "10.0.0.2"), flow("10.1.0.1", "10.0.0.2")) == [
        True,
        False,
        False,
    ]


def test_nets_of_one_family_say_nothing_of_the_other() -> None:
    rule = Rule(action="allow", source=Peer(nets=nets("0.0.0.0/0")))
    assert allows(rule, TO_B, flow("fd00::1", "fd00::2")) == [True, False]
    rule = Rule(action="allow", source=Peer(not_nets=nets("0.0.0.0/0")))
    assert allows(rule, TO_B, flow("fd00::1", "fd00::2")) == [False, True]


def test_no_nets_match_nothing() -> None:
    assert allows(Rule(action="allow", source=Peer(nets=())), TO_B) == [False]


def test_family() -> None:
    rule = Rule(action="allow", family=6)
    assert allows(rule, TO_B, flow("fd00::1", "fd00::2")) == [False, True]


def test_a_flow_has_one_family() -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.1 to fd00::2"):
        flow("10.0.0.1", "fd00::2")


def test_ports_are_inclusive_ranges_of_the_protocol() -> None:
    rule = Rule(action="allow", protocol=TCP, destination_ports=Ports(ranges=((80, 81), (90, 90))))
    found = {
        port: allows(rule, flow("10.0.0.1", "10.0.0.2", port=port))[0] for port in (79, 80, 81, 82, 90, 91)
    }
    assert [port for port, allowed in found.items() if allowed] == [80, 81, 90]
    assert allows(rule, flow("10.0.0.1", "10.0.0.2", "udp"), flow("10.0.0.1", "10.0.0.2", "sctp")) == [
        False,
        False,
    ]


def test_ports_ask_for_a_protocol_that_has_them() -> None:
    rule = Rule(action="allow", destination_ports=Ports(ranges=((0, 65535),)))
    every = [flow("10.0.0.1", "10.0.0.2", name) for name in (TCP, UDP, SCTP, UDPLITE, ICMP, 47)]
    assert allows(rule, *every) == [True, True, True, False, False, False]
    rule = Rule(action="allow", not_destination_ports=Ports(ranges=((1, 2),)))
    assert allows(rule, *every) == [True, True, True, False, False, False]


def test_named_ports_are_the_destinations_own() -> None:
    rule = Rule(action="allow", protocol=TCP, destination_ports=Ports(names=("http",)))
    both = world(policy("p", selector=pods_only(All()), ingress=(rule,)))
    assert [verdict(both, flow("10.0.0.1", to, port=80)) for to in ("10.0.0.2", "10.0.0.3")] == [True, False]
    assert [verdict(both, flow("10.0.0.1", to, port=8080)) for to in ("10.0.0.2", "10.0.0.3")] == [
        False,
        True,
    ]


def test_a_named_port_is_of_the_rules_protocol() -> None:
    rule = Rule(action="allow", protocol=TCP, destination_ports=Ports(names=("dns",)))
    assert allows(rule, flow("10.0.0.1", "10.0.0.2", "tcp", 53), flow("10.0.0.1", "10.0.0.2", "udp", 53)) == [
        False,
        False,
    ]


def test_a_named_port_in_egress_is_looked_up_at_the_other_end() -> None:
    rule = Rule(action="allow", protocol=TCP, destination_ports=Ports(names=("http",)))
    out = world(policy("p", selector=IS_A, egress=(rule,)))
    assert [verdict(out, flow("10.0.0.1", to, port=8080)) for to in ("10.0.0.2", "10.0.0.3")] == [False, True]
    assert not verdict(out, flow("10.0.0.1", "198.51.100.1", port=8080))


def test_a_port_name_nobody_has_matches_nothing_and_its_negation_everything() -> None:
    assert allows(Rule(action="allow", protocol=TCP, destination_ports=Ports(names=("nope",))), TO_B) == [
        False
    ]
    assert allows(Rule(action="allow", protocol=TCP, not_destination_ports=Ports(names=("nope",))), TO_B) == [
        True
    ]
    assert allows(Rule(action="allow", protocol=TCP, not_destination_ports=Ports(names=("http",))), TO_B) == [
        False
    ]


def test_source_ports_and_their_names_are_the_sources() -> None:
    numbers = Rule(action="allow", protocol=TCP, source_ports=Ports(ranges=((1000, 2000),)))
    assert allows(
        numbers,
        flow("10.0.0.1", "10.0.0.2", source_port=1000),
        flow("10.0.0.1", "10.0.0.2", source_port=2001),
    ) == [True, False]
    named = Rule(action="allow", protocol=TCP, source_ports=Ports(names=("http",)))
    assert allows(
        named,
        flow("10.0.0.3", "10.0.0.2", source_port=8080),
        flow("10.0.0.1", "10.0.0.2", source_port=8080),
    ) == [True, False]
    other = Rule(action="allow", protocol=TCP, not_source_ports=Ports(ranges=((1000, 2000),)))
    assert allows(other, flow("10.0.0.1", "10.0.0.2", source_port=1000), TO_B) == [False, True]


def test_protocols() -> None:
    rule = Rule(action="allow", protocol=UDPLITE)
    assert allows(rule, flow("10.0.0.1", "10.0.0.2", UDPLITE), flow("10.0.0.1", "10.0.0.2", UDP)) == [
        True,
        False,
    ]
    rule = Rule(action="allow", not_protocol=UDP)
    assert allows(rule, flow("10.0.0.1", "10.0.0.2", UDPLITE), flow("10.0.0.1", "10.0.0.2", UDP)) == [
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("icmp", "matching"),
    [
        (Icmp(), [(3, 0), (8, 0), (8, 1)]),
        (Icmp(8), [(8, 0), (8, 1)]),
        (Icmp(8, 1), [(8, 1)]),
        (Icmp(5), []),
        (Icmp(None, 1), [(3, 0), (8, 0), (8, 1)]),
    ],
)
def test_icmp(icmp: Icmp, matching: list[tuple[int, int]]) -> None:
    kinds = [(3, 0), (8, 0), (8, 1)]
    flows = [flow("10.0.0.1", "10.0.0.2", "icmp", icmp_type=t, icmp_code=c) for t, c in kinds]
    is_in = [kind in matching for kind in kinds]
    assert allows(Rule(action="allow", icmp=icmp), *flows) == is_in
    assert allows(Rule(action="allow", protocol=ICMP, not_icmp=icmp), *flows) == [
        not inside for inside in is_in
    ]


def test_icmp_asks_for_the_familys_icmp() -> None:
    four, six = flow("10.0.0.1", "10.0.0.2", ICMP), flow("fd00::1", "fd00::2", ICMPV6)
    swapped = flow("10.0.0.1", "10.0.0.2", ICMPV6), flow("fd00::1", "fd00::2", ICMP)
    for rule in (Rule(action="allow", icmp=Icmp(0)), Rule(action="allow", not_icmp=Icmp(1))):
        assert allows(rule, four, six, *swapped, TO_B) == [True, True, False, False, False]


def test_rules_are_read_in_order() -> None:
    allow, deny = Rule(action="allow"), Rule(action="deny")
    assert verdict(world(ingress_b(allow, deny)), TO_B)
    assert not verdict(world(ingress_b(deny, allow)), TO_B)


def test_log_decides_nothing_yet_its_policy_applies() -> None:
    assert verdict(world(ingress_b(Rule(action="log"), Rule(action="allow"))), TO_B)
    assert not verdict(world(ingress_b(Rule(action="log"))), TO_B)


def test_policies_are_read_by_order_then_rank_then_name() -> None:
    allow, deny = (Rule(action="allow"),), (Rule(action="deny"),)

    def both(first: dict[str, Any], second: dict[str, Any]) -> bool:
        named = [
            Policy(**{"kind": "P", "name": "m", "selector": IS_B, "ingress": rules, **fields})
            for rules, fields in ((allow, first), (deny, second))
        ]
        return verdict(world(*reversed(named)), TO_B)

    assert both({"order": 1, "name": "z"}, {"order": 2, "name": "a"})
    assert both({"name": "z", "order": 9}, {"name": "a"})
    assert both({"rank": "1", "name": "z"}, {"rank": "2", "name": "a"})
    assert both({"name": "a"}, {"name": "z"})
    assert not both({"name": "z"}, {"name": "a"})
    assert both({"namespace": "a"}, {"namespace": "z"})


def test_tiers_are_read_by_order_and_pass_leaves_one() -> None:
    early = Tier(name="early", order=1)
    passes = ingress_b(Rule(action="pass"), Rule(action="deny"), tier="early")
    later = policy("z", selector=IS_B, ingress=(Rule(action="deny"),), tier="early")
    allow = policy("k8s", selector=IS_B, ingress=(Rule(action="allow"),))
    assert verdict(world(passes, later, tiers=(early,)), TO_B)  # past the last tier, pods allow
    assert verdict(world(passes, later, allow, tiers=(early,)), TO_B)
    assert not verdict(world(passes, later, ingress_b(), tiers=(early,)), TO_B)


def test_a_tier_decides_by_default_only_if_a_policy_in_it_applied() -> None:
    none_applies = policy("p", tier="early", selector=equal("app", "zzz"), ingress=())
    other_way = policy("p", tier="early", selector=IS_B, egress=())
    applies = policy("p", tier="early", selector=IS_B, ingress=())
    allow = policy("k8s", selector=IS_B, ingress=(Rule(action="allow"),))
    tiers = {
        default: (Tier(name="early", order=1, default=default),) for default in ("deny", "pass", "allow")
    }
    for default, expected in (("deny", False), ("pass", True), ("allow", True)):
        assert verdict(world(applies, allow, tiers=tiers[default]), TO_B) is expected
        assert verdict(world(none_applies, allow, tiers=tiers[default]), TO_B)
        assert verdict(world(other_way, allow, tiers=tiers[default]), TO_B)
    deny = policy("k8s", selector=IS_B, ingress=(Rule(action="deny"),))
    assert verdict(world(applies, deny, tiers=tiers["allow"]), TO_B)
    assert not verdict(world(applies, deny, tiers=tiers["pass"]), TO_B)


def test_a_missing_tier_comes_last_and_denies() -> None:
    lost = policy("p", tier="nowhere", selector=IS_B, ingress=())
    assert not verdict(world(lost), TO_B)
    allow = policy("k8s", selector=IS_B, ingress=(Rule(action="allow"),))
    assert verdict(world(lost, allow), TO_B)


def test_admin_tiers_stand_around_networkpolicy() -> None:
    deny = policy("a", tier="adminnetworkpolicy", selector=IS_B, ingress=(Rule(action="deny"),))
    admin_pass = policy("a", tier="adminnetworkpolicy", selector=IS_B, ingress=(Rule(action="pass"),))
    baseline = policy("b", tier="baselineadminnetworkpolicy", selector=IS_B, ingress=(Rule(action="deny"),))
    allow = policy("k8s", selector=IS_B, ingress=(Rule(action="allow"),))
    assert not verdict(world(deny, allow), TO_B)
    assert verdict(world(allow, baseline), TO_B)
    assert not verdict(world(admin_pass, baseline), TO_B)
    elsewhere = policy("a", tier="kube-admin", selector=IS_B, ingress=())
    assert verdict(world(elsewhere), TO_B)


def test_a_host_endpoint_denies_what_nothing_decides() -> None:
    hep = host("h", "192.0.2.12", role="edge")
    plain = world(endpoints=(*ENDPOINTS, hep))
    assert not verdict(plain, flow("10.0.0.1", "192.0.2.12"))
    allow = policy("p", selector=equal("role", "edge"), ingress=(Rule(action="allow", protocol=TCP),))
    opened = world(allow, endpoints=(*ENDPOINTS, hep))
    assert verdict(opened, flow("10.0.0.1", "192.0.2.12"))
    assert not verdict(opened, flow("192.0.2.12", "10.0.0.1"))


def test_only_normal_policies_count() -> None:
    for field in ("do_not_track", "pre_dnat"):
        special = policy("p", selector=IS_B, ingress=(Rule(action="deny"),), **{field: True})
        assert verdict(world(special), TO_B)
    forwarded = policy("p", selector=IS_B, ingress=(Rule(action="deny"),), apply_on_forward=True)
    assert not verdict(world(forwarded), TO_B)


def test_endpoints_that_share_an_address_must_all_allow_and_any_may_be_the_peer() -> None:
    hep = host("n1", "192.0.2.11", role="edge")
    shared = World(endpoints=(*ENDPOINTS, hep))
    assert [endpoint.name for endpoint in judged(shared, hep.addresses[0])] == ["HostEndpoint/n1"]
    assert not verdict(shared, flow("10.0.0.1", "192.0.2.11"))
    for label in ("worker", "edge"):
        rule = Rule(action="allow", source=Peer(selector=equal("role", label)))
        assert judge(
            World(endpoints=shared.endpoints, policies=(ingress_b(rule),)),
            B,
            "ingress",
            flow("192.0.2.11", "10.0.0.2"),
        )


def test_an_unresolved_service_allows_nothing_and_denies_everything() -> None:
    peer = Peer(service=ServiceRef("x", "svc"))
    assert allows(Rule(action="allow", source=peer), TO_B) == [False]
    assert not verdict(world(ingress_b(Rule(action="deny", source=peer), Rule(action="allow"))), TO_B)


def test_a_rule_may_ask_of_its_own_side() -> None:
    rule = Rule(action="allow", destination=Peer(nets=nets("10.0.0.2/32")))
    both = world(policy("p", selector=pods_only(All()), ingress=(rule,)))
    assert [verdict(both, flow("10.0.0.1", to)) for to in ("10.0.0.2", "10.0.0.3")] == [True, False]


def test_the_walk_goes_on_after_a_decision_as_if_it_were_not_made() -> None:
    deny, allow = Rule(action="deny", path="r0"), Rule(action="allow", path="r1")
    steps = walk(world(ingress_b(deny, allow)), B, "ingress", TO_B)
    decisions = [step for step in steps if isinstance(step, Decision)]
    assert [(d.allowed, d.rule and d.rule.path, d.tier and d.tier.name) for d in decisions] == [
        (False, "r0", "default"),
        (True, "r1", "default"),
        (False, None, "default"),
        (True, None, None),
    ]
