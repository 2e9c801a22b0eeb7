"""Whose is an address already, as far as this node's kernel knows."""

import socket

from towpath.kernel.netlink import Message, NetlinkSocket
from towpath.kernel.wire import attr, family
from towpath.model.net import Addr

_RTM_GETROUTE = 26
_RTA_DST = 1
# Answer with the entry that matched, not with the destination asked for.
_RTM_F_FIB_MATCH = 0x2000


class HostRoutes:
    """Asks the routing table of the namespace it was made in. Not to be shared between threads."""

    def __init__(self) -> None:
        """Raises OSError."""
        self._netlink = NetlinkSocket.open(socket.NETLINK_ROUTE)

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def lead_to(self, address: Addr) -> bool:
        """Whether a route to this one address exists: a local address, or a pod that somebody else wired.

        A lease is the first word on who has an address. This is the second, for what is in no lease: pods of
        Canal's, or a lease store that was lost.
        """
        bits = address.max_prefixlen
        # struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags
        header = bytes((family(address), bits, 0, 0, 0, 0, 0, 0)) + _RTM_F_FIB_MATCH.to_bytes(4, "little")
        (found,) = self._netlink.get([Message(_RTM_GETROUTE, 0, header + attr(_RTA_DST, address.packed))])
        return found is not None and found[1] == bits
