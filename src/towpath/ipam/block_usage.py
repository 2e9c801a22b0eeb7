"""How full pools and blocks are: figures from values. Pure.

Nodes mark addresses before they need them, so that what is marked says too much: of a node's marks only
what its pods have is used, the rest is its spare. What each node's pods have it tells itself; of one that
does not, all its marks count.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping

from towpath.ipam.blocks import Block
from towpath.ipam.pools import Pool
from towpath.ipam.usage import Usage
from towpath.model.net import Addr, Net, within


def by_handle(block: Block) -> Counter[str]:
    """How many addresses each handle has of it."""
    return Counter(block.owners[index].handle for index in block.allocations if index is not None)


def pool_usage(
    pool: Pool,
    counts: Mapping[Net, Mapping[str, int]],
    leased: Mapping[str, int],
    overlay: int,
    kept: int,
) -> Usage:
    """A pool's figures.

    ``counts`` are ``by_handle`` of blocks; ``leased``, by nodes' handles, how many addresses of the pool
    their pods have, where that is known. ``overlay`` of its addresses are never given out; ``kept`` ones,
    that nobody has, only to those who ask by name. ``foreign`` are those that others' handles have.
    """
    marked: Counter[str] = Counter()
    for cidr, found in counts.items():
        if within(cidr, pool.cidr):
            marked.update(found)
    ours = {handle: min(number, leased[handle]) for handle, number in marked.items() if handle in leased}
    return Usage(
        range=str(pool.cidr),
        pool=pool.name,
        uid=pool.uid,
        size=max(0, pool.cidr.num_addresses - overlay),
        used=sum(ours.values()),
        foreign=sum(number for handle, number in marked.items() if handle not in ours),
        reserved=kept,
    )


def block_usage(
    block: Block,
    stock: Collection[Addr],
    *,
    mine: bool,
    skip: Callable[[Addr], bool],
    reserved: Callable[[Addr], bool],
    leased: Collection[Addr],
    rested: Collection[Addr],
    foreign: Collection[Addr],
) -> Usage:
    """What a node has of a block: of its own all that nobody else has taken, of another's what it borrowed.

    ``skip`` tells which are never given out, ``reserved`` which to those alone who ask by name.
    """
    open_ = {block.address(ordinal) for ordinal in block.free} if mine else set()
    whole = {address for address in open_ if not skip(address)} | set(stock)
    used = whole & set(leased)
    strangers = (whole & set(foreign)) - used
    return Usage(
        range=str(block.cidr),
        size=len(whole),
        used=len(used),
        held=len((whole & set(rested)) - used),
        foreign=len(strangers),
        reserved=sum(1 for address in whole - used - strangers if reserved(address)),
    )


def overlays(cidr: Net, length: int | None) -> int:
    """How many addresses of ``cidr`` are network addresses of prefixes of ``length``: overlay devices'."""
    if length is None:
        return 0
    if length >= cidr.prefixlen:
        return 1 << (length - cidr.prefixlen)
    return int(int(cidr.network_address) % (1 << (cidr.max_prefixlen - length)) == 0)


def kept_of(cidr: Net, reserved: Iterable[Net], blocks: Iterable[Block]) -> int:
    """How many reserved addresses of ``cidr`` nobody has."""
    nets = [net if within(net, cidr) else cidr for net in reserved if within(net, cidr) or within(cidr, net)]
    nets = [net for net in set(nets) if not any(net != other and within(net, other) for other in nets)]
    taken = sum(
        1
        for block in blocks
        if any(within(block.cidr, net) or within(net, block.cidr) for net in nets)
        for ordinal, index in enumerate(block.allocations)
        if index is not None and any(block.address(ordinal) in net for net in nets)
    )
    return max(0, sum(net.num_addresses for net in nets) - taken)
