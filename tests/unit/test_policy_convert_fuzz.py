"""Any JSON in any of these kinds: the converters never raise, and what is damaged never allows more."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kube_policies import EVERYONE, flow, world
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

Json = Any
CONVERTERS: dict[str, Callable[[Mapping[str, Any]], Converted]] = {
    "NetworkPolicy": convert_network_policy,
    "ClusterNetworkPolicy": convert_cluster_network_policy,
    "AdminNetworkPolicy": convert_admin_network_policy,
    "BaselineAdminNetworkPolicy": convert_baseline_admin_network_policy,
}
FLOWS = [
    flow(source, destination, port, protocol)
    for source in sorted(EVERYONE)
    for destination in sorted(EVERYONE)
    for port, protocol in ((80, "tcp"), (53, "udp"))
    if source != destination
]

_keys = st.sampled_from(("app", "env"))
_values = st.sampled_from(("web", "db", "cli", "prod"))
_pod_selectors = st.one_of(
    st.just({}),
    st.builds(lambda key, value: {"matchLabels": {key: value}}, _keys, _values),
    st.builds(
        lambda key, operator, value: {
            "matchExpressions": [{"key": key, "operator": operator, "values": [value]}]
        },
        _keys,
        st.sampled_from(("In", "NotIn")),
        _values,
    ),
    st.builds(
        lambda key, operator: {"matchExpressions": [{"key": key, "operator": operator}]},
        _keys,
        st.sampled_from(("Exists", "DoesNotExist")),
    ),
)
_namespace_selectors = st.sampled_from(
    (
        {},
        {"matchLabels": {"team": "blue"}},
        {"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["red"]}]},
    )
)
_blocks = st.sampled_from(
    (
        {"cidr": "10.0.0.0/30"},
        {"cidr": "0.0.0.0/0", "except": ["10.0.0.2/31", "203.0.113.0/24"]},
        {"cidr": "fd00::/8"},
    )
)
_network_peers = st.one_of(
    st.builds(lambda pods: {"podSelector": pods}, _pod_selectors),
    st.builds(lambda where: {"namespaceSelector": where}, _namespace_selectors),
    st.builds(
        lambda pods, where: {"podSelector": pods, "namespaceSelector": where},
        _pod_selectors,
        _namespace_selectors,
    ),
    st.builds(lambda block: {"ipBlock": block}, _blocks),
)
_network_ports = st.sampled_from(
    (
        {"port": 80},
        {"port": "http", "protocol": "TCP"},
        {"port": 53, "endPort": 99, "protocol": "UDP"},
        {"protocol": "SCTP"},
    )
)
_admin_pods = st.builds(
    lambda pods, where: {"podSelector": pods, "namespaceSelector": where},
    _pod_selectors,
    _namespace_selectors,
)
_admin_ingress = st.one_of(
    st.builds(lambda where: {"namespaces": where}, _namespace_selectors),
    st.builds(lambda pods: {"pods": pods}, _admin_pods),
)
_admin_egress = st.one_of(
    _admin_ingress,
    st.sampled_from(
        ({"nodes": {}}, {"nodes": {"matchLabels": {"role": "worker"}}}, {"networks": ["10.0.0.0/30", "::/0"]})
    ),
)
_admin_ports = st.sampled_from(
    (
        {"portNumber": {"port": 80}},
        {"portNumber": {"port": 53, "protocol": "UDP"}},
        {"portRange": {"protocol": "TCP", "start": 1, "end": 100}},
    )
)
_protocols = st.sampled_from(
    (
        {"tcp": {"destinationPort": {"number": 80}}},
        {"udp": {"destinationPort": {"range": {"start": 50, "end": 60}}}},
    )
)


def _some(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(strategy, min_size=1, max_size=2)


def _rules(key: str, peers: st.SearchStrategy[Any], **fields: st.SearchStrategy[Any]) -> Any:
    action = {"action": fields.pop("action")} if "action" in fields else {}
    rule = st.fixed_dictionaries({key: _some(peers), **action}, optional=fields)
    return st.lists(rule, max_size=3)


_network_specs = st.fixed_dictionaries(
    {
        "podSelector": _pod_selectors,
        "ingress": _rules("from", _network_peers, ports=_some(_network_ports)),
        "egress": _rules("to", _network_peers, ports=_some(_network_ports)),
    },
    optional={
        "policyTypes": st.lists(st.sampled_from(("Ingress", "Egress")), min_size=1, max_size=2, unique=True)
    },
)


def _admin_specs(actions: tuple[str, ...], ports: dict[str, Any], **place: Any) -> Any:
    action = st.sampled_from(actions)
    return st.fixed_dictionaries(
        {
            "subject": _admin_ingress,
            "ingress": _rules("from", _admin_ingress, action=action, **ports),
            "egress": _rules("to", _admin_egress, action=action, **ports),
            **place,
        }
    )


_priorities = st.sampled_from((1, 2, 1000))
SPECS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "NetworkPolicy": _network_specs,
    "ClusterNetworkPolicy": _admin_specs(
        ("Accept", "Deny", "Pass"),
        {"protocols": _some(_protocols)},
        tier=st.sampled_from(("Admin", "Baseline")),
        priority=_priorities,
    ),
    "AdminNetworkPolicy": _admin_specs(
        ("Allow", "Deny", "Pass"), {"ports": _some(_admin_ports)}, priority=_priorities
    ),
    "BaselineAdminNetworkPolicy": _admin_specs(("Allow", "Deny"), {"ports": _some(_admin_ports)}),
}


@st.composite
def objects(draw: st.DrawFn, name: str = "p") -> dict[str, Any]:
    """One that is in order, of any kind."""
    kind = draw(st.sampled_from(sorted(SPECS)))
    spec = dict(draw(SPECS[kind]))
    for direction in ("Ingress", "Egress"):
        if direction not in spec.get("policyTypes", (direction,)):
            del spec[direction.lower()]  # nobody would look at it
    namespace = draw(st.sampled_from(("x", "y")))
    return {"kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def convert(raw: dict[str, Any]) -> Converted:
    return CONVERTERS[raw["kind"]](raw)


# What no field has a use for. (An empty list or object, and null, do mean something.)
_junk = st.sampled_from(
    (
        "§",
        " ",
        "0.0.0.0/0 ",
        "x" * 300,
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
    damaged: dict[str, Any] = json.loads(json.dumps(raw))  # what the strategies shared is not shared here
    for _ in range(draw(st.integers(1, 2))):
        path = ("spec", *draw(st.sampled_from(list(_places(damaged["spec"])))))
        holder: Any = damaged
        for key in path[:-1]:
            holder = holder[key]
        if isinstance(holder[path[-1]], dict) and draw(st.booleans()):
            holder[path[-1]]["§new"] = draw(st.sampled_from(({}, 7, "x")))
        else:
            junk = json.loads(json.dumps(draw(_junk)))
            # (A spec without its rules is as good as any other: they cannot be missed.)
            holder[path[-1]] = "§" if path == ("spec",) and isinstance(junk, dict) else junk
    return damaged


_json = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from(("Ingress", "Deny", "Accept", "Allow", "TCP", "10.0.0.0/8", "x", "Admin")),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(
                st.text(max_size=4),
                st.sampled_from(
                    (
                        *(
                            "metadata",
                            "name",
                            "namespace",
                            "spec",
                            "subject",
                            "ingress",
                            "egress",
                            "from",
                            "to",
                        ),
                        *("action", "ports", "protocols", "podSelector", "namespaceSelector", "ipBlock"),
                        *("matchLabels", "matchExpressions", "policyTypes", "tier", "priority", "namespaces"),
                    )
                ),
            ),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=25,
)


def _deep(levels: int) -> Json:
    value: Json = {}
    for _ in range(levels):
        value = {"matchLabels": [value]}
    return value


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


@given(raw=_json, kind=st.sampled_from(sorted(CONVERTERS)))
@settings(max_examples=300, deadline=None)
def test_any_json_is_one_policy(raw: Json, kind: str) -> None:
    check(CONVERTERS[kind](raw), kind)
    check(CONVERTERS[kind]({"metadata": {"name": "p", "namespace": "x"}, "spec": raw}), kind)
    if not isinstance(raw, dict) and raw is not None:
        assert CONVERTERS[kind](raw).findings


def test_depth_and_size_do_no_harm() -> None:
    for kind, converter in CONVERTERS.items():
        for key in ("subject", "podSelector", "ingress", "egress"):
            check(converter({"metadata": {"name": "p", "namespace": "x"}, "spec": {key: _deep(5000)}}), kind)
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
