"""nftables of a fake namespace: applies an update to a copy, checks it, and keeps it only if all is well.

Rules are kept as text; what is checked of them is that sets and chains they name exist.
"""

import re
from collections.abc import Iterator
from errno import EBUSY, EEXIST, ENOENT, EOPNOTSUPP
from ipaddress import IPv4Network, IPv6Network

from msgspec.structs import replace

from towpath.kernel.nft_text import commands
from towpath.model.nft import Hook, Key, NftChain, NftSet, NftTable, Owner
from towpath.model.op import NftUpdate

_SET_NAME = re.compile(r"@([A-Za-z_][\w.\-]*)")
_CHAIN_NAME = re.compile(r"\b(?:goto|jump) ([A-Za-z_][\w.\-]*)")


class FakeNft:
    """Tables by name. ``tables`` is open to tests that play the vandal."""

    def __init__(self) -> None:
        self.tables: dict[str, NftTable] = {}

    def apply(self, update: NftUpdate) -> None:
        """All of ``update`` or nothing. Raises OSError; ValueError for what nft must not see."""
        commands(update)
        empty = NftTable(name=update.table)
        before = empty if update.recreate else self.tables.get(update.table, empty)
        sets, chains = dict(before.sets), dict(before.chains)
        for decl in update.add_sets:
            _declare_set(sets, decl)
        for name, hook in update.add_chains:
            _declare_chain(chains, name, hook)
        for decl, elements in update.del_elements:
            if (found := sets.get(decl.name)) is not None:
                kept = {key: data for key, data in found.elements.items() if key not in elements}
                sets[decl.name] = replace(found, elements=kept)
        for decl, elements in update.add_elements:
            # Of what passes by itself a listing tells nothing.
            sets[decl.name] = _with(sets, decl.name, {} if decl.timeout else elements)
        for chain in update.set_chains:
            _declare_chain(chains, chain.name, chain.hook)
            chains[chain.name] = replace(chains[chain.name], rules=chain.rules)
        removed_chains = {name for name in update.del_chains if chains.pop(name, None) is not None}
        removed_sets = {name for name in update.del_sets if sets.pop(name, None) is not None}
        _check(sets, chains, removed_sets, removed_chains)
        owner: Owner = "own" if update.own else before.owner
        self.tables[update.table] = NftTable(name=update.table, owner=owner, sets=sets, chains=chains)


def _declare_set(sets: dict[str, NftSet], decl: NftSet) -> None:
    found = sets.setdefault(decl.name, replace(decl, elements={}))
    if (found.key, found.data, found.interval) != (decl.key, decl.data, decl.interval):
        raise OSError(EEXIST, "File exists")


def _declare_chain(chains: dict[str, NftChain], name: str, hook: Hook | None) -> None:
    found = chains.setdefault(name, NftChain(name=name, hook=hook))
    if hook is None or hook == found.hook:
        return
    if found.hook is None or replace(hook, policy=found.hook.policy) != found.hook:
        raise OSError(EOPNOTSUPP, "Operation not supported")
    chains[name] = replace(found, hook=hook)


def _with(sets: dict[str, NftSet], name: str, elements: dict[Key, Key]) -> NftSet:
    if name not in sets:
        raise OSError(ENOENT, "No such file or directory")
    found = sets[name]
    merged = dict(found.elements)
    for key, data in elements.items():
        if merged.get(key, data) != data:
            raise OSError(EEXIST, "File exists")
        if found.interval and key not in merged and any(_overlap(key, other) for other in merged):
            raise OSError(EEXIST, "interval overlaps with an existing one")
        merged[key] = data
    return replace(found, elements=merged)


def _overlap(one: Key, other: Key) -> bool:
    """Whether two keys of an interval set have a value in common."""
    return all(_meet(a, b) for a, b in zip(one, other, strict=True))


def _meet(a: object, b: object) -> bool:
    if isinstance(a, IPv4Network | IPv6Network) and isinstance(b, IPv4Network | IPv6Network):
        return a.overlaps(b)
    if isinstance(a, int | tuple) and isinstance(b, int | tuple):
        (low, high), (bottom, top) = _range(a), _range(b)
        return low <= top and bottom <= high
    return a == b


def _range(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _check(
    sets: dict[str, NftSet], chains: dict[str, NftChain], removed_sets: set[str], removed_chains: set[str]
) -> None:
    for text in _references(sets, chains):
        for name in _SET_NAME.findall(text):
            if name not in sets:
                raise _missing(name in removed_sets)
        for name in _CHAIN_NAME.findall(text):
            if name not in chains:
                raise _missing(name in removed_chains)


def _references(sets: dict[str, NftSet], chains: dict[str, NftChain]) -> Iterator[str]:
    for chain in chains.values():
        yield from chain.rules
    for decl in sets.values():
        if decl.data == ("verdict",):
            yield from (str(data[0]) for data in decl.elements.values())


def _missing(removed: bool) -> OSError:
    return (
        OSError(EBUSY, "Device or resource busy") if removed else OSError(ENOENT, "No such file or directory")
    )
