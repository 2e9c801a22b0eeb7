"""Before an address of a shared segment is put on a pod's interface: does anybody there answer for it?

The kernel's own neighbour resolution asks (RFC 826, RFC 4861), in the pod's namespace, on the interface that
is up and has no address yet: NTF_USE begins it, REACHABLE is an answer, FAILED is none. It takes no raw
socket, and so no capability beyond NET_ADMIN.

In IPv4 its limit is that the question names the pod's first address as its sender's, as the interface has
none, and a neighbour that checks by strict reverse path where an address comes from (rp_filter 1) does not
answer it. In IPv6 the kernel asks from a link-local address alone, and not while that is tentative, as the
interface's own is for its first second: so the question is asked from one that is made for it and goes again.
"""

import asyncio
import secrets
import time
from errno import ENOBUFS, ENOENT
from ipaddress import IPv6Interface
from struct import Struct

from towpath.cni.request import PodDescriptors
from towpath.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, Message, NetlinkSocket
from towpath.kernel.port import Kernel, KernelRefused
from towpath.kernel.rtnl import RTM_DELNEIGH, RTM_GETNEIGH, RTM_NEWNEIGH
from towpath.kernel.sysctl import Sysctls
from towpath.kernel.wire import attr, attributes, family, mac_text, text
from towpath.model.net import Addr, Address
from towpath.model.op import Add, Delete, SetLink, SetSysctl

_NDMSG = Struct("=BBHiHBB")  # struct ndmsg: family, pad, pad, ifindex, state, flags, type
_NDA_DST, _NDA_LLADDR = 1, 2
_USE = 0x01
_NONE, _FAILED = 0x00, 0x20
_ANSWERED = 0x02 | 0x04 | 0x08 | 0x10  # reachable, stale, delay, probe
_RTM_GETLINK, _IFLA_IFNAME, _INDEX, _FLAGS = 18, 3, Struct("=4xi"), Struct("=8xI")
_IFF_LOOPBACK, _IFF_NOARP = 0x08, 0x80
_QUESTIONS = 2
_EVERY, _ROOM_EVERY = 0.002, 0.1
_SLACK = 1.0
_ROOM_WITHIN = 10.0  # the kernel lets go of what was not used for five seconds


async def somebody(descriptors: PodDescriptors, kernel: Kernel, ifname: str, address: Addr, ms: int) -> str:
    """MAC address of who has ``address`` already, empty if nobody answers within ``ms`` milliseconds.

    ``kernel`` is the pod's, the interface is put up. Raises KernelRefused.
    """
    if ms == 0:
        return ""
    netlink = NetlinkSocket(descriptors.netlink)
    kernel.apply([SetLink(ifname, up=True)])
    pace = {"retrans_time_ms": str(max(1, ms // _QUESTIONS)), "mcast_solicit": str(_QUESTIONS)}
    paths = {f"net/ipv{address.version}/neigh/{ifname}/{name}": value for name, value in pace.items()}
    given = descriptors.sysctl
    before = Sysctls.handed(given.get("net/ipv4"), given.get("net/ipv6")).read(paths)
    asker = [Address(dev=ifname, interface=_asker(), scope="link")] if address.version == 6 else []
    kernel.apply([*(SetSysctl(path, value) for path, value in paths.items()), *map(Add, asker)])
    try:
        return await _asked(netlink, _index(netlink, ifname), address, ms / 1000)
    finally:
        kernel.apply([*map(Delete, asker), *(SetSysctl(path, value) for path, value in before.items())])


async def somebody_beside(
    descriptors: PodDescriptors, kernel: Kernel, ifname: str, address: Addr, ms: int
) -> str:
    """The same of an interface that another plugin is about to give its addresses.

    Nobody is asked where it is not made yet, or asks no neighbours (a tunnel, ipvlan of layer 3). Raises
    KernelRefused.
    """
    link = _link(NetlinkSocket(descriptors.netlink), ifname)
    if link is None or _FLAGS.unpack_from(link)[0] & (_IFF_NOARP | _IFF_LOOPBACK):
        return ""
    return await somebody(descriptors, kernel, ifname, address, ms)


def _asker() -> IPv6Interface:
    """A link-local address that nobody else has: a random one, of the half that no MAC address makes."""
    host = secrets.randbits(64) & ~(0xFFFF << 24) & ~(1 << 57)
    return IPv6Interface(((0xFE80 << 112) | host, 64))


def _index(netlink: NetlinkSocket, ifname: str) -> int:
    """Also waits until the interface, which has just got its carrier, sends what it is given."""
    found = _link(netlink, ifname)
    if found is None:
        raise KernelRefused(f"look for link {ifname}", ENOENT, "it is gone")
    return int(_INDEX.unpack_from(found)[0])


def _link(netlink: NetlinkSocket, ifname: str) -> bytes | None:
    (found,) = netlink.get([Message(_RTM_GETLINK, 0, bytes(16) + text(_IFLA_IFNAME, ifname))])
    return found


async def _asked(netlink: NetlinkSocket, index: int, address: Addr, seconds: float) -> str:
    def entry(flags: int) -> bytes:
        body = _NDMSG.pack(family(address), 0, 0, index, _NONE, flags, 0)
        return body + attr(_NDA_DST, address.packed)

    begin = Message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_EXCL, entry(_USE))
    room = time.monotonic() + _ROOM_WITHIN
    while failures := netlink.request([begin]):
        first = failures[0]
        # The table of neighbours is one for the whole machine, whatever the namespace, and may be full.
        if first.errno != ENOBUFS or time.monotonic() > room:
            raise KernelRefused(f"ask for {address}", first.errno, first.reason())
        await asyncio.sleep(_ROOM_EVERY)
    deadline = time.monotonic() + seconds + _SLACK
    try:
        while time.monotonic() < deadline:
            (found,) = netlink.get([Message(RTM_GETNEIGH, 0, entry(0))])
            state = _NDMSG.unpack_from(found)[4] if found is not None else _FAILED
            if found is not None and state & _ANSWERED:
                return mac_text(attributes(found, 12).get(_NDA_LLADDR, b""))
            if state & _FAILED:
                return ""
            await asyncio.sleep(_EVERY)
        return ""
    finally:
        netlink.request([Message(RTM_DELNEIGH, 0, entry(0), frozenset({ENOENT}))])
