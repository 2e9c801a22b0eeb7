"""Towpath's own kinds of network, without executing their plugins: macvlan, and bridge without a gateway.

What they do is what the reference plugins do with the same configuration; a configuration with any key beyond
those known here is the plugin's. Addresses come from ``static`` in place, or from the IPAM plugin that the
configuration names, whose state stays its own.
"""

import asyncio
import contextlib
import hashlib
import socket
from collections.abc import Callable
from errno import EEXIST

import msgspec

from towpath.agent.attach_netlink import answering
from towpath.agent.attach_plan import random_mac
from towpath.agent.network_addresses import BadAddresses, of_interface, static
from towpath.agent.network_neighbours import somebody
from towpath.agent.network_plugins import Document, PluginFailed, Plugins, result_of
from towpath.cni.args import parse_mac
from towpath.cni.errors import CniError
from towpath.cni.request import PodDescriptors, Request
from towpath.cni.result import Interface, Result
from towpath.kernel import links
from towpath.kernel.macvlan import MODES, create_macvlan
from towpath.kernel.netlink import NetlinkSocket
from towpath.kernel.port import Kernel, KernelRefused
from towpath.model.net import Address, Bridge, Link, Route, Veth
from towpath.model.op import Add, AddLink, DelLink, Op, SetLink, SetSysctl
from towpath.model.state import NetState
from towpath.multinet.definition import capabilities
from towpath.multinet.derive import Call, environment, stdin

_COMMON = {"type", "ipam", "mtu", "capabilities", "args", "dns", "cniVersion", "name", "disableCheck"}
_KEYS = {
    "macvlan": _COMMON | {"master", "mode"},
    "bridge": _COMMON | {"bridge", "isGateway", "isDefaultGateway", "ipMasq"},
}
_OFF = ("isGateway", "isDefaultGateway", "ipMasq")
# Plugins that give addresses by way of the interface, which here is made when they are known.
_LATER = ("", "dhcp")
PREFIX = "tpn"


