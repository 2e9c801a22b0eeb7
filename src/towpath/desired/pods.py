"""A pod's link, as Calico wires it, less the waiting: permanent neighbours on both sides and no DAD."""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Interface, ip_interface, ip_network

import msgspec

from towpath.desired.bandwidth import shaping
from towpath.desired.names import GATEWAY4, HOST_LL, HOST_MAC
from towpath.model.attachment import Attachment
from towpath.model.net import Addr, Address, Iface, Link, Neighbour, Net, Route, Veth
from towpath.model.state import NetState

_DEFAULT: dict[int, Net] = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


class PodWiring(msgspec.Struct, frozen=True, kw_only=True):
    """What an attachment means in the node's namespace (``host``) and in the pod's (``inside``)."""

    host: NetState
    inside: NetState


def pod_wiring(att: Attachment) -> PodWiring:
    """Everything ADD makes with netlink and sysctl. The firewall's part is ``ruleset.pod_elements``."""
    return PodWiring(host=_host(att), inside=_inside(att))


def standing(att: Attachment) -> NetState:
    """``pod_wiring(att).host`` for reconciliation, which can mend a pod's link but cannot make one.

    A veth is born with its other end in the pod's namespace, and only the runtime's call brings a handle of
    that. So the link is of no kind here, and ``reconcile.diff`` leaves out what stands on a missing one.
    """
    host = _host(att)
    bare = msgspec.structs.replace(host.links[att.host_ifname], kind=None)
    return msgspec.structs.replace(host, links={**host.links, att.host_ifname: bare})


def born(att: Attachment) -> NetState:
    """The pod's namespace right after its veth was made in it: what ``inside`` is to be compared with."""
    end = Link(name=att.ifname, mtu=att.mtu, mac=att.mac, up=False)
    return NetState(links={"lo": Link(name="lo", up=False), att.ifname: end})


def _host(att: Attachment) -> NetState:
    dev = att.host_ifname
    veth = Veth(peer=att.ifname, peer_mac=att.mac, peer_mtu=att.mtu)
    addresses = frozenset({_link_local(dev)}) if _has_v6(att) else frozenset()
    wiring = NetState(
        links={dev: Link(name=dev, kind=veth, mtu=att.mtu, mac=HOST_MAC)},
        addresses=addresses,
        routes=frozenset(_to_pod(addr, dev) for addr in att.addresses),
        neighbours=frozenset(Neighbour(dev=dev, addr=a, mac=att.mac) for a in att.addresses if att.mac),
        sysctls=_host_sysctls(att),
    )
    return wiring.merge(shaping(att))


def _link_local(dev: str) -> Address:
    return Address(dev=dev, interface=IPv6Interface(f"{HOST_LL}/64"), scope="link")


def _to_pod(addr: Addr, dev: str) -> Route:
    # IPv6 routes have no scope: the kernel reports 0 (global) whatever it was told.
    return Route(dst=_host_net(addr), dev=dev, scope="link" if addr.version == 4 else "global")


def _host_sysctls(att: Attachment) -> dict[str, str]:
    """Calico's per-interface settings. A pod that lost its permanent neighbour is answered by proxy ARP."""
    v4, v6 = f"net/ipv4/conf/{att.host_ifname}", f"net/ipv6/conf/{att.host_ifname}"
    # Without it a pod could give the node a default route by router advertisement (CVE-2020-13597), also
    # and especially where the cluster itself has no IPv6.
    sysctls = {f"{v6}/accept_ra": "0"}
    if any(addr.version == 4 for addr in att.addresses):
        # route_localnet: the node reaches published ports through 127.0.0.1. What it would open otherwise
        # (CVE-2020-8558) the ruleset's first rules close.
        sysctls |= {f"{v4}/route_localnet": "1", f"{v4}/proxy_arp": "1", f"{v4}/forwarding": "1"}
        sysctls[f"net/ipv4/neigh/{att.host_ifname}/proxy_delay"] = "0"
    if _has_v6(att):
        sysctls |= {f"{v6}/disable_ipv6": "0", f"{v6}/proxy_ndp": "1", f"{v6}/forwarding": "1"}
    return sysctls


def _inside(att: Attachment) -> NetState:
    dev = att.ifname
    routes: set[Route] = set()
    neighbours: set[Neighbour] = set()
    for addr in att.addresses:
        gateway: Addr = GATEWAY4 if addr.version == 4 else HOST_LL
        if not att.adopted:  # Calico's pods ask: the node answers for every address (proxy_arp)
            neighbours.add(Neighbour(dev=dev, addr=gateway, mac=HOST_MAC))
        if isinstance(gateway, IPv4Address):
            routes.add(Route(dst=_host_net(gateway), dev=dev, scope="link"))
        further = (net for net in att.routes if net.version == addr.version)
        routes |= {Route(dst=net, dev=dev, via=gateway) for net in (_DEFAULT[addr.version], *further)}
    return NetState(
        links={"lo": Link(name="lo"), dev: Link(name=dev, mtu=att.mtu, mac=att.mac or None)},
        addresses=frozenset(Address(dev=dev, interface=_host_interface(a)) for a in att.addresses),
        routes=frozenset(routes),
        neighbours=frozenset(neighbours),
        sysctls=_inside_sysctls(att),
    )


def _inside_sysctls(att: Attachment) -> dict[str, str]:
    if not _has_v6(att) or att.adopted:
        return {}
    # Runtimes disable IPv6 in new namespaces by "default" or by "all"; lo was made before either.
    names = ("all", "default", "lo", att.ifname)
    sysctls = {f"net/ipv6/conf/{name}/disable_ipv6": "0" for name in names}
    return sysctls | {
        f"net/ipv6/conf/{att.ifname}/accept_ra": "0",
        f"net/ipv6/conf/{att.ifname}/accept_dad": "0",
    }


def _has_v6(att: Attachment) -> bool:
    return any(addr.version == 6 for addr in att.addresses)


# An address is asked for some ten times while its pod is attached, checked and detached.
@lru_cache(maxsize=1024)
def _host_net(addr: Addr) -> Net:
    return ip_network((addr, addr.max_prefixlen))


@lru_cache(maxsize=1024)
def _host_interface(addr: Addr) -> Iface:
    return ip_interface((addr, addr.max_prefixlen))
