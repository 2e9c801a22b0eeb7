"""What the rules of a chain have counted, read without libnftables."""

from towpath.kernel import nft_dump
from towpath.kernel.netlink import NetlinkSocket

_NETLINK_NETFILTER = 12


class RuleCounters:
    """Of the namespace the calling thread is in when this is made. Raises OSError."""

    def __init__(self) -> None:
        self._sock = NetlinkSocket.open(_NETLINK_NETFILTER)

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def packets(self, table: str, chain: str) -> list[int | None]:
        """Of each rule of ``chain`` of table ``inet TABLE``, in order; None of one that does not count; empty
        if there is no such chain. Raises KernelRefused, OSError.
        """
        listing = self._sock.dump(nft_dump.GET_RULE, nft_dump.of_table(table, chain))
        counters = (counted for _, counted in nft_dump.rule_counters(listing, table, chain))
        return [counted[0] if counted is not None else None for counted in counters]
