"""Rules of Calico's policies (crd.projectcalico.org/v1 and projectcalico.org/v3, which are alike).

Meaning is that of Felix (``libcalico-go/lib/backend/syncersv1/updateprocessors/rules.go``,
``felix/calc/rule_scanner.go``, ``felix/rules/policy.go``). What Calico's validator refuses is refused here as
well, since without Calico's API server nothing else validates it: such a rule fails closed.

A rule of which a list of networks has one address family only is about that family only, also if the list is
one of exceptions. A rule that is left with no family matches nothing.
"""

import re
from contextlib import suppress
from functools import lru_cache
from typing import Literal, cast

import msgspec

from towpath.model.net import Family, Net
from towpath.policy.connections import normalised
from towpath.policy.ir import (
    ICMP,
    ICMPV6,
    KIND,
    NAMESPACE,
    PORT_PROTOCOLS,
    SCTP,
    SERVICE_ACCOUNT,
    TCP,
    UDP,
    UDPLITE,
    Action,
    Direction,
    Icmp,
    Peer,
    Ports,
    Rule,
    ServiceRef,
    calico_kinds,
)
from towpath.policy.reading import Field, Report, Unreadable
from towpath.policy.selector import All, Not, Selector, conjunction, equal, one_of
from towpath.policy.selector_parse import (
    SelectorError,
    parse_namespace_selector,
    parse_selector,
    parse_service_account_selector,
)

Side = Literal["source", "destination"]

MATCHES_NOTHING = "TP5044"

# The kind of what stands for networks that cannot be read: everything, to rules that fail closed by it.
UNREADABLE = "unreadable"
_KNOWN = calico_kinds(All())
_AND_UNREADABLE = one_of(KIND, ("pod", "networkset", "hostendpoint", UNREADABLE))

_ACTIONS: dict[str, Action] = {"allow": "allow", "deny": "deny", "log": "log", "pass": "pass"}
_PROTOCOLS = {"tcp": TCP, "udp": UDP, "icmp": ICMP, "icmpv6": ICMPV6, "sctp": SCTP, "udplite": UDPLITE}
_ICMP_FAMILIES: dict[str, Family] = {"icmp": 4, "icmpv6": 6}
_CRITERIA = ("ipVersion", "protocol", "notProtocol", "icmp", "notICMP", "source", "destination")
_ENDPOINTS = ("selector", "notSelector", "namespaceSelector", "serviceAccounts")
_ENTITY = (*_ENDPOINTS, "nets", "notNets", "ports", "notPorts", "services")
_PORTS = re.compile(r"(?a:(\d{1,5})(?::(\d{1,5}))?)")
_PORT_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")

_ALL: Selector = All()


class _Entity(msgspec.Struct, frozen=True):
    """One side of a rule."""

    peer: Peer
    ports: Ports | None
    not_ports: Ports | None


def read_rules(spec: Field, direction: Direction, namespace: str, report: Report) -> tuple[Rule, ...]:
    """A direction's rules; ``namespace`` that of the policy, empty if it is global.

    What cannot be understood is reported and closed as ``Report.closed`` says.
    """
    rules: list[Rule] = []
    try:
        entries = spec[direction].entries()
    except Unreadable as problem:
        return report.closed(problem, None, f"spec.{direction}")
    for entry in entries:
        action: Action | None = None
        try:
            action = _action(entry["action"])
            rule = _rule(entry, action, direction, namespace)
        except Unreadable as problem:
            rules += report.closed(problem, action, entry.path)
            continue
        if rule is None:
            fix = "make ipVersion, protocol and all lists of networks agree on a family"
            nothing = entry.unreadable("asks for both families of addresses at once", fix)
            report.note(nothing, "the rule matches nothing", MATCHES_NOTHING, "warning")
        else:
            rules.append(rule)
    return tuple(rules)


def optional_text(field: Field) -> str:
    """A string; empty if it is not given. Raises Unreadable."""
    return "" if field.value in (None, "") else field.text()


def network(field: Field) -> Net:
    """A CIDR, or an address alone. Raises Unreadable."""
    if isinstance(field.value, str) and "/" not in field.value:
        with suppress(Unreadable):
            return Field(f"{field.value}/{128 if ':' in field.value else 32}", field).net()
    return field.net()


def protocol_number(field: Field) -> int:
    """A protocol's name in any case, or its number. Raises Unreadable."""
    value = field.value
    if isinstance(value, str):
        named = _PROTOCOLS.get(value.lower())
        if named is not None:
            return named
        if value.isascii() and value.isdigit() and len(value) <= 3:
            value = int(value)
    if type(value) is not int or not 1 <= value <= 255:
        names = "TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite"
        raise field.unreadable("is no protocol", f"write one of {names}, or a number from 1 to 255")
    return value


