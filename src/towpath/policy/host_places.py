"""Which host endpoint stands at which interface of a node, as ``felix/dataplane/linux/endpoint_mgr.go`` says.

By name, or by an address that the interface has; ``*`` stands for all that no other stands at. Of several at
one interface the first by name counts, whichever way they say it.
"""

from collections.abc import Iterable, Mapping

import msgspec

from towpath.model.finding import Finding
from towpath.model.net import Addr
from towpath.policy.ir import Endpoint

ALL_INTERFACES = "*"
NOWHERE = "TP5045"
SHADOWED = "TP5046"


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """``interfaces``: the names of endpoints. ``findings``: those of this node that stand nowhere."""

    interfaces: Mapping[str, str] = {}
    findings: tuple[Finding, ...] = ()


def placed(node: str, endpoints: Iterable[Endpoint], addresses: Mapping[Addr, str]) -> Placed:
    """Of the endpoints that are on ``node``, whose interfaces have these ``addresses``."""
    found: dict[str, str] = {}
    findings = []
    for endpoint in sorted((e for e in endpoints if e.node == node), key=lambda e: e.name):
        if endpoint.interface:
            wanted = [endpoint.interface]
        else:
            wanted = sorted({addresses[address] for address in endpoint.addresses if address in addresses})
        if not wanted:
            findings.append(_nowhere(node, endpoint))
        for interface in wanted:
            first = found.setdefault(interface, endpoint.name)
            if first != endpoint.name:
                findings.append(_shadowed(node, endpoint, interface, first))
    return Placed(interfaces=found, findings=tuple(findings))


def _nowhere(node: str, endpoint: Endpoint) -> Finding:
    listed = ", ".join(map(str, endpoint.addresses)) or "none that can be read"
    return Finding(
        code=NOWHERE,
        object=endpoint.name,
        message=f"spec.expectedIPs: no interface of node {node} has any ({listed}); nothing is enforced",
        fix="correct the addresses, or name the interface in interfaceName",
    )


def _shadowed(node: str, endpoint: Endpoint, interface: str, first: str) -> Finding:
    where = "all interfaces" if interface == ALL_INTERFACES else f"interface {interface}"
    return Finding(
        code=SHADOWED,
        object=endpoint.name,
        message=f"{where} of node {node}: {first} stands there, and comes first by name",
        fix="delete one of them, or give them different interfaces",
    )
