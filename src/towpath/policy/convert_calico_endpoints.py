"""Calico's NetworkSet, GlobalNetworkSet and HostEndpoint, as stored or served.

Profiles. Those of namespaces and service accounts are no more than the labels that pods and namespaced
network sets inherit, and, of namespaces, that what no policy decides is allowed. A host endpoint has none
unless its ``profiles`` name one; without one that allows, what no policy decides is denied.

Networks that cannot be read. A set keeps those that can, and a second set with its labels, of everything,
stands beside it under the kind ``unreadable``: a rule that denies the set denies everything, a rule that
allows what is not in the set allows nothing (``convert_calico_rules``). Rules that pass or log do as those
that allow. The same goes for a host endpoint's addresses. A set whose labels cannot be read is only that
second set.
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from towpath.model.failsafe import EVERYWHERE
from towpath.model.net import Addr, Net
from towpath.policy.convert_calico_rules import UNREADABLE, network, optional_text, protocol_number
from towpath.policy.converted import Converted
from towpath.policy.endpoints import addresses_of
from towpath.policy.ir import (
    KIND,
    METADATA_NAME,
    NAMESPACE,
    NAMESPACE_NAME,
    NAMESPACE_PREFIX,
    ORCHESTRATOR,
    PORT_PROTOCOLS,
    SERVICE_ACCOUNT,
    Endpoint,
    NamedPort,
    NetworkSet,
)
from towpath.policy.parts import Parts
from towpath.policy.reading import RESERVED_PREFIXES, Field, Report

SET_UNREADABLE = "TP5040"
HOST_ENDPOINT_UNREADABLE = "TP5041"

DEFAULT_ALLOW = "projectcalico-default-allow"

_NAMESPACE_PROFILE = "kns."
_INTERFACE = re.compile(r"[A-Za-z0-9_.:@-]{1,15}")  # of what the kernel takes, what can be in a rule
# An object may not say of itself what only Towpath can know of it.
_GIVEN = (NAMESPACE, ORCHESTRATOR, SERVICE_ACCOUNT)

# By a namespace's name, what endpoints inherit from it: ``endpoints.namespace_labels``.
Namespaces = Mapping[str, Mapping[str, str]]


def convert_network_set(raw: Mapping[str, Any], namespaces: Namespaces | None = None) -> Converted:
    """A NetworkSet, as decoded. Never raises. It inherits its namespace's labels, of which only the name is
    known if ``namespaces`` does not have it.
    """
    parts = Parts(Field(raw), "nets")
    labels: dict[str, str] = {}
    namespace = parts.read(lambda: parts.root["metadata"]["namespace"].text(), "")
    if namespace:
        name = {NAMESPACE_NAME: namespace, NAMESPACE_PREFIX + METADATA_NAME: namespace}
        labels |= {**name, **((namespaces or {}).get(namespace) or {}), NAMESPACE: namespace}
    return _network_set(parts, "NetworkSet", labels, placed=bool(namespace))


def convert_global_network_set(raw: Mapping[str, Any]) -> Converted:
    """A GlobalNetworkSet, as decoded. Never raises. It is in no namespace, whatever its labels say."""
    return _network_set(Parts(Field(raw), "nets"), "GlobalNetworkSet", {}, placed=True)


def convert_host_endpoint(raw: Mapping[str, Any], namespaces: Namespaces | None = None) -> Converted:
    """A HostEndpoint, as decoded. Never raises.

    If any of it cannot be understood, what no policy decides is denied. If where it is cannot be, it is
    nowhere.
    """
    parts = Parts(Field(raw), "node", "interfaceName", "expectedIPs", "profiles", "ports")
    report = Report("HostEndpoint", parts.root)
    labels, addresses = _labels(parts), _addresses(parts)
    complete = not parts.problems
    inherited, allows = _profiles(parts, namespaces or {})
    ports = _ports(parts)
    node, interface = parts.read(lambda: _place(parts.spec), ("", ""))
    endpoint = Endpoint(
        name=f"HostEndpoint/{report.name}",
        labels={**inherited, **labels, KIND: "hostendpoint"},
        addresses=addresses,
        ports=ports,
        unmatched="allow" if allows and not parts.problems else "deny",
        node=node,
        interface=interface,
    )
    parts.tell(report, "what no policy decides is denied", HOST_ENDPOINT_UNREADABLE)
    return Converted(
        endpoints=(endpoint,),
        network_sets=() if complete else (_unreadable(endpoint.name, endpoint.labels),),
        findings=report.findings,
    )


def _network_set(parts: Parts, kind: str, inherited: Mapping[str, str], *, placed: bool) -> Converted:
    """``placed``: it is known which namespace, if any, it is in."""
    report = Report(kind, parts.root)
    before = len(parts.problems)
    own = _labels(parts)
    labelled = len(parts.problems) == before
    labels = {**inherited, **own, KIND: "networkset"}
    nets: list[Net] = []
    for entry in parts.entries("nets"):
        net = parts.read(partial(network, entry), None)
        if net is not None:
            nets.append(net)
    sets = (NetworkSet(name=report.object, labels=labels, nets=tuple(nets)),) if labelled and placed else ()
    if not parts.problems:
        return Converted(network_sets=sets)
    consequence = "rules that allow do without it, rules that deny the set deny everything"
    parts.tell(report, consequence, SET_UNREADABLE)
    return Converted(network_sets=(*sets, _unreadable(report.object, labels)), findings=report.findings)


def _unreadable(name: str, labels: Mapping[str, str]) -> NetworkSet:
    return NetworkSet(name=f"{name} (unreadable)", labels={**labels, KIND: UNREADABLE}, nets=EVERYWHERE)


def _labels(parts: Parts) -> dict[str, str]:
    """Its own, those that can be read."""
    labels: dict[str, str] = {}
    none: list[tuple[str, Field]] = []
    for key, field in parts.read(lambda: parts.root["metadata"]["labels"].fields(), none):
        value = "" if field.value == "" else parts.read(field.text, None)
        if value is not None and key not in _GIVEN and not key.startswith(RESERVED_PREFIXES):
            labels[key] = value
    return labels


def _profiles(parts: Parts, namespaces: Namespaces) -> tuple[dict[str, str], bool]:
    """The labels inherited from profiles, the first counts, and whether any allows what no policy decides."""
    labels: dict[str, str] = {}
    allows = False
    for entry in parts.entries("profiles"):
        name = parts.read(entry.text, "")
        namespace = name.removeprefix(_NAMESPACE_PROFILE)
        if name == DEFAULT_ALLOW:
            allows = True
        elif name != namespace and namespace in namespaces:
            labels = {**namespaces[namespace], **labels}
            allows = True
        elif name:
            fix = f"write {DEFAULT_ALLOW}, or leave it out"
            parts.problems.append(entry.unreadable("is no profile that Towpath knows", fix))
    return labels, allows


def _addresses(parts: Parts) -> tuple[Addr, ...]:
    """Those that can be read."""
    found: list[Addr] = []
    for entry in parts.entries("expectedIPs"):
        found += parts.read(partial(_address, entry), ())
    return tuple(dict.fromkeys(found))


def _address(field: Field) -> tuple[Addr, ...]:
    addresses = addresses_of([field.text()])
    if not addresses:
        raise field.unreadable("is no address", "write an IPv4 or IPv6 address")
    return addresses


def _ports(parts: Parts) -> tuple[NamedPort, ...]:
    ports = [parts.read(partial(_port, entry), None) for entry in parts.entries("ports")]
    return tuple(port for port in ports if port is not None)


def _port(field: Field) -> NamedPort:
    field.object("name", "protocol", "port")
    protocol = protocol_number(field["protocol"])
    if protocol not in PORT_PROTOCOLS:
        raise field["protocol"].unreadable("has no ports", "write TCP, UDP or SCTP")
    return NamedPort(field["name"].text(), protocol, field["port"].integer(1, 65535))


def _place(spec: Field) -> tuple[str, str]:
    """The node and the interface."""
    interface = optional_text(spec["interfaceName"])
    if interface not in ("", "*") and not _INTERFACE.fullmatch(interface):
        fix = "write the interface's whole name, or * for all"
        raise spec["interfaceName"].unreadable("is no interface's name", fix)
    if not interface and not spec["expectedIPs"].entries():
        raise spec.unreadable("says neither interface nor address", "give interfaceName or expectedIPs")
    return spec["node"].text(), interface
