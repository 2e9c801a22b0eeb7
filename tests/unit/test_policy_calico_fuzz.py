"""Any JSON in any of Calico's kinds: never raised, and what is damaged never allows more."""

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kube_policies import ENDPOINTS, EVERYONE, NAMESPACES, flow
from towpath.model.codes import CODES
from towpath.policy.calico_order import CALICO_3_31, CALICO_3_32
from towpath.policy.calico_staged import unstage
from towpath.policy.convert_calico import convert_global_network_policy, convert_network_policy, convert_tier
from towpath.policy.convert_calico_endpoints import (
    convert_global_network_set,
    convert_host_endpoint,
    convert_network_set,
)
from towpath.policy.converted import Converted
from towpath.policy.endpoints import namespace_labels
from towpath.policy.evaluate import Flow, verdict
from towpath.policy.ir import Rule, World

Json = Any
INHERITED = {name: namespace_labels(namespace) for name, namespace in NAMESPACES.items()}
CONVERTERS: dict[str, Callable[[Json], Converted]] = {
    "NetworkPolicy": convert_network_policy,
    "GlobalNetworkPolicy": convert_global_network_policy,
    "Tier": convert_tier,
    "NetworkSet": lambda raw: convert_network_set(raw, INHERITED),
    "GlobalNetworkSet": convert_global_network_set,
    "HostEndpoint": lambda raw: convert_host_endpoint(raw, INHERITED),
}
POLICIES = ("NetworkPolicy", "GlobalNetworkPolicy")
FLOWS = [
    flow(source, destination, port, protocol)
    for source in sorted(EVERYONE)
    for destination in sorted(EVERYONE)
    for port, protocol in ((80, "tcp"), (53, "udp"))
    if source != destination
]

# What is in order.

_selectors = st.sampled_from(
    (
        "app == 'web'",
        "app != 'web'",
        "app in {'db', 'cli'}",
        "has(env)",
        "!has(env)",
        "all()",
        "role == 'office'",
    )
)
_namespace_selectors = st.sampled_from(("team == 'blue'", "team != 'blue'", "all()", "has(env)"))
_nets = st.lists(
    st.sampled_from(("10.0.0.0/30", "10.0.0.2", "203.0.113.0/24", "0.0.0.0/0", "192.0.2.0/24")),
    min_size=1,
    max_size=2,
)
_peers = st.fixed_dictionaries(
    {},
    optional={
        "selector": _selectors,
        "notSelector": _selectors,
        "namespaceSelector": _namespace_selectors | st.just("global()"),
        "nets": _nets,
        "notNets": _nets,
        "serviceAccounts": st.sampled_from(({"names": ["default"]}, {"selector": "has(role)"})),
    },
)
_ports = st.sampled_from(([80], ["50:60"], ["http", 53]))


def _with_ports(peer: dict[str, Any], ports: list[Any] | None, negated: bool) -> dict[str, Any]:
    return peer if ports is None else {**peer, "notPorts" if negated else "ports": ports}


_rules = st.one_of(
    st.fixed_dictionaries(
        {"action": st.sampled_from(("Allow", "Deny", "Pass", "Log"))},
        optional={
            "source": _peers,
            "destination": _peers,
            "protocol": st.sampled_from(("TCP", "udp", 6)),
            "notProtocol": st.sampled_from(("ICMP", 17)),
            "ipVersion": st.just(4),
        },
    ),
    st.fixed_dictionaries(
        {
            "action": st.sampled_from(("Allow", "Deny", "Pass")),
            "protocol": st.sampled_from(("TCP", "UDP")),
            "destination": st.builds(_with_ports, _peers, _ports, st.booleans()),
        }
    ),
)
_types = st.sampled_from((["Ingress"], ["Egress"], ["Ingress", "Egress"]))


@st.composite
def policies(draw: st.DrawFn, name: str = "p") -> dict[str, Any]:
    kind = draw(st.sampled_from(POLICIES))
    types = draw(_types)
    spec: dict[str, Any] = {"types": types, "order": draw(st.sampled_from((1, 2.5))), "tier": "default"}
    spec |= draw(
        st.fixed_dictionaries(
            {}, optional={"selector": _selectors, "serviceAccountSelector": st.just("!has(role)")}
        )
    )
    if kind == "GlobalNetworkPolicy" and draw(st.booleans()):
        spec["namespaceSelector"] = draw(_namespace_selectors)
    for direction in types:  # rules of a direction that is not spoken of are never looked at
        spec[direction.lower()] = draw(st.lists(_rules, max_size=3))
    return {
        "kind": kind,
        "metadata": {"name": name, "namespace": draw(st.sampled_from(("x", "y")))},
        "spec": spec,
    }


