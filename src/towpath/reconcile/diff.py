"""The difference between an observed and a desired state, as operations in an order that breaks nothing.

Order: the firewall (one transaction; what it does not know it drops), devices, sysctls, then everything that
stands on devices from the bottom up (addresses, neighbours, forwarding entries, routes, shaping), then
deletions from the top down, devices last. A peer that moved is thus reachable by its new way before the old
one goes. Only what cannot coexist with its successor is deleted first: a device of ours with parameters the
kernel cannot change.
"""

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

from towpath.model.net import (
    RT_TABLE_MAIN,
    Address,
    Fdb,
    Ifb,
    Neighbour,
    Net,
    Redirect,
    Route,
    Shaper,
    within,
)
from towpath.model.op import Add, Delete, Op, SetSysctl
from towpath.model.state import NetState, Scope
from towpath.reconcile.links import LinkPlan, plan_links
from towpath.reconcile.onlink import stepping_stones
from towpath.reconcile.same import connected, same_shaper
from towpath.reconcile.tables import diff_table

Item = TypeVar("Item", Address, Route, Neighbour, Fdb, Shaper, Redirect)
Change = tuple[list[Op], list[Op]]


def diff(observed: NetState, desired: NetState, scope: Scope) -> tuple[Op, ...]:
    """Operations that turn ``observed`` into ``desired`` and delete within ``scope`` what is not desired.

    Converges: on the state the operations lead to, the answer is empty. What stands on a device that is
    missing and that nobody can make here (a pod's link) is left out; ``reconcile.check.missing_devices``
    names those. ``desired.nft`` None leaves the table alone.
    """
    plan = plan_links(observed, desired, scope)
    kinds = [
        _addresses(observed, desired, scope, plan),
        _neighbours(observed, desired, scope, plan),
        _fdb(observed, desired, scope, plan),
        _routes(observed, desired, scope, plan),
        _shapers(observed, desired, scope, plan),
        _redirects(observed, desired, scope, plan),
    ]
    table = diff_table(observed.nft, desired.nft)
    return (
        *([table] if table is not None else []),
        *plan.replaced,
        *plan.added,
        *_sysctls(observed, desired, plan),
        *plan.changed,
        *(op for adds, _ in kinds for op in adds),
        *(op for _, deletes in reversed(kinds) for op in deletes),
        *plan.stale,
    )


def _addresses(observed: NetState, desired: NetState, scope: Scope, plan: LinkPlan) -> Change:
    def ours(item: Address) -> bool:
        return item.dev in scope.devices and not item.interface.is_link_local

    # The scope of an address cannot be changed in place and decides nothing here: it is no difference.
    return _change(observed.addresses, desired.addresses, lambda a: (a.dev, a.interface), ours, plan, _by_key)


def _neighbours(observed: NetState, desired: NetState, scope: Scope, plan: LinkPlan) -> Change:
    def ours(item: Neighbour) -> bool:
        return _device_ours(item.dev, desired, scope)

    kept = observed.neighbours
    if plan.flushed:  # a changed MAC costs the device its neighbours, permanent ones included
        kept = frozenset(item for item in kept if item.dev not in plan.flushed)
    return _change(kept, desired.neighbours, lambda n: (n.dev, n.addr), ours, plan)


def _fdb(observed: NetState, desired: NetState, scope: Scope, plan: LinkPlan) -> Change:
    def ours(item: Fdb) -> bool:
        return item.dev in scope.devices

    return _change(observed.fdb, desired.fdb, lambda f: (f.dev, f.mac), ours, plan)


def _routes(observed: NetState, desired: NetState, scope: Scope, plan: LinkPlan) -> Change:
    made_by_kernel: frozenset[tuple[Net, str]] | None = None

    def ours(item: Route) -> bool:
        nonlocal made_by_kernel
        if made_by_kernel is None:
            made_by_kernel = connected(observed.addresses | desired.addresses)
        if (item.dst, item.dev) in made_by_kernel and item.via is None:
            return False
        if item.dst.is_link_local or item.dst.is_multicast:
            return False
        if _device_ours(item.dev, desired, scope):
            return True
        through = item.via is not None and item.table == RT_TABLE_MAIN
        return through and any(within(item.dst, net) for net in scope.networks)

    adds, deletes = _change(observed.routes, desired.routes, lambda r: (r.dst, r.table), ours, plan)
    if adds:
        stones = stepping_stones(
            [op.item for op in adds if isinstance(op, Add) and isinstance(op.item, Route)],
            [route for route in observed.routes if not plan.is_gone(route)],
        )
        adds += [Add(stone) for stone in stones]
        deletes += [Delete(stone) for stone in stones]
    # A gateway must be reachable before a route may lead through it.
    adds.sort(key=lambda op: isinstance(op, Add) and isinstance(op.item, Route) and op.item.via is not None)
    return adds, deletes


