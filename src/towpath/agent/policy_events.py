"""Findings about policies as Events on the policies, for ``kubectl get events`` and ``kubectl describe``.

Every node has the same findings, and one of them writes: nodes are ranked by a hash for each Event
(rendezvous hashing), the first writes at once, the next two only after a while, in case it did not. The
Event's name comes from what it says, so that whoever comes too late finds it there. What only one node can
find (where a host endpoint stands) that node writes. While a finding stands its Event is renewed before the
API server forgets it. What is refused is logged and tried again later; nothing depends on it.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from towpath.agent.writers import NEXT_AFTER, WRITERS, rank_of, writers
from towpath.api.core import Node
from towpath.kube.client import Client
from towpath.kube.errors import AlreadyExists, KubeError, NotFound
from towpath.kube.kinds import EVENTS
from towpath.log import get_logger
from towpath.policy.reported import Read, Reported

log = get_logger("towpath.events")

COMPONENT = "towpath"
_LOOK_EVERY = 2.0
_RENEW_AFTER = 1800.0  # the API server keeps Events for an hour (--event-ttl)
_AGAIN_AFTER = 60.0
_PACE = 0.1
_LONGEST = 1024


class _Event:
    """What is known of one: when its finding was first seen, when to write next, and how often it was."""

    __slots__ = ("count", "due")

    def __init__(self, due: float) -> None:
        self.due = due
        self.count = 0


class PolicyEvents:
    """``read`` are all policies with their findings; ``nodes`` by name. ``monotonic`` in seconds."""

    def __init__(
        self,
        client: Client,
        node_name: str,
        read: Callable[[], Iterable[Read]],
        nodes: Callable[[], Mapping[str, Node]],
        monotonic: Callable[[], float],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client, self._node, self._read, self._nodes = client, node_name, read, nodes
        self._monotonic, self._now = monotonic, now
        self._known: dict[str, _Event] = {}

    async def run(self) -> None:
        """Write for ever."""
        while True:
            await self.write()
            await asyncio.sleep(_LOOK_EVERY)

    async def write(self) -> None:
        """What is due, one after the other."""
        standing: dict[str, Reported] = {}
        own: set[str] = set()
        for read in self._read():
            standing.update((event_name(one), one) for one in (Reported(read, f) for f in read.findings))
            here = {event_name(one): one for one in (Reported(read, finding) for finding in read.here)}
            standing.update(here)
            own.update(here)
        for gone in self._known.keys() - standing.keys():
            del self._known[gone]
        if not standing:
            return
        nodes = writers(self._nodes())
        for name, one in standing.items():
            rank = 0 if name in own else rank_of(self._node, name, nodes)
            # An agent that has just begun may not have seen all addresses of its node.
            wait = NEXT_AFTER if name in own else rank * NEXT_AFTER
            known = self._known.setdefault(name, _Event(self._monotonic() + wait))
            if rank < WRITERS and known.due <= self._monotonic():
                await self._write(name, one, known, first=rank == 0)
                await asyncio.sleep(_PACE)

    async def _write(self, name: str, one: Reported, known: _Event, *, first: bool) -> None:
        event = event_of(name, one, self._node, self._now())
        try:
            if first and known.count:
                known.count = await self._renew(event, {"count": known.count + 1})
            else:
                known.count = await self._create(event, first=first)
        except NotFound:  # forgotten by the API server, or its namespace is going
            known.count, known.due = 0, self._monotonic() + _AGAIN_AFTER
        except KubeError as error:
            known.due = self._monotonic() + _AGAIN_AFTER
            log.warning("event_not_written", event=name, object=one.finding.object, error=str(error))
        else:
            known.due = self._monotonic() + _RENEW_AFTER

    async def _create(self, event: Mapping[str, Any], *, first: bool) -> int:
        """How often the finding was seen, as far as is known: it may have an Event already."""
        try:
            await self._client.create(EVENTS, event, event["metadata"]["namespace"])
        except AlreadyExists:
            return await self._renew(event, {}) if first else 1
        return 1

    async def _renew(self, event: Mapping[str, Any], more: Mapping[str, Any]) -> int:
        change = {"lastTimestamp": event["lastTimestamp"], "message": event["message"], **more}
        meta = event["metadata"]
        found = await self._client.patch(EVENTS, meta["name"], change, meta["namespace"])
        count = found.get("count")
        return count if isinstance(count, int) and count > 0 else 1


def event_name(one: Reported) -> str:
    """Of two findings that say the same of the same object, the same on all nodes."""
    about = one.about.reference()
    said = (about.get("uid", ""), one.finding.object, one.finding.code, one.finding.message)
    digest = hashlib.sha256("\n".join(said).encode()).hexdigest()[:16]
    return f"{about.get('name', 'policy')[:200].rstrip('.-')}.{digest}"


def event_of(name: str, one: Reported, node: str, now: datetime) -> dict[str, Any]:
    """A ``v1.Event``: the reason is the finding's code, the message has field, value and what to do."""
    about, finding = one.about.reference(), one.finding
    stamp = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    message = (
        f"{finding.object}: {finding.message}. To mend it: {finding.fix} (towpath explain {finding.code})"
    )
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": about.get("namespace", "default")},
        "involvedObject": about,
        "type": "Warning",
        "reason": finding.code,
        "message": message if len(message) <= _LONGEST else f"{message[: _LONGEST - 1]}…",
        "source": {"component": COMPONENT, "host": node},
        "reportingComponent": COMPONENT,
        "reportingInstance": node,
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "count": 1,
    }
