"""What stands between a cluster and another way of giving out addresses: podCIDRs or blocks. Pure.

To blocks a node is moved by its agent's setting, and says so once what it has leased is marked. Back it may
go when nobody else has addresses or blocks of its podCIDRs, and its pods have none but of those: a node that
leaves (``LEAVING``) takes no others, and those that keep to their podCIDRs are not taken from.
"""

from collections.abc import Iterable, Mapping

import msgspec

from towpath.ipam.audit import RunningPod
from towpath.ipam.blocks import Block
from towpath.ipam.pools import Pool
from towpath.model.net import Addr, Family, Net, within


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A node. ``says`` is the mode on its Node, ``runs`` its agent's (``blocks``, ``podCIDR``), empty where
    there is none.
    """

    name: str
    says: str = ""
    runs: str = ""
    pod_cidrs: tuple[Net, ...] = ()


def lacking(pools: Iterable[Pool], networks: Iterable[Net]) -> list[str]:
    """Of which families pods would get no address any more, a sentence each."""
    usable: set[Family] = {pool.family for pool in pools if not (pool.closed or pool.manual)}
    found = []
    for net in networks:
        if net.version not in usable:
            text = f"no IPPool for pods lies in {net}: they would get no IPv{net.version} address"
            found.append(f"{text}; make one")
    return found


def in_the_way(node: Standing, blocks: Mapping[Net, Block], pods: Iterable[RunningPod]) -> list[str]:
    """Why a node cannot go back to its podCIDRs yet, a sentence each: what has to be restarted, or waits."""
    found = []
    known = list(pods)
    names: dict[Addr, RunningPod] = {address: pod for pod in known for address in pod.addresses}
    for pod in known:
        if pod.node != node.name:
            continue
        outside = [a for a in pod.addresses if not any(_is_in(a, net) for net in node.pod_cidrs)]
        if outside:
            words = ", ".join(map(str, outside))
            found.append(f"Pod/{pod.name} has {words}, outside of the node's podCIDRs: restart it")
    for block in blocks.values():
        if not any(within(block.cidr, net) or within(net, block.cidr) for net in node.pod_cidrs):
            continue
        theirs = list(_others(block, node))
        for address in theirs:
            owner = names.get(address)
            if owner is not None:
                found.append(f"Pod/{owner.name} of Node/{owner.node} has {address}: restart it")
        spare = sum(1 for address in theirs if address not in names)
        if spare:
            found.append(f"{spare} addresses of block {block.cidr} are others' and no pod's: wait, or check")
        elif not theirs and block.node not in ("", node.name):
            found.append(f"block {block.cidr} is Node/{block.node}'s: it gives it up by itself")
    return found


def _others(block: Block, node: Standing) -> Iterable[Addr]:
    """What of a block somebody else has, of the node's podCIDRs."""
    for ordinal, index in enumerate(block.allocations):
        address = block.address(ordinal)
        if index is None or block.owners[index].about.get("node") == node.name:
            continue
        if any(_is_in(address, net) for net in node.pod_cidrs):
            yield address


def _is_in(address: Addr, net: Net) -> bool:
    return address.version == net.version and address in net
