"""The peer of ``bench.fabric``: what flanneld and Calico's CNI would have set up, typed by hand with ``ip``.

Two node namespaces joined by a veth pair as underlay; flannel.1 with permanent neighbour, forwarding entry
and onlink route (anchors/flannel-canal.md §1), flannel's iptables rules (§2), and a pod on each side wired as
Calico does (/32, 169.254.1.1, proxy ARP).
"""

import subprocess
from dataclasses import dataclass

MASQ = "-m comment --comment 'flanneld masq'"


@dataclass(frozen=True)
class Side:
    """One node of two. ``subnet`` is the first three octets of its podCIDR, ``vtep`` flannel.1's MAC."""

    node: str
    pod: str
    underlay: str
    subnet: str
    vtep: str

    @property
    def pod_address(self) -> str:
        """The pod's IPv4 address."""
        return f"{self.subnet}.5"


A = Side("hand-a", "hand-pod-a", "192.168.50.1", "10.42.0", "02:00:00:00:50:01")
B = Side("hand-b", "hand-pod-b", "192.168.50.2", "10.42.1", "02:00:00:00:50:02")


def ip(netns: str | None, lines: str) -> None:
    """Run a batch of ``ip`` commands in a named namespace."""
    where = ["-n", netns] if netns else []
    subprocess.run(["ip", *where, "-batch", "-"], input=lines, text=True, check=True)


def sysctl(netns: str, *settings: str) -> None:
    """Set sysctls inside a namespace."""
    subprocess.run(["ip", "netns", "exec", netns, "sysctl", "-qw", *settings], check=True)


def underlay(a: str, b: str, address_a: str, address_b: str) -> None:
    """Two namespaces, joined by a veth pair named eth0 at both ends."""
    ip(None, f"netns add {a}\nnetns add {b}\nlink add eth0 netns {a} type veth peer name eth0 netns {b}\n")
    for netns, address in ((a, address_a), (b, address_b)):
        ip(
            netns,
            f"link set lo up\nlink set eth0 up\naddr add {address}/24 dev eth0\n"
            # Proxy ARP answers for 169.254.1.1 only where a route leads there, out of another device.
            "route add default dev eth0\n",
        )
        sysctl(netns, "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")


def pod(side: Side, mtu: int) -> None:
    """A pod as Calico wires it."""
    ip(None, f"netns add {side.pod}\n")
    ip(
        side.node,
        f"link add cali1 address ee:ee:ee:ee:ee:ee mtu {mtu} type veth "
        f"peer name eth0 mtu {mtu} netns {side.pod}\n"
        f"link set cali1 up\nroute add {side.pod_address}/32 dev cali1\n",
    )
    ip(
        side.pod,
        f"link set lo up\nlink set eth0 up\naddr add {side.pod_address}/32 dev eth0\n"
        "route add 169.254.1.1 dev eth0 scope link\nroute add default via 169.254.1.1\n",
    )
    sysctl(side.node, "net.ipv4.conf.cali1.proxy_arp=1")


def rules(side: Side) -> None:
    """flannel's masquerade and forward rules, as iptables shows them on an RKE2 node."""
    network, own = "10.42.0.0/16", f"{side.subnet}.0/24"
    text = f"""*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING {MASQ} -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 {MASQ} -j RETURN
-A FLANNEL-POSTRTG -s {own} -d {network} {MASQ} -j RETURN
-A FLANNEL-POSTRTG -s {network} -d {own} {MASQ} -j RETURN
-A FLANNEL-POSTRTG ! -s {network} -d {own} {MASQ} -j RETURN
-A FLANNEL-POSTRTG -s {network} ! -d 224.0.0.0/4 {MASQ} -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s {network} -d {network} {MASQ} -j MASQUERADE --random-fully
COMMIT
*filter
:FLANNEL-FWD - [0:0]
-A FORWARD -m comment --comment 'flanneld forward' -j FLANNEL-FWD
-A FLANNEL-FWD -s {network} -m comment --comment 'flanneld forward' -j ACCEPT
-A FLANNEL-FWD -d {network} -m comment --comment 'flanneld forward' -j ACCEPT
COMMIT
"""
    command = ["ip", "netns", "exec", side.node, "iptables-restore"]
    subprocess.run(command, input=text.replace("'", '"'), text=True, check=True)


def vxlan(side: Side, peer: Side) -> None:
    """flannel.1 and the peer's three entries, in flannel's order."""
    ip(
        side.node,
        f"link add flannel.1 address {side.vtep} mtu 1450 type vxlan id 1 dev eth0 local {side.underlay} "
        f"dstport 8472 nolearning\nlink set flannel.1 up\naddr add {side.subnet}.0/32 dev flannel.1\n"
        f"neigh replace {peer.subnet}.0 lladdr {peer.vtep} nud permanent dev flannel.1\n",
    )
    command = (
        f"bridge -n {side.node} fdb replace {peer.vtep} dev flannel.1 dst {peer.underlay} self permanent"
    )
    subprocess.run(command.split(), check=True)
    ip(side.node, f"route replace {peer.subnet}.0/24 via {peer.subnet}.0 dev flannel.1 onlink\n")


def build(*, direct: bool) -> None:
    """The whole peer; ``direct`` routes over the underlay instead of the overlay, as DirectRouting does."""
    underlay(A.node, B.node, A.underlay, B.underlay)
    for side, peer in ((A, B), (B, A)):
        pod(side, 1500 if direct else 1450)
        rules(side)
        if direct:
            ip(side.node, f"route replace {peer.subnet}.0/24 via {peer.underlay} dev eth0\n")
        else:
            vxlan(side, peer)
