"""What decided and what would have to change, in words and as values; and the edits do what they say."""

from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from policy_worlds import ADDRESSES, flow, host, nets, node, numbered, pod, policy, worlds
from towpath.model.net import Net
from towpath.policy.evaluate import Flow, judge, verdict
from towpath.policy.explain import Edit, explain, flow_text
from towpath.policy.ir import (
    TCP,
    UDP,
    Direction,
    Icmp,
    NamedPort,
    Peer,
    Policy,
    Ports,
    Rule,
    ServiceRef,
    Tier,
    World,
)
from towpath.policy.selector import All, equal

A = pod("x/a", "10.0.0.1", "fd00::1", app="a")
B = pod("x/b", "10.0.0.2", "fd00::2", app="b", ports=(NamedPort("http", TCP, 80),))
NODE = node("n1", "192.0.2.11")
TO_B = flow("10.0.0.1", "10.0.0.2", port=81)
IS_A, IS_B = equal("app", "a"), equal("app", "b")


def world(*policies: Policy, tiers: tuple[Tier, ...] = ()) -> World:
    return World(policies=policies, endpoints=(A, B, NODE), tiers=tiers)


def ingress_b(*rules: Rule, name: str = "web", tier: str = "default") -> Policy:
    return policy(name, tier=tier, selector=IS_B, ingress=numbered("ingress", list(rules)))


def reasons(rule: Rule, one: Flow = TO_B) -> tuple[str, ...]:
    """Why the rule does not match."""
    (step,) = explain(world(ingress_b(rule)), one).sides[1].steps
    return step.reasons


def test_all_that_was_looked_at_is_told_in_order() -> None:
    elsewhere = policy("elsewhere", selector=IS_A, ingress=())
    out = policy("out", selector=IS_B, egress=())
    untracked = policy("raw", selector=IS_B, ingress=(), do_not_track=True)
    web = ingress_b(
        Rule(action="log"),
        Rule(action="allow", protocol=TCP, destination_ports=Ports(((80, 80),))),
        Rule(action="allow", protocol=TCP),
        Rule(action="deny"),
    )
    early = ingress_b(Rule(action="pass"), Rule(action="deny"), name="early", tier="early")
    tiers = (Tier(name="early", order=1),)
    found = explain(world(web, elsewhere, out, untracked, early, tiers=tiers), TO_B)
    assert found.allowed
    assert [side.endpoint for side in found.sides] == ["Pod/x/a", "Pod/x/b"]
    side = found.sides[1]
    assert [(step.tier, step.policy[2], step.path, step.outcome) for step in side.steps] == [
        ("early", "early", "spec.ingress[0]", "pass"),
        ("default", "elsewhere", "", "not selected"),
        ("default", "out", "", "other direction"),
        ("default", "raw", "", "not for tracked flows"),
        ("default", "web", "spec.ingress[0]", "log"),
        ("default", "web", "spec.ingress[1]", "no match"),
        ("default", "web", "spec.ingress[2]", "allow"),
    ]
    assert side.steps[1].reasons == ('Pod/x/b is not among endpoints with app == "a"',)
    assert side.steps[5].reasons == ("destination port 81 is not 80",)
    assert side.verdict.policy == ("Policy", "", "web")
    assert side.verdict.path == "spec.ingress[2]"
    assert side.verdict.text == "allowed by spec.ingress[2] of Policy/web"
    assert found.edits == ()


def test_reasons_name_every_criterion_that_fails() -> None:
    assert reasons(
        Rule(
            action="allow",
            family=6,
            protocol=UDP,
            source=Peer(selector=IS_B, nets=nets("10.1.0.0/16", "10.2.0.0/16")),
            destination=Peer(not_selector=IS_B, not_nets=nets("10.0.0.0/24")),
            source_ports=Ports(((1, 9), (11, 11))),
            destination_ports=Ports(((80, 80),), ("http",)),
        )
    ) == (
        "it is for IPv6 only",
        "it is for udp only",
        'source Pod/x/a (10.0.0.1) is not among endpoints with app == "b"',
        "source Pod/x/a (10.0.0.1) is not in 10.1.0.0/16 or 10.2.0.0/16",
        'destination Pod/x/b (10.0.0.2) is among endpoints with app == "b", which it leaves out',
        "destination Pod/x/b (10.0.0.2) is in 10.0.0.0/24, which it leaves out",
        "source port 49152 is not 1-9 or 11",
        "destination port 81 is not 80 or http (80)",
    )


