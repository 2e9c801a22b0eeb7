"""This node's endpoints: the policies that apply to each, hence its subjects, hence where its packets go."""

import re
from collections.abc import Callable, Mapping, Set
from ipaddress import ip_address

from towpath.model.net import Addr
from towpath.model.nft import Key, NftTable
from towpath.model.policy import POD_FROM, POD_TO
from towpath.policy.addresses import plain
from towpath.policy.applied import Applied
from towpath.policy.conn_chains import digest
from towpath.policy.conn_rules import GOTO_DENIED, RETURN, final
from towpath.policy.facts import Traits
from towpath.policy.ir import Direction, Endpoint
from towpath.policy.label_bits import LabelBits
from towpath.policy.live import LiveProgram
from towpath.policy.numbers import Numbers
from towpath.policy.places import ones
from towpath.policy.policy_book import DIRECTIONS, PolicyBook, PolicyKey
from towpath.policy.subjects import Slot, Subject, SubjectKey, Subjects

_TABLES: dict[Direction, str] = {"egress": POD_FROM.name, "ingress": POD_TO.name}
_DISPATCHED = re.compile(r"ip6? [sd]addr (?P<address>[0-9a-f.:]+) goto (?P<chain>\S+)")
# With more changed policies than this, endpoints look their policies up anew.
_FEW = 32


class _Local:
    __slots__ = ("applied", "endpoint", "number", "slots")

    def __init__(self, number: int, endpoint: Endpoint, applied: Applied) -> None:
        self.number = number
        self.endpoint = endpoint
        self.applied = applied
        self.slots: dict[Slot, None] = {}


