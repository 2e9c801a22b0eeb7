"""A coalescing runner: any number of pokes make one run, and a failed run is repeated with growing pauses."""

import asyncio
from collections.abc import Awaitable, Callable

from towpath.kube.backoff import Backoff


class Runner:
    """Calls ``work`` when poked, at the latest every ``resync`` seconds, never twice at once.

    ``work`` returns True when all is well and False to be called again after a backoff; exceptions are its
    own business and end ``run``. ``rest`` is the least pause between two runs; a run that takes long earns a
    pause of the same length, so that a storm of events never takes more than half of a processor.
    Time is the event loop's.
    """

    def __init__(
        self, work: Callable[[], Awaitable[bool]], *, resync: float, backoff: Backoff, rest: float = 0.05
    ) -> None:
        self._work, self._resync, self._backoff, self._rest = work, resync, backoff, rest
        self._due: float | None = None
        self._changed = asyncio.Event()
        self.runs = 0
        self.pokes = 0
        self.finished_at = 0.0

    def poke(self, delay: float = 0.0) -> None:
        """Ask for a run within ``delay`` seconds; an earlier request stands."""
        due = asyncio.get_running_loop().time() + delay
        self.pokes += 1
        if self._due is None or due < self._due:
            self._due = due
            self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        next_regular = loop.time() + self._resync
        while True:
            await self._wait_until(next_regular)
            self._due = None
            begun = loop.time()
            well = await self._work()
            self.runs += 1
            self.finished_at = loop.time()
            if well:
                self._backoff.reset()
                next_regular = self.finished_at + self._resync
            else:
                next_regular = self.finished_at + min(self._backoff.next(), self._resync)
            await asyncio.sleep(max(self._rest, self.finished_at - begun))

    async def _wait_until(self, regular: float) -> None:
        """Sleep until ``regular`` or the poked time, whichever is first; a poke may bring it forward."""
        loop = asyncio.get_running_loop()
        while True:
            due = regular if self._due is None else min(regular, self._due)
            left = due - loop.time()
            if left <= 0:
                return
            self._changed.clear()
            try:
                async with asyncio.timeout(left):
                    await self._changed.wait()
            except TimeoutError:
                return
