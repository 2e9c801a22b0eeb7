"""What is left behind by a hole in the firewall, and by an address of two pods: flows that are to end.

Of the hole also how long it was open.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from towpath.agent.attach_conntrack import Connections
from towpath.agent.metrics import Metrics
from towpath.agent.planning import Plan
from towpath.agent.reconciler import Step
from towpath.kernel.port import KernelRefused
from towpath.log import get_logger
from towpath.model.net import Addr
from towpath.model.network import ClusterNetwork

log = get_logger("towpath.repair")


class Aftermath:
    """Told of the table's removal (``gone``) and of each step (``after``).

    ``clock`` counts seconds. Flows are looked for in the background: an entry that no rule translated while
    there was none keeps its flow from ever being answered, for minutes after the rules are back.
    """

    def __init__(
        self, connections: Connections, network: ClusterNetwork, metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        self._connections, self._network = connections, network
        self._metrics, self._clock = metrics, clock
        self._gone_at: float | None = None
        self._looking: set[asyncio.Task[None]] = set()
        self._apart: frozenset[Addr] = frozenset()

    def gone(self) -> None:
        """The table has been removed, perhaps by ourselves to be made anew."""
        if self._gone_at is None:
            self._gone_at = self._clock()

    def after(self, step: Step, apart: frozenset[Addr]) -> None:
        """The kernel has been looked at, and mended as far as it could be. ``apart``: addresses that pods of
        this node share with others, and have lost: what they began is not to go on with the others.
        """
        if not step.firewall:
            return
        lost, self._apart = apart - self._apart, apart
        if lost:
            self._begin(self._forget_addresses(lost))
        gone_at, self._gone_at = self._gone_at, None
        if not step.exposed:
            return
        if gone_at is not None:
            seconds = self._clock() - gone_at
            self._metrics.observe("towpath_fail_open_seconds", seconds)
            log.warning("table_was_flushed", fail_open_ms=round(seconds * 1e3, 1))
        self._begin(self._forget(step.plan))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        looking = asyncio.create_task(work)
        self._looking.add(looking)
        looking.add_done_callback(self._looking.discard)

    async def close(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._looking)
        self._connections.close()

    async def _forget_addresses(self, addresses: frozenset[Addr]) -> None:
        try:
            await self._connections.forget(addresses)
        except (KernelRefused, OSError) as error:
            log.error("connections_not_forgotten", error=str(error))

    async def _forget(self, plan: Plan) -> None:
        try:
            found = await self._connections.forget_untranslated(self._network, plan.pod_cidrs)
        except (KernelRefused, OSError) as error:
            log.error("connections_not_looked_at", error=str(error))
            return
        self._metrics.count("towpath_connections_forgotten", by=found)
        if found:
            log.warning("untranslated_connections_forgotten", entries=found)
