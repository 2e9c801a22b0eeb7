"""Selectors in words: what the user wrote, and nothing of how we put it."""

from typing import Any

import pytest

from towpath.policy.convert_admin import convert_cluster_network_policy
from towpath.policy.convert_calico import convert_network_policy
from towpath.policy.convert_networking import convert
from towpath.policy.ir import Rule, calico_kinds
from towpath.policy.selector import All, Has, Not, disjunction, equal
from towpath.policy.selector_text import selector_text


def first(raw: dict[str, Any], how: Any) -> tuple[str, str]:
    """Whom the policy selects, and its first rule's source."""
    (policy,) = how({"metadata": {"name": "p", "namespace": "shop"}, **raw}).policies
    rule: Rule = policy.ingress[0]
    assert rule.source.selector is not None
    return selector_text(policy.selector), selector_text(rule.source.selector)


@pytest.mark.parametrize(
    ("peer", "text"),
    [
        ({"podSelector": {}}, "all pods in namespace shop"),
        ({"podSelector": {"matchLabels": {"app": "a"}}}, 'pods with app == "a" in namespace shop'),
        ({"namespaceSelector": {}}, "all pods"),
        (
            {
                "namespaceSelector": {"matchLabels": {"team": "red"}},
                "podSelector": {"matchLabels": {"a": "b"}},
            },
            'pods with a == "b" in namespaces with team == "red"',
        ),
        (
            {"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}},
            "all pods in namespaces with !has(team)",
        ),
    ],
)
def test_kubernetes(peer: dict[str, Any], text: str) -> None:
    spec = {"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"from": [peer]}]}
    assert first({"spec": spec}, convert) == ('pods with app == "db" in namespace shop', text)


def test_cluster_network_policy() -> None:
    spec = {
        "tier": "Admin",
        "priority": 1,
        "subject": {"namespaces": {"matchLabels": {"team": "red"}}},
        "ingress": [{"action": "Deny", "from": [{"pods": {"namespaceSelector": {}, "podSelector": {}}}]}],
    }
    whom = first({"spec": spec}, convert_cluster_network_policy)
    assert whom == ('all pods in namespaces with team == "red"', "all pods")


def test_calico() -> None:
    source = {"selector": "role == 'web' || has(x)", "serviceAccounts": {"names": ["a", "b"]}}
    spec = {"selector": "app == 'db'", "ingress": [{"action": "Allow", "source": source}]}
    raw = {"apiVersion": "projectcalico.org/v3", "spec": spec}
    whom, source_text = first(raw, convert_network_policy)
    assert whom == 'pods with app == "db" in namespace shop'
    assert source_text.startswith('endpoints with role == "web" || has(x)')
    assert "of service account a or b" in source_text
    assert "towpath.io" not in source_text


def test_what_mixes_places_stays_as_it_is() -> None:
    mixed = disjunction(equal("app", "a"), Not(Has("pcns.team")))
    assert selector_text(calico_kinds(mixed)) == 'endpoints with app == "a" || !has(pcns.team)'
    assert selector_text(All()) == "all endpoints"
