"""policy.networking.k8s.io: ClusterNetworkPolicy (v1alpha2, and v1beta1, which has the same fields),
AdminNetworkPolicy and BaselineAdminNetworkPolicy (v1alpha1).

Semantics are those of the types' own comments. What they ask of unknown fields holds here of everything that
cannot be understood: a rule that accepts then matches nothing, one that denies or passes denies everything.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from towpath.policy.converted import Converted
from towpath.policy.ir import (
    ANP_TIER,
    BANP_TIER,
    KIND,
    KUBE_ADMIN_TIER,
    KUBE_BASELINE_TIER,
    NAMESPACE_PREFIX,
    TCP,
    Action,
    Direction,
    Peer,
    Policy,
    Rule,
    pods_only,
)
from towpath.policy.port_matches import ANY_PORT, PROTOCOLS, PortMatches, expand, port_range
from towpath.policy.reading import POLICY_UNREADABLE, Field, Report, Unreadable, label_selector
from towpath.policy.selector import All, Selector, conjunction, equal
from towpath.policy.selector_text import selector_text

_TIERS = {"Admin": KUBE_ADMIN_TIER.name, "Baseline": KUBE_BASELINE_TIER.name}
_PEERS: dict[Direction, str] = {"ingress": "from", "egress": "to"}
_FIRST = -1.0  # before any priority


class _Api(msgspec.Struct, frozen=True, kw_only=True):
    """Where the three kinds differ. ``tier`` is also that of a policy that does not tell."""

    kind: str
    tier: str
    place: tuple[str, ...]  # fields of the spec that say where in the order it stands
    actions: dict[str, Action]
    ports: tuple[str, ...]  # fields of a rule that list ports


_CNP = _Api(
    kind="ClusterNetworkPolicy",
    tier=KUBE_ADMIN_TIER.name,
    place=("tier", "priority"),
    actions={"Accept": "allow", "Deny": "deny", "Pass": "pass"},
    ports=("protocols", "ports"),  # the first releases of v1alpha2 had the older APIs' ports
)
_ANP = _Api(
    kind="AdminNetworkPolicy",
    tier=ANP_TIER.name,
    place=("priority",),
    actions={"Allow": "allow", "Deny": "deny", "Pass": "pass"},
    ports=("ports",),
)
_BANP = _Api(
    kind="BaselineAdminNetworkPolicy",
    tier=BANP_TIER.name,
    place=(),
    actions={"Allow": "allow", "Deny": "deny"},
    ports=("ports",),
)


def convert_cluster_network_policy(raw: Mapping[str, Any]) -> Converted:
    """One object, as decoded. Never raises. Rules that cannot be understood fail closed, as ``_strict``."""
    return _convert(_CNP, raw)


def convert_admin_network_policy(raw: Mapping[str, Any]) -> Converted:
    """One object, as decoded. Never raises. Rules that cannot be understood fail closed, as ``_strict``."""
    return _convert(_ANP, raw)


def convert_baseline_admin_network_policy(raw: Mapping[str, Any]) -> Converted:
    """One object, as decoded. Never raises. Rules that cannot be understood fail closed, as ``_strict``."""
    return _convert(_BANP, raw)


def _convert(api: _Api, raw: Mapping[str, Any]) -> Converted:
    root = Field(raw)
    report = Report(api.kind, root)
    tier, order, subject = api.tier, _FIRST, pods_only(All())
    understood = False
    try:
        spec = root["spec"].object("subject", "ingress", "egress", *api.place)
        tier, order = _place(spec, api)
        subject = _pods(spec["subject"])
        understood = True
    except Unreadable as problem:
        consequence = (
            f"it selects {selector_text(subject)}, stands in tier {tier} at {order:g}, and only denies"
        )
        report.note(problem, consequence, POLICY_UNREADABLE)
    rules: dict[Direction, tuple[Rule, ...] | None] = {}
    for direction in _PEERS:
        found = _rules(root, direction, api, report)
        rules[direction] = found if understood or found is None else _strict(found)
    policy = Policy(
        kind=api.kind,
        name=report.name,
        tier=tier,
        order=order,
        selector=subject,
        ingress=rules["ingress"],
        egress=rules["egress"],
    )
    return Converted(policies=(policy,), findings=report.findings)


def _place(spec: Field, api: _Api) -> tuple[str, float]:
    """Tier and order; the baseline is one policy and has no priority."""
    tier = spec["tier"].choice(_TIERS) if "tier" in api.place else api.tier
    return tier, float(spec["priority"].integer(0, 1000)) if "priority" in api.place else 0.0


def _strict(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """The rules of a policy whose subject or place is unknown: nothing is accepted or passed by."""
    return tuple(
        msgspec.structs.replace(rule, action="deny") for rule in rules if rule.action in ("deny", "pass")
    )


def _rules(root: Field, direction: Direction, api: _Api, report: Report) -> tuple[Rule, ...] | None:
    """None if the policy does not speak of the direction, which it does by having rules for it."""
    try:
        field = root["spec"][direction]
        entries = field.entries()
    except Unreadable as problem:
        return report.closed(problem, None, f"spec.{direction}")
    if not entries:
        return None
    return tuple(rule for entry in entries for rule in _rule(entry, direction, api, report))


def _rule(entry: Field, direction: Direction, api: _Api, report: Report) -> tuple[Rule, ...]:
    action: Action = "deny"  # until it is known
    try:
        action = entry["action"].choice(api.actions)
        return _understood(entry, action, direction, api)
    except Unreadable as problem:
        return report.closed(problem, action, entry.path)


def _understood(entry: Field, action: Action, direction: Direction, api: _Api) -> tuple[Rule, ...]:
    key = _PEERS[direction]
    entry.object("name", "action", key, *api.ports)
    fields = entry[key].entries()
    if not fields:
        raise entry.unreadable(f"has nobody in {key}", "name at least one peer")
    peers = [(field.path, _peer(field, direction)) for field in fields]
    ports = _ports(entry, api)
    if ports is None:
        return expand(action, direction, peers, ANY_PORT)
    if ports.named and any(field[key].given for field in fields for key in ("nodes", "networks")):
        raise entry.unreadable(
            "asks nodes or networks for a named port, which only pods have", "write the port's number"
        )
    return expand(action, direction, peers, ports.matches())


def _peer(field: Field, direction: Direction) -> Peer:
    if direction == "ingress":
        return Peer(selector=_pods(field))
    key, inner = _only_one(field, "namespaces", "pods", "nodes", "networks", "domainNames")
    match key:
        case "nodes":
            return Peer(selector=conjunction(equal(KIND, "node"), label_selector(inner)))
        case "networks":
            nets = tuple(entry.net() for entry in inner.entries())
            if not nets:
                raise inner.unreadable("names no network", "name at least one")
            return Peer(nets=nets)
        case "domainNames":
            raise inner.unreadable("asks for domain names, which Towpath does not know", "name networks")
        case _:
            return Peer(selector=_pods(field))


def _pods(field: Field) -> Selector:
    """A subject, or a peer in the cluster: ``namespaces``, or ``pods`` by both selectors.

    A namespaceSelector that is left out selects all, as one that is empty.
    """
    key, inner = _only_one(field, "namespaces", "pods")
    if key == "namespaces":
        return pods_only(label_selector(inner, NAMESPACE_PREFIX))
    inner.object("namespaceSelector", "podSelector")
    if not inner["podSelector"].given:
        raise inner["podSelector"].unreadable("is no selector", "write one; {} selects all pods")
    namespaces = label_selector(inner["namespaceSelector"], NAMESPACE_PREFIX)
    return pods_only(conjunction(namespaces, label_selector(inner["podSelector"])))


def _only_one(field: Field, *known: str) -> tuple[str, Field]:
    """The one field that is given. None of them means a field that this version's schema has cut away."""
    field.object(*known)
    given = [(key, field[key]) for key in known if field[key].given]
    if len(given) != 1:
        raise field.unreadable(f"has {len(given)} fields, not one", f"use one of {', '.join(known)}")
    return given[0]


