"""Objects of the Kubernetes policy APIs that are in order, and damaged ones, drawn by hypothesis."""

from typing import Any

from hypothesis import strategies as st

from policy_junk import copied, holder_of, junk, places

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


@st.composite
def damage(draw: st.DrawFn, raw: dict[str, Any]) -> dict[str, Any]:
    """The object with junk in the place of any part of its spec, or with a field that nobody knows."""
    damaged: dict[str, Any] = copied(raw)
    for _ in range(draw(st.integers(1, 2))):
        path = ("spec", *draw(st.sampled_from(list(places(damaged["spec"])))))
        holder = holder_of(damaged, path)
        if isinstance(holder[path[-1]], dict) and draw(st.booleans()):
            holder[path[-1]]["§new"] = draw(st.sampled_from(({}, 7, "x")))
        else:
            rubbish = draw(junk)
            # (A spec without its rules is as good as any other: they cannot be missed.)
            holder[path[-1]] = "§" if path == ("spec",) and isinstance(rubbish, dict) else rubbish
    return damaged
