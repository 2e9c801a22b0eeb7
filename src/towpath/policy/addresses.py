"""The addresses of one family, sorted into cohorts: by whose they are, and by the networks they lie in.

Single addresses among a group's networks are kept apart from the tree: they are looked up in a hash, which
costs a thousandth of an interval.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from towpath.model.net import Addr, Family, Net
from towpath.model.nft import Key
from towpath.policy.atoms import NetTree
from towpath.policy.facts import Block, Cohort, NetGroup, Node, Profile
from towpath.policy.terms import BITS

_CohortKey = tuple[tuple[Profile, ...], frozenset[NetGroup], Node]
_NO_GROUPS: frozenset[NetGroup] = frozenset()
# From so many searches of a range on, sorting the addresses pays.
_SEARCHES = 8


class Addresses:
    """``changed``: cohorts whose traits or members may be others than before; ``moved``: addresses that have
    changed cohorts, or have gone; ``recut``: networks whose remainder has changed. All until ``settled``.
    """

    def __init__(self, family: Family) -> None:
        self.family: Family = family
        self.tree = NetTree(BITS[family])
        self.cohort_of: dict[int, Cohort] = {}
        self.changed: dict[Cohort, None] = {}
        self.moved: dict[int, Key] = {}
        self.recut: dict[Node, None] = {}
        self._cohorts: dict[_CohortKey, Cohort] = {}
        self._serial = 0
        self._sorted: list[int] = []
        self._searches = 0
        self._plant(self.tree.root)

    def settled(self) -> None:
        """All that was gathered has been dealt with."""
        self.changed, self.moved, self.recut = {}, {}, {}
        self._sorted, self._searches = [], 0

    def add_owner(self, address: Addr, profile: Profile) -> None:
        """One more endpoint has the address."""
        number = int(address)
        old = self.cohort_of.get(number)
        if old is None:
            self._join(number, (plain(address),), (profile,), _NO_GROUPS, self.tree.find(number))
        else:
            self._move(number, old, _by_number((*old.profiles, profile)), old.exact)

    def change_owner(self, address: Addr, before: Profile, after: Profile) -> None:
        """An endpoint that has it has another profile."""
        number = int(address)
        old = self.cohort_of[number]
        if len(old.profiles) == 1:
            self._move(number, old, (after,), old.exact)
            return
        profiles = list(old.profiles)
        profiles[profiles.index(before)] = after
        self._move(number, old, _by_number(tuple(profiles)), old.exact)

    def remove_owner(self, address: Addr, profile: Profile) -> None:
        """An endpoint no longer has it."""
        number = int(address)
        old = self.cohort_of[number]
        profiles = list(old.profiles)
        profiles.remove(profile)
        self._move(number, old, tuple(profiles), old.exact)

    def place(self, group: NetGroup) -> None:
        """The group's networks are of interest now."""
        for block in group.blocks.get(self.family, ()):
            if block[1] == self.tree.bits:
                self._place_address(block[0], group)
            else:
                node = self.tree.get(block) or self._grow(block)
                node.groups[group] = None
                group.nodes[node] = None
                self.touch_node(node)

    def displace(self, group: NetGroup) -> None:
        """They no longer are."""
        for block in group.blocks.get(self.family, ()):
            if block[1] == self.tree.bits:
                old = self.cohort_of[block[0]]
                self._move(block[0], old, old.profiles, old.exact - {group})
            elif (node := self.tree.get(block)) is not None:
                del node.groups[group], group.nodes[node]
                self.touch_node(node)
                if not node.groups and node is not self.tree.root:
                    self._fell(node)

    def touch(self, cohorts: Iterable[Cohort]) -> None:
        """Something that may matter to these is no longer what it was."""
        self.changed.update(dict.fromkeys(cohorts))

    def touch_group(self, group: NetGroup) -> None:
        """As ``touch``, for all that lies in the group's networks."""
        self.touch(cohort for cohort in group.cohorts if cohort.family == self.family)
        for node in group.nodes:
            if self.has(node):
                self.touch_node(node)

    def touch_node(self, node: Node) -> None:
        """As ``touch``, for all that lies in the network."""
        for inner in self.tree.inside(node):
            self.touch(inner.cohorts)

    def groups_of(self, cohort: Cohort) -> Iterable[NetGroup]:
        """All groups in one of whose networks its addresses lie."""
        groups = dict.fromkeys(cohort.exact)
        for node in self.tree.around(cohort.node):
            groups.update(node.groups)
        return groups

    def has(self, node: Node) -> bool:
        """Whether the network is still of interest."""
        return self.tree.get((node.first, node.length)) is node

    def blocks(self, node: Node) -> tuple[Key, ...]:
        """The keys of the interval map for the network's remainder."""
        return tuple((_network(self.family, block),) for block in self.tree.remainder(node))

    def _place_address(self, number: int, group: NetGroup) -> None:
        old = self.cohort_of.get(number)
        if old is None:
            key = (_address(self.family, number),)
            self._join(number, key, (), frozenset((group,)), self.tree.find(number))
        else:
            self._move(number, old, old.profiles, old.exact | {group})

    def _join(
        self, number: int, key: Key, profiles: tuple[Profile, ...], exact: frozenset[NetGroup], node: Node
    ) -> None:
        cohort = self._cohorts.get((profiles, exact, node))
        if cohort is None:
            cohort = self._create(profiles, exact, node)
        if self._sorted and number not in self.cohort_of:
            insort(self._sorted, number)
        cohort.members[number] = key
        self.cohort_of[number] = cohort
        if cohort.traits is not None:  # a new one's members are all dealt with anyway
            self.moved[number] = key

    def _move(
        self,
        number: int,
        old: Cohort,
        profiles: tuple[Profile, ...],
        exact: frozenset[NetGroup],
        node: Node | None = None,
    ) -> None:
        key = old.members.pop(number)
        if not old.members:
            self.changed[old] = None
        self.moved[number] = key
        if profiles or exact:
            self._join(number, key, profiles, exact, node or old.node)
        else:
            del self.cohort_of[number]

    def _create(self, profiles: tuple[Profile, ...], exact: frozenset[NetGroup], node: Node) -> Cohort:
        self._serial += 1
        cohort = Cohort(self.family, self._serial, profiles, exact, node)
        self._cohorts[profiles, exact, node] = cohort
        node.cohorts[cohort] = None
        for profile in profiles:
            profile.cohorts[cohort] = None
        for group in exact:
            group.cohorts[cohort] = None
        self.changed[cohort] = None
        return cohort

    def discard(self, cohort: Cohort) -> None:
        """Forget a cohort without members."""
        self._cohorts.pop((cohort.profiles, cohort.exact, cohort.node), None)
        cohort.node.cohorts.pop(cohort, None)
        for profile in cohort.profiles:
            profile.cohorts.pop(cohort, None)
        for group in cohort.exact:
            group.cohorts.pop(cohort, None)

    def _plant(self, node: Node) -> None:
        """A network has an atom, which stands for what nobody in it has."""
        self._serial += 1
        node.atom = Cohort(self.family, self._serial, (), _NO_GROUPS, node, atom=True)
        node.cohorts[node.atom] = None
        self.changed[node.atom] = None
        self.recut[node] = None

    def _grow(self, block: Block) -> Node:
        node = self.tree.insert(block)
        self._plant(node)
        parent = self.tree.parent(node)
        self.recut[parent] = None
        inside: dict[Cohort, list[int]] = {}
        for number in self._between(node.first, node.last):
            cohort = self.cohort_of[number]
            if cohort.node is parent:
                inside.setdefault(cohort, []).append(number)
        for cohort, numbers in inside.items():
            if len(numbers) == len(cohort.members):
                self._transplant(cohort, node)
            else:
                for number in numbers:
                    self._move(number, cohort, cohort.profiles, cohort.exact, node)
        return node

    def _fell(self, node: Node) -> None:
        """What was in the network is in the one around it."""
        self.changed[node.atom] = None
        parent = self.tree.parent(node)
        self.tree.remove(node)
        self.recut.update({parent: None, node: None})
        for cohort in list(node.cohorts):
            if not cohort.atom:
                self._transplant(cohort, parent)

    def _transplant(self, cohort: Cohort, node: Node) -> None:
        """All of a cohort at once, unless there is one with which it is the same now."""
        there = self._cohorts.get((cohort.profiles, cohort.exact, node))
        if there is not None:
            for number in list(cohort.members):
                self._move(number, cohort, cohort.profiles, cohort.exact, node)
            return
        del self._cohorts[cohort.profiles, cohort.exact, cohort.node], cohort.node.cohorts[cohort]
        cohort.node = node
        self._cohorts[cohort.profiles, cohort.exact, node] = cohort
        node.cohorts[cohort] = None
        self.changed[cohort] = None

    def _between(self, first: int, last: int) -> list[int]:
        """The known addresses from one to another."""
        self._searches += 1
        if self._searches < _SEARCHES:
            return [number for number in self.cohort_of if first <= number <= last]
        if not self._sorted:
            self._sorted = sorted(self.cohort_of)
        found = self._sorted[bisect_left(self._sorted, first) : bisect_right(self._sorted, last)]
        return [number for number in found if number in self.cohort_of]


def _network(family: Family, block: Block) -> Net:
    return IPv4Network(block) if family == 4 else IPv6Network(block)


def _by_number(profiles: tuple[Profile, ...]) -> tuple[Profile, ...]:
    return tuple(sorted(profiles, key=lambda profile: profile.number))


def _address(family: Family, number: int) -> Addr:
    return IPv4Address(number) if family == 4 else IPv6Address(number)


def plain(address: Addr) -> Addr:
    """Without a zone, which nft does not take."""
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return IPv6Address(int(address))
    return address
