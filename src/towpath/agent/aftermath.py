"""What a hole in the firewall leaves behind: how long it was open, and flows that began in it."""

import asyncio
from collections.abc import Callable

from towpath.agent.attach_conntrack import Connections
from towpath.agent.metrics import Metrics
from towpath.agent.planning import Plan
from towpath.agent.reconciler import Step
from towpath.kernel.port import KernelRefused
from towpath.log import get_logger
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

    def gone(self) -> None:
        """The table has been removed, perhaps by ourselves to be made anew."""
        if self._gone_at is None:
            self._gone_at = self._clock()

    def after(self, step: Step) -> None:
        """The kernel has been looked at, and mended as far as it could be."""
        if not step.firewall:
            return
        gone_at, self._gone_at = self._gone_at, None
        if not step.exposed:
            return
        if gone_at is not None:
            seconds = self._clock() - gone_at
            self._metrics.observe("towpath_fail_open_seconds", seconds)
            log.warning("table_was_flushed", fail_open_ms=round(seconds * 1e3, 1))
        looking = asyncio.create_task(self._forget(step.plan))
        self._looking.add(looking)
        looking.add_done_callback(self._looking.discard)

    async def close(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._looking)
        self._connections.close()

    async def _forget(self, plan: Plan) -> None:
        try:
            found = await self._connections.forget_untranslated(self._network, plan.pod_cidrs)
        except (KernelRefused, OSError) as error:
            log.error("connections_not_looked_at", error=str(error))
            return
        self._metrics.count("towpath_connections_forgotten", by=found)
        if found:
            log.warning("untranslated_connections_forgotten", entries=found)
