"""Pod networks for nodes: each gets one subnet a family, as kube-controller-manager's range allocator."""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network

from towpath.lab.controllers.actions import Emit, Patch, Plan, reference
from towpath.lab.controllers.controller import Context, Controller
from towpath.lab.controllers.objects_core import Node
from towpath.lab.controllers.resources import NODES

Network = IPv4Network | IPv6Network


class RangeFull(Exception):
    """No subnet of that size is left in the network."""


def held(nodes: Iterable[Node]) -> set[Network]:
    """The subnets nodes have already; what is not a network is nobody's."""
    found: set[Network] = set()
    for node in nodes:
        for text in node.spec.pod_cidrs or [node.spec.pod_cidr]:
            try:
                found.add(ip_network(text))
            except ValueError:
                continue
    return found


def free_subnet(network: Network, prefix: int, taken: set[Network]) -> Network:
    """The lowest subnet of ``prefix`` bits that overlaps none of ``taken``. Raises RangeFull."""
    busy = [t for t in taken if t.version == network.version]
    if prefix < network.prefixlen:
        raise RangeFull(f"{network} is smaller than the /{prefix} of one node")
    step = 2 ** (network.max_prefixlen - prefix)
    start, end = int(network.network_address), int(network.broadcast_address)
    make = type(network)
    while start <= end:
        candidate = make((start, prefix))
        clash = next((t for t in busy if t.overlaps(candidate)), None)
        if clash is None:
            return candidate
        start = max(start, int(clash.broadcast_address) // step * step) + step
    raise RangeFull(f"no /{prefix} left in {network}")


class NodeIpamController(Controller):
    """Writes ``spec.podCIDR`` and ``spec.podCIDRs`` once; they never change afterwards."""

    name = "cidrAllocator"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._nodes = self.informer(NODES)
        self._given: dict[str, set[Network]] = {}
        self._nodes.subscribe(self._node_changed)

    async def reconcile(self, key: str) -> Plan:
        """Give one node its subnets."""
        node = self._nodes.get(key)
        settings = self.context.settings
        if node is None or node.spec.pod_cidrs or node.spec.pod_cidr or not settings.cluster_cidrs:
            return Plan()
        taken = held(self._nodes.all()).union(*self._given.values())
        about = reference(NODES, node.metadata)
        try:
            subnets = [
                free_subnet(n, settings.node_masks[0 if n.version == 4 else 1], taken)
                for n in settings.cluster_cidrs
            ]
        except RangeFull as error:
            message = f"Node {key} status is now: CIDRNotAvailable: {error}"
            return Plan((Emit(about, "Warning", "CIDRNotAvailable", message),), 10.0)
        self._given[key] = set(subnets)
        texts = [str(s) for s in subnets]
        meta = {"uid": node.metadata.uid}
        body = {"metadata": meta, "spec": {"podCIDR": texts[0], "podCIDRs": texts}}
        return Plan((Patch(NODES, "", key, body),))

    def _node_changed(self, _: Node | None, after: Node | None) -> None:
        if after is None:
            return
        if after.spec.pod_cidr:
            self._given.pop(after.metadata.name, None)
        else:
            self.queue.add(after.metadata.name)
