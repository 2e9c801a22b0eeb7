"""What is known of addresses, as the engine holds it: plain records that refer to each other.

A rule's peer is a *term*; whether an address matches it follows from the selectors that select who has the
address (its *profile*), from the network sets and from the networks that contain it. Addresses of which all
this is the same are a *cohort*; cohorts that match the same terms are a *class*, and have equal *traits*.
"""

from typing import NamedTuple

from towpath.model.net import Family
from towpath.model.nft import Key
from towpath.policy.ir import NamedPort
from towpath.policy.selector import Selector
from towpath.policy.vocabulary import Reduced

Block = tuple[int, int]
"""A network as integers: first address, prefix length."""


class Fact:
    """Something that may hold of an address. ``needing``: the terms that ask for it, each under one fact;
    ``excluding``: the ambient terms that ask for its absence.
    """

    __slots__ = ("excluding", "needing", "uses")

    def __init__(self) -> None:
        self.uses = 0
        self.needing: dict[Term, None] = {}
        self.excluding: dict[Term, None] = {}


class Used(Fact):
    """The selector selects an owner of the address, or a network set that contains it."""

    __slots__ = ("selector",)

    def __init__(self, selector: Selector) -> None:
        super().__init__()
        self.selector = selector


class NetGroup(Fact):
    """It lies in one of these networks: a peer's nets or not_nets, or the network set's with ``profile``.

    ``nodes`` and ``cohorts``: where they are placed, networks and single addresses.
    """

    __slots__ = ("blocks", "cohorts", "nodes", "profile")

    def __init__(self, blocks: dict[Family, tuple[Block, ...]], profile: "Profile | None" = None) -> None:
        super().__init__()
        self.blocks = blocks
        self.profile = profile
        self.nodes: dict[Node, None] = {}
        self.cohorts: dict[Cohort, None] = {}


class Term:
    """A peer, of one family where it names networks. All that is not None must hold, or not hold.

    ``ambient``: an address of which nothing is known matches it.
    """

    __slots__ = ("ambient", "nets", "not_nets", "not_selector", "number", "selector", "uses")

    def __init__(self, number: int) -> None:
        self.number = number
        self.uses = 0
        self.selector: Used | None = None
        self.not_selector: Used | None = None
        self.nets: NetGroup | None = None
        self.not_nets: NetGroup | None = None
        self.ambient = True


class Profile:
    """What endpoints and network sets have in common that reduce to the same, as far as selectors in use ask.

    ``users`` counts those who have the profile; ``cohorts`` and ``groups`` are what depends on ``selected``.
    """

    __slots__ = ("cohorts", "groups", "labels", "number", "ports", "reduced", "selected", "users")

    def __init__(self, number: int, reduced: Reduced) -> None:
        self.number = number
        self.reduced = reduced
        self.ports = frozenset(port for port in reduced if isinstance(port, NamedPort))
        self.labels = dict(pair for pair in reduced if not isinstance(pair, NamedPort))
        self.selected: set[Used] = set()
        self.users = 0
        self.cohorts: dict[Cohort, None] = {}
        self.groups: dict[NetGroup, None] = {}


class Node:
    """A network that some group has, without the smaller ones inside it: their remainder is its *atom*."""

    __slots__ = ("atom", "cohorts", "first", "groups", "last", "length", "shown")

    def __init__(self, first: int, length: int, bits: int) -> None:
        self.first = first
        self.last = first + (1 << bits - length) - 1
        self.length = length
        self.groups: dict[NetGroup, None] = {}
        self.cohorts: dict[Cohort, None] = {}
        self.atom: Cohort
        self.shown: tuple[Key, ...] = ()


class Traits(NamedTuple):
    """What makes a class. ``deviant``: numbers of the terms on which it differs from an address of which
    nothing is known: it matches those that are not ambient, and does not match those that are.
    """

    family: Family
    deviant: frozenset[int]
    ports: frozenset[NamedPort]


class Cohort:
    """Addresses with the same owners' profiles, the same single-address groups, the same innermost network.

    ``members``: by integer, with the key under which nftables has them. The atom of a node has none, and
    stands for the rest of the network. ``shown``: the class the address map has for the members, None if they
    are left to the interval map. ``serial`` grows: an order that does not depend on memory addresses.
    """

    __slots__ = ("atom", "exact", "family", "members", "node", "profiles", "serial", "shown", "traits")

    def __init__(
        self,
        family: Family,
        serial: int,
        profiles: tuple[Profile, ...],
        exact: frozenset[NetGroup],
        node: Node,
        *,
        atom: bool = False,
    ) -> None:
        self.family = family
        self.serial = serial
        self.profiles = profiles
        self.exact = exact
        self.node = node
        self.atom = atom
        self.members: dict[int, Key] = {}
        self.traits: Traits | None = None
        self.shown: int | None = None
