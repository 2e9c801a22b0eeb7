"""Connections of an address that is about to have another owner."""

import asyncio
import contextlib
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

from towpath.kernel.conntrack import Conntrack
from towpath.model.net import Addr

_THREADS = 2


class Connections:
    """The conntrack table of the namespace this was made in. To be used from one event loop."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, "conntrack")

    def close(self) -> None:
        """Wait for what is under way."""
        self._threads.shutdown()

    async def forget(self, addresses: Collection[Addr]) -> None:
        """Delete every entry of the addresses, in a thread. Raises KernelRefused, OSError."""
        await asyncio.get_running_loop().run_in_executor(self._threads, _forget, addresses)


def _forget(addresses: Collection[Addr]) -> None:
    with contextlib.closing(Conntrack()) as table:
        table.forget(addresses)