class Builtin:
    """``host`` is the node's namespace, ``inside`` gives a pod's; to be used from one event loop.

    Before an address is used, the segment is asked for it for ``ask_ms`` milliseconds, 0: it is not.
    """

    def __init__(
        self, host: Kernel, inside: Callable[[PodDescriptors], Kernel], plugins: Plugins, ask_ms: int
    ) -> None:
        """Raises OSError."""
        self._host, self._inside, self._plugins, self._ask_ms = host, inside, plugins, ask_ms
        self._netlink = NetlinkSocket.open()

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def does(self, plugin: Document) -> bool:
        """Whether all that a plugin's configuration asks for is done here."""
        keys = _KEYS.get(str(plugin.get("type")))
        if keys is None or not plugin.keys() <= keys or not capabilities(plugin) <= {"ips", "mac"}:
            return False
        ipam = plugin.get("ipam")
        if ipam is not None and ipam.get("type", "") in _LATER:
            return False
        well = plugin.get("mode", "bridge") in MODES and isinstance(plugin.get("mtu", 0), int)
        named = all(isinstance(plugin.get(key, ""), str) for key in ("master", "bridge"))
        return well and named and not any(plugin.get(key) for key in _OFF)

    async def add(self, r: Request, call: Call, plugin: Document) -> Document:
        """Make the interface. Raises PluginFailed, and then some of it may exist; ConnectionError."""
        assert r.descriptors is not None  # noqa: S101 - ADD has them
        found = await self._addresses(r, call, plugin)
        try:
            mac = parse_mac(str(call.cni_args["mac"])) if call.cni_args.get("mac") else ""
            made = self._make(r.descriptors, call, plugin, mac)
            kernel = self._inside(r.descriptors)
            kernel.apply(_settings(r.descriptors, call.ifname))
            for ip in found.ips:
                if mac := await somebody(r.descriptors, kernel, call.ifname, ip.address.ip, self._ask_ms):
                    raise ValueError(f"{ip.address.ip} is in use on its segment, by {mac}; TP4021")
            kernel.apply(_inside(call.ifname, found))
            await answering(r.descriptors.netlink, [ip.address.ip for ip in found.ips])
            if plugin.get("mode") != "passthru":
                kernel.apply([SetLink(call.ifname, mac=made[-1].mac)])  # the same: it is announced
        except KernelRefused as error:
            taken = f"the pod has an interface {call.ifname} already" if error.errno == EEXIST else str(error)
            raise PluginFailed(plugin["type"], "ADD", taken) from error
        except ValueError as error:
            raise PluginFailed(plugin["type"], "ADD", str(error)) from error
        result = of_interface(found, len(made) - 1)
        result = msgspec.structs.replace(result, interfaces=made)
        try:
            document: Document = msgspec.json.decode(result.to_version(call.version))
        except CniError as error:
            raise PluginFailed(plugin["type"], "ADD", str(error)) from error
        return document

    async def delete(
        self,
        r: Request,
        call: Call,
        plugin: Document,
        previous: Document | None,
        netns: str,
        never: str = "",
    ) -> None:
        """Unmake it; success whatever is left of it. Raises PluginFailed, ConnectionError."""
        ipam = _plugin_of(plugin)
        if ipam and ipam != never:
            config = stdin(call, plugin, previous)
            await self._plugins.run(r, ipam, environment(call, "DEL", r.path, netns), config)
        kernels = [self._inside(r.descriptors)] if r.descriptors is not None else []
        try:
            for kernel in kernels:
                await asyncio.to_thread(kernel.apply, [DelLink(call.ifname)])
            if plugin["type"] == "bridge":
                self._host.apply([DelLink(host_end(call))])
        except KernelRefused as error:
            raise PluginFailed(plugin["type"], "DEL", str(error)) from error

    async def check(self, r: Request, call: Call, plugin: Document, previous: Document) -> None:
        """Compare the interface with the result. Raises PluginFailed, ConnectionError."""
        assert r.descriptors is not None  # noqa: S101 - CHECK has them
        if ipam := _plugin_of(plugin):
            await self._plugins.run(
                r, ipam, environment(call, "CHECK", r.path), stdin(call, plugin, previous)
            )
        try:
            seen = self._inside(r.descriptors).observe()
            broken = _differences(call.ifname, Result.from_object(previous, call.version), seen)
        except (KernelRefused, CniError) as error:
            raise PluginFailed(plugin["type"], "CHECK", str(error)) from error
        if broken:
            raise PluginFailed(plugin["type"], "CHECK", "; ".join(broken))

    def servable(self, plugin: Document) -> str:
        """Why no interface could be made now, empty if one could."""
        if plugin["type"] == "macvlan" and (master := plugin.get("master", "")) and not _index(master):
            return f"its master {master} does not exist on this node"
        return ""

    async def _addresses(self, r: Request, call: Call, plugin: Document) -> Result:
        ipam = plugin.get("ipam") or {}
        kind = ipam.get("type", "")
        if not kind:
            return Result()
        if kind == "static":
            try:
                return static(ipam, call.cni_args.get("ips") or ())
            except (BadAddresses, ValueError) as error:
                raise PluginFailed(kind, "ADD", str(error)) from error
        printed = await self._plugins.run(r, kind, environment(call, "ADD", r.path), stdin(call, plugin))
        result_of(kind, printed, call.version)
        return Result.parse(printed, call.version)

    def _make(
        self, descriptors: PodDescriptors, call: Call, plugin: Document, mac: str
    ) -> tuple[Interface, ...]:
        """The link, still down, and what the result says of it, the pod's end last."""
        if plugin["type"] == "bridge":
            return self._make_port(descriptors, call, plugin, mac)
        master = plugin.get("master") or self._default_device()
        index = _index(master)
        if not index:
            raise ValueError(f"its master {master} does not exist on this node")
        mode = plugin.get("mode") or "bridge"
        own = mac or ("" if mode == "passthru" else random_mac())
        mtu = int(plugin.get("mtu") or 0)
        create_macvlan(self._netlink, call.ifname, index, mode, descriptors.netns, mtu=mtu, mac=own)
        below = links.device(self._netlink, index)
        if not own and below is not None:  # passthru: the master's
            own = below.mac or ""
        return (
            Interface(
                name=call.ifname,
                mac=own,
                sandbox=call.netns,
                mtu=mtu or (below.mtu if below is not None else 0),
            ),
        )

    def _make_port(
        self, descriptors: PodDescriptors, call: Call, plugin: Document, mac: str
    ) -> tuple[Interface, ...]:
        bridge = plugin.get("bridge") or "cni0"
        mtu = int(plugin.get("mtu") or 0)
        own, host = mac or random_mac(), host_end(call)
        self._host.apply([AddLink(Link(name=bridge, kind=Bridge()))])
        pair = Veth(peer=call.ifname, peer_mac=own, peer_mtu=mtu)
        self._host.apply(
            [AddLink(Link(name=host, kind=pair, mtu=mtu, master=bridge))], pod_netns=descriptors.netns
        )
        return (
            Interface(name=bridge),
            Interface(name=host),
            Interface(name=call.ifname, mac=own, sandbox=call.netns, mtu=mtu or 1500),
        )

    def _default_device(self) -> str:
        """As the reference plugin: the device of the node's default route."""
        for route in self._host.observe().routes:
            if route.dst.prefixlen == 0:
                return route.dev
        raise ValueError("it names no master, and the node has no default route")


