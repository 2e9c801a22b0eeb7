"""Any mixture of objects becomes one world; what cannot be read is told; shadowing is proved, not guessed."""

from ipaddress import ip_address, ip_network
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towpath.model.codes import CODES
from towpath.policy.calico_order import CALICO_3_31
from towpath.policy.covers import rule_covers, selector_covers
from towpath.policy.evaluate import Flow, unmet, verdict
from towpath.policy.ir import TCP, Endpoint, Peer, Policy, Ports, Rule, Tier, World
from towpath.policy.lint import lint
from towpath.policy.selector import All, And, Has, In, Not, Or, Selector, Text, equal
from towpath.policy.shadow import shadowed
from towpath.policy.world import Assembled, ObjectKey, assemble, key_of, unpacked

Raw = dict[str, Any]


def obj(version: str, kind: str, name: str, namespace: str = "", **rest: Any) -> Raw:
    labels = rest.pop("labels", None)
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **rest}


def pod(name: str, ip: str, namespace: str = "x", **spec: Any) -> Raw:
    labels = {"app": name}
    return obj("v1", "Pod", name, namespace, labels=labels, spec=spec, status={"podIP": ip})


def policy(name: str, app: str, *rules: Raw, namespace: str = "x") -> Raw:
    spec = {"podSelector": {"matchLabels": {"app": app}}, "ingress": list(rules)}
    return obj("networking.k8s.io/v1", "NetworkPolicy", name, namespace, spec=spec)


def calico(kind: str, name: str, spec: Raw, namespace: str = "", version: str = "v3") -> Raw:
    group = "projectcalico.org" if version == "v3" else "crd.projectcalico.org"
    return obj(f"{group}/{version}", kind, name, namespace, spec=spec)


A, B = pod("a", "10.0.0.1"), pod("b", "10.0.0.2")


def reaches(world: World, port: int = 80) -> bool:
    source, destination = ip_address("10.0.0.1"), ip_address("10.0.0.2")
    return verdict(world, Flow(source=source, destination=destination, protocol=TCP, destination_port=port))


def codes(found: Assembled) -> list[str]:
    return [finding.code for finding in found.findings]


