"""Connections of an address that is about to have another owner."""

import asyncio
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

from towpath.kernel.conntrack import Conntrack
from towpath.model.net import Addr


class Connections:
    """The conntrack table of the namespace this was made in. To be used from one event loop.

    One thread and one socket for good: the kernel lets nobody close a netfilter socket before nftables has
    destroyed what the last transaction removed, and that takes ten milliseconds.
    """

    def __init__(self) -> None:
        """Raises OSError."""
        self._table = Conntrack()
        self._thread = ThreadPoolExecutor(1, "conntrack")

    def close(self) -> None:
        """Wait for what is under way."""
        self._thread.shutdown()
        self._table.close()

    async def forget(self, addresses: Collection[Addr]) -> None:
        """Delete every entry of the addresses, in a thread. Raises KernelRefused, OSError."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._table.forget, addresses)