def host_end(call: Call) -> str:
    """Name of the bridge's end of a pod's link."""
    digest = hashlib.sha1(f"{call.container_id}/{call.ifname}".encode(), usedforsecurity=False)
    return PREFIX + digest.hexdigest()[:11]


def _plugin_of(plugin: Document) -> str:
    """The IPAM plugin to be executed, "" for none."""
    kind = str((plugin.get("ipam") or {}).get("type", ""))
    return "" if kind == "static" else kind


def _index(name: str) -> int:
    with contextlib.suppress(OSError):
        return socket.if_nametoindex(name)
    return 0


def _settings(descriptors: PodDescriptors, ifname: str) -> list[Op]:
    """Neighbours are told of the addresses (they may have been another's before) when the interface comes up,
    and when it is given a link address, be it the one it has.
    """
    wanted = {"net/ipv4": "arp_notify", "net/ipv6": "ndisc_notify"}
    there = descriptors.sysctl  # a kernel without IPv6 has none of its
    return [SetSysctl(f"{at}/conf/{ifname}/{name}", "1") for at, name in wanted.items() if at in there]


def _inside(ifname: str, found: Result) -> list[Op]:
    ops: list[Op] = [SetLink(ifname, up=True)]
    ops += [Add(Address(dev=ifname, interface=ip.address)) for ip in found.ips]
    gateways = {ip.address.version: ip.gateway for ip in found.ips if ip.gateway is not None}
    for route in found.routes:
        via = route.gw or gateways.get(route.dst.version)
        if via is not None:
            ops.append(Add(Route(dst=route.dst, dev=ifname, via=via, mtu=route.mtu)))
    return ops


def _differences(ifname: str, promised: Result, seen: NetState) -> list[str]:
    link = seen.links.get(ifname)
    if link is None:
        return [f"interface {ifname} is gone"]
    broken = [] if link.up else [f"interface {ifname} is down"]
    told = next((i for i in promised.interfaces if i.name == ifname and i.sandbox), None)
    if told is not None and told.mac and told.mac != link.mac:
        broken.append(f"interface {ifname} has MAC {link.mac}, not {told.mac}")
    there = {a.interface for a in seen.addresses if a.dev == ifname}
    index = next((n for n, i in enumerate(promised.interfaces) if i is told), None)
    broken += [
        f"address {ip.address} is not on {ifname}"
        for ip in promised.ips
        if ip.interface == index and ip.address not in there
    ]
    return broken