class LocalPolicies:
    """In two steps: the rules in force decide what the classes are, and the classes who is judged how."""

    def __init__(self, book: PolicyBook, subjects: Subjects, program: LiveProgram) -> None:
        self._book = book
        self._subjects = subjects
        self._program = program
        self._endpoint_behind: dict[str, str] = {}
        self._interfaces_of: dict[str, list[str]] = {}
        self._replugged: dict[str, None] = {}  # interfaces
        self._renamed: set[str] = set()  # endpoints that come here, or go
        self._locals: dict[str, _Local] = {}
        self._numbers = Numbers[_Local]()
        self._labels = LabelBits()
        self._applied: dict[frozenset[PolicyKey], Applied] = {}
        self._stale: dict[str, None] = {}  # endpoints whose subjects are to be worked out anew
        self._left: dict[Slot, None] = {}  # of endpoints that are no more
        self._verdicts: dict[tuple[str, Direction], str] = {}
        self._dispatching: dict[tuple[str, Direction], str] = {}

    def set_interfaces(self, interfaces: Mapping[str, str]) -> None:
        """Which endpoint is behind which interface, all of them."""
        before, self._endpoint_behind = self._endpoint_behind, dict(interfaces)
        for interface in (*before, *interfaces):
            names = before.get(interface), interfaces.get(interface)
            if names[0] != names[1]:
                self._replugged[interface] = None
                self._renamed.update(name for name in names if name is not None)
        self._interfaces_of = {}
        for interface, name in interfaces.items():
            self._interfaces_of.setdefault(name, []).append(interface)

    def seed(self, table: NftTable) -> None:
        """What the kernel holds: chains keep the names they had for the same endpoints."""
        for direction, name in _TABLES.items():
            held = table.sets[name].elements if name in table.sets else {}
            for interface, endpoint in self._endpoint_behind.items():
                (verdict,) = held.get((interface,), ("",))
                chain = str(verdict).removeprefix("goto ")
                self._seed(Slot(endpoint, direction), chain)
                for rule in table.chains[chain].rules if chain in table.chains else ():
                    if (found := _DISPATCHED.fullmatch(rule)) is not None:
                        address = ip_address(found["address"])
                        self._seed(Slot(endpoint, direction, address), found["chain"])

    def _seed(self, slot: Slot, chain: str) -> None:
        if chain.startswith("pi-" if slot.direction == "ingress" else "pe-"):
            self._subjects.seeds[slot] = chain

    def apply(self, endpoint: Callable[[str], Endpoint | None], changed: Set[str]) -> None:
        """First step: which policies apply. ``changed``: endpoints that are new, other or gone."""
        policies = tuple(self._book.changed)
        here = self._interfaces_of.keys()
        others = here & changed | self._locals.keys() & changed | self._renamed
        old = set(self._applied.values())
        turned: dict[PolicyKey, None] = {}
        if len(policies) > _FEW:
            others |= here
        elif policies:
            self._follow(policies, turned)
        for name in sorted(others):
            self._renew(name, endpoint(name) if name in here else None)
        self._count(old, turned)
        touched = dict.fromkeys((*policies, *turned))
        self._book.refresh(touched)
        for applied in self._applied.values():
            if applied.prepare(self._book, touched):
                self._stale.update((self._numbers[n].endpoint.name, None) for n in ones(applied.members))
        self._book.refreshed()
        self._renamed = set()

    def judge(self, traits_at: Callable[[Addr], Traits | None]) -> None:
        """Second step: the subjects, and where the packets of each interface go."""
        for applied in self._applied.values():
            if applied.particular:
                self._stale.update((self._numbers[n].endpoint.name, None) for n in ones(applied.members))
        moves: dict[Slot, SubjectKey | None] = dict.fromkeys(self._left)
        for name in self._stale:
            if (local := self._locals.get(name)) is not None:
                keys = _keys(local, traits_at)
                moves.update({**dict.fromkeys(local.slots), **keys})
                local.slots = dict.fromkeys(keys)
        self._subjects.assign(moves)
        self._subjects.seeds = {}
        for name in self._stale:
            self._sort_out(name)
            self._replugged.update(dict.fromkeys(self._interfaces_of.get(name, ())))
        for interface in self._replugged:
            self._plug(interface)
        self._stale, self._left, self._replugged = {}, {}, {}

    def judging(self, name: str, direction: Direction, own: Addr) -> Subject | bool | None:
        """What judges an endpoint at one of its addresses; a verdict where nothing does; None: not known."""
        local = self._locals.get(name)
        if local is None:
            return None
        of = self._subjects.of
        subject = of.get(Slot(name, direction)) or of.get(Slot(name, direction, own))
        if subject is not None:
            return subject
        if any(slot.direction == direction for slot in local.slots):
            return False  # by an address it is not known to have
        return local.endpoint.unmatched == "allow"

    def applied(self, name: str) -> frozenset[PolicyKey]:
        """The policies that apply to a local endpoint."""
        local = self._locals.get(name)
        return local.applied.keys if local is not None else frozenset()

    def _follow(self, policies: tuple[PolicyKey, ...], turned: dict[PolicyKey, None]) -> None:
        """A few policies have changed; which endpoints do they select now?"""
        selected = {key: self._labels.answer(self._book.selector(key)) for key in policies}
        changed = frozenset(policies)
        for applied in list(self._applied.values()):
            parts: dict[frozenset[PolicyKey], int] = {frozenset(): applied.members}
            for key, bits in selected.items():
                split = ((keys, part & bits, part & ~bits) for keys, part in parts.items())
                parts = {k: p for keys, yes, no in split for k, p in ((keys | {key}, yes), (keys, no)) if p}
            for selecting, part in parts.items():
                if applied.keys & changed != selecting:
                    self._exchange(applied, part, applied.keys - changed | selecting, turned)

    def _exchange(
        self, applied: Applied, part: int, keys: frozenset[PolicyKey], turned: dict[PolicyKey, None]
    ) -> None:
        """Other policies for some of those that shared them; if for all, they go on sharing."""
        if part == applied.members and keys not in self._applied:
            turned.update(dict.fromkeys(self._book.use(keys - applied.keys, 1)))
            turned.update(dict.fromkeys(self._book.use(applied.keys - keys, -1)))
            del self._applied[applied.keys]
            applied.keys = keys
            self._applied[keys] = applied
            return
        after = self._obtain(keys)
        for number in ones(part):
            self._move(self._numbers[number], after)

    def _renew(self, name: str, endpoint: Endpoint | None) -> None:
        """An endpoint is new here, or other than before; None: gone."""
        local = self._locals.get(name)
        if local is not None:
            self._labels.remove(local.number, local.endpoint.labels)
        if endpoint is None:
            if local is not None:
                local.applied.members ^= 1 << local.number
                self._left.update(local.slots)
                self._numbers.release(local.number)
                del self._locals[name]
        elif local is None:
            number = self._numbers.next
            local = _Local(number, endpoint, self._obtain(self._book.selecting(endpoint.labels)))
            self._numbers.take(local)
            local.applied.members |= 1 << number
            self._locals[name] = local
        else:
            local.endpoint = endpoint
            self._move(local, self._obtain(self._book.selecting(endpoint.labels)))
        if endpoint is not None and local is not None:
            self._labels.add(local.number, endpoint.labels.items())
        self._stale[name] = None

    def _obtain(self, keys: frozenset[PolicyKey]) -> Applied:
        applied = self._applied.get(keys)
        if applied is None:
            applied = self._applied[keys] = Applied(keys)
        return applied

    def _move(self, local: _Local, applied: Applied) -> None:
        if applied is not local.applied:
            local.applied.members ^= 1 << local.number
            applied.members |= 1 << local.number
            local.applied = applied
            self._stale[local.endpoint.name] = None

    def _count(self, old: set[Applied], turned: dict[PolicyKey, None]) -> None:
        """Which policies are in force. ``turned`` gets those of which this has changed."""
        for applied in list(self._applied.values()):
            if applied.members and applied not in old:
                turned.update(dict.fromkeys(self._book.use(applied.keys, 1)))
        for applied in list(self._applied.values()):
            if not applied.members:
                del self._applied[applied.keys]
                if applied in old:
                    turned.update(dict.fromkeys(self._book.use(applied.keys, -1)))

    def _plug(self, interface: str) -> None:
        """Where its packets go. Those of a pod that is not known go nowhere."""
        name = self._endpoint_behind.get(interface)
        for direction, table in _TABLES.items():
            data: Key | None = None
            if name is not None:
                data = (self._verdicts.get((name, direction), GOTO_DENIED),)
            self._program.apart[table].set((interface,), data)

    def _sort_out(self, name: str) -> None:
        """The endpoint's verdicts; a chain by address if its addresses are not all judged the same."""
        local = self._locals.get(name)
        for direction in DIRECTIONS:
            old = self._dispatching.pop((name, direction), None)
            self._verdicts.pop((name, direction), None)
            if local is not None:
                by_address = {
                    slot.address: self._subjects.of[slot].verdict
                    for slot in local.slots
                    if slot.direction == direction
                }
                found = set(by_address.values()) or {
                    RETURN if local.endpoint.unmatched == "allow" else GOTO_DENIED
                }
                if len(found) > 1:
                    chain = self._dispatching[name, direction] = f"pd-{digest(name, direction)}"
                    self._program.set_chain(chain, _dispatch(direction, by_address))
                    found = {f"goto {chain}"}
                self._verdicts[name, direction] = found.pop()
            if old is not None and (name, direction) not in self._dispatching:
                self._program.set_chain(old, None)


def _keys(local: _Local, traits_at: Callable[[Addr], Traits | None]) -> dict[Slot, SubjectKey]:
    """Who is judged, and how; nobody in a direction in which no policy applies."""
    keys = {}
    name, denies = local.endpoint.name, local.endpoint.unmatched == "deny"
    for direction in DIRECTIONS:
        applied = local.applied
        rules = applied.rules(direction)
        if not rules:
            continue
        if local.endpoint.addresses and applied.asks_own(direction):
            for address in local.endpoint.addresses:
                own = applied.own(direction, traits_at(address))
                keys[Slot(name, direction, address)] = SubjectKey(direction, rules, denies, own)
        else:
            keys[Slot(name, direction)] = SubjectKey(direction, rules, denies)
    return keys


def _dispatch(direction: Direction, verdicts: Mapping[Addr | None, str]) -> tuple[str, ...]:
    side = "daddr" if direction == "ingress" else "saddr"
    rules = [
        f"{'ip' if address.version == 4 else 'ip6'} {side} {plain(address)} {verdict}"
        for address, verdict in verdicts.items()
        if address is not None
    ]
    return (*rules, final(GOTO_DENIED))