def selector(field: Field, everything: Selector = _ALL) -> Selector | None:
    """A selector over endpoints' own labels; None if it is not given. Raises Unreadable.

    ``everything``: what ``all()`` means in it.
    """
    text = optional_text(field)
    try:
        return None if not text else _parsed(text, everything)
    except SelectorError as error:
        raise not_a_selector(field, error) from error


def _parsed(text: str, everything: Selector) -> Selector:
    """Long ones, which nobody shares, would make a memory of the cache."""
    return _cached(text, everything) if len(text) <= 1024 else parse_selector(text, everything=everything)


@lru_cache(maxsize=8192)
def _cached(text: str, everything: Selector) -> Selector:
    return parse_selector(text, everything=everything)


def not_a_selector(field: Field, error: SelectorError) -> Unreadable:
    """To be raised."""
    return field.unreadable(f"is no selector: {error}", "correct it; the syntax is Calico's")


def _action(field: Field) -> Action:
    """In any case, as to Felix."""
    action = _ACTIONS.get(field.value.lower()) if isinstance(field.value, str) else None
    if action is None:
        raise field.unreadable("is no action", "write one of Allow, Deny, Log, Pass")
    return action


def _rule(entry: Field, action: Action, direction: Direction, namespace: str) -> Rule | None:
    """None if it asks for what no packet is."""
    given = entry.object("action", "http", "metadata", *_CRITERIA).value
    if given.get("http") is not None:
        fix = "write a rule without it, and leave HTTP to a proxy"
        raise entry["http"].unreadable("asks for HTTP requests, into which Towpath does not look", fix)
    source = _entity(entry, "source", action, direction, namespace)
    destination = _entity(entry, "destination", action, direction, namespace)
    family, possible = _family(entry, (source.peer, destination.peer))
    protocol = _protocol(entry, source, destination)
    rule = Rule(
        action=action,
        path=entry.path,
        family=family,
        protocol=protocol,
        not_protocol=None if given.get("notProtocol") is None else protocol_number(entry["notProtocol"]),
        icmp=None if given.get("icmp") is None else _icmp(entry["icmp"], protocol),
        not_icmp=None if given.get("notICMP") is None else _icmp(entry["notICMP"], protocol),
        source=source.peer,
        destination=destination.peer,
        source_ports=source.ports,
        not_source_ports=source.not_ports,
        destination_ports=destination.ports,
        not_destination_ports=destination.not_ports,
    )
    return rule if possible else None


def _family(entry: Field, peers: tuple[Peer, ...]) -> tuple[Family | None, bool]:
    """The family, None for both, and whether there is one at all.

    Felix leaves a rule out of the family that a list of networks, or of exceptions, says nothing about.
    """
    families: set[int] = {4, 6}
    if entry.value.get("ipVersion") is not None:
        families = {_ip_version(entry["ipVersion"])}
    name = entry.value.get("protocol")
    if isinstance(name, str) and name.lower() in _ICMP_FAMILIES:
        families &= {_ICMP_FAMILIES[name.lower()]}
    for peer in peers:
        for nets in (peer.nets, peer.not_nets):
            if nets:
                families &= {net.version for net in nets}
    family = cast(Family, min(families)) if len(families) == 1 else None
    return family, bool(families)


def _ip_version(field: Field) -> int:
    if type(field.value) is not int or field.value not in (4, 6):
        raise field.unreadable("is no version of IP", "write 4 or 6, without quotes")
    return field.value


def _protocol(entry: Field, source: _Entity, destination: _Entity) -> int | None:
    """Ports need a protocol that has them. Names of ports alone mean TCP's where none is given."""
    asked = [ports for side in (source, destination) for ports in (side.ports, side.not_ports) if ports]
    if entry.value.get("protocol") is not None:
        protocol = protocol_number(entry["protocol"])
        if asked and protocol not in PORT_PROTOCOLS:
            raise entry["protocol"].unreadable(
                "has no ports, and the rule asks for some", "write TCP, UDP or SCTP"
            )
        return protocol
    if not asked:
        return None
    if source.not_ports or destination.not_ports or any(ports.ranges for ports in asked):
        raise entry.unreadable("asks for ports without a protocol", "write protocol: TCP, UDP or SCTP")
    return TCP


def _icmp(field: Field, protocol: int | None) -> Icmp | None:
    """Type and code; None where nothing is asked."""
    field.object("type", "code")
    kind, code = field["type"], field["code"]
    if not kind.given and not code.given:
        return None
    if protocol not in (ICMP, ICMPV6):
        raise field.unreadable("stands in a rule for another protocol", "write protocol: ICMP or ICMPv6")
    if not kind.given:
        raise field.unreadable("has a code without a type", "give the type as well")
    return Icmp(kind.integer(0, 254), code.integer(0, 255) if code.given else None)


