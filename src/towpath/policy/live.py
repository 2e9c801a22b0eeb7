"""The program as it is, and what has changed of it since it was last told."""

from collections.abc import Iterable

from msgspec.structs import replace

from towpath.model.nft import Key, NftChain, NftSet
from towpath.model.op import NftUpdate

VERDICT = ("verdict",)


class _Record:
    """``told``: somebody knows the program, so that changes count. ``maps``: those changed since."""

    __slots__ = ("maps", "told")

    def __init__(self) -> None:
        self.told = False
        self.maps: dict[LiveMap, None] = {}


class LiveMap:
    """A map's elements, which are read freely and changed by ``set`` only."""

    __slots__ = ("_before", "_record", "decl", "elements")

    def __init__(self, decl: NftSet, record: _Record) -> None:
        self.decl = decl
        self.elements: dict[Key, Key] = {}
        self._record = record
        self._before: dict[Key, Key | None] = {}

    def set(self, key: Key, data: Key | None) -> None:
        """``data`` None: no such element."""
        if self._record.told:
            old = self.elements.get(key)
            if old == data:
                return
            self._before.setdefault(key, old)
            self._record.maps[self] = None
        if data is None:
            self.elements.pop(key, None)
        else:
            self.elements[key] = data

    def set_all(self, keys: Iterable[Key], data: Key | None) -> None:
        """Many elements, all with the same data."""
        if self._record.told or data is None:
            for key in keys:
                self.set(key, data)
        else:
            self.elements.update(dict.fromkeys(keys, data))

    def clear(self) -> None:
        """No elements."""
        for key in list(self.elements):
            self.set(key, None)

    def changes(self) -> tuple[dict[Key, Key], dict[Key, Key]]:
        """What is gone and what is new; an element that has other data is both."""
        gone: dict[Key, Key] = {}
        come: dict[Key, Key] = {}
        for key, old in self._before.items():
            new = self.elements.get(key)
            if old == new:
                continue
            if old is not None:
                gone[key] = old
            if new is not None:
                come[key] = new
        return gone, come

    def told(self) -> None:
        """What is, is known."""
        self._before = {}

    def snapshot(self) -> NftSet:
        """As a value."""
        return replace(self.decl, elements=dict(self.elements))


class LiveProgram:
    """``fixed`` maps are always there, others come and go."""

    def __init__(self, table: str, fixed: tuple[NftSet, ...], apart: tuple[NftSet, ...]) -> None:
        """``apart``: maps that somebody else declares, of which only our elements count."""
        self._table = table
        self._record = _Record()
        self.maps = {decl.name: LiveMap(decl, self._record) for decl in fixed}
        self.apart = {decl.name: LiveMap(decl, self._record) for decl in apart}
        self.chains: dict[str, NftChain] = {}
        self._new: dict[str, LiveMap] = {}  # maps that nobody knows of
        self._gone: dict[str, LiveMap] = {}  # maps that are still known of
        self._old_chains: dict[str, NftChain | None] = {}

    def add_map(self, decl: NftSet) -> LiveMap:
        """A map, empty. Its name must not be in use."""
        found = self._gone.pop(decl.name, None)
        if found is None:
            found = LiveMap(decl, self._record)
            self._new[decl.name] = found
        self.maps[decl.name] = found
        return found

    def remove_map(self, name: str) -> None:
        """It is not needed any more."""
        gone = self.maps.pop(name)
        gone.clear()
        if self._new.pop(name, None) is None:
            self._gone[name] = gone

    def set_chain(self, name: str, rules: tuple[str, ...] | None) -> None:
        """``rules`` None: no such chain."""
        old = self.chains.get(name)
        if (old.rules if old is not None else None) == rules:
            return
        if self._record.told:
            self._old_chains.setdefault(name, old)
        if rules is None:
            del self.chains[name]
        else:
            self.chains[name] = NftChain(name=name, rules=rules)

    def told(self) -> None:
        """The present state is known; what is told next are the differences to it."""
        self._record.told = True
        for live in self._record.maps:
            live.told()
        self._record.maps = {}
        self._new, self._gone, self._old_chains = {}, {}, {}

    def update(self) -> NftUpdate | None:
        """The transaction from what was told last, at first from nothing, to what is; None for none."""
        if not self._record.told:
            return self._everything()
        gone_elements, new_elements = [], []
        for live in self._record.maps:
            gone, come = live.changes()
            # A verdict in a map that goes would hold its chain, which may go as well.
            if gone and (live.decl.name not in self._gone or live.decl.data == VERDICT):
                gone_elements.append((live.decl, gone))
            if come:
                new_elements.append((live.decl, come))
        changed, fresh, removed = [], [], []
        for name, old in self._old_chains.items():
            chain = self.chains.get(name)
            if chain is not None and chain != old:
                changed.append(chain)
                if old is None:
                    fresh.append((name, None))
            elif chain is None and old is not None:
                removed.append(name)
        update = NftUpdate(
            table=self._table,
            add_sets=tuple(live.decl for live in self._new.values()),
            add_chains=tuple(fresh),
            add_elements=tuple(new_elements),
            del_elements=tuple(gone_elements),
            set_chains=tuple(changed),
            del_chains=tuple(removed),
            del_sets=tuple(self._gone),
        )
        return update if update != NftUpdate(table=self._table) else None

    def _everything(self) -> NftUpdate:
        filled = [live for live in (*self.maps.values(), *self.apart.values()) if live.elements]
        return NftUpdate(
            table=self._table,
            add_sets=tuple(live.decl for live in self.maps.values()),
            add_chains=tuple((name, None) for name in self.chains),
            add_elements=tuple((live.decl, dict(live.elements)) for live in filled),
            set_chains=tuple(self.chains.values()),
        )
