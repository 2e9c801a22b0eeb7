"""Connections of an address or a port that has another owner from now on."""

import asyncio
import socket
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

from towpath.agent.attach_netlink import NodeNetlink
from towpath.desired.masquerade import needs_masquerading
from towpath.kernel.conntrack import Conntrack
from towpath.model.attachment import PortMapping
from towpath.model.net import Addr, Net
from towpath.model.network import ClusterNetwork

_PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": socket.IPPROTO_SCTP}


class Connections:
    """The conntrack table of the namespace this was made in. To be used from one event loop.

    One thread and one socket for good: the kernel lets nobody close a netfilter socket before nftables has
    destroyed what the last transaction removed, and that takes ten milliseconds.
    """

    def __init__(self) -> None:
        """Raises OSError."""
        self._table, self._routes = Conntrack(), NodeNetlink()
        self._thread = ThreadPoolExecutor(1, "conntrack")

    def close(self) -> None:
        """Wait for what is under way."""
        self._thread.shutdown()
        self._table.close()
        self._routes.close()

    async def forget(self, addresses: Collection[Addr]) -> None:
        """Delete every entry of the addresses, in a thread. Raises KernelRefused, OSError."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._table.forget, addresses)

    async def forget_untranslated(self, network: ClusterNetwork, here: Collection[Net]) -> int:
        """Delete what began while pods' addresses were not translated, and tell how many entries it were.

        ``here`` are the pod subnets of this node. Raises KernelRefused, OSError.
        """
        known: dict[Addr, bool] = {}

        def local(address: Addr) -> bool:
            return known.setdefault(address, self._routes.is_local(address))

        def overdue(source: Addr, target: Addr) -> bool:
            return needs_masquerading(network, here, source, target) and not (local(source) or local(target))

        return await asyncio.get_running_loop().run_in_executor(
            self._thread, self._table.forget_untranslated, overdue
        )

    async def forget_ports(self, ports: Collection[PortMapping]) -> None:
        """Delete entries from before the ports were published. Raises KernelRefused, OSError."""
        pairs = {(int(_PROTOCOLS[port.protocol]), port.host_port) for port in ports}
        if pairs:
            await asyncio.get_running_loop().run_in_executor(
                self._thread, self._table.forget_ports, pairs, self._routes.is_local
            )
