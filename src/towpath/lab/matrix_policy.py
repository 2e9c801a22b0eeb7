"""The expected table under policies: each cell judged by the oracle, from the cluster's own objects. Pure."""

from collections.abc import Iterable, Iterator
from ipaddress import ip_address, ip_network

from msgspec.structs import replace

from towpath.api.core import Node, Pod
from towpath.lab.matrix import NODE_LOCAL, Cell
from towpath.policy.evaluate import Flow, verdict
from towpath.policy.ir import ICMP, ICMPV6, TCP, UDP, World

_PROTOCOLS = {"tcp": TCP, "udp": UDP}
_ECHO = {4: (ICMP, 8), 6: (ICMPV6, 128)}


def by_policy(
    cells: Iterable[Cell], world: World, nodes: Iterable[Node], pods: Iterable[Pod]
) -> tuple[Cell, ...]:
    """The cells, with what policies make of them.

    A node sends to other nodes' pods from its own address or from its tunnel's. A cell of which these two are
    judged differently is left out.
    """
    if not world.policies:
        return tuple(cells)
    sources: dict[tuple[str, str], list[str]] = {}
    for pod in pods:
        name = f"{pod.metadata.namespace}/{pod.metadata.name}"
        sources["pod", name] = [entry.ip for entry in pod.status.pod_ips or ()]
    for node in nodes:
        own = [address.address for address in node.status.addresses or () if address.type == "InternalIP"]
        tunnels = [str(ip_network(cidr)[0]) for cidr in node.spec.pod_cidrs or ()]
        sources["node", node.metadata.name] = own + tunnels
    judged = []
    for cell in cells:
        verdicts = {verdict(world, flow) for flow in _flows(cell, sources.get(cell.origin, ()))}
        if cell.relation == NODE_LOCAL or not verdicts:
            judged.append(cell)  # a node always reaches its own pods
        elif len(verdicts) == 1:
            judged.append(replace(cell, allowed=verdicts.pop()))
    return tuple(judged)


def _flows(cell: Cell, sources: Iterable[str]) -> Iterator[Flow]:
    destination = ip_address(cell.addr)
    for source in map(ip_address, sources):
        if source.version != cell.family:
            continue
        if cell.protocol == "icmp":
            number, kind = _ECHO[cell.family]
            yield Flow(source=source, destination=destination, protocol=number, icmp_type=kind)
        else:
            number = _PROTOCOLS[cell.protocol]
            yield Flow(source=source, destination=destination, protocol=number, destination_port=cell.port)
