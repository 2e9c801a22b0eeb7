"""``towpath ipam check``, the part about block mode's objects, which are the cluster's and no node's."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from towpath.agent.addresses import running_pods
from towpath.agent.block_api import BlockApi
from towpath.ipam.affinity import Affinity, Handle, read_affinity, read_handle
from towpath.ipam.block_audit import BlockProblem, Objects, audit_blocks, standing
from towpath.ipam.blocks import Block, read_block
from towpath.ipam.errors import BadBlock
from towpath.ipam.pools import Pool, check_pools, read_pool
from towpath.kube.client import Client
from towpath.kube.errors import Forbidden, KubeError, NotFound
from towpath.kube.kinds import BLOCK_AFFINITIES, IP_POOLS, IPAM_BLOCKS, IPAM_HANDLES, NODES, PODS
from towpath.model.net import Addr, Net
from towpath.policy.selector_parse import parse_selector

NAME = "blocks"
_APART = 2.0
_MOST = 5_000


Routed = Mapping[str, frozenset[Addr]]
"""By node that was asked, the addresses that its kernel routes to somebody without a lease."""


async def check_blocks(client: Client, routed: Routed, *, fix: bool) -> dict[str, Any] | None:
    """One row for all of the cluster's blocks; None where there are none. Raises KubeError."""
    try:
        first = audit_blocks(await _read(client, routed))
    except NotFound:
        return None
    except Forbidden as error:
        return _row((), (), (), str(error))
    if not first:
        return _row((), (), (), "") if await _any(client) else None
    await asyncio.sleep(_APART)
    found = standing(first, audit_blocks(await _read(client, routed)))
    if not fix:
        return _row(found, found, (), "")
    done, refused = await _mend(client, routed, found)
    left = standing(found, audit_blocks(await _read(client, routed)))
    return _row(found, left, done, "; ".join(refused))


async def _mend(client: Client, routed: Routed, found: Sequence[BlockProblem]) -> tuple[list[str], list[str]]:
    """Write until nothing of what was found has a write left; each is made of what is there by then."""
    done: list[str] = []
    api = BlockApi(client, "")
    known = {(p.finding.code, p.finding.object) for p in found}
    # A handle whose addresses are freed here counts too many then.
    known |= {("TP4041", p.finding.object) for p in found if p.finding.code == "TP4043" and p.write}
    for _ in range(_MOST):
        there = audit_blocks(await _read(client, routed))
        todo = [p for p in there if p.write and (p.finding.code, p.finding.object) in known]
        # To mark an address takes two writes, and between them a handle counts more than there is.
        todo.sort(key=lambda p: p.finding.code != "TP4044")
        if not todo or todo[0].write is None:
            return done, []
        try:
            if await api.carry_out(todo[0].write):
                done.append(f"{todo[0].finding.code} {todo[0].write.describe()}")
        except KubeError as error:
            return done, [str(error)]
    return done, [f"more than {_MOST} writes"]


async def _any(client: Client) -> bool:
    return bool((await client.list(IP_POOLS)).items)


async def _read(client: Client, routed: Routed) -> Objects:
    bad: list[tuple[str, BadBlock]] = []
    blocks: dict[Net, Block] = {}
    affinities: dict[str, Affinity] = {}
    handles: dict[str, Handle] = {}
    pools: list[Pool] = []
    for kind, obj in [
        (each.plural, obj)
        for each in (IPAM_BLOCKS, BLOCK_AFFINITIES, IPAM_HANDLES, IP_POOLS)
        for obj in (await client.list(each)).items
    ]:
        try:
            match kind:
                case IPAM_BLOCKS.plural:
                    block = read_block(obj)
                    blocks[block.cidr] = block
                case BLOCK_AFFINITIES.plural:
                    affinities[obj["metadata"]["name"]] = read_affinity(obj)
                case IPAM_HANDLES.plural:
                    handle = read_handle(obj)
                    handles[handle.handle] = handle
                case _:
                    if pool := read_pool(obj, lambda text, found: parse_selector(text).matches(found)):
                        pools.append(pool)
        except BadBlock as error:
            bad.append((kind, error))
    good, wrong = check_pools(pools, [pool.cidr for pool in pools])
    nodes = (await client.list(NODES)).items
    pods = (await client.list(PODS)).items
    return Objects(
        blocks=blocks,
        affinities=affinities,
        handles=handles,
        pools=good,
        bad=(*bad, *((IP_POOLS.plural, one) for one in wrong)),
        nodes=frozenset(node.metadata.name for node in nodes),
        pods=running_pods(pods) or (),
        routed=routed,
    )


def _row(
    found: Sequence[BlockProblem], left: Sequence[BlockProblem], done: Sequence[str], error: str
) -> dict[str, Any]:
    return {
        "node": NAME,
        "error": error,
        "waiting": 0,
        "more": 0,
        "problems": [_plain(p) for p in found],
        "mended": list(done),
        "refused": [],
        "left": [_plain(p) for p in left],
    }


def _plain(one: BlockProblem) -> dict[str, Any]:
    return {
        "code": one.finding.code,
        "severity": one.finding.severity,
        "object": one.finding.object,
        "message": one.finding.message,
        "addresses": [str(address) for address in one.addresses],
        "fix": one.finding.fix,
        "mendable": one.write is not None,
    }
