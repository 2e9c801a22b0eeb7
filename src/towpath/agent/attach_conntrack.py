"""Connections of an address or a port that has another owner from now on."""

import asyncio
import socket
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

from towpath.agent.attach_netlink import NodeNetlink
from towpath.kernel.conntrack import Conntrack
from towpath.model.attachment import PortMapping
from towpath.model.net import Addr

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

    async def forget_ports(self, ports: Collection[PortMapping]) -> None:
        """Delete entries from before the ports were published. Raises KernelRefused, OSError."""
        pairs = {(int(_PROTOCOLS[port.protocol]), port.host_port) for port in ports}
        if pairs:
            await asyncio.get_running_loop().run_in_executor(
                self._thread, self._table.forget_ports, pairs, self._routes.is_local
            )