def _shapers(observed: NetState, desired: NetState, scope: Scope, plan: LinkPlan) -> Change:
    def ours(item: Shaper) -> bool:
        return _shaped_by_us(item.dev, desired, scope)

    return _change(observed.shapers, desired.shapers, lambda s: s.dev, ours, plan, same_shaper)


def _redirects(observed: NetState, desired: NetState, scope: Scope, plan: LinkPlan) -> Change:
    def ours(item: Redirect) -> bool:
        return _shaped_by_us(item.dev, desired, scope)

    return _change(observed.redirects, desired.redirects, lambda r: r.dev, ours, plan)


def _sysctls(observed: NetState, desired: NetState, plan: LinkPlan) -> list[Op]:
    ops: list[Op] = []
    for path, value in sorted(desired.sysctls.items()):
        dev = sysctl_device(path)
        if dev is not None and dev not in plan.usable:
            continue
        if dev in plan.gone or observed.sysctls.get(path) != value:
            ops.append(SetSysctl(path, value))
    return ops


def sysctl_device(path: str) -> str | None:
    """The device a sysctl below ``net/ipvN/conf`` or ``neigh`` belongs to; None where it belongs to none."""
    parts = path.split("/")
    if len(parts) == 5 and parts[2] in {"conf", "neigh"} and parts[3] not in {"all", "default"}:
        return parts[3]
    return None


def _device_ours(dev: str, desired: NetState, scope: Scope) -> bool:
    # Pod links nobody has told us about may be another agent's (Canal's, not adopted yet) or an ADD's that
    # is under way: theirs is theirs until desired knows the link.
    return dev in scope.devices or (dev.startswith(scope.pod_prefix) and dev in desired.links)


def _shaped_by_us(dev: str, desired: NetState, scope: Scope) -> bool:
    # A pod's limits are fixed when it is attached. What else shapes its link, a plugin behind us in the chain
    # (Debian's bandwidth) or an operator has put there.
    link = desired.links.get(dev)
    return dev in scope.devices or (link is not None and isinstance(link.kind, Ifb))


def _by_key(_observed: object, _desired: object) -> bool:
    return True


def _change(
    observed: frozenset[Item],
    desired: frozenset[Item],
    key: Callable[[Item], Hashable],
    ours: Callable[[Item], bool],
    plan: LinkPlan,
    same: Callable[[Item, Item], bool] = lambda a, b: a == b,
) -> Change:
    """Adds and deletes of one kind. Add replaces what holds the same ``key``, so that is not deleted.

    Set differences first: they use the hashes the sets have stored, and thousands of peers' entries are not
    looked at one by one when nothing has changed.
    """
    lacking = {item for item in desired - observed if plan.bears(item)}
    if plan.gone:
        lacking |= {item for item in desired & observed if plan.is_gone(item) and plan.bears(item)}
    extra: dict[Hashable, list[Item]] = {}
    for item in observed - desired:
        if not plan.is_gone(item):
            extra.setdefault(key(item), []).append(item)
    adds: list[Item] = []
    settled: set[Hashable] = set()
    for item in lacking:
        place = key(item)
        twin = next((other for other in extra.get(place, ()) if same(other, item)), None)
        if twin is None:
            adds.append(item)
            settled.add(place)
        else:
            extra[place].remove(twin)
    deletes = [
        item
        for place, items in extra.items()
        if place not in settled
        for item in items
        if item.dev in plan.usable and ours(item)
    ]
    return [Add(i) for i in _ordered(adds)], [Delete(i) for i in _ordered(deletes)]


def _ordered(items: Iterable[Item]) -> list[Item]:
    return sorted(items, key=repr)