def _entity(entry: Field, side: Side, action: Action, direction: Direction, namespace: str) -> _Entity:
    if entry.value.get(side) in (None, {}):
        return _ANYTHING
    field = entry[side].object(*_ENTITY)
    given = field.value
    ports = _ports(field["ports"]) if "ports" in given else None
    not_ports = _ports(field["notPorts"]) if "notPorts" in given else None
    if given.get("services") is not None:
        if (side, direction) not in (("source", "ingress"), ("destination", "egress")):
            fix = "use it in the source of ingress or the destination of egress"
            raise field["services"].unreadable("is a service on a side where none can be", fix)
        if side == "destination" and (ports or not_ports):
            fix = "leave the ports out: services bring their own"
            raise field["ports" if ports else "notPorts"].unreadable("stands beside services", fix)
        return _Entity(_service(field, namespace), ports, not_ports)
    chosen, not_chosen = _selected(field, namespace)
    # What stands for unreadable networks must enlarge a denial and shrink a permission.
    more, less = (_AND_UNREADABLE, _KNOWN) if action == "deny" else (_KNOWN, _AND_UNREADABLE)
    peer = Peer(
        selector=None if chosen is None else conjunction(more, chosen),
        not_selector=None if not_chosen is None else conjunction(less, not_chosen),
        nets=(_nets(field["nets"]) or None) if "nets" in given else None,
        not_nets=_nets(field["notNets"]) if "notNets" in given else (),
    )
    return _Entity(peer, ports, not_ports)


_ANYTHING = _Entity(Peer(), None, None)


def _nets(field: Field) -> tuple[Net, ...]:
    return tuple(network(entry) for entry in field.entries())


def _selected(field: Field, namespace: str) -> tuple[Selector | None, Selector | None]:
    """What is to be selected, and what not.

    In a namespaced policy any of the four fields restricts to the policy's own namespace, unless there is a
    namespaceSelector. Beside something to be selected, notSelector takes away from just that.
    """
    given = field.value
    chosen = selector(field["selector"]) if "selector" in given else None
    not_chosen = selector(field["notSelector"]) if "notSelector" in given else None
    accounts = _accounts(field["serviceAccounts"]) if "serviceAccounts" in given else None
    where = _namespaces(field["namespaceSelector"]) if "namespaceSelector" in given else None
    asked = not (chosen is None and not_chosen is None and accounts is None)
    if where is None and namespace and asked:
        where = equal(NAMESPACE, namespace)
    terms = [term for term in (where, chosen, accounts) if term is not None]
    if not terms:
        return None, not_chosen
    if not_chosen is not None:
        terms.append(Not(not_chosen))
    return conjunction(*terms), None


def _namespaces(field: Field) -> Selector | None:
    text = optional_text(field)
    try:
        return parse_namespace_selector(text, allow_global=True) if text else None
    except SelectorError as error:
        raise not_a_selector(field, error) from error


def _accounts(field: Field) -> Selector | None:
    """Names and selector, both if both are given. None of them is no restriction to Calico, and refused
    here: it is what is left of a misspelt field.
    """
    if not field.given:
        return None
    field.object("names", "selector")
    names = [entry.text() for entry in field["names"].entries()]
    text = optional_text(field["selector"])
    if not names and not text:
        raise field.unreadable("says nothing of service accounts", "give it names, or a selector")
    try:
        chosen = parse_service_account_selector(text)
    except SelectorError as error:
        raise not_a_selector(field["selector"], error) from error
    return conjunction(chosen, one_of(SERVICE_ACCOUNT, names)) if names else chosen


def _service(field: Field, namespace: str) -> Peer:
    for other in (*_ENDPOINTS, "nets", "notNets"):
        if field[other].value not in (None, "", []):
            raise field[other].unreadable("stands beside services", "make two rules of them")
    service = field["services"].object("name", "namespace")
    where = optional_text(service["namespace"]) or namespace
    if not where:
        raise service.unreadable("does not say in which namespace the service is", "give it a namespace")
    return Peer(service=ServiceRef(where, service["name"].text()))


def _ports(field: Field) -> Ports | None:
    """Numbers, ``FIRST:LAST`` and names; None if there are none."""
    ranges: list[tuple[int, int]] = []
    names: set[str] = set()
    for entry in field.entries():
        found = _PORTS.fullmatch(entry.value) if isinstance(entry.value, str) else None
        if found:
            first, last = int(found[1]), int(found[2] or found[1])
            if not first <= last <= 65535:
                raise entry.unreadable("is no range of ports", "write FIRST:LAST, up to 65535")
            ranges.append((first, last))
        elif isinstance(entry.value, str):
            if not _PORT_NAME.fullmatch(entry.value) or entry.value.isdigit():
                raise entry.unreadable("is no port", "write a number, FIRST:LAST, or a port's name")
            names.add(entry.value)
        else:
            port = entry.integer(0, 65535)
            ranges.append((port, port))
    return Ports(normalised(ranges), tuple(sorted(names))) if ranges or names else None
