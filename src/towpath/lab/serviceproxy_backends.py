"""Which endpoints serve a Service's port on this node. Pure; the choice is kube-proxy's."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

import msgspec

from towpath.lab.controllers.objects_core import Endpoint, EndpointSlice, Service, ServicePort
from towpath.model.net import Family

Address = IPv4Address | IPv6Address


class Backend(msgspec.Struct, frozen=True, order=True):
    """An address and port traffic is sent to; ``local`` if its pod is on this node."""

    address: Address
    port: int
    local: bool = False


class Backends(msgspec.Struct, frozen=True):
    """``cluster`` for traffic that may leave the node, ``local`` for traffic that must not, each in order."""

    cluster: tuple[Backend, ...] = ()
    local: tuple[Backend, ...] = ()


def backends(port: ServicePort, family: Family, slices: Iterable[EndpointSlice], node: str) -> Backends:
    """The backends of one port in one family.

    Ready ones; where there is none, those that are on their way out but still serve, judged apart for the
    whole cluster and for this node.
    """
    ready: set[Backend] = set()
    leaving: set[Backend] = set()
    for one in slices:
        number = _port(one, port)
        if one.address_type != f"IPv{family}" or number is None:
            continue
        for endpoint in one.endpoints or ():
            chosen = ready if _ready(endpoint) else leaving if _serving(endpoint) else None
            if chosen is not None and endpoint.addresses:
                local = bool(node) and endpoint.node == node
                chosen.add(Backend(ip_address(endpoint.addresses[0]), number, local))
    return Backends(
        tuple(sorted(ready or leaving)),
        tuple(sorted({b for b in ready if b.local} or {b for b in leaving if b.local})),
    )


def addresses(texts: Iterable[str]) -> list[Address]:
    """The addresses among ``texts`` (a Service's may be "None" or empty)."""
    found = []
    for text in texts:
        try:
            found.append(ip_address(text))
        except ValueError:
            continue
    return found


def cluster_ips(service: Service) -> list[Address]:
    """A Service's own addresses; none for a headless one."""
    return addresses(service.spec.cluster_ips or [service.spec.cluster_ip])


def external_ips(service: Service) -> list[Address]:
    """Further addresses under which nodes accept its traffic."""
    ingress = service.status.load_balancer.ingress or ()
    return addresses([*(service.spec.external_ips or ()), *(i.ip for i in ingress)])


def families(service: Service) -> list[Family]:
    """Families in which it is served."""
    found: Sequence[Address] = cluster_ips(service)
    return [f for f in (4, 6) if any(a.version == f for a in found)]


def serves(endpoint: Endpoint) -> bool:
    """Traffic may be sent to it at all."""
    return _ready(endpoint) or _serving(endpoint)


def _port(one: EndpointSlice, port: ServicePort) -> int | None:
    for offered in one.ports or ():
        if (offered.name or "") == port.name and (offered.protocol or "TCP") == port.protocol:
            return offered.port
    return None


def _ready(endpoint: Endpoint) -> bool:
    return endpoint.conditions.ready is not False


def _serving(endpoint: Endpoint) -> bool:
    return bool(endpoint.conditions.terminating) and endpoint.conditions.serving is not False