def test_all_kinds_become_one_world() -> None:
    found = assemble(
        [
            obj("v1", "Namespace", "x", labels={"team": "red"}),
            obj("v1", "ServiceAccount", "robot", "x", labels={"role": "robot"}),
            pod("a", "10.0.0.1", serviceAccountName="robot"),
            B,
            obj("v1", "Node", "n1", status={"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}),
            policy("p", "b"),
            obj("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy", "anp"),
            calico("NetworkPolicy", "c", {"selector": "all()"}, "x"),
            calico("GlobalNetworkPolicy", "g", {"selector": "all()", "types": ["Ingress"]}),
            calico("Tier", "t", {"order": 5}),
            calico("GlobalNetworkSet", "s", {"nets": ["10.9.0.0/16"]}),
            calico("HostEndpoint", "h", {"node": "n1", "interfaceName": "*"}),
            obj("apps/v1", "Deployment", "ignored", "x"),
            {"no": "object"},
        ]
    )
    world = found.world
    names = {endpoint.name for endpoint in world.endpoints}
    assert names == {"Pod/x/a", "Pod/x/b", "Node/n1", "HostEndpoint/h"}
    labels = next(endpoint.labels for endpoint in world.endpoints if endpoint.name == "Pod/x/a")
    assert (labels["pcns.team"], labels["pcsa.role"]) == ("red", "robot")
    assert {str(p) for p in world.policies} == {
        "NetworkPolicy/x/p",
        "AdminNetworkPolicy/anp",
        "NetworkPolicy.projectcalico.org/x/c",
        "GlobalNetworkPolicy/g",
    }
    assert [tier.name for tier in world.tiers] == ["t"]
    assert [networks.name for networks in world.network_sets] == ["GlobalNetworkSet/s"]
    for each in world.policies:
        assert key_of(found.objects[str(each)]) == found.keys[str(each)]


def test_lists_are_unpacked_and_typed_lists_name_their_items() -> None:
    bare = {key: A[key] for key in ("metadata", "spec", "status")}
    inner = {"apiVersion": "v1", "kind": "PodList", "items": [bare]}
    outer = {"apiVersion": "v1", "kind": "List", "items": [inner, B, "no object"]}
    assert [path for path, _ in unpacked(outer)] == ["items[0].items[0]", "items[1]"]
    assert {e.name for e in assemble([outer]).world.endpoints} == {"Pod/x/a", "Pod/x/b"}


def test_a_later_object_replaces_an_earlier_one() -> None:
    closed, opened = policy("p", "b"), policy("p", "b", {})
    assert not reaches(assemble([A, B, opened, closed]).world)
    assert reaches(assemble([A, B, closed, opened]).world)


def test_stored_and_served_objects_of_calico_are_the_same() -> None:
    stored = key_of(calico("GlobalNetworkPolicy", "default.g", {}, version="v1"))
    assert (
        stored
        == key_of(calico("GlobalNetworkPolicy", "g", {}))
        == ObjectKey("projectcalico.org", "GlobalNetworkPolicy", "", "g")
    )


def test_pods_without_a_network_are_set_aside_with_the_reason() -> None:
    hosted = pod("h", "192.0.2.1", hostNetwork=True, nodeName="n1")
    done = {**pod("d", "10.0.0.9"), "status": {"phase": "Succeeded"}}
    found = assemble([hosted, done])
    assert not found.world.endpoints
    assert found.aside["Pod/x/h"] == "is on its node's network: ask for node/n1"
    assert "ended" in found.aside["Pod/x/d"]


@pytest.mark.parametrize(
    ("raw", "where"),
    [
        ({**A, "metadata": {"name": "a", "namespace": "x", "labels": {"app": 1}}}, "metadata.labels"),
        ({**A, "status": []}, "status"),
        ({**A, "metadata": {}}, "metadata.name"),
        ({**A, "metadata": None}, "metadata.name"),
    ],
)
def test_an_object_of_the_wrong_shape_is_told_and_left_out(raw: Raw, where: str) -> None:
    found = assemble([raw, B])
    assert codes(found) == ["TP5130"]
    assert found.findings[0].message.startswith(where)
    assert [endpoint.name for endpoint in found.world.endpoints] == ["Pod/x/b"]


def test_services_are_resolved_and_missing_ones_told() -> None:
    rule = {"action": "Allow", "destination": {"services": {"name": "s"}}}
    spec = {"selector": "app == 'a'", "types": ["Egress"], "egress": [rule]}
    egress = calico("NetworkPolicy", "c", spec, "x")
    slices = obj(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        "s-1",
        "x",
        labels={"kubernetes.io/service-name": "s"},
        endpoints=[{"addresses": ["10.0.0.2"]}],
        ports=[{"port": 80, "protocol": "TCP"}],
    )
    assert not reaches(assemble([A, B, egress]).world)
    assert codes(assemble([A, B, egress])) == ["TP5003"]
    found = assemble([A, B, egress, slices])
    assert reaches(found.world, 80) and not reaches(found.world, 81)
    assert not found.findings


def test_staged_policies_count_only_when_asked() -> None:
    deny = calico("StagedGlobalNetworkPolicy", "g", {"selector": "all()", "types": ["Ingress"]})
    gone = calico("StagedKubernetesNetworkPolicy", "p", {"stagedAction": "Delete"}, "x")
    assert reaches(assemble([A, B, deny]).world)
    found = assemble([A, B, deny], staged=True)
    assert not reaches(found.world)
    assert found.keys["GlobalNetworkPolicy/g"].kind == "StagedGlobalNetworkPolicy"
    assert not reaches(assemble([A, B, policy("p", "b"), gone]).world)
    assert reaches(assemble([A, B, policy("p", "b"), gone], staged=True).world)


def test_the_era_decides_where_a_tier_is_written() -> None:
    raw = calico("GlobalNetworkPolicy", "t.g", {"selector": "all()"}, version="v1")
    assert assemble([raw]).world.policies[0].tier == "default"
    assert assemble([raw], era=CALICO_3_31).world.policies[0].tier == "t"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KINDS = (
    *(("v1", kind) for kind in ("Pod", "Namespace", "Node", "ServiceAccount", "List", "PodList")),
    ("discovery.k8s.io/v1", "EndpointSlice"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    *(("projectcalico.org/v3", k) for k in ("Tier", "HostEndpoint", "StagedNetworkPolicy", "NetworkSet")),
)


@given(
    st.lists(
        st.builds(
            lambda kind, **parts: {"apiVersion": kind[0], "kind": kind[1], **parts},
            st.sampled_from(KINDS),
            metadata=JSON,
            spec=JSON,
            status=JSON,
            items=JSON,
        ),
        max_size=4,
    )
)
@settings(deadline=None, max_examples=150)
def test_anything_becomes_a_world_and_findings_with_known_codes(objects: list[Raw]) -> None:
    found = assemble(objects, staged=True)
    assert {finding.code for finding in lint(found)} <= CODES.keys()


# -- covers ---------------------------------------------------------------------------------------------

KEYS, VALUES = ("a", "b"), ("1", "2", "12")
selectors: st.SearchStrategy[Selector] = st.recursive(
    st.one_of(
        st.just(All()),
        st.builds(Has, st.sampled_from(KEYS)),
        st.builds(In, st.sampled_from(KEYS), st.lists(st.sampled_from(VALUES), unique=True).map(tuple)),
        st.builds(
            Text,
            st.sampled_from(KEYS),
            st.sampled_from(("contains", "starts with")),
            st.sampled_from(("1", "2")),
        ),
    ),
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(And, st.lists(inner, max_size=2).map(tuple)),
        st.builds(Or, st.lists(inner, max_size=2).map(tuple)),
    ),
    max_leaves=4,
)
LABELS = [
    {key: value for key, value in (("a", a), ("b", b)) if value} for a in ("", *VALUES) for b in ("", *VALUES)
]


@given(selectors, selectors)
@settings(max_examples=600)
def test_a_selector_that_covers_selects_all_that_the_other_does(wide: Selector, narrow: Selector) -> None:
    if selector_covers(wide, narrow):
        assert all(wide.matches(labels) for labels in LABELS if narrow.matches(labels))


def test_what_is_obvious_is_proved() -> None:
    one, two = equal("a", "1"), equal("b", "2")
    assert selector_covers(one, And((one, two)))
    assert not selector_covers(And((one, two)), one)
    assert selector_covers(Has("a"), one)
    assert selector_covers(Or((one, two)), two)
    assert selector_covers(Not(one), equal("a", "2"))
    assert selector_covers(In("a", ("1", "2")), one)


RANGES = (((80, 80),), ((1, 100),), ((80, 80), (443, 443)), ())
PORTS = st.none() | st.sampled_from(RANGES).map(Ports)
peers = st.builds(
    Peer,
    selector=st.none() | selectors,
    not_selector=st.none() | selectors,
    nets=st.none() | st.sampled_from(((), ("10.0.0.0/24",), ("10.0.0.0/16",))).map(lambda nets: _nets(nets)),
    not_nets=st.sampled_from(((), ("10.0.0.0/30",), ("10.0.0.0/24",))).map(lambda nets: _nets(nets)),
)
rules = st.builds(
    Rule,
    action=st.just("allow"),
    family=st.sampled_from((None, 4, 6)),
    protocol=st.sampled_from((None, 6, 17)),
    not_protocol=st.sampled_from((None, 6, 17)),
    source=peers,
    destination_ports=PORTS,
    not_destination_ports=PORTS,
)
CROWD = World(
    endpoints=tuple(
        Endpoint(name=f"Pod/x/{n}", labels=labels, addresses=(ip_address(f"10.0.{n % 2}.{n}"),))
        for n, labels in enumerate(LABELS)
    )
)
FLOWS = [
    Flow(
        source=endpoint.addresses[0],
        destination=ip_address("10.1.0.1"),
        protocol=protocol,
        destination_port=port,
    )
    for endpoint in CROWD.endpoints
    for protocol in (1, 6, 17)
    for port in (80, 99, 443)
]


def _nets(texts: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(map(ip_network, texts))


ASKED = ("family", "protocol", "not_protocol", "source", "destination_ports", "not_destination_ports")


@given(rules, rules, st.sets(st.sampled_from(ASKED), max_size=2))
@settings(max_examples=400, deadline=None)
def test_a_rule_that_covers_matches_all_that_the_other_does(
    narrow: Rule, other: Rule, changed: set[str]
) -> None:
    wide = msgspec.structs.replace(narrow, **{field: getattr(other, field) for field in changed})
    assert rule_covers(narrow, narrow)
    if rule_covers(wide, narrow):
        for flow in FLOWS:
            if not any(unmet(CROWD, narrow, flow)):
                assert not any(unmet(CROWD, wide, flow))


# -- shadow ---------------------------------------------------------------------------------------------


def told(*policies: Policy, tiers: tuple[Tier, ...] = ()) -> list[tuple[str, str, str]]:
    found = shadowed(World(policies=policies, tiers=tiers))
    return [(f.code, f.object, f.message.partition(":")[0]) for f in found]


def rule(action: str, path: str, **rest: Any) -> Rule:
    return Rule(action=action, path=path, **rest)  # type: ignore[arg-type]


SOME = {"protocol": TCP, "destination_ports": Ports(((80, 80),))}


def test_a_rule_after_a_wider_one_is_told() -> None:
    one = Policy(kind="P", name="p", ingress=(rule("deny", "r0"), rule("allow", "r1", **SOME)))
    assert told(one) == [("TP5133", "P/p", "r1")]
    logged = Policy(kind="P", name="p", ingress=(rule("log", "r0"), rule("allow", "r1", **SOME)))
    assert told(logged) == []
    wider = Policy(kind="P", name="p", ingress=(rule("deny", "r0", **SOME), rule("allow", "r1")))
    assert told(wider) == []


def test_a_policy_after_a_wider_one_is_told_once() -> None:
    first = Policy(kind="P", name="p", order=1, ingress=(rule("allow", "r0"),))
    second = Policy(kind="P", name="q", order=2, selector=Has("a"), ingress=(rule("deny", "r0", **SOME),))
    assert told(first, second) == [("TP5134", "P/q", "spec")]
    narrower = Policy(kind="P", name="p", order=1, selector=Has("b"), ingress=(rule("allow", "r0"),))
    assert told(narrower, second) == []


def test_a_pass_in_an_earlier_tier_may_skip_what_follows_there() -> None:
    tier = Tier(name="t", order=1)
    passing = Policy(kind="P", name="a", tier="t", order=1, ingress=(rule("pass", "r0", **SOME),))
    closing = Policy(kind="P", name="b", tier="t", order=2, ingress=(rule("deny", "r0"),))
    last = Policy(kind="P", name="c", ingress=(rule("allow", "r0", **SOME),))
    assert told(passing, closing, last, tiers=(tier,)) == []
    assert told(closing, last, tiers=(tier,)) == [("TP5134", "P/c", "spec")]


def test_the_default_of_an_earlier_tier_ends_what_it_selects() -> None:
    last = Policy(kind="P", name="c", ingress=(rule("allow", "r0"),))
    empty = Policy(kind="P", name="a", tier="t", ingress=())
    assert told(empty, last, tiers=(Tier(name="t", order=1),)) == [("TP5134", "P/c", "spec")]
    assert told(empty, last, tiers=(Tier(name="t", order=1, default="pass"),)) == []
    other_way = Policy(kind="P", name="a", tier="t", egress=())
    assert told(other_way, last, tiers=(Tier(name="t", order=1),)) == []


def test_kubernetes_policies_are_not_held_against_each_other() -> None:
    found = lint(assemble([A, B, policy("p", "b", {}), policy("q", "b", {})]))
    assert found == ()


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([policy("p", "nobody")], ["TP5131"]),
        ([policy("p", "b", {"from": [{"podSelector": {"matchLabels": {"app": "no"}}}]})], ["TP5132"]),
        ([policy("p", "b", {"from": []})], ["TP5135"]),
        ([policy("p", "b", {"ports": [{"port": "http"}]})], ["TP5137"]),
        ([policy("p", "b", {}, {"ports": [{"port": 80}]})], ["TP5133"]),
        ([calico("GlobalNetworkPolicy", "g", {"selector": "all()", "tier": "gone"})], ["TP5136"]),
        ([policy("p", "b", {"from": [{"ipBlock": {"cidr": "10.0.0.0/40"}}]})], ["TP5001"]),
        ([policy("p", "b", {})], []),
    ],
)
def test_lint(objects: list[Raw], expected: list[str]) -> None:
    assert [finding.code for finding in lint(assemble([A, B, *objects]))] == expected


def test_without_pods_no_selector_is_tried() -> None:
    assert lint(assemble([policy("p", "nobody")])) == ()
