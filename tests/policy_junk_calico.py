"""Calico's policies that are in order, and damaged objects, drawn by hypothesis."""

from typing import Any

from hypothesis import strategies as st

from policy_junk import copied, holder_of, junk, places

POLICIES = ("NetworkPolicy", "GlobalNetworkPolicy")
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


@st.composite
def damage(draw: st.DrawFn, raw: dict[str, Any]) -> dict[str, Any]:
    """The object with junk in the place of any part of its spec, or with a field that nobody knows."""
    damaged: dict[str, Any] = copied(raw)
    path = ("spec", *draw(st.sampled_from(list(places(damaged["spec"])))))
    holder = holder_of(damaged, path)
    if isinstance(holder[path[-1]], dict) and draw(st.booleans()):
        holder[path[-1]]["§new"] = draw(st.sampled_from(({}, 7, None)))
        return damaged
    rubbish = draw(junk)
    if path == ("spec", "order") or (path == ("spec",) and isinstance(rubbish, dict)):
        rubbish = "§"  # (numbers are orders, and a spec without its rules is as good as any other)
    if path[-1] in ("ports", "notPorts") and rubbish == [7]:
        rubbish = [-7]
    if (path[-1] == "tier" or "names" in path) and isinstance(rubbish, str):
        rubbish = 7  # (any text is a tier, or a service account)
    holder[path[-1]] = rubbish
    return damaged
