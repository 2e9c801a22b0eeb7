"""What is to be done about devices, and what that does to everything standing on them."""

import msgspec

from towpath.model.net import Address, Fdb, Link, Neighbour, Redirect, Route, Shaper, Vxlan
from towpath.model.op import AddLink, DelLink, Op, SetLink
from towpath.model.state import NetState, Scope

Item = Address | Route | Neighbour | Fdb | Shaper | Redirect


class LinkPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Operations on devices, in four groups, and their consequences.

    ``replaced``: deletions that must come first; ``added``; ``changed``; ``stale``: deletions that come last.
    ``usable``: devices that will be there and are what they should be: only what is on these is changed;
    ``gone``: those that lose everything they carry before the adds; ``flushed``: those whose neighbours are
    lost.
    """

    replaced: tuple[Op, ...]
    added: tuple[Op, ...]
    changed: tuple[Op, ...]
    stale: tuple[Op, ...]
    usable: frozenset[str]
    gone: frozenset[str]
    flushed: frozenset[str]

    def is_gone(self, item: Item) -> bool:
        """Whether an observed object will have vanished with its device before anything is added."""
        return not self.gone.isdisjoint(_devices(item))

    def bears(self, item: Item) -> bool:
        """Whether everything ``item`` stands on will be there."""
        return self.usable.issuperset(_devices(item))


def plan_links(observed: NetState, desired: NetState, scope: Scope) -> LinkPlan:
    """Compare devices. One that is wrong in kind is recreated if it is ours, and left alone if not."""
    replaced: list[Op] = []
    added: list[Op] = []
    changed: list[Op] = []
    usable = set(observed.links)
    for name, link in sorted(desired.links.items()):
        seen = observed.links.get(name)
        if seen is not None and not compatible(seen, link):
            if name not in scope.devices or foreign(seen, link):
                usable.discard(name)
                continue
            replaced.append(DelLink(name))
            seen = None
        if seen is not None:
            changed += _adjust(seen, link)
        elif link.kind is not None:
            added.append(AddLink(link))
            usable.add(name)
    stale = sorted(scope.devices & (observed.links.keys() - desired.links.keys()))
    usable -= set(stale)
    return LinkPlan(
        replaced=tuple(replaced),
        added=tuple(added),
        changed=tuple(changed),
        stale=tuple(DelLink(name) for name in stale),
        usable=frozenset(usable),
        gone=frozenset(op.name for op in replaced if isinstance(op, DelLink)),
        flushed=frozenset(op.name for op in changed if isinstance(op, SetLink) and op.mac is not None),
    )


def _devices(item: Item) -> tuple[str, ...]:
    return (item.dev, item.ifb) if isinstance(item, Redirect) else (item.dev,)


def compatible(seen: Link, wanted: Link) -> bool:
    """Whether ``seen`` can become ``wanted`` without being deleted.

    As flannel's test: VNI, port, local address, underlay and GBP of a VXLAN device. MTU and MAC can be
    changed in place, and learning matters to nobody whose entries are all permanent: a running ``flannel.1``
    of Canal's is adopted with its traffic, and ours by flanneld on the way back.
    """
    if wanted.kind is None:
        return True
    if isinstance(wanted.kind, Vxlan) and isinstance(seen.kind, Vxlan):
        a, b = seen.kind, wanted.kind
        return (a.vni, a.port, a.local, a.underlay, a.gbp) == (b.vni, b.port, b.local, b.underlay, b.gbp)
    return type(seen.kind) is type(wanted.kind)


def foreign(seen: Link, wanted: Link) -> bool:
    """Whether ``seen`` only has the name of a tunnel device of ours.

    It is ours, or flanneld's, if it is a VXLAN device of the VNI and has the MAC that this node is known by:
    then its endpoint or port is out of date. Somebody else's is not deleted to take its place.
    """
    if not isinstance(wanted.kind, Vxlan):
        return False
    if not isinstance(seen.kind, Vxlan) or seen.kind.vni != wanted.kind.vni:
        return True
    return not compatible(seen, wanted) and wanted.mac not in {None, seen.mac}


def _adjust(seen: Link, wanted: Link) -> list[Op]:
    mtu = wanted.mtu if wanted.mtu not in {0, seen.mtu} else None
    mac = wanted.mac if wanted.mac not in {None, seen.mac} else None
    up = wanted.up if wanted.up != seen.up else None
    change = SetLink(wanted.name, mtu=mtu, mac=mac, up=up)
    return [change] if change != SetLink(wanted.name) else []
