"""networking.k8s.io/v1 NetworkPolicy. It only ever allows: whom it selects, it isolates.

Semantics are those of the API's reference and of the API server's defaulting (``policyTypes``, ``protocol``);
its place among Calico's policies is Calico's: tier default, order 1000, name ``knp.default.NAME`` (what that
means to a release of Calico, ``calico_order.ranked`` says).
"""

from collections.abc import Mapping
from typing import Any

from towpath.policy.converted import Converted
from towpath.policy.ir import (
    ANY,
    NAMESPACE,
    NAMESPACE_PREFIX,
    TCP,
    Direction,
    Peer,
    Policy,
    Rule,
    pods_only,
)
from towpath.policy.port_matches import ANY_PORT, PROTOCOLS, Match, PortMatches, expand, port_range
from towpath.policy.reading import POLICY_UNREADABLE, Field, Report, Unreadable, label_selector
from towpath.policy.selector import All, Selector, conjunction, equal
from towpath.policy.selector_text import selector_text

KIND = "NetworkPolicy"
ORDER = 1000.0
_DIRECTIONS: dict[str, Direction] = {"Ingress": "ingress", "Egress": "egress"}
_PEERS: dict[Direction, str] = {"ingress": "from", "egress": "to"}
_SELECTORS = ("podSelector", "namespaceSelector", "ipBlock")
_A_POD = pods_only(All())


def convert(raw: Mapping[str, Any], kind: str = KIND) -> Converted:
    """One object, as decoded; ``kind`` as it is called, where another kind has the same spec. Never raises.

    A rule that cannot be understood allows nothing. If the policy itself cannot, it selects every pod of its
    namespace (of all, if that cannot be told) and allows nothing.
    """
    root = Field(raw)
    report = Report(kind, root)
    rules: dict[Direction, tuple[Rule, ...]] = {"ingress": (), "egress": ()}
    subject: Selector = All()
    try:
        namespace = root["metadata"]["namespace"].text()
        subject = equal(NAMESPACE, namespace)
        spec = root["spec"].object("podSelector", "policyTypes", "ingress", "egress")
        rules = dict.fromkeys(_directions(spec), ())
        subject = conjunction(subject, label_selector(spec["podSelector"]))
        entries = {direction: spec[direction].entries() for direction in rules}
        for direction in rules:
            rules[direction] = tuple(
                rule for entry in entries[direction] for rule in _rule(entry, direction, namespace, report)
            )
    except Unreadable as problem:
        report.note(
            problem, f"it selects {selector_text(pods_only(subject))} and allows nothing", POLICY_UNREADABLE
        )
    policy = Policy(
        kind=kind,
        namespace=report.namespace,
        name=report.name,
        order=ORDER,
        rank=f"knp.default.{report.name}",
        selector=pods_only(subject),
        ingress=rules.get("ingress"),
        egress=rules.get("egress"),
    )
    return Converted(policies=(policy,), findings=report.findings)


def _directions(spec: Field) -> list[Direction]:
    """Those of ``policyTypes``; else ingress, and egress if there are rules for it."""
    types = [entry.choice(_DIRECTIONS) for entry in spec["policyTypes"].entries()]
    if types:
        return types
    return ["ingress", "egress"] if spec["egress"].entries() else ["ingress"]


def _rule(entry: Field, direction: Direction, namespace: str, report: Report) -> tuple[Rule, ...]:
    try:
        key = _PEERS[direction]
        entry.object(key, "ports")
        peers = [(peer.path, _peer(peer, namespace)) for peer in entry[key].entries()]
        matches = _matches(entry["ports"])
    except Unreadable as problem:
        return report.closed(problem, "allow", entry.path)
    return expand("allow", direction, peers or [(entry.path, ANY)], matches)


def _peer(field: Field, namespace: str) -> Peer:
    given = {key for key, value in field.object(*_SELECTORS).value.items() if value is not None}
    if not given:
        raise field.unreadable("selects nobody", "give it a podSelector, a namespaceSelector or an ipBlock")
    if "ipBlock" in given:
        if len(given) > 1:
            raise field.unreadable("has an ipBlock beside a selector", "make two peers of them")
        return _block(field["ipBlock"])
    pods = label_selector(field["podSelector"]) if "podSelector" in given else All()
    if "namespaceSelector" not in given:
        return Peer(selector=conjunction(_A_POD, equal(NAMESPACE, namespace), pods))
    namespaces = label_selector(field["namespaceSelector"], NAMESPACE_PREFIX)
    return Peer(selector=conjunction(_A_POD, namespaces, pods))


def _block(field: Field) -> Peer:
    field.object("cidr", "except")
    net = field["cidr"].net()
    exceptions = []
    for entry in field["except"].entries():
        exception = entry.net()
        if exception.version != net.version:
            raise entry.unreadable(f"is not of the family of {net}", f"name networks within {net}")
        exceptions.append(exception)
    return Peer(nets=(net,), not_nets=tuple(exceptions))


def _matches(field: Field) -> tuple[Match, ...]:
    """A port without protocol is TCP's; an entry without port, all of its protocol's; no entry, anything."""
    entries = field.entries()
    if not entries:
        return ANY_PORT
    found = PortMatches()
    for entry in entries:
        entry.object("protocol", "port", "endPort")
        given = entry.value
        protocol = TCP if given.get("protocol") is None else entry["protocol"].choice(PROTOCOLS)
        port = entry["port"]
        if given.get("endPort") is not None:
            found.range(protocol, *port_range(port, entry["endPort"]))
        elif not port.given:
            found.protocol(protocol)
        elif isinstance(port.value, str):
            found.name(port.port_name(), (protocol,))
        else:
            found.range(protocol, *port_range(port, port))
    return found.matches()
