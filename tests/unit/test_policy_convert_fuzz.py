"""Any JSON in any of these kinds: the converters never raise, and what is damaged never allows more."""

from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kube_policies import world
from policy_junk import FLOWS, Json, any_json, deep
from policy_junk_kubernetes import damage, objects
from towpath.model.codes import CODES
from towpath.policy.convert_admin import (
    convert_admin_network_policy,
    convert_baseline_admin_network_policy,
    convert_cluster_network_policy,
)
from towpath.policy.convert_networking import convert as convert_network_policy
from towpath.policy.converted import Converted
from towpath.policy.evaluate import verdict
from towpath.policy.ir import Rule

CONVERTERS: dict[str, Callable[[Mapping[str, Any]], Converted]] = {
    "NetworkPolicy": convert_network_policy,
    "ClusterNetworkPolicy": convert_cluster_network_policy,
    "AdminNetworkPolicy": convert_admin_network_policy,
    "BaselineAdminNetworkPolicy": convert_baseline_admin_network_policy,
}


def convert(raw: dict[str, Any]) -> Converted:
    return CONVERTERS[raw["kind"]](raw)


WORDS = (
    *("Ingress", "Deny", "Accept", "Allow", "TCP", "10.0.0.0/8", "x", "Admin"),
    *("metadata", "name", "namespace", "spec", "subject", "ingress", "egress", "from", "to"),
    *("action", "ports", "protocols", "podSelector", "namespaceSelector", "ipBlock"),
    *("matchLabels", "matchExpressions", "policyTypes", "tier", "priority", "namespaces"),
)


def check(converted: Converted, kind: str) -> None:
    """What holds of the outcome whatever the object."""
    (policy,) = converted.policies
    assert policy.kind == kind
    for finding in converted.findings:
        assert finding.code in CODES and finding.object.startswith(f"{kind}/") and finding.fix
        assert len(finding.message) < 1000
    for rule in (*(policy.ingress or ()), *(policy.egress or ())):
        for ports in (rule.destination_ports, rule.source_ports):
            assert ports is None or all(0 < low <= high < 65536 for low, high in ports.ranges)


@given(raw=any_json(*WORDS), kind=st.sampled_from(sorted(CONVERTERS)))
@settings(max_examples=300, deadline=None)
def test_any_json_is_one_policy(raw: Json, kind: str) -> None:
    check(CONVERTERS[kind](raw), kind)
    check(CONVERTERS[kind]({"metadata": {"name": "p", "namespace": "x"}, "spec": raw}), kind)
    if not isinstance(raw, dict) and raw is not None:
        assert CONVERTERS[kind](raw).findings


def test_depth_and_size_do_no_harm() -> None:
    for kind, converter in CONVERTERS.items():
        for key in ("subject", "podSelector", "ingress", "egress"):
            spec = {key: deep(5000, "matchLabels")}
            check(converter({"metadata": {"name": "p", "namespace": "x"}, "spec": spec}), kind)
        huge = [{"from": [{"podSelector": {"matchLabels": {"k" * 10**6: "v" * 10**6}}}]}]
        check(converter({"metadata": {"name": "p", "namespace": "x"}, "spec": {"ingress": huge}}), kind)


@given(raw=objects())
@settings(max_examples=150, deadline=None)
def test_what_is_in_order_has_no_findings(raw: dict[str, Any]) -> None:
    assert convert(raw).findings == ()


@given(data=st.data(), raw=objects(), others=st.lists(objects("q"), max_size=2))
@settings(max_examples=200, deadline=None)
def test_damage_is_found_and_never_allows_more(
    data: st.DataObject, raw: dict[str, Any], others: list[dict[str, Any]]
) -> None:
    damaged = convert(data.draw(damage(raw)))
    check(damaged, raw["kind"])
    assert damaged.findings
    around = [convert(other) for other in others]
    before, after = world([convert(raw), *around]), world([damaged, *around])
    widened = [one for one in FLOWS if verdict(after, one) and not verdict(before, one)]
    assert not widened


@given(data=st.data(), raw=objects())
@settings(max_examples=200, deadline=None)
def test_a_rule_with_a_finding_is_gone_or_denies_everything(data: st.DataObject, raw: dict[str, Any]) -> None:
    damaged = convert(data.draw(damage(raw)))
    (policy,) = damaged.policies
    rules = (*(policy.ingress or ()), *(policy.egress or ()))
    for finding in damaged.findings:
        path = "".join(finding.message.split(": ")[0].partition("]")[:2])
        left = [rule for rule in rules if rule.path.startswith(path) or path.startswith(rule.path)]
        if finding.code == "TP5002":
            assert all(rule.action == "deny" for rule in rules)
        elif finding.message.endswith("the rule is left out"):
            assert left == []
        else:
            assert finding.message.endswith("the rule denies everything")
            assert left and all(rule == Rule(action="deny", path=rule.path) for rule in left)
