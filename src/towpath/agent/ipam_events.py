"""Events on the own Node when a range of addresses fills up, and when it has room again.

Told once for each level that is crossed (80, 95, 100 per cent), not for each pod. What is refused is logged;
nothing depends on it.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from towpath.agent.policy_events import COMPONENT
from towpath.ipam.usage import Usage, level
from towpath.kube.client import Client
from towpath.kube.errors import AlreadyExists, KubeError
from towpath.kube.kinds import EVENTS
from towpath.log import get_logger

log = get_logger("towpath.ipam")

_LOOK_EVERY = 2.0


class IpamEvents:
    """``usage`` are the node's ranges as they are now."""

    def __init__(
        self,
        client: Client,
        node_name: str,
        usage: Callable[[], Iterable[Usage]],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client, self._node, self._usage, self._now = client, node_name, usage, now
        self._told: dict[str, int] = {}

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.write()
            await asyncio.sleep(_LOOK_EVERY)

    async def write(self) -> None:
        """Tell of levels that were crossed since."""
        for one in self._usage():
            before = self._told.get(one.range, 0)
            reached = level(one, before)
            if reached == before:
                continue
            event = event_of(one, reached, self._node, self._now())
            try:
                await self._client.create(EVENTS, event, event["metadata"]["namespace"])
            except AlreadyExists:
                pass  # the same second
            except KubeError as error:
                log.warning("event_not_written", event=event["metadata"]["name"], error=str(error))
                continue
            self._told[one.range] = reached


def event_of(one: Usage, reached: int, node: str, now: datetime) -> dict[str, Any]:
    """A ``v1.Event`` on the Node: ``reached`` per cent, 0: there is room again."""
    stamp = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    digest = hashlib.sha256(f"{one.range} {reached} {stamp}".encode()).hexdigest()[:16]
    figures = f"{one.used} of {one.size} addresses of {one.range} are leased, {one.free} are free"
    code = "TP4001" if reached == 100 else "TP4018"
    if reached:
        full = (
            f"; at this pace in {one.full_in / 3600:.1f} h there is none" if one.full_in and one.free else ""
        )
        message = f"{figures}{full}. To mend it: towpath ipam show, towpath explain {code}"
    else:
        message = f"{figures}: there is room again"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{node[:200]}.{digest}", "namespace": "default"},
        "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": node, "uid": node},
        "type": "Warning" if reached else "Normal",
        "reason": code,
        "message": message,
        "source": {"component": COMPONENT, "host": node},
        "reportingComponent": COMPONENT,
        "reportingInstance": node,
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "count": 1,
    }
