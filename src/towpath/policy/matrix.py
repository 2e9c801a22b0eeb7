"""Who reaches whom, on what, for a whole world: by class of places that act alike, not by pair.

``sides`` has what each source reaches; here places with equal rows, and places with equal columns, become
one class. The verdicts are those of ``evaluate``, except that a cell says nothing of a place and itself: an
endpoint always reaches itself.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import msgspec

from towpath.model.net import Addr, Family
from towpath.policy.connections import ALL, NOTHING, Connections
from towpath.policy.ir import World
from towpath.policy.places import KINDS, Kind, Place, Places, ones, refined
from towpath.policy.sides import Rows, rows

Value = TypeVar("Value")


class PlaceClass(msgspec.Struct, frozen=True):
    """Places that act alike, all of one kind and family."""

    kind: Kind
    family: Family
    members: tuple[Place, ...]

    def __str__(self) -> str:
        return ", ".join(map(str, self.members))


class Matrix(msgspec.Struct, frozen=True):
    """``cells[i][j]``: what ``sources[i]`` reaches ``destinations[j]`` on; None between families.

    Sources with equal rows differ in kind or family, as do destinations with equal columns.
    """

    sources: tuple[PlaceClass, ...]
    destinations: tuple[PlaceClass, ...]
    cells: tuple[tuple[Connections | None, ...], ...]

    def between(self, source: Addr, destination: Addr) -> Connections:
        """One pair. ValueError if the addresses are of two families."""
        row, column = _holding(self.sources, source), _holding(self.destinations, destination)
        connections = self.cells[row[0]][column[0]]
        if connections is None:
            raise ValueError(f"no packet goes from {source} to {destination}")
        itself = source == destination or bool({*row[1].names} & {*column[1].names})
        return ALL if itself else connections


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Between any of the one class and any of the other: what is new, what is gone."""

    source: PlaceClass
    destination: PlaceClass
    added: Connections
    removed: Connections


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """``changes`` between what is in both worlds. No change tells of endpoints that are only in one: their
    places are ``before`` and ``after``.
    """

    changes: tuple[Change, ...]
    before: tuple[Place, ...]
    after: tuple[Place, ...]


def matrix(world: World) -> Matrix:
    """All of it, networks outside included."""
    places = Places(world)
    return Matrix(*_table(rows(world, places), places, places.everywhere, NOTHING))


def diff(before: World, after: World) -> Difference:
    """Which classes reach which on more or less than they did."""
    old, new = Places(before, after), Places(after, before)
    common = 0
    for number, (was, now) in enumerate(zip(old.places, new.places, strict=True)):
        common |= (was.names == now.names) << number
    moves = _moves(rows(before, old), rows(after, new), common)
    table = _table(moves, old, common, (NOTHING, NOTHING))
    changes = [
        Change(source=source, destination=destination, added=cell[0], removed=cell[1])
        for source, row in zip(table[0], table[2], strict=True)
        for destination, cell in zip(table[1], row, strict=True)
        if cell and any(cell)
    ]
    different = list(ones(old.everywhere & ~common))
    return Difference(
        changes=tuple(changes),
        before=tuple(old.places[number] for number in different if old.places[number].names),
        after=tuple(new.places[number] for number in different if new.places[number].names),
    )


_Move = tuple[Connections, Connections]  # added, removed


def _moves(before: Rows, after: Rows, common: int) -> Iterator[tuple[int, dict[_Move, int]]]:
    for source_before, row_before in before:
        for source_after, row_after in after:
            source = source_before & source_after & common
            if source:
                row: dict[_Move, int] = {}
                for was, at_before in (*row_before.items(), (NOTHING, ~sum(row_before.values()))):
                    for now, at_after in (*row_after.items(), (NOTHING, ~sum(row_after.values()))):
                        at = at_before & at_after & common
                        if at and was != now:
                            move = (now - was, was - now)
                            row[move] = row.get(move, 0) | at
                yield source, row


def _table(
    found: Iterable[tuple[int, Mapping[Value, int]]], places: Places, within: int, zero: Value
) -> tuple[tuple[PlaceClass, ...], tuple[PlaceClass, ...], tuple[tuple[Value | None, ...], ...]]:
    """The fewest classes of sources and of destinations that tell the rows apart, and the cells."""
    alike = [kind & family & within for kind in places.kinds.values() for family in places.families.values()]
    alike = [group for group in alike if group]
    same: dict[tuple[int, frozenset[tuple[Value, int]]], int] = {}
    for source, row in found:
        for group in alike:
            if source & group:
                key = (group, frozenset(row.items()))
                same[key] = same.get(key, 0) | source & group
    columns = refined(alike, {at for _, row in same for _, at in row})
    named_rows = sorted(((_named(places, source), row) for (_, row), source in same.items()), key=_by_name)
    named_columns = sorted(((_named(places, column), column & -column) for column in columns), key=_by_name)
    at_column = {first: index for index, (_, first) in enumerate(named_columns)}
    firsts = sum(at_column)
    empty: dict[Family, list[Value | None]] = {
        family: [zero if column.family == family else None for column, _ in named_columns]
        for family in places.families
    }
    cells = []
    for named, row_items in named_rows:
        line = list(empty[named.family])
        for value, at in row_items:
            for number in ones(at & firsts):
                line[at_column[1 << number]] = value
        cells.append(tuple(line))
    return tuple(name for name, _ in named_rows), tuple(name for name, _ in named_columns), tuple(cells)


def _named(places: Places, bits: int) -> PlaceClass:
    members = sorted((places.places[number] for number in ones(bits)), key=str)
    return PlaceClass(members[0].kind, members[0].family, tuple(members))


def _by_name(pair: tuple[PlaceClass, object]) -> tuple[int, int, str]:
    named = pair[0]
    return (KINDS.index(named.kind), named.family, str(named.members[0]))


def _holding(classes: tuple[PlaceClass, ...], address: Addr) -> tuple[int, Place]:
    """The class and place of an address: an endpoint's, else the narrowest network's."""
    around = [
        (place.net.prefixlen if place.net else 129, number, place)
        for number, one in enumerate(classes)
        for place in one.members
        if place.address == address or (place.net is not None and address in place.net)
    ]
    _, number, place = max(around, key=lambda found: found[0])
    return number, place
