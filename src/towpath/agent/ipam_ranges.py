"""The ranges that extra networks have addresses of, one object each: no two that are in use overlap.

There is no lock. A range is made (``pending``), then all ranges are listed, and it is confirmed if none
overlaps it. Of two that are made at the same time at least one sees the other, and neither is used before it
was confirmed: so both may be refused, and tried again, but never both be used.
"""

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_network
from typing import Any

from msgspec.structs import replace

from towpath.ipam.pools import Pool
from towpath.ipam.secondary import Span
from towpath.kube.client import Client
from towpath.kube.errors import AlreadyExists, Conflict, NotFound
from towpath.kube.kinds import NETWORK_RANGES, Raw
from towpath.model.net import Net

_PENDING, _CONFIRMED = "pending", "confirmed"
_TRIES = 10


class RangeRefused(Exception):
    """A range cannot be used; the text says because of what."""


class Ranges:
    """``networks`` are the cluster's own."""

    def __init__(self, client: Client, networks: Sequence[Net]) -> None:
        self._client, self._networks = client, networks

    async def use(self, span: Span, known: Mapping[Any, Raw]) -> Pool:
        """The range as it was confirmed, now or before. ``known`` are the objects as they were last seen.

        Raises RangeRefused, KubeError.
        """
        for net in self._networks:
            if net.version == span.cidr.version and net.overlaps(span.cidr):
                raise RangeRefused(f"range {span.cidr} overlaps {net}, the pods' own network")
        name = span.pool.name
        seen = next((obj for obj in known.values() if obj["metadata"]["name"] == name), None)
        if seen is not None and _state(seen) == _CONFIRMED:
            return _pool(seen, span)
        for _ in range(_TRIES):
            if (obj := await self._confirmed(span, name)) is not None:
                return _pool(obj, span)
        raise RangeRefused(f"range {span.cidr} is being changed by others: it is tried again")

    async def _confirmed(self, span: Span, name: str) -> Raw | None:
        """One attempt; None: somebody changed it meanwhile."""
        made = False
        try:
            obj = await self._client.get(NETWORK_RANGES, name)
        except NotFound:
            try:
                obj = await self._client.create(NETWORK_RANGES, _object(span, name))
                made = True
            except AlreadyExists:
                return None
        if _state(obj) == _CONFIRMED:
            return obj
        others = [o for o in (await self._client.list(NETWORK_RANGES)).items if o["metadata"]["name"] != name]
        if (other := _overlapping(others, span.cidr)) is not None:
            meta = obj["metadata"]
            if made:
                await self._withdraw(name, meta)
            known = other["metadata"]["name"]
            raise RangeRefused(
                f"range {span.cidr} overlaps NetworkRange {known} ({other['spec']['cidr']}): use the same "
                f"range, or, if nothing uses that one, kubectl delete networkranges {known}"
            )
        try:
            spec = {**obj["spec"], "state": _CONFIRMED}
            return await self._client.update(NETWORK_RANGES, {**obj, "spec": spec})
        except (Conflict, NotFound):
            return None

    async def _withdraw(self, name: str, meta: Mapping[str, Any]) -> None:
        try:
            await self._client.delete(
                NETWORK_RANGES, name, uid=meta["uid"], resource_version=meta["resourceVersion"]
            )
        except (Conflict, NotFound):
            return  # somebody else has gone on with it


def _pool(obj: Raw, span: Span) -> Pool:
    """With the block size that it was made with. Raises RangeRefused."""
    spec = obj.get("spec") or {}
    size, cidr = spec.get("blockSize"), spec.get("cidr")
    name = obj["metadata"]["name"]
    well = isinstance(size, int) and span.cidr.prefixlen <= size <= span.cidr.max_prefixlen
    if cidr != str(span.cidr) or not well:
        raise RangeRefused(f"NetworkRange {name} was edited into what cannot be (cidr, blockSize)")
    if span.chosen and size != span.block:
        raise RangeRefused(
            f"range {span.cidr} has blocks of /{size}, and this network's ipam.block_size is {span.block}: "
            f"leave it out, or write {size}"
        )
    return replace(span.pool, block=size)


def _overlapping(objects: Iterable[Raw], cidr: Net) -> Raw | None:
    """One that cannot be read is nobody's: it was never confirmed by us."""
    for obj in objects:
        try:
            other = ip_network(str((obj.get("spec") or {}).get("cidr")))
        except ValueError:
            continue
        if other.version == cidr.version and other.overlaps(cidr):
            return obj
    return None


def _state(obj: Raw) -> str:
    return str((obj.get("spec") or {}).get("state", ""))


def _object(span: Span, name: str) -> Raw:
    return {
        "apiVersion": f"{NETWORK_RANGES.group}/{NETWORK_RANGES.version}",
        "kind": "NetworkRange",
        "metadata": {"name": name},
        "spec": {"cidr": str(span.cidr), "blockSize": span.block, "state": _PENDING},
    }
