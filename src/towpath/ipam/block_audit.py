"""What is wrong with block mode's objects as a whole: stale affinities, broken handles, orphans, leaks. Pure.

Agents finish what they begin, so that whoever looks must look twice: what is found both times is wrong.
"""

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping

import msgspec
from msgspec.structs import replace

from towpath.ipam.affinity import Affinity, Config, Handle
from towpath.ipam.audit import RunningPod
from towpath.ipam.block_plan import Demand, World, handle_of, reserve
from towpath.ipam.block_retire import counted, handles_on, retire
from towpath.ipam.block_writes import (
    Write,
    create_handle,
    delete_affinity,
    delete_handle,
    update_affinity,
    update_block,
    update_handle,
)
from towpath.ipam.blocks import Block, give
from towpath.ipam.errors import AddressError, BadBlock
from towpath.ipam.pools import Pool
from towpath.model.finding import Finding
from towpath.model.net import Addr, Net


class Objects(msgspec.Struct, frozen=True, kw_only=True):
    """All of the cluster's. ``affinities`` by name, ``handles`` by handle; ``bad`` are those that cannot be
    read or used, with their kinds; ``nodes`` by name. ``routed`` are, by node, the addresses that its kernel
    routes to somebody without a lease; a node that is not in it was not asked.
    """

    blocks: Mapping[Net, Block]
    affinities: Mapping[str, Affinity] = {}
    handles: Mapping[str, Handle] = {}
    pools: tuple[Pool, ...] = ()
    bad: tuple[tuple[str, BadBlock], ...] = ()
    nodes: frozenset[str] = frozenset()
    pods: tuple[RunningPod, ...] = ()
    routed: Mapping[str, frozenset[Addr]] = {}

    @property
    def certain(self) -> bool:
        """Whether all blocks could be read: else nothing can be said of counts."""
        return not any(kind == "ipamblocks" for kind, _ in self.bad)


class BlockProblem(msgspec.Struct, frozen=True, kw_only=True):
    """A finding, and the next write towards its end, if it can be mended from outside of the nodes."""

    finding: Finding
    addresses: tuple[Addr, ...] = ()
    write: Write | None = None


def audit_blocks(objects: Objects) -> tuple[BlockProblem, ...]:
    """Everything that is wrong, in the order of the codes."""
    found = [
        *_unreadable(objects),
        *_affinities(objects),
        *(_handles(objects) if objects.certain else ()),
        *_orphans(objects),
        *_leaks(objects),
        *_unmarked(objects),
        *_overlaps(objects),
    ]
    return tuple(sorted(found, key=lambda p: (p.finding.code, p.finding.object)))


def _unreadable(o: Objects) -> Iterator[BlockProblem]:
    for kind, bad in o.bad:
        code = "TP4032" if kind == "ippools" else "TP4031"
        yield _problem(code, f"{kind}/{bad.name}", bad.problem, f"kubectl edit {kind} {bad.name}")


def _affinities(o: Objects) -> Iterator[BlockProblem]:
    """Those that no block bears out, of nodes that are there."""
    for name, one in o.affinities.items():
        block = o.blocks.get(one.cidr)
        if one.node not in o.nodes or (not o.certain and block is None):
            continue
        if block is not None and block.node == one.node and one.state == "confirmed" and not one.deleted:
            continue
        if block is not None and block.node == one.node and not one.deleted:
            text = f"it is {one.state}, and its node does not go on with it"
            yield _problem("TP4040", f"BlockAffinity/{name}", text, f"restart the agent of node {one.node}")
            continue
        whose = "does not exist" if block is None else f"is {block.node or 'nobody'}'s"
        text = f"node {one.node} claims block {one.cidr}, which {whose}"
        stale = replace(one, deleted=True)
        write = delete_affinity(one) if one.deleted else update_affinity(stale, "it is stale")
        yield _problem("TP4040", f"BlockAffinity/{name}", text, _FIX, write=write)
    for cidr, block in o.blocks.items():
        known = any(a.cidr == cidr and a.node == block.node for a in o.affinities.values())
        if block.node in o.nodes and not known:
            text = f"block {cidr} is node {block.node}'s, and there is no BlockAffinity for it"
            yield _problem("TP4040", f"IPAMBlock/{cidr}", text, f"its agent makes it: look at {block.node}")


def _handles(o: Objects) -> Iterator[BlockProblem]:
    """Those that do not count what the blocks have. Orphans are told of as such."""
    gone = _lost(o)
    lost = {name for node in gone for name in handles_on(node, o.blocks)} | {handle_of(n) for n in gone}
    owned = {owner.handle for block in o.blocks.values() for owner in block.owners if owner.handle}
    for name in sorted((owned | o.handles.keys()) - lost):
        handle, counts = o.handles.get(name), counted(name, o.blocks)
        if handle is not None and dict(handle.counts) == counts and counts and not handle.deleted:
            continue
        if handle is None:
            if name == "windows-reserved-ipam-handle":
                continue
            text = f"{sum(counts.values())} addresses are its own, and there is no such IPAMHandle"
            made = Handle(handle=name, counts=counts)
            write = create_handle(made, "it counts what the blocks have")
        elif handle.deleted:
            text, write = "it was to be deleted, and is still there", delete_handle(handle)
        else:
            text = f"it counts {dict(handle.counts) or 'nothing'}, the blocks have {counts or 'nothing'}"
            after = replace(handle, counts=counts, deleted=not counts)
            write = update_handle(after, "it counts what the blocks have")
        yield _problem("TP4041", f"IPAMHandle/{name}", text, _FIX, write=write)


