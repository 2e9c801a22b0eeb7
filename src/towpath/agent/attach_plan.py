"""From a call to what it asks for: ranges, addresses, an attachment; and from that to CNI's result."""

import os
from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Interface, IPv6Interface, ip_interface, ip_network

from towpath.cni.errors import CniError, ErrorCode
from towpath.cni.request import Request
from towpath.cni.result import Interface, IPConfig, Result, RouteConf
from towpath.cni.types import Range as ConfiguredRange
from towpath.desired.names import GATEWAY4, HOST_LL, HOST_MAC, container_ifname, host_ifname
from towpath.ipam.allocate import Range, RangeSet, check_ranges, make_range
from towpath.ipam.errors import BadRange
from towpath.model.attachment import Attachment, PodRef
from towpath.model.net import Addr, Net

# "" and ours; a delegate's configuration could name any other, and none but the built-in one is run.
_IPAM_TYPES = ("", "towpath")
_GATEWAYS: dict[int, Addr] = {4: GATEWAY4, 6: HOST_LL}
_DEFAULTS: dict[int, Net] = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


def host_end(r: Request, pod: PodRef | None) -> str:
    """Name of the host's end of the link that ``r`` is about."""
    if pod is None:
        return container_ifname(r.container_id, r.ifname)
    return host_ifname(pod.namespace, pod.name, r.ifname)


def range_sets(r: Request, pod_cidrs: Sequence[Net], bounds: Sequence[Net] = ()) -> tuple[RangeSet, ...]:
    """Where the addresses come from: the runtime's ``ipRanges``, else the ranges configured, else podCIDRs.

    The runtime's sets replace configured ones of the same family: an interface gets one address a family.
    Where there are ``bounds``, each must lie in one of them.

    Raises CniError: BAD_CONFIG, UNSUPPORTED_FIELD, and TRY_LATER while the node has no podCIDR.
    """
    ipam = r.config.ipam
    if ipam.type not in _IPAM_TYPES:
        raise CniError(
            ErrorCode.UNSUPPORTED_FIELD,
            f'ipam.type "{ipam.type}" is not supported',
            'Towpath allocates addresses itself: leave ipam out, or say "type": "towpath"',
        )
    asked = r.config.runtime_config.ip_ranges
    if not asked and not ipam.ranges:
        return _node_ranges(tuple(pod_cidrs))
    families = {s[0].subnet.version for s in asked}
    configured = (*asked, *(s for s in ipam.ranges if s[0].subnet.version not in families))
    try:
        sets = tuple(tuple(_range(one) for one in ranges) for ranges in configured)
        check_ranges(sets)
        _check_bounds(sets, bounds)
    except BadRange as error:
        raise CniError(ErrorCode.BAD_CONFIG, "ipam", str(error)) from error
    return sets


def _check_bounds(sets: Iterable[RangeSet], bounds: Sequence[Net]) -> None:
    for one in (one for ranges in sets for one in ranges):
        if bounds and not any(one.first in net and one.last in net for net in bounds):
            known = ", ".join(map(str, bounds))
            raise BadRange(f"range {one} is outside of this host's networks ({known}; setting standalone)")


def _range(configured: ConfiguredRange) -> Range:
    return make_range(
        configured.subnet, start=configured.start, end=configured.end, gateway=configured.gateway
    )


@lru_cache(maxsize=8)
def _node_ranges(pod_cidrs: tuple[Net, ...]) -> tuple[RangeSet, ...]:
    if not pod_cidrs:
        raise CniError(
            ErrorCode.TRY_LATER,
            "no addresses to give out: the Node has no podCIDR yet",
            "kube-controller-manager assigns it (--allocate-node-cidrs); TP4003",
        )
    try:
        sets = tuple((make_range(cidr),) for cidr in pod_cidrs)
        check_ranges(sets)
    except BadRange as error:
        raise CniError(ErrorCode.BAD_CONFIG, "the Node's podCIDRs", str(error)) from error
    return sets


def requested(r: Request) -> tuple[Addr, ...]:
    """Addresses asked for by name (``ips``, ``args.cni.ips``, ``IP=``); a prefix length is not looked at."""
    return tuple(
        ip.ip if isinstance(ip, IPv4Interface | IPv6Interface) else ip for ip in r.config.runtime_config.ips
    )


def attachment(
    r: Request, pod: PodRef | None, addresses: Iterable[Addr], mtu: int, boot_id: str
) -> Attachment:
    """What ADD is going to promise. Raises CniError UNSUPPORTED_FIELD."""
    runtime = r.config.runtime_config
    return Attachment(
        container_id=r.container_id,
        ifname=r.ifname,
        network=r.config.name,
        netns=r.netns,
        host_ifname=host_end(r, pod),
        addresses=tuple(addresses),
        mac=runtime.mac or random_mac(),
        mtu=r.config.mtu or mtu,
        boot_id=boot_id,
        request_id=r.request_id,
        pod=pod,
        ports=runtime.port_mappings,
        bandwidth=runtime.bandwidth,
        routes=_routes(r),
        aliases=runtime.aliases,
    )


def _routes(r: Request) -> tuple[Net, ...]:
    """``ipam.routes`` beyond the default routes, which every pod has; all lead to the node."""
    for route in r.config.ipam.routes:
        if route.gw is not None and route.gw not in (GATEWAY4, HOST_LL):
            raise CniError(
                ErrorCode.UNSUPPORTED_FIELD,
                f'ipam.routes: gw "{route.gw}" of {route.dst} is not supported',
                "a pod's only neighbour is its node: leave gw out",
            )
    return tuple(dict.fromkeys(route.dst for route in r.config.ipam.routes if route.dst.prefixlen))


def random_mac() -> str:
    """A locally administered unicast address, as the kernel would make one up."""
    octets = bytearray(os.urandom(6))
    octets[0] = octets[0] & 0xFC | 0x02
    return ":".join(f"{octet:02x}" for octet in octets)


def result(att: Attachment, r: Request) -> Result:
    """What ADD answers. In a chain: what the plugins before said, and ours behind it."""
    before = r.config.prev_result or Result()
    offset = len(before.interfaces)
    families = [address.version for address in att.addresses]
    runtime_dns = r.config.runtime_config.dns
    return Result(
        interfaces=(
            *before.interfaces,
            Interface(name=att.host_ifname, mac=HOST_MAC, mtu=att.mtu),
            Interface(name=att.ifname, mac=att.mac, mtu=att.mtu, sandbox=att.netns),
        ),
        ips=(
            *before.ips,
            *(
                IPConfig(
                    address=ip_interface((address, address.max_prefixlen)),
                    gateway=_GATEWAYS[address.version],
                    interface=offset + 1,
                )
                for address in att.addresses
            ),
        ),
        routes=(
            *before.routes,
            *(RouteConf(dst=_DEFAULTS[family], gw=_GATEWAYS[family]) for family in families),
            *(RouteConf(dst=net, gw=_GATEWAYS[net.version]) for net in att.routes if net.version in families),
        ),
        dns=runtime_dns or r.config.dns or before.dns,
    )
