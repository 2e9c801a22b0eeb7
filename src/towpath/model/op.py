"""Effects as values. ``reconcile`` makes them, ``kernel.apply`` is the only place that executes them.

Every operation is idempotent in the direction it names: adding what is there (and equal) and deleting what
is gone both succeed. ``describe()`` is what logs, plans and CHECK answers show.
"""

import msgspec

from towpath.model.net import Addr, Address, Fdb, Link, Neighbour, Redirect, Route, Shaper, Veth, Vxlan
from towpath.model.nft import Hook, Key, NftChain, NftSet


class AddLink(msgspec.Struct, frozen=True, tag=True):
    """Create a device and set it up. For a veth the applier must have been given the pod's namespace."""

    link: Link

    def describe(self) -> str:
        """One line for people."""
        match self.link.kind:
            case Vxlan() as vx:
                detail = f" vxlan id {vx.vni} local {vx.local} dev {vx.underlay} port {vx.port}"
            case Veth() as veth:
                detail = f" veth peer {veth.peer}"
            case _:
                detail = ""
        return f"add link {self.link.name}{detail} mtu {self.link.mtu}"


class SetLink(msgspec.Struct, frozen=True, tag=True):
    """Change mtu, mac or up/down of an existing device; None leaves a property alone."""

    name: str
    mtu: int | None = None
    mac: str | None = None
    up: bool | None = None

    def describe(self) -> str:
        """One line for people."""
        changes = [f"mtu {self.mtu}"] if self.mtu is not None else []
        changes += [f"address {self.mac}"] if self.mac is not None else []
        changes += ["up" if self.up else "down"] if self.up is not None else []
        return f"set link {self.name} {' '.join(changes)}"


class DelLink(msgspec.Struct, frozen=True, tag=True):
    """Delete a device."""

    name: str

    def describe(self) -> str:
        """One line for people."""
        return f"delete link {self.name}"


class Add(msgspec.Struct, frozen=True, tag=True):
    """Add or replace an address, route, neighbour, fdb entry, shaper or redirect."""

    item: Address | Route | Neighbour | Fdb | Shaper | Redirect

    def describe(self) -> str:
        """One line for people."""
        return f"add {describe(self.item)}"


class Delete(msgspec.Struct, frozen=True, tag=True):
    """Delete an address, route, neighbour, fdb entry, shaper or redirect; gone already is success."""

    item: Address | Route | Neighbour | Fdb | Shaper | Redirect

    def describe(self) -> str:
        """One line for people."""
        return f"delete {describe(self.item)}"


class SetSysctl(msgspec.Struct, frozen=True, tag=True):
    """Write ``value`` to ``path`` below /proc/sys."""

    path: str
    value: str

    def describe(self) -> str:
        """One line for people."""
        return f"set sysctl {self.path.replace('/', '.')}={self.value}"


class NftUpdate(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """One nftables transaction on table ``inet TABLE``: all of it takes effect, or none.

    A packet under way follows the old rules to their end, and finds the new elements: where it asks for one
    that goes with this transaction it is treated as if it had come a moment later (``nft_removal``).

    Order of execution: create the table if absent, ``add_sets``, ``add_chains`` (declared), ``del_elements``,
    ``add_elements``, ``set_chains`` (flush and refill), ``del_chains``, ``del_sets``. ``add_sets`` carry no
    elements; the elements are in ``add_elements``. A deleted element that is absent already is no error.

    ``add_chains`` are not there yet (or get another policy), so that no packet comes by those without a hook
    before an element or another chain leads there: a large update is cut with that in mind.

    ``recreate``: the table is deleted first, in the same transaction. Nothing else can change a set's type or
    a base chain's hook; needed only where a foreign hand or another release has left such a thing. Nor can
    anything else give a table without flags an owner.

    ``own``: this process becomes the table's owner, with the flags owner and persist (Linux 6.9): nobody else
    can change or flush it from then on, and it outlives the process. With ``recreate`` it takes several
    transactions, and the table's double stands in meanwhile.
    """

    table: str
    recreate: bool = False
    own: bool = False
    add_sets: tuple[NftSet, ...] = ()
    add_chains: tuple[tuple[str, Hook | None], ...] = ()
    add_elements: tuple[tuple[NftSet, dict[Key, Key]], ...] = ()
    del_elements: tuple[tuple[NftSet, dict[Key, Key]], ...] = ()
    set_chains: tuple[NftChain, ...] = ()
    del_chains: tuple[str, ...] = ()
    del_sets: tuple[str, ...] = ()

    def describe(self) -> str:
        """One line for people."""
        parts = ["recreate"] if self.recreate else []
        parts += ["own"] if self.own else []
        parts += [f"+set {s.name}" for s in self.add_sets]
        parts += [f"-{len(e)} of {s.name}" for s, e in self.del_elements]
        parts += [f"+{len(e)} in {s.name}" for s, e in self.add_elements]
        parts += [f"chain {c.name} ({len(c.rules)} rules)" for c in self.set_chains]
        parts += [f"-chain {c}" for c in self.del_chains] + [f"-set {s}" for s in self.del_sets]
        return f"nft inet {self.table}: {', '.join(parts) or 'create'}"


class FlushConntrack(msgspec.Struct, frozen=True, tag=True):
    """Delete conntrack entries with ``addr`` as original source or destination, or reply source.

    ``protocol`` an IP protocol number, 0 for all.
    """

    addr: Addr
    protocol: int = 0

    def describe(self) -> str:
        """One line for people."""
        return f"flush conntrack of {self.addr}{f' protocol {self.protocol}' if self.protocol else ''}"


Op = AddLink | SetLink | DelLink | Add | Delete | SetSysctl | NftUpdate | FlushConntrack


def describe(item: Address | Route | Neighbour | Fdb | Shaper | Redirect) -> str:
    """An object as an operator would type it after ``ip`` or ``tc``."""
    match item:
        case Address():
            return f"address {item.interface} dev {item.dev}"
        case Route():
            via = f" via {item.via}" if item.via else ""
            return f"route {item.dst}{via} dev {item.dev}{' onlink' if item.onlink else ''}"
        case Neighbour():
            return f"neighbour {item.addr} lladdr {item.mac} dev {item.dev}"
        case Fdb():
            return f"fdb {item.mac} dst {item.dst} dev {item.dev}"
        case Shaper():
            return f"tbf dev {item.dev} rate {item.rate}bit burst {item.burst}bit"
        case Redirect():
            return f"redirect {item.dev} to {item.ifb}"
