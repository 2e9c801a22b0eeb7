"""Any JSON in any of Calico's kinds: never raised, and what is damaged never allows more."""

import math
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kube_policies import ENDPOINTS, NAMESPACES
from policy_junk import FLOWS, Json, any_json, deep
from policy_junk_calico import POLICIES, damage, policies
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

INHERITED = {name: namespace_labels(namespace) for name, namespace in NAMESPACES.items()}
CONVERTERS: dict[str, Callable[[Json], Converted]] = {
    "NetworkPolicy": convert_network_policy,
    "GlobalNetworkPolicy": convert_global_network_policy,
    "Tier": convert_tier,
    "NetworkSet": lambda raw: convert_network_set(raw, INHERITED),
    "GlobalNetworkSet": convert_global_network_set,
    "HostEndpoint": lambda raw: convert_host_endpoint(raw, INHERITED),
}

_office: Json = {
    "metadata": {"name": "s", "labels": {"role": "office"}},
    "spec": {"nets": ["203.0.113.0/24"]},
}


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


@given(raw=any_json(*_WORDS), kind=st.sampled_from(sorted(CONVERTERS)))
@settings(max_examples=200, deadline=None)
def test_any_json_is_one_object(raw: Json, kind: str) -> None:
    check(kind, raw)
    check(kind, {"metadata": {"name": "p", "namespace": "x"}, "spec": raw})
    check(kind, {"metadata": raw, "spec": {"nets": raw, "ingress": [raw], "profiles": raw, "ports": raw}})
    if not isinstance(raw, dict) and raw is not None:
        assert CONVERTERS[kind](raw).findings


@given(raw=any_json(*_WORDS))
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
    nested, wide = deep(30, "source", "labels"), {"§" * 100: "x"}
    for kind in CONVERTERS:
        check(kind, nested)
        check(kind, {"metadata": nested, "spec": nested})
        check(kind, {"metadata": wide, "spec": {"selector": "(" * 100_000, "nets": [nested] * 1000}})
        check(kind, {"spec": {"ingress": [{"action": "Allow", "source": {"selector": "!" * 99_999}}] * 50}})
