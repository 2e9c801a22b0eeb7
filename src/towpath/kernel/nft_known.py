"""What is known of a table without looking: nobody changes a ruleset without moving its generation."""

from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_network

from msgspec.structs import replace

from towpath.model.nft import Field, Key, NftChain, NftSet, NftTable
from towpath.model.op import NftUpdate

# So many updates are kept before they are put together.
_MANY = 256


class Known:
    """The table as it was last seen, brought forward by our own updates while nobody else changed anything.

    Elements are shared with the updates they came by, so that a large set is not held twice.
    """

    def __init__(self) -> None:
        self._name = ""
        self._generation = -1
        self._table: NftTable | None = None
        self._since: list[NftUpdate] = []
        self._digests: dict[str, tuple[bytes, dict[Key, Key]]] = {}

    def at(self, name: str, generation: int) -> bool:
        """Whether ``table`` tells what table ``name`` is at ``generation``.

        Of one that somebody else owns it never does: that owner's end moves no generation.
        """
        foreign = self._table is not None and self._table.owner == "foreign"
        return name == self._name and generation == self._generation >= 0 and not foreign

    def table(self) -> NftTable | None:
        """The table; None: there is none."""
        if self._since:
            self._table = applied(self._table or NftTable(name=self._name), self._since)
            self._since = []
        return self._table

    def seen(self, name: str, table: NftTable | None, generation: int) -> None:
        """The table was seen; a negative generation: while something changed."""
        self._name, self._table, self._generation = name, table, generation
        self._since = []
        sets = table.sets if table is not None else {}
        self._digests = {name: known for name, known in self._digests.items() if name in sets}

    def moved(self, update: NftUpdate, transactions: int, generation: int) -> None:
        """``update`` was carried out, and ``generation`` is what there is after it.

        If it is not what so many transactions make of the one before, somebody else was there too.
        """
        if self._name != update.table or generation != self._generation + transactions:
            self._generation = -1
            self._since = []
            return
        self._generation = generation
        self._since.append(update)
        if len(self._since) >= _MANY:
            self.table()
        for decl, _ in (*update.add_elements, *update.del_elements):
            self._digests.pop(decl.name, None)

    def elements(self, decl: NftSet, digest: bytes, decode: Callable[[], dict[Key, Key]]) -> dict[Key, Key]:
        """The elements whose dump has this digest: those of last time, if it is the same."""
        known = self._digests.get(decl.name)
        if known is None or known[0] != digest:
            known = self._digests[decl.name] = (digest, decode())
        return known[1]


def applied(table: NftTable, updates: Iterable[NftUpdate]) -> NftTable:
    """What ``updates``, which the kernel accepted, have made of ``table``. A set is copied once for all."""
    state = _State(table)
    for update in updates:
        state.apply(update)
    return replace(state.table, sets=state.sets, chains=state.chains)


class _State:
    def __init__(self, table: NftTable) -> None:
        self.table, self.sets, self.chains = table, dict(table.sets), dict(table.chains)
        self._copied: dict[str, dict[Key, Key]] = {}

    def apply(self, update: NftUpdate) -> None:
        """In the order of execution."""
        if update.recreate:
            self.table, self.sets, self.chains, self._copied = NftTable(name=update.table), {}, {}, {}
        for decl in update.add_sets:
            self.sets.setdefault(decl.name, replace(decl, elements={}))
        for name, hook in update.add_chains:
            known = self.chains.setdefault(name, NftChain(name=name, hook=hook))
            self.chains[name] = replace(known, hook=hook or known.hook)
        for decl, elements in update.del_elements:
            kept = self._elements(decl.name) if not decl.timeout else {}
            for key in elements:
                kept.pop(listed_key(decl, key), None)
        for decl, elements in update.add_elements:
            if decl.timeout:
                continue
            more = {listed_key(decl, k): v for k, v in elements.items()} if decl.interval else elements
            self._elements(decl.name).update(more)
        for chain in update.set_chains:
            known = self.chains.get(chain.name, chain)
            self.chains[chain.name] = replace(chain, hook=chain.hook or known.hook)
        for name in update.del_chains:
            del self.chains[name]
        for name in update.del_sets:
            del self.sets[name]
            self._copied.pop(name, None)
        if update.own:
            self.table = replace(self.table, owner="own")

    def _elements(self, name: str) -> dict[Key, Key]:
        if name not in self._copied:
            self._copied[name] = dict(self.sets[name].elements)
            self.sets[name] = replace(self.sets[name], elements=self._copied[name])
        return self._copied[name]


def listed_key(decl: NftSet, key: Key) -> Key:
    """``key`` as it is listed: in interval sets an address is a network, a range of one port that port."""
    return tuple(map(_listed_field, key)) if decl.interval else key


def _listed_field(field: Field) -> Field:
    match field:
        case IPv4Address() | IPv6Address():
            return ip_network(field)
        case (low, high) if low == high:
            return low
    return field
