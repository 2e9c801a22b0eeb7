"""Network devices as rtnetlink messages, and back."""

from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from struct import Struct

import msgspec

from towpath.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, Message, NetlinkSocket
from towpath.kernel.wire import (
    address,
    attr,
    attributes,
    mac_bytes,
    mac_text,
    nested,
    string,
    text,
    u8,
    u32,
    unpack_u32,
)
from towpath.model.net import Bridge, Ifb, Link, Veth, Vxlan

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
IFF_UP = 1
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER = 1, 3, 4, 5, 10
_IFLA_LINKINFO, _IFLA_AF_SPEC, _IFLA_NET_NS_FD, _IFLA_EXT_MASK = 18, 26, 28, 29
_IFLA_NUM_TX_QUEUES, _IFLA_NUM_RX_QUEUES = 31, 32
_IFLA_LINK_NETNSID, _IFLA_TARGET_NETNSID = 37, 46
_INFO_KIND, _INFO_DATA = 1, 2
_VETH_PEER = 1
_VX_ID, _VX_LINK, _VX_LOCAL, _VX_LEARNING, _VX_PORT, _VX_LOCAL6, _VX_GBP = 1, 3, 4, 7, 15, 17, 23
_AF_INET6, _ADDR_GEN_MODE, _ADDR_GEN_NONE = 10, 8, 1
_SKIP_STATS = 1 << 3

_IFINFO = Struct("=BBHiII")
# A veth uses one queue whatever it has; unless told, the kernel makes one for each possible CPU, with its
# sysfs folders, and takes all but the first away again: 0.35 ms for a pair with two CPUs, 0.2 ms with this.
_ONE_QUEUE = u32(_IFLA_NUM_TX_QUEUES, 1) + u32(_IFLA_NUM_RX_QUEUES, 1)
_NO_STATS = u32(_IFLA_EXT_MASK, _SKIP_STATS)
_NO_LINK_LOCAL = nested(_IFLA_AF_SPEC, nested(_AF_INET6, u8(_ADDR_GEN_MODE, _ADDR_GEN_NONE)))


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A device as the kernel tells it: by number, and with what only the kernel knows.

    ``lower`` is the index of the other end (veth) or of the device below (vxlan), in the namespace
    ``lower_nsid``, None for this one. ``kind`` is the kernel's word, ``data`` the kind's attributes.
    """

    index: int
    name: str
    mtu: int
    mac: str | None
    up: bool
    kind: str = ""
    data: bytes = b""
    master: int = 0
    lower: int = 0
    lower_nsid: int | None = None


def create(link: Link, index_of: Callable[[str], int], pod_netns: int | None) -> Message:
    """The request that makes ``link``, still down; a veth's other end is born, down, in ``pod_netns``.

    Raises OSError (ENODEV) from ``index_of``, ValueError for a link of no kind.
    """
    body = _IFINFO.pack(0, 0, 0, 0, 0, 0) + text(_IFLA_IFNAME, link.name) + _properties(link.mtu, link.mac)
    if link.master is not None:
        body += u32(_IFLA_MASTER, index_of(link.master))
    match link.kind:
        case Vxlan():
            info = text(_INFO_KIND, "vxlan") + attr(_INFO_DATA, _vxlan(link.kind, index_of))
        case Veth():
            peer = _IFINFO.pack(0, 0, 0, 0, 0, 0) + text(_IFLA_IFNAME, link.kind.peer)
            peer += _properties(link.kind.peer_mtu, link.kind.peer_mac or None) + _ONE_QUEUE
            body += _ONE_QUEUE
            if pod_netns is not None:
                peer += u32(_IFLA_NET_NS_FD, pod_netns)
            info = text(_INFO_KIND, "veth") + attr(_INFO_DATA, attr(_VETH_PEER, peer))
        case Ifb():
            info = text(_INFO_KIND, "ifb")
        case Bridge():
            info = text(_INFO_KIND, "bridge")
        case None:
            raise ValueError("only vxlan, veth, ifb and bridge devices can be made")
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body + attr(_IFLA_LINKINFO, info))


def no_link_local(index: int) -> Message:
    """Keep the kernel from making up an IPv6 link-local address: addresses are ours to give.

    It cannot be asked for in RTM_NEWLINK, which ignores IFLA_AF_SPEC when it creates.
    """
    return Message(RTM_SETLINK, 0, _IFINFO.pack(0, 0, 0, index, 0, 0) + _NO_LINK_LOCAL)


def change(index: int, mtu: int | None = None, mac: str | None = None, up: bool | None = None) -> Message:
    """Set some properties of a device."""
    flags, mask = (IFF_UP if up else 0), (0 if up is None else IFF_UP)
    return Message(RTM_SETLINK, 0, _IFINFO.pack(0, 0, 0, index, flags, mask) + _properties(mtu, mac))


def delete(index: int) -> Message:
    """Delete a device."""
    return Message(RTM_DELLINK, 0, _IFINFO.pack(0, 0, 0, index, 0, 0))


def devices(sock: NetlinkSocket) -> list[Device]:
    """Every device of the namespace."""
    body = _IFINFO.pack(0, 0, 0, 0, 0, 0) + _NO_STATS
    return [decode(payload) for payload in sock.dump(RTM_GETLINK, body)]


def device(sock: NetlinkSocket, index: int) -> Device | None:
    """One device by number, None if there is none."""
    [payload] = sock.get([Message(RTM_GETLINK, 0, _IFINFO.pack(0, 0, 0, index, 0, 0) + _NO_STATS)])
    return None if payload is None else decode(payload)


def decode(payload: bytes) -> Device:
    """A device from an RTM_NEWLINK or RTM_DELLINK message's body."""
    _, _, _, index, flags, _ = _IFINFO.unpack_from(payload)
    found = attributes(payload, 16)
    info = attributes(found.get(_IFLA_LINKINFO, b""))
    nsid = found.get(_IFLA_LINK_NETNSID)
    mac = found.get(_IFLA_ADDRESS)
    return Device(
        index=index,
        name=string(found.get(_IFLA_IFNAME, b"")),
        mtu=_number(found.get(_IFLA_MTU)),
        mac=mac_text(mac) if mac is not None and len(mac) == 6 else None,
        up=bool(flags & IFF_UP),
        kind=string(info.get(_INFO_KIND, b"")),
        data=info.get(_INFO_DATA, b""),
        master=_number(found.get(_IFLA_MASTER)),
        lower=_number(found.get(_IFLA_LINK)),
        lower_nsid=None if nsid is None else unpack_u32(nsid)[0],
    )