def _lost(o: Objects) -> list[str]:
    """Nodes that have blocks, addresses or a handle, no Node object, and by the API no pod."""
    named = {block.node for block in o.blocks.values()} | {one.node for one in o.affinities.values()}
    named |= {owner.about.get("node", "") for block in o.blocks.values() for owner in block.owners}
    named |= {name.removeprefix(handle_of("")) for name in o.handles if name.startswith(handle_of(""))}
    return sorted(named - {""} - o.nodes - {pod.node for pod in o.pods})


def _orphans(o: Objects) -> Iterator[BlockProblem]:
    for node in _lost(o):
        world = _world(o, node)
        known = handles_on(node, o.blocks)
        handles = {} if known else {h.handle: h for h in o.handles.values() if _is_broken(o, h)}
        held = sum(
            len(block.of(owner.handle))
            for block in o.blocks.values()
            for owner in block.owners
            if owner.about.get("node") == node
        )
        blocks = sum(1 for block in o.blocks.values() if block.node == node)
        text = f"it is no more, and has {blocks} blocks and {held} addresses"
        fix = "the agents of other nodes free them after five minutes; at once: towpath ipam check --fix"
        yield _problem("TP4042", f"Node/{node}", text, fix, write=retire(world, handles))


def _is_broken(o: Objects, handle: Handle) -> bool:
    return dict(handle.counts) != counted(handle.handle, o.blocks)


def _leaks(o: Objects) -> Iterator[BlockProblem]:
    """Addresses that are marked for a pod by name, as Calico's CNI does, and that it does not have."""
    pods = {pod.name: pod for pod in o.pods}
    lived_in = {address for pod in o.pods for address in pod.addresses}
    for block in o.blocks.values():
        for owner in block.owners:
            name = f"{owner.about.get('namespace', '')}/{owner.about.get('pod', '')}"
            if name.startswith("/") or name.endswith("/") or owner.about.get("node") not in o.nodes:
                continue
            pod, addresses = pods.get(name), block.of(owner.handle)
            if pod is not None and (not pod.addresses or set(addresses) & set(pod.addresses)):
                continue
            why = "is gone or over" if pod is None else f"has {', '.join(map(str, pod.addresses))}"
            text = f"{', '.join(map(str, addresses))} of block {block.cidr} is Pod/{name}'s, which {why}"
            fix = "Calico's controllers free it where they run; by hand: calicoctl ipam release --ip=ADDRESS"
            # Two proofs: the API server has no such pod, and its node's kernel leads to none of these.
            routed = o.routed.get(owner.about.get("node", ""))
            write = None
            if pod is None and routed is not None and not (routed | lived_in) & set(addresses):
                fix, free = _FIX, give(block, addresses, owner.handle)
                write = update_block(free, f"{len(addresses)} addresses of a pod that is gone are free")
            yield _problem("TP4043", f"IPAMHandle/{owner.handle}", text, fix, addresses, write)


def _unmarked(o: Objects) -> Iterator[BlockProblem]:
    """Addresses of pods that nothing keeps from being given to another."""
    for pod in o.pods:
        for address in pod.addresses:
            pool = next((p for p in o.pools if p.family == address.version and address in p.cidr), None)
            if pool is None or pod.leaving:
                continue
            block = next((b for c, b in o.blocks.items() if _is_in(address, c)), None)
            if block is not None and block.owner(address) is not None:
                continue
            if block is None and not o.certain:
                continue
            text = f"its address {address} is marked in no block: another pod may get it"
            write = None
            if pod.node in o.nodes:
                try:
                    write = reserve(_world(o, pod.node), Demand(pools=o.pools, address=address))
                except AddressError:
                    write = None
            yield _problem("TP4044", f"Pod/{pod.name}", text, _FIX, (address,), write)


def _overlaps(o: Objects) -> Iterator[BlockProblem]:
    for version in (4, 6):
        cidrs = sorted(
            (c for c in o.blocks if c.version == version), key=lambda c: (int(c.network_address), c.prefixlen)
        )
        for one, other in itertools.pairwise(cidrs):
            if one.overlaps(other):
                text = f"it overlaps block {other}: an address of both can be given out twice"
                fix = "drain the nodes of one of them, then delete that block and its affinity"
                yield _problem("TP4045", f"IPAMBlock/{one}", text, fix)


def _is_in(address: Addr, net: Net) -> bool:
    return address.version == net.version and address in net


_FIX = "towpath ipam check --fix"


def _world(o: Objects, node: str) -> World:
    return World(
        node=node,
        blocks=o.blocks,
        affinities={one.cidr: one for one in o.affinities.values() if one.node == node},
        handle=o.handles.get(handle_of(node)),
        config=Config(),
        skip=lambda _: False,
        sequence=max((block.sequence for block in o.blocks.values()), default=0) + 1,
    )


def _problem(
    code: str, what: str, text: str, fix: str, addresses: Iterable[Addr] = (), write: Write | None = None
) -> BlockProblem:
    severity = "error" if code in ("TP4044", "TP4045") else "warning"
    finding = Finding(code=code, object=what, message=text, fix=fix, severity=severity)  # type: ignore[arg-type]
    return BlockProblem(finding=finding, addresses=tuple(addresses), write=write)


def standing(before: Iterable[BlockProblem], after: Collection[BlockProblem]) -> list[BlockProblem]:
    """Those of ``after`` that were there before already."""
    known = {(p.finding.code, p.finding.object) for p in before}
    return [p for p in after if (p.finding.code, p.finding.object) in known]
