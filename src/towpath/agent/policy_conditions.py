"""Findings about policies as a condition in their status, where there is one: ``policy.networking.k8s.io``.

``towpath.dev/EnforcedAsWritten`` is False while something of a policy is stricter than what was written, and
True once that is mended; a policy that never had a finding has none. As with Events, one node writes. Other
people's conditions stay as they are: a status that has changed since it was read is left for the next look.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from towpath.agent.writers import NEXT_AFTER, WRITERS, rank_of, writers
from towpath.api.core import Node
from towpath.kube.client import Client
from towpath.kube.errors import Conflict, KubeError
from towpath.kube.kinds import Kind, Raw
from towpath.log import get_logger
from towpath.model.finding import Finding
from towpath.policy.reported import Read

log = get_logger("towpath.conditions")

GROUP = "policy.networking.k8s.io"
CONDITION = "towpath.dev/EnforcedAsWritten"
_LOOK_EVERY = 2.0
_AGAIN_AFTER = 60.0
_PACE = 0.1
_LONGEST = 4096


class PolicyConditions:
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
        self._due: dict[tuple[str, str], float] = {}

    async def run(self) -> None:
        """Write for ever."""
        while True:
            await self.write()
            await asyncio.sleep(_LOOK_EVERY)

    async def write(self) -> None:
        """What is due, one after the other."""
        wanted = {}
        for one in self._read():
            if one.resource.group == GROUP and (conditions := changed(one, self._now())) is not None:
                name = f"{one.resource.plural}/{one.reference().get('name', '')}"
                wanted[name, str(one.reference().get("resourceVersion"))] = one, conditions
        self._due = {key: due for key, due in self._due.items() if key in wanted}
        if not wanted:
            return
        nodes = writers(self._nodes())
        for key, (one, conditions) in wanted.items():
            rank = rank_of(self._node, key[0], nodes)
            due = self._due.setdefault(key, self._monotonic() + rank * NEXT_AFTER)
            if rank < WRITERS and due <= self._monotonic():
                self._due[key] = self._monotonic() + _AGAIN_AFTER
                await self._write(one, conditions)
                await asyncio.sleep(_PACE)

    async def _write(self, one: Read, conditions: Sequence[Mapping[str, Any]]) -> None:
        about = one.reference()
        group, _, version = about["apiVersion"].rpartition("/")
        plural, name = one.resource.plural, about.get("name", "")
        kind: Kind[Raw] = Kind(plural=plural, type=dict, group=group, version=version, namespaced=False)
        metadata = {"resourceVersion": about.get("resourceVersion")}
        body = {"metadata": metadata, "status": {"conditions": list(conditions)}}
        try:
            await self._client.patch(kind, name, body, subresource="status")
        except Conflict:
            log.debug("condition_not_written", object=f"{plural}/{name}", error="it has changed meanwhile")
        except KubeError as error:
            log.warning("condition_not_written", object=f"{plural}/{name}", error=str(error))


def changed(one: Read, now: datetime) -> list[Mapping[str, Any]] | None:
    """The status' conditions as they should be; None if they are, or are none of ours."""
    there = _conditions(one.raw)
    mine = next((c for c in there if c.get("type") == CONDITION), None)
    if mine is None and not one.findings:
        return None
    metadata = one.raw.get("metadata")
    generation = metadata.get("generation") if isinstance(metadata, Mapping) else None
    wanted = {**_wanted(one.findings), **({"observedGeneration": generation} if generation else {})}
    if mine is not None and all(mine.get(key) == value for key, value in wanted.items()):
        return None
    since = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if mine is not None and mine.get("status") == wanted["status"]:
        since = mine.get("lastTransitionTime", since)
    condition = {"type": CONDITION, **wanted, "lastTransitionTime": since}
    return [*(c for c in there if c is not mine), condition]


def _wanted(findings: Sequence[Finding]) -> dict[str, str]:
    if not findings:
        return {"status": "True", "reason": "Understood", "message": "all of it is in force as it is written"}
    message = "; ".join(f"{one.code} {one.message} ({one.fix})" for one in findings)
    shown = message if len(message) <= _LONGEST else f"{message[: _LONGEST - 1]}…"
    return {"status": "False", "reason": findings[0].code, "message": shown}


def _conditions(raw: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    status = raw.get("status")
    conditions = status.get("conditions") if isinstance(status, Mapping) else None
    return [one for one in conditions if isinstance(one, Mapping)] if isinstance(conditions, list) else []
