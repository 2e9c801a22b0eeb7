"""What the offload probe works on, from a step of the loop; and what it found, as findings."""

from ipaddress import ip_address

from towpath.agent.offload import Device, OffloadProbe
from towpath.agent.reconciler import Step
from towpath.api.flannel import parse_peer
from towpath.model.finding import Finding
from towpath.model.net import Addr, Route, Vxlan


def overlay_devices(step: Step) -> list[Device]:
    """VXLAN devices with our address on them and the peers that are reached through them.

    A peer's address on the overlay is the first of its pod subnet, as ours is of our own.
    """
    devices = []
    gateways: dict[str, dict[Addr, str]] = {}
    names = _names_by_gateway(step)
    for route in step.plan.desired.state.routes:
        if isinstance(route, Route) and route.onlink and route.via in names:
            gateways.setdefault(route.dev, {})[ip_address(str(route.via))] = names[route.via]
    addresses = {a.dev: a.interface.ip for a in step.plan.desired.state.addresses}
    for name, link in step.plan.desired.state.links.items():
        if isinstance(link.kind, Vxlan) and name in addresses:
            peers = {node: address for address, node in gateways.get(name, {}).items()}
            devices.append(Device(name, addresses[name], link.mtu, peers))
    return devices


def _names_by_gateway(step: Step) -> dict[Addr, str]:
    names: dict[Addr, str] = {}
    snapshot = step.plan.snapshot
    if snapshot is None:
        return names
    for name, node in snapshot.nodes.items():
        peer, _ = parse_peer(node, snapshot.network)
        if peer is not None and name != snapshot.node_name:
            names.update({link.subnet.network_address: name for link in peer.links.values()})
    return names


def offload_findings(probe: OffloadProbe, node_name: str) -> list[Finding]:
    """One for each device whose offload was switched off."""
    return [
        Finding(
            code="TP1030",
            object=f"{device} on {node_name}",
            message=f"checksum offload is broken towards {peer}; it has been switched off on {device}",
            fix="update the NIC's driver or firmware, or the hypervisor; then delete the device",
            severity="warning",
        )
        for device, peer in probe.switched_off.items()
    ]