def test_reasons_of_the_rarer_criteria() -> None:
    ping = flow("10.0.0.1", "10.0.0.2", "icmp", icmp_type=8)
    assert reasons(Rule(action="allow", not_protocol=TCP)) == ("it is for any protocol but tcp",)
    assert reasons(Rule(action="allow", icmp=Icmp(8, 0))) == ("it is for ICMP type 8 code 0 only",)
    assert reasons(Rule(action="allow", not_icmp=Icmp(8)), ping) == ("it is for ICMP but type 8",)
    assert reasons(Rule(action="allow", icmp=Icmp())) == ("it is for ICMP of any type only",)
    assert reasons(Rule(action="allow", destination_ports=Ports(((1, 2),))), ping) == (
        "it is for ports, and icmp has none",
    )
    assert reasons(Rule(action="allow", not_destination_ports=Ports(((81, 81),)))) == (
        "destination port 81 is 81, which it leaves out",
    )
    assert reasons(Rule(action="allow", protocol=47)) == ("it is for protocol 47 only",)
    assert reasons(Rule(action="allow", source=Peer(service=ServiceRef("x", "svc")))) == (
        "nothing is known of service x/svc",
    )
    assert reasons(Rule(action="allow", source=Peer(nets=()))) == (
        "source Pod/x/a (10.0.0.1) is not in any network",
    )


def test_the_default_of_a_tier_names_the_policies_that_applied() -> None:
    found = explain(world(ingress_b(), ingress_b(name="more")), TO_B).sides[1].verdict
    assert not found.allowed
    assert (found.policy, found.tier) == (None, "default")
    assert found.text == "denied by the default of tier default: no rule of Policy/more, Policy/web matches"


def test_an_endpoint_that_no_policy_selects() -> None:
    found = explain(world(), TO_B).sides[0].verdict
    assert found.allowed
    assert found.text == "allowed: no policy applies to the egress of Pod/x/a"


def test_why_a_side_is_not_asked() -> None:
    closed = world(policy("all", ingress=(), egress=()))
    assert explain(closed, flow("198.51.100.1", "10.0.0.2")).notes == (
        "198.51.100.1 belongs to no endpoint: no policy applies to it as the source",
    )
    assert explain(closed, flow("10.0.0.2", "192.0.2.11")).notes == (
        "Node/n1 is a node: policies do not apply to it as the destination",
    )
    itself = explain(closed, flow("10.0.0.2", "10.0.0.2"))
    assert (itself.allowed, itself.sides, itself.notes) == (True, (), ("an endpoint always reaches itself",))


def test_flows_in_words() -> None:
    assert flow_text(world(), TO_B) == "tcp from Pod/x/a (10.0.0.1) to Pod/x/b (10.0.0.2) port 81"
    ping = flow("fd00::1", "2001:db8::1", "icmpv6", icmp_type=128)
    assert flow_text(world(), ping) == "icmpv6 from Pod/x/a (fd00::1) to 2001:db8::1 type 128 code 0"
    assert flow_text(world(), flow("192.0.2.11", "10.0.0.2", 47)) == (
        "protocol 47 from Node/n1 (192.0.2.11) to Pod/x/b (10.0.0.2)"
    )