def to_links(sock: NetlinkSocket, devs: Sequence[Device]) -> dict[str, Link]:
    """Devices as values, by name; asks for the veth ends that are in other namespaces."""
    by_index = {dev.index: dev for dev in devs}
    peers = _peers(sock, devs, by_index)
    links: dict[str, Link] = {}
    for dev in devs:
        master = by_index.get(dev.master)
        links[dev.name] = Link(
            name=dev.name,
            kind=_kind(dev, by_index, peers),
            mtu=dev.mtu,
            mac=dev.mac,
            up=dev.up,
            master=master.name if master is not None else None,
        )
    return links


def _peers(sock: NetlinkSocket, devs: Sequence[Device], by_index: dict[int, Device]) -> dict[int, Device]:
    """The other end of each veth, by the index of the near end, as far as we may see it."""
    peers: dict[int, Device] = {}
    far: list[Device] = []
    for dev in devs:
        if dev.kind != "veth":
            continue
        if dev.lower_nsid is not None:
            far.append(dev)
        elif dev.lower in by_index:
            peers[dev.index] = by_index[dev.lower]
    asked = [
        Message(
            RTM_GETLINK,
            0,
            _IFINFO.pack(0, 0, 0, dev.lower, 0, 0)
            + u32(_IFLA_TARGET_NETNSID, dev.lower_nsid or 0)
            + _NO_STATS,
        )
        for dev in far
    ]
    for dev, payload in zip(far, sock.get(asked), strict=True):
        if payload is not None:
            peers[dev.index] = decode(payload)
    return peers


def _kind(
    dev: Device, by_index: dict[int, Device], peers: dict[int, Device]
) -> Vxlan | Veth | Ifb | Bridge | None:
    match dev.kind:
        case "veth":
            peer = peers.get(dev.index)
            if peer is None:  # its namespace is being taken down, or is none of ours
                return Veth(peer="", peer_mac="", peer_mtu=0)
            return Veth(peer=peer.name, peer_mac=peer.mac or "", peer_mtu=peer.mtu)
        case "vxlan":
            return _to_vxlan(attributes(dev.data), by_index)
        case "ifb":
            return Ifb()
        case "bridge":
            return Bridge()
    return None


def _to_vxlan(data: dict[int, bytes], by_index: dict[int, Device]) -> Vxlan | None:
    """None for a vxlan device unlike those we make: bound to no device, or without a source address."""
    local = data.get(_VX_LOCAL) or data.get(_VX_LOCAL6)
    lower = by_index.get(_number(data.get(_VX_LINK)))
    if local is None or lower is None:
        return None
    return Vxlan(
        vni=_number(data.get(_VX_ID)),
        port=int.from_bytes(data.get(_VX_PORT, b""), "big"),
        local=address(local),
        underlay=lower.name,
        learning=data.get(_VX_LEARNING, b"\0") != b"\0",
        gbp=_VX_GBP in data,
    )


def _vxlan(kind: Vxlan, index_of: Callable[[str], int]) -> bytes:
    local = _VX_LOCAL if isinstance(kind.local, IPv4Address) else _VX_LOCAL6
    data = u32(_VX_ID, kind.vni) + u32(_VX_LINK, index_of(kind.underlay)) + attr(local, kind.local.packed)
    data += attr(_VX_PORT, kind.port.to_bytes(2, "big")) + u8(_VX_LEARNING, kind.learning)
    return data + (attr(_VX_GBP, b"") if kind.gbp else b"")


def _properties(mtu: int | None, mac: str | None) -> bytes:
    body = u32(_IFLA_MTU, mtu) if mtu else b""
    return body + (attr(_IFLA_ADDRESS, mac_bytes(mac)) if mac is not None else b"")


def _number(payload: bytes | None) -> int:
    return 0 if payload is None else int(unpack_u32(payload)[0])
