"""Calico's IPPool as a value: what it says, whether it can be true, which blocks it is cut into. Pure."""

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_network
from typing import Any

import msgspec

from towpath.ipam.errors import BadBlock
from towpath.model.net import Addr, Family, Net, within

Labels = Mapping[str, str]
Selects = Callable[[str, Labels], bool]
"""Whether a selector in Calico's language selects labels; raises ValueError for what is no selector."""

_BLOCK = {4: 26, 6: 122}
_SIZES = {4: (20, 32), 6: (116, 128)}  # as Calico's validation has them


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """``block`` is the prefix length of its blocks. Of one that is ``closed`` (disabled, or being deleted)
    nothing new is given out; what pods have of it stays theirs. ``manual``: only who names it gets of it.
    """

    name: str
    cidr: Net
    block: int
    node_selector: str = ""
    namespace_selector: str = ""
    closed: str = ""
    manual: bool = False
    created: str = ""
    uid: str = ""

    @property
    def family(self) -> Family:
        """4 or 6."""
        return self.cidr.version

    def block_of(self, address: Addr) -> Net:
        """The block that an address of the pool is in."""
        return ip_network((address, self.block), strict=False)

    def blocks(self, node: str, first: Sequence[Net] = ()) -> Iterator[Net]:
        """All its blocks once: those within ``first``, then the others from a place that is the node's own,
        so that nodes do not all try the same.
        """
        preferred = [net for net in first if net.version == self.family and net.overlaps(self.cidr)]
        for net in preferred:
            yield from (
                block
                for block in self._cut(max(net, self.cidr, key=lambda n: n.prefixlen))
                if block.overlaps(net)
            )
        number = 1 << (self.block - self.cidr.prefixlen)
        start = zlib.crc32(node.encode()) % number
        size = 1 << (self.cidr.max_prefixlen - self.block)
        for place in range(number):
            base = self.cidr.network_address + (start + place) % number * size
            block = ip_network((base, self.block))
            if not any(within(block, net) for net in preferred):
                yield block

    def _cut(self, net: Net) -> Iterator[Net]:
        if net.prefixlen >= self.block:
            yield ip_network((net.network_address, self.block), strict=False)
            return
        yield from net.subnets(new_prefix=self.block)


def read_pool(obj: Mapping[str, Any], selects: Selects) -> Pool | None:
    """A pool from its object; None for one that is not for pods. Raises BadBlock, naming the field."""
    meta, spec = obj.get("metadata") or {}, obj.get("spec")
    name = str(meta.get("name", ""))
    if not isinstance(spec, dict):
        raise BadBlock(name, "has no spec")
    uses = spec.get("allowedUses") or ["Workload", "Tunnel"]
    if "Workload" not in uses:
        return None
    try:
        cidr = ip_network(str(spec.get("cidr")))
    except ValueError as error:
        raise BadBlock(name, f"spec.cidr: {error}") from error
    size = spec.get("blockSize") or _BLOCK[cidr.version]
    least, most = _SIZES[cidr.version]
    if not isinstance(size, int) or not least <= size <= most:
        raise BadBlock(
            name, f"spec.blockSize must be from {least} to {most} for IPv{cidr.version}, not {size}"
        )
    if size < cidr.prefixlen:
        raise BadBlock(name, f"spec.blockSize {size} is larger than the pool {cidr}")
    for field in ("nodeSelector", "namespaceSelector"):
        try:
            selects(str(spec.get(field) or "all()"), {})
        except ValueError as error:
            raise BadBlock(name, f"spec.{field}: {error}") from error
    closed = "it is being deleted" if meta.get("deletionTimestamp") else ""
    return Pool(
        name=name,
        cidr=cidr,
        block=size,
        node_selector=str(spec.get("nodeSelector") or ""),
        namespace_selector=str(spec.get("namespaceSelector") or ""),
        closed=closed or ("it is disabled" if spec.get("disabled") else ""),
        manual=spec.get("assignmentMode") == "Manual",
        created=str(meta.get("creationTimestamp") or ""),
        uid=str(meta.get("uid") or ""),
    )


def check_pools(
    pools: Iterable[Pool], networks: Sequence[Net]
) -> tuple[tuple[Pool, ...], tuple[BadBlock, ...]]:
    """Those that can be used, and what is wrong with the others: of two that overlap, the younger is not
    used; none is outside of the cluster's ``networks``, where nothing is routed or masqueraded.
    """
    good: list[Pool] = []
    bad: list[BadBlock] = []
    for pool in sorted(pools, key=lambda p: (p.created, p.name)):
        other = next((p for p in good if p.family == pool.family and p.cidr.overlaps(pool.cidr)), None)
        if other is not None:
            bad.append(
                BadBlock(pool.name, f"spec.cidr {pool.cidr} overlaps pool {other.name} ({other.cidr})")
            )
        elif not any(within(pool.cidr, net) for net in networks):
            known = ", ".join(map(str, networks))
            bad.append(
                BadBlock(pool.name, f"spec.cidr {pool.cidr} is outside of the cluster's networks ({known})")
            )
        else:
            good.append(pool)
    return tuple(sorted(good, key=lambda p: p.name)), tuple(bad)


def eligible(
    pools: Iterable[Pool],
    family: Family,
    node: Labels,
    namespace: Labels,
    selects: Selects,
    named: Sequence[str] | None = None,
) -> tuple[Pool, ...]:
    """The pools that a pod may get an address of, in the order in which they are to be tried.

    ``named`` are those that its annotations name, by name or CIDR: they need not select its namespace, but
    its node they must. Raises BadBlock for a name that is no pool's, or one of the other family.
    """
    known = [pool for pool in pools if pool.family == family]
    if named is None:
        return tuple(
            pool
            for pool in known
            if not (pool.closed or pool.manual)
            and selects(pool.node_selector or "all()", node)
            and selects(pool.namespace_selector or "all()", namespace)
        )
    found = []
    for text in named:
        pool = next((p for p in known if text in (p.name, str(p.cidr))), None)
        if pool is None:
            other = next((p for p in pools if text in (p.name, str(p.cidr))), None)
            raise BadBlock(text, f"is a pool of IPv{other.family}" if other else f"is no IPv{family} pool")
        if pool.closed:
            raise BadBlock(text, f"gives out no address: {pool.closed}")
        if not selects(pool.node_selector or "all()", node):
            raise BadBlock(text, "does not select this node (spec.nodeSelector)")
        found.append(pool)
    return tuple(dict.fromkeys(found))