_office: Json = {
    "metadata": {"name": "s", "labels": {"role": "office"}},
    "spec": {"nets": ["203.0.113.0/24"]},
}

# What is not.

_junk = st.sampled_from(
    (
        "§",
        " x",
        "0.0.0.0/0 ",
        "a" * 600,
        7.5,
        -1,
        2**70,
        math.nan,
        True,
        [7],
        [[]],
        [None],
        {"§": {}},
        {"app": None},
    )
)


def _places(value: Json, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from _places(value[key], (*path, key))
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _places(entry, (*path, index))


@st.composite
def damage(draw: st.DrawFn, raw: dict[str, Any]) -> dict[str, Any]:
    """The object with junk in the place of any part of its spec, or with a field that nobody knows."""
    damaged: dict[str, Any] = json.loads(json.dumps(raw))
    path = ("spec", *draw(st.sampled_from(list(_places(damaged["spec"])))))
    holder: Any = damaged
    for key in path[:-1]:
        holder = holder[key]
    if isinstance(holder[path[-1]], dict) and draw(st.booleans()):
        holder[path[-1]]["§new"] = draw(st.sampled_from(({}, 7, None)))
        return damaged
    junk = json.loads(json.dumps(draw(_junk)))
    if path == ("spec", "order") or (path == ("spec",) and isinstance(junk, dict)):
        junk = "§"  # (numbers are orders, and a spec without its rules is as good as any other)
    if path[-1] in ("ports", "notPorts") and junk == [7]:
        junk = [-7]
    if (path[-1] == "tier" or "names" in path) and isinstance(junk, str):
        junk = 7  # (any text is a tier, or a service account)
    holder[path[-1]] = junk
    return damaged


def _world(*converted: Converted) -> World:
    return World(
        policies=tuple(policy for one in converted for policy in one.policies),
        endpoints=ENDPOINTS,
        network_sets=tuple(networks for one in converted for networks in one.network_sets),
    )


def _allowed(world: World) -> set[Flow]:
    return {one for one in FLOWS if verdict(world, one)}


@given(data=st.data(), raw=policies(), others=st.lists(policies("q"), max_size=2))
@settings(max_examples=150, deadline=None)
def test_a_damaged_policy_is_reported_and_allows_no_more(
    data: st.DataObject, raw: dict[str, Any], others: list[dict[str, Any]]
) -> None:
    around = [convert_global_network_set(_office), *(CONVERTERS[one["kind"]](one) for one in others)]
    whole = CONVERTERS[raw["kind"]](raw)
    assert all(finding.code == "TP5044" for finding in whole.findings)
    damaged = CONVERTERS[raw["kind"]](data.draw(damage(raw)))
    assert any(finding.code in ("TP5001", "TP5002") for finding in damaged.findings)
    assert _allowed(_world(damaged, *around)) <= _allowed(_world(whole, *around))


@given(data=st.data(), raw=policies())
@settings(max_examples=100, deadline=None)
def test_the_rule_that_is_damaged_is_gone_or_denies_everything(
    data: st.DataObject, raw: dict[str, Any]
) -> None:
    convert = CONVERTERS[raw["kind"]]
    damaged = convert(data.draw(damage(raw)))
    (policy,) = damaged.policies
    denied_wholly = {rule.path for rule in _rules_of(damaged) if rule == Rule(action="deny", path=rule.path)}
    for finding in damaged.findings:
        path = finding.message.split(": ")[0]
        if finding.code == "TP5001":
            mine = {rule.path for rule in _rules_of(damaged) if path.startswith(rule.path)}
            assert mine <= denied_wholly
        if finding.code == "TP5002":
            assert {rule.action for rule in _rules_of(damaged)} <= {"deny"}
            assert policy.name == "p"


def _rules_of(converted: Converted) -> list[Rule]:
    return [
        rule for policy in converted.policies for rule in (*(policy.ingress or ()), *(policy.egress or ()))
    ]


@given(data=st.data(), raw=policies())
@settings(max_examples=100, deadline=None)
def test_a_damaged_set_allows_no_more(data: st.DataObject, raw: dict[str, Any]) -> None:
    policy = CONVERTERS[raw["kind"]](raw)
    if any(rule.action == "pass" for rule in _rules_of(policy)):
        return
    nets = ["203.0.113.0/24", "10.0.0.4"]
    office = {"metadata": {"name": "s", "labels": {"role": "office"}}, "spec": {"nets": nets}}
    damaged = convert_global_network_set(data.draw(damage(office)))
    assert {finding.code for finding in damaged.findings} == {"TP5040"}
    whole = convert_global_network_set(office)
    assert _allowed(_world(policy, damaged)) <= _allowed(_world(policy, whole))


# What is no object of any kind.

_WORDS = (
    *("metadata", "name", "namespace", "labels", "spec", "kind", "apiVersion", "stagedAction", "Set"),
    *("types", "Ingress", "egress", "ingress", "action", "Allow", "Deny", "source", "destination", "nets"),
    *(
        "selector",
        "notSelector",
        "namespaceSelector",
        "serviceAccounts",
        "names",
        "services",
        "ports",
        "protocol",
    ),
    *("TCP", "icmp", "type", "code", "ipVersion", "order", "tier", "defaultAction", "Pass", "10.0.0.0/8"),
    *(
        "node",
        "interfaceName",
        "expectedIPs",
        "profiles",
        "all()",
        "preDNAT",
        "doNotTrack",
        "StagedNetworkPolicy",
    ),
)
_scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(_WORDS)
)
_json = st.recursive(
    _scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(_WORDS) | st.text(max_size=4), inner, max_size=5),
    ),
    max_leaves=25,
)


