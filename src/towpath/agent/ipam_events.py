"""Events on the own Node when a range of addresses fills up, and on both pods that have one address.

Told once for each level that is crossed (80, 95, 100 per cent), not for each pod; and when there is room
again. What is refused is logged; nothing depends on it.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from towpath.agent.policy_events import COMPONENT
from towpath.agent.twins import Contest
from towpath.ipam.blocks import API
from towpath.ipam.usage import Usage, level
from towpath.kube.client import Client
from towpath.kube.errors import AlreadyExists, KubeError
from towpath.kube.kinds import EVENTS
from towpath.log import get_logger

log = get_logger("towpath.ipam")

_LOOK_EVERY = 2.0


class IpamEvents:
    """``usage`` are the node's ranges as they are now, or the pools that all share; ``contests`` the
    addresses that its pods lost.
    """

    def __init__(
        self,
        client: Client,
        node_name: str,
        usage: Callable[[], Iterable[Usage]],
        contests: Callable[[], frozenset[Contest]],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client, self._node, self._usage, self._now = client, node_name, usage, now
        self._contests = contests
        self._told: dict[str, int] = {}
        self._told_of: frozenset[Contest] = frozenset()

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.write()
            await asyncio.sleep(_LOOK_EVERY)

    async def write(self) -> None:
        """Tell of levels that were crossed since, and of new contests."""
        await self._write_contests()
        for one in self._usage():
            before = self._told.get(one.range, 0)
            reached = level(one, before)
            if reached == before:
                continue
            event = event_of(one, reached, self._node, self._now())
            if await self._create(event):
                self._told[one.range] = reached

    async def _write_contests(self) -> None:
        standing, told = self._contests(), set()
        for one in standing - self._told_of:
            events = contest_events(one, self._node, self._now())
            if all([await self._create(event) for event in events]):
                told.add(one)
        self._told_of = (self._told_of & standing) | told

    async def _create(self, event: dict[str, Any]) -> bool:
        try:
            await self._client.create(EVENTS, event, event["metadata"]["namespace"])
        except AlreadyExists:
            pass  # the same second
        except KubeError as error:
            log.warning("event_not_written", event=event["metadata"]["name"], error=str(error))
            return False
        return True


def event_of(one: Usage, reached: int, node: str, now: datetime) -> dict[str, Any]:
    """A ``v1.Event`` on the Node: ``reached`` per cent, 0: there is room again."""
    figures = f"{one.used} of {one.size} addresses of {one.range} are leased, {one.free} are free"
    code = "TP4001" if reached == 100 else "TP4018"
    if reached:
        full = (
            f"; at this pace in {one.full_in / 3600:.1f} h there is none" if one.full_in and one.free else ""
        )
        message = f"{figures}{full}. To mend it: towpath ipam show, towpath explain {code}"
    else:
        message = f"{figures}: there is room again"
    said = f"{one.range} {reached}"
    if one.pool:
        about = {"apiVersion": API, "kind": "IPPool", "name": one.pool, "uid": one.uid}
        # All nodes see it at about the same time; the one Event is whoever's is first in the hour.
        return _event(about, said, reached > 0, code, message, node, now, now.strftime("%Y-%m-%dT%H"))
    about = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": node}
    return _event(about, said, reached > 0, code, message, node, now)


def contest_events(one: Contest, node: str, now: datetime) -> tuple[dict[str, Any], dict[str, Any]]:
    """On the newer pod, and on the older: both owners are in either."""
    told = []
    for (name, uid), text in (
        ((one.newer, one.uid), one.message),
        (
            (one.older, one.older_uid),
            f"has {one.address}, and so has the newer Pod/{one.newer} on {node}, which is kept apart",
        ),
    ):
        namespace, _, short = name.partition("/")
        about = {"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": short, "uid": uid}
        message = f"{text}. To mend it: {one.fix}, towpath explain TP4015"
        told.append(_event(about, f"{one.address}", True, "TP4015", message, node, now))
    return told[0], told[1]


def _event(
    about: dict[str, str],
    said: str,
    warning: bool,
    code: str,
    message: str,
    node: str,
    now: datetime,
    once: str = "",
) -> dict[str, Any]:
    """``once`` names the time within which it is said once, by whomever; the second, if it is empty."""
    stamp = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    digest = hashlib.sha256(f"{said} {once or stamp}".encode()).hexdigest()[:16]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{about['name'][:200]}.{digest}",
            "namespace": about.get("namespace", "default"),
        },
        "involvedObject": about,
        "type": "Warning" if warning else "Normal",
        "reason": code,
        "message": message,
        "source": {"component": COMPONENT, "host": node},
        "reportingComponent": COMPONENT,
        "reportingInstance": node,
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "count": 1,
    }
