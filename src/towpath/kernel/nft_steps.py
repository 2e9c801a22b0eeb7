"""The order in which elements come and go, for whoever writes it down: as text or as messages.

Every step is indivisible, and the steps are in an order that is safe to cut, should a transaction be too
large for the socket: new sets, which no rule uses yet, are filled first; then come additions, then removals.
What leaves an interval set leaves before, since what comes may overlap it.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple

from msgspec.structs import replace

from towpath.model.nft import Key, NftChain, NftSet
from towpath.model.op import NftUpdate

# Elements a change: cut as fine as this where a transaction has to be cut.
CHUNK = 500
# An update of this many elements is a mass load: a table's first, mostly.
_MANY = 1000


class Change(NamedTuple):
    """Elements of one set that come or go. Those that go, go by key, whatever a map holds there."""

    verb: Literal["add", "delete"]
    decl: NftSet
    elements: list[tuple[Key, Key]]


def additions(update: NftUpdate) -> Iterator[tuple[Change, ...]]:
    """What has to happen before rules that use it: additions, and what must make room for them."""
    fresh = {decl.name for decl in update.add_sets}
    for wanted in (fresh.__contains__, lambda name: name not in fresh):
        yield from _removals(update, plain=False, wanted=wanted)
        yield from _additions(update, wanted)


def removals(update: NftUpdate) -> Iterator[tuple[Change, ...]]:
    """What may happen after it: removals from hash sets, less the keys whose data is replaced."""
    return _removals(update, plain=True, wanted=lambda _: True)


def split(
    update: NftUpdate, plain: Callable[[NftSet | NftChain], bool]
) -> tuple[NftUpdate, NftUpdate, NftUpdate] | None:
    """What libnftables declares before; what goes straight; what libnftables does after. None: not to be cut.

    libnftables lists all elements of the table before it adds or removes any, so that elements had better
    be sent without it. New sets, and new chains, to which only elements or chains lead, can be made before.
    Chains that packets pass already change in one transaction with their elements, unless nothing is removed
    and the update is a mass load: then old rules meet more elements for a moment, and new ones never fewer.
    """
    nothing = NftUpdate(table=update.table)
    if update.recreate or not (update.add_elements or update.del_elements or update.set_chains):
        return None
    new = {chain for chain, hook in update.add_chains if hook is None}
    hooked = tuple(item for item in update.add_chains if item[1] is not None)
    passed = [chain for chain in update.set_chains if chain.name not in new]
    declared = replace(
        nothing,
        add_sets=update.add_sets,
        add_chains=tuple(item for item in update.add_chains if item[1] is None),
        set_chains=tuple(chain for chain in update.set_chains if chain.name in new),
    )
    straight = replace(
        nothing,
        add_elements=update.add_elements,
        del_elements=update.del_elements,
        set_chains=tuple(chain for chain in passed if plain(chain)),
    )
    rest = tuple(chain for chain in passed if not plain(chain))
    many = sum(len(members) for _, members in update.add_elements) >= _MANY
    if (hooked or rest) and (not many or update.del_elements or straight.set_chains):
        return None
    if all(map(plain, declared.add_sets)) and all(map(plain, declared.set_chains)):
        straight = replace(
            straight,
            add_sets=declared.add_sets,
            add_chains=declared.add_chains,
            set_chains=(*declared.set_chains, *straight.set_chains),
        )
        declared = nothing
    if not (hooked or rest):
        return declared, replace(straight, del_chains=update.del_chains, del_sets=update.del_sets), nothing
    last = replace(nothing, add_chains=hooked, set_chains=rest, del_chains=update.del_chains)
    return declared, straight, replace(last, del_sets=update.del_sets)


def _additions(update: NftUpdate, wanted: Callable[[str], bool]) -> Iterator[tuple[Change, ...]]:
    """Additions to the ``wanted`` sets; a key that is replaced goes and comes in one step."""
    gone = {decl.name: elements for decl, elements in update.del_elements}
    for decl, elements in update.add_elements:
        if not wanted(decl.name):
            continue
        leaving: Mapping[Key, Key] = {} if decl.interval else gone.get(decl.name, {})
        for part in _chunks(elements):
            replaced = [(key, leaving[key]) for key, _ in part if key in leaving] if leaving else []
            more = (Change("delete", decl, replaced),) if replaced else ()
            yield (*more, Change("add", decl, part))


def _removals(
    update: NftUpdate, *, plain: bool, wanted: Callable[[str], bool]
) -> Iterator[tuple[Change, ...]]:
    """Removals from hash sets (``plain``) or interval sets, less the keys that are replaced."""
    coming = {decl.name: elements for decl, elements in update.add_elements}
    for decl, elements in update.del_elements:
        if decl.interval == plain or not wanted(decl.name):
            continue
        staying = coming.get(decl.name, {}) if plain else {}
        going = {key: data for key, data in elements.items() if key not in staying} if staying else elements
        for part in _chunks(going):
            yield (Change("delete", decl, part),)


def _chunks(elements: Mapping[Key, Key]) -> Iterator[list[tuple[Key, Key]]]:
    items = list(elements.items())
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]