def _deep(levels: int) -> Json:
    value: Json = {}
    for _ in range(levels):
        value = {"source": [value], "labels": [value]}
    return value


def check(kind: str, raw: Json) -> None:
    converted = CONVERTERS[kind](raw)
    policy_kind = {"NetworkPolicy": "NetworkPolicy.projectcalico.org"}.get(kind, kind)
    for finding in converted.findings:
        assert finding.code in CODES
        assert finding.object.startswith(f"{policy_kind}/")
        assert finding.fix
        assert len(finding.message) < 1000
    outcome = (converted.policies, converted.tiers, converted.network_sets, converted.endpoints)
    expected = {"Tier": 1, "NetworkSet": 2, "GlobalNetworkSet": 2, "HostEndpoint": 3}.get(kind, 0)
    assert outcome[expected]
    assert not any(math.isnan(policy.order) for policy in converted.policies)
    assert not any(math.isnan(tier.order) for tier in converted.tiers)
    for rule in _rules_of(converted):
        for ports in (rule.destination_ports, rule.source_ports):
            assert ports is None or all(0 <= low <= high < 65536 for low, high in ports.ranges)


@given(raw=_json, kind=st.sampled_from(sorted(CONVERTERS)))
@settings(max_examples=200, deadline=None)
def test_any_json_is_one_object(raw: Json, kind: str) -> None:
    check(kind, raw)
    check(kind, {"metadata": {"name": "p", "namespace": "x"}, "spec": raw})
    check(kind, {"metadata": raw, "spec": {"nets": raw, "ingress": [raw], "profiles": raw, "ports": raw}})
    if not isinstance(raw, dict) and raw is not None:
        assert CONVERTERS[kind](raw).findings


@given(raw=_json)
@settings(deadline=None)
def test_any_json_is_a_policy_of_either_era_and_a_staged_one(raw: Json) -> None:
    for era in (CALICO_3_31, CALICO_3_32):
        named = {"apiVersion": "projectcalico.org/v3", "metadata": {"name": "a.b"}, "spec": raw}
        assert convert_global_network_policy(named, era).policies[0].name == "a.b"
    staged = unstage(raw)
    assert staged.action in ("set", "delete", "ignore")
    assert (staged.action == "ignore") or staged.object["kind"] in POLICIES
    assert unstage({"kind": "StagedNetworkPolicy", "metadata": {"name": "p"}, "spec": raw}).action


def test_size_and_depth_are_no_harm() -> None:
    deep, wide = _deep(30), {"§" * 100: "x"}
    for kind in CONVERTERS:
        check(kind, deep)
        check(kind, {"metadata": deep, "spec": deep})
        check(kind, {"metadata": wide, "spec": {"selector": "(" * 100_000, "nets": [deep] * 1000}})
        check(kind, {"spec": {"ingress": [{"action": "Allow", "source": {"selector": "!" * 99_999}}] * 50}})
