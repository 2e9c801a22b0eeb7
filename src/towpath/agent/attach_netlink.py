"""What attaching asks of the node's rtnetlink beyond making and removing things."""

import asyncio
import socket
from collections.abc import Iterable

from towpath.kernel.netlink import Message, NetlinkSocket
from towpath.kernel.wire import attr, family, text, u32
from towpath.model.net import Addr

_RTM_GETLINK, _RTM_GETROUTE = 18, 26
_IFLA_IFNAME, _IFLA_EXT_MASK, _SKIP_STATS = 3, 29, 8
_ANY_LINK = bytes(16)  # struct ifinfomsg: the name decides
_NO_STATS = u32(_IFLA_EXT_MASK, _SKIP_STATS)
_RTA_DST = 1
# Answer with the entry that matched, not with the destination asked for.
_RTM_F_FIB_MATCH = 0x2000
_DST_LEN, _TYPE = 1, 7
_RTN_LOCAL = 2
_PAUSES = (0.0005, 0.001, *(0.002,) * 24)


class NodeNetlink:
    """Asks in the namespace it was made in. Not to be shared between threads."""

    def __init__(self) -> None:
        """Raises OSError."""
        self._netlink = NetlinkSocket.open(socket.NETLINK_ROUTE)

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def routes(self, address: Addr) -> bool:
        """Whether a route to this one address exists: a local address, or a pod that somebody else wired.

        A lease is the first word on who has an address. This is the second, for what is in no lease: pods of
        Canal's, or a lease store that was lost.
        """
        found = _best_route(self._netlink, address)
        return found is not None and found[_DST_LEN] == address.max_prefixlen

    def is_local(self, address: Addr) -> bool:
        """Whether the node itself receives what is sent to an address."""
        return _is_local(self._netlink, address)

    def settle(self, link: str) -> None:
        """Have a link that just got its carrier send from now on.

        The kernel gives it a working queue in the background ("link watch") and drops what is sent before:
        on a busy machine the first packet to every third pod. Whoever asks for the link's state waits for the
        queue (Linux 6.8).
        """
        self._netlink.get([Message(_RTM_GETLINK, 0, _ANY_LINK + text(_IFLA_IFNAME, link) + _NO_STATS)])


async def answering(sock: socket.socket, addresses: Iterable[Addr]) -> None:
    """Wait until the namespace of a route netlink socket takes packets to its own IPv6 addresses.

    The kernel adds the local route of a new address in the background, and until then refuses what comes; it
    may take a millisecond on a busy machine. An address that has none after many is left to its fate.
    """
    netlink = NetlinkSocket(sock)
    waiting = [address for address in addresses if address.version == 6]
    for pause in _PAUSES:
        waiting = [address for address in waiting if not _is_local(netlink, address)]
        if not waiting:
            return
        await asyncio.sleep(pause)


def _is_local(netlink: NetlinkSocket, address: Addr) -> bool:
    found = _best_route(netlink, address)
    return found is not None and found[_TYPE] == _RTN_LOCAL


def _best_route(netlink: NetlinkSocket, address: Addr) -> bytes | None:
    # struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags
    header = bytes((family(address), address.max_prefixlen, 0, 0, 0, 0, 0, 0)) + _RTM_F_FIB_MATCH.to_bytes(
        4, "little"
    )
    (found,) = netlink.get([Message(_RTM_GETROUTE, 0, header + attr(_RTA_DST, address.packed))])
    return found