def test_every_edit_is_told_on_both_sides_and_in_every_tier() -> None:
    admin = ingress_b(Rule(action="deny", protocol=TCP), name="admin", tier="adminnetworkpolicy")
    web = ingress_b(
        Rule(action="allow", protocol=UDP, source=Peer(selector=IS_B)),
        Rule(action="allow", protocol=TCP, destination_ports=Ports(((80, 80),))),
    )
    out = policy("out", selector=IS_A, egress=())
    found = explain(world(admin, web, out), TO_B)
    what = "tcp from Pod/x/a (10.0.0.1) to Pod/x/b (10.0.0.2) port 81"
    assert [(edit.kind, edit.path, edit.text) for edit in found.edits] == [
        ("allow", "spec.egress", f"add a rule to spec.egress of Policy/out that allows {what}"),
        (
            "narrow",
            "spec.ingress[0]",
            f"keep spec.ingress[0] of Policy/admin from denying {what}, or allow it in front of that rule",
        ),
        (
            "allow",
            "spec.ingress",
            f"add a rule to spec.ingress of Policy/web that allows {what}, "
            "or widen spec.ingress[1]: destination port 81 is not 80",
        ),
    ]


def test_a_host_endpoint_without_policies_needs_one() -> None:
    found = explain(World(endpoints=(A, host("h", "192.0.2.12"))), flow("10.0.0.1", "192.0.2.12", port=23))
    assert [(edit.kind, edit.policy, edit.text) for edit in found.edits] == [
        (
            "select",
            None,
            "write a policy that selects HostEndpoint/h and has a rule in spec.ingress that allows "
            "tcp from Pod/x/a (10.0.0.1) to HostEndpoint/h (192.0.2.12) port 23",
        )
    ]


def test_a_failsafe_port_needs_none() -> None:
    found = explain(World(endpoints=(A, host("h", "192.0.2.12"))), flow("10.0.0.1", "192.0.2.12", port=22))
    assert found.allowed
    (side,) = [side for side in found.sides if side.direction == "ingress"]
    assert side.verdict.text == "allowed: a failsafe port, which no policy closes on HostEndpoint/h"


def applied(before: World, edits: tuple[Edit, ...], one: Flow) -> World:
    """The world after the edits."""
    source: tuple[Net, ...] = nets(str(one.source))
    allow = Rule(action="allow", source=Peer(nets=source), destination=Peer(nets=nets(str(one.destination))))
    policies = list(before.policies)
    tiers = before.tiers
    for number, edit in enumerate(edits):
        direction: Direction = "ingress" if edit.path.startswith("spec.ingress") else "egress"
        if edit.kind == "select":
            tiers = (*tiers, Tier(name="zzzz"))
            new = Policy(kind="Policy", name=f"new{number}", tier="zzzz", selector=All())
            policies.append(replace(new, **{direction: (allow,)}))
        for at, old in enumerate(policies):
            if old.key == edit.policy:
                rules = old.rules(direction) or ()
                kept = tuple(rule for rule in rules if rule.path != edit.path)
                policies[at] = replace(old, **{direction: (*kept, allow) if edit.kind == "allow" else kept})
    return replace(before, policies=tuple(policies), tiers=tiers)


@given(
    worlds(), st.sampled_from(ADDRESSES), st.sampled_from(ADDRESSES), st.sampled_from(("tcp", "udp", "icmp"))
)
def test_the_edits_suffice_and_each_is_needed(
    before: World, source: str, destination: str, protocol: str
) -> None:
    assume((":" in source) == (":" in destination))
    one = flow(source, destination, protocol)
    found = explain(before, one)
    assert found.allowed == verdict(before, one)
    assert bool(found.edits) == (not found.allowed)
    assert verdict(applied(before, found.edits, one), one)
    endpoints = {endpoint.name: endpoint for endpoint in before.endpoints}
    for side in found.sides:
        endpoint = endpoints[side.endpoint]
        assert side.verdict.allowed == judge(before, endpoint, side.direction, one)
        for edit in side.edits:
            others = tuple(other for other in side.edits if other != edit)
            assert not judge(applied(before, others, one), endpoint, side.direction, one)