def _ports(entry: Field, api: _Api) -> PortMatches | None:
    """None if the rule does not ask for ports."""
    given = [key for key in api.ports if entry[key].given]
    if len(given) > 1:
        raise entry.unreadable(f"has both {' and '.join(given)}", f"use {given[0]} only")
    found = PortMatches()
    entries = entry[given[0]].entries() if given else []
    read: Callable[[Field, PortMatches], None] = _protocol if given == ["protocols"] else _port
    for port in entries:
        read(port, found)
    return found if entries else None


def _protocol(field: Field, found: PortMatches) -> None:
    """``ClusterNetworkPolicyProtocol``."""
    key, inner = _only_one(field, "tcp", "udp", "sctp", "destinationNamedPort")
    if key == "destinationNamedPort":
        found.name(inner.port_name())
        return
    protocol = PROTOCOLS[key.upper()]
    _, port = _only_one(inner, "destinationPort")
    key, value = _only_one(port, "number", "range")
    if key == "number":
        found.range(protocol, *port_range(value, value))
    else:
        value.object("start", "end")
        found.range(protocol, *port_range(value["start"], value["end"]))


def _port(field: Field, found: PortMatches) -> None:
    """``AdminNetworkPolicyPort``."""
    key, inner = _only_one(field, "portNumber", "portRange", "namedPort")
    if key == "namedPort":
        found.name(inner.port_name())
        return
    ends = ("port", "port") if key == "portNumber" else ("start", "end")
    inner.object("protocol", *ends)
    protocol = inner["protocol"].choice(PROTOCOLS) if inner["protocol"].given else TCP
    found.range(protocol, *port_range(inner[ends[0]], inner[ends[1]]))
