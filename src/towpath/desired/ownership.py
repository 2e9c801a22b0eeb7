"""Which node has which part of the pod network: podCIDRs, and blocks and addresses cut out of them. Pure.

Without blocks a node has its podCIDR. A block is its node's whatever podCIDR it lies in, and an address that
a node has borrowed of another's block is the borrower's: the most specific statement counts, as in routing.
"""

from collections.abc import Iterable, Mapping

from towpath.model.net import Net, within

Holdings = Mapping[str, tuple[Net, ...]]
"""By node, the blocks that it has and the addresses that it has of others' blocks."""


def parts(node: str, subnet: Net, holdings: Holdings) -> tuple[Net, ...]:
    """What is a node's of the family of its podCIDR ``subnet``, as networks that do not overlap."""
    if not holdings:
        return (subnet,)
    others = [
        net
        for name, nets in holdings.items()
        if name != node
        for net in nets
        if net.version == subnet.version
    ]
    own = [net for net in holdings.get(node, ()) if net.version == subnet.version]
    found: list[Net] = []
    for whole in (subnet, *own):
        # A block inside of the own podCIDR is part of it already, but what others have of it is cut out.
        inside = any(whole != other and within(whole, other) for other in (subnet, *own))
        if inside and not any(within(whole, other) for other in others):
            continue
        if whole not in found:
            found += _less(whole, others)
    return tuple(sorted(set(found), key=lambda n: (int(n.network_address), n.prefixlen)))


def _less(whole: Net, others: Iterable[Net]) -> list[Net]:
    """``whole`` without those of ``others`` that lie in it."""
    pieces = [whole]
    for other in others:
        if other == whole or not within(other, whole):
            continue
        left: list[Net] = []
        for piece in pieces:
            if within(other, piece):
                left += piece.address_exclude(other)  # type: ignore[arg-type]
            elif not within(piece, other):
                left.append(piece)
        pieces = left
    return pieces


def beyond(node: str, subnet: Net, holdings: Holdings) -> tuple[Net, ...]:
    """What of a node's a route to its podCIDR does not lead to, or leads elsewhere for another's block."""
    own = [net for net in holdings.get(node, ()) if net.version == subnet.version]
    return tuple(
        net
        for net in own
        if not within(net, subnet)
        or any(
            net != other and within(net, other)
            for name, nets in holdings.items()
            if name != node
            for other in nets
        )
    )
