"""Item by item, how an observed state falls short of a promised one: what CHECK and ``verify`` answer."""

from collections.abc import Callable, Collection, Hashable

from towpath.model.net import Address, Fdb, Link, Neighbour, Redirect, Route, Shaper, Vxlan
from towpath.model.nft import NftTable
from towpath.model.op import describe
from towpath.model.state import NetState
from towpath.reconcile.links import compatible, foreign
from towpath.reconcile.same import same_shaper

Item = Address | Route | Neighbour | Fdb | Shaper | Redirect


def differences(promised: NetState, observed: NetState) -> list[str]:
    """One sentence for each promised item that is missing or different; empty where all is as promised.

    What is there besides is nobody's broken promise and is not named.
    """
    found = [line for name, link in promised.links.items() for line in _link(link, observed.links.get(name))]
    found += _items(promised.addresses, observed.addresses, lambda a: (a.dev, a.interface), _by_key)
    found += _items(promised.routes, observed.routes, lambda r: (r.dst, r.table))
    found += _items(promised.neighbours, observed.neighbours, lambda n: (n.dev, n.addr))
    found += _items(promised.fdb, observed.fdb, lambda f: (f.dev, f.mac))
    found += _items(promised.shapers, observed.shapers, lambda s: s.dev, same_shaper)
    found += _items(promised.redirects, observed.redirects, lambda r: r.dev)
    for path, value in sorted(promised.sysctls.items()):
        seen = observed.sysctls.get(path)
        if seen != value:
            found.append(f"sysctl {path} is {seen if seen is not None else 'absent'}, promised {value}")
    return found + _table(promised.nft, observed.nft)


def missing_devices(observed: NetState, desired: NetState) -> list[str]:
    """Devices that are desired and missing and that reconciliation cannot make: pods' links."""
    return sorted(n for n, link in desired.links.items() if link.kind is None and n not in observed.links)


def foreign_devices(observed: NetState, desired: NetState) -> list[str]:
    """A sentence for each device that has the name of one of ours and is somebody else's."""
    found = []
    for name, link in sorted(desired.links.items()):
        seen = observed.links.get(name)
        if seen is not None and foreign(seen, link):
            mac = f" address {link.mac}" if link.mac else ""
            found.append(f"device {name} is {_kind(seen)} address {seen.mac}, ours is {_kind(link)}{mac}")
    return found


def _link(promised: Link, seen: Link | None) -> list[str]:
    name = promised.name
    if seen is None:
        return [f"link {name} is missing"]
    if not compatible(seen, promised):
        return [f"link {name} is {_kind(seen)}, promised {_kind(promised)}"]
    found = []
    if promised.mtu not in {0, seen.mtu}:
        found.append(f"mtu of {name} is {seen.mtu}, promised {promised.mtu}")
    if promised.mac not in {None, seen.mac}:
        found.append(f"address of {name} is {seen.mac}, promised {promised.mac}")
    if promised.up != seen.up:
        found.append(f"link {name} is {'up' if seen.up else 'down'}")
    return found


def _kind(link: Link) -> str:
    match link.kind:
        case None:
            return "of another kind"  # or a VXLAN device without an endpoint
        case Vxlan() as vx:
            gbp = " gbp" if vx.gbp else ""
            return f"vxlan id {vx.vni} local {vx.local} dev {vx.underlay} port {vx.port}{gbp}"
        case other:
            return type(other).__name__.lower()


def _by_key(_seen: object, _promised: object) -> bool:
    return True


def _items(
    promised: Collection[Item],
    observed: Collection[Item],
    key: Callable[..., Hashable],
    same: Callable[..., bool] = lambda a, b: a == b,
) -> list[str]:
    present: dict[Hashable, list[Item]] = {}
    for item in observed:
        present.setdefault(key(item), []).append(item)
    found = []
    for item in sorted(promised, key=repr):
        seen = present.get(key(item), [])
        if any(same(other, item) for other in seen):
            continue
        instead = f", there is {describe(seen[0])}" if seen else ""
        found.append(f"{describe(item)} is missing{instead}")
    return found


def _table(promised: NftTable | None, observed: NftTable | None) -> list[str]:
    if promised is None:
        return []
    if observed is None:
        return [f"table inet {promised.name} is missing"]
    found = []
    for name, decl in promised.sets.items():
        seen = observed.sets.get(name)
        if seen is None:
            found.append(f"set {name} is missing")
            continue
        for key, data in decl.elements.items():
            if key not in seen.elements:
                found.append(f"element {_text(key)} of {'map' if decl.data else 'set'} {name} is missing")
            elif seen.elements[key] != data:
                there = _text(seen.elements[key])
                found.append(f"element {_text(key)} of map {name} is {there}, promised {_text(data)}")
    for name, chain in promised.chains.items():
        if name not in observed.chains:
            found.append(f"chain {name} is missing")
        elif observed.chains[name] != chain:
            found.append(f"chain {name} differs")
    return found


def _text(key: tuple[object, ...]) -> str:
    return " . ".join(str(field) for field in key)
