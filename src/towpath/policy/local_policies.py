"""This node's endpoints: the policies that apply to each, hence its subjects, hence where its packets go."""

from collections.abc import Callable, Mapping, Set

from towpath.model.net import Addr
from towpath.model.nft import Key
from towpath.model.policy import POD_FROM, POD_TO
from towpath.policy.addresses import plain
from towpath.policy.cells import Own
from towpath.policy.clauses import PolicyRules
from towpath.policy.conn_chains import digest
from towpath.policy.conn_rules import GOTO_DENIED, RETURN, final
from towpath.policy.facts import Term, Traits
from towpath.policy.ir import Direction, Endpoint
from towpath.policy.live import LiveProgram
from towpath.policy.policy_book import DIRECTIONS, PolicyBook, PolicyKey
from towpath.policy.subjects import Slot, Subject, SubjectKey, Subjects
from towpath.policy.terms import matches

_TABLES: dict[Direction, str] = {"egress": POD_FROM.name, "ingress": POD_TO.name}
# With more changed policies than this, endpoints look their policies up anew.
_FEW = 32


class _Applied:
    """A set of policies that applies to ``users`` local endpoints, with their rules by direction.

    ``particular``: some rule asks something of the endpoint's own side.
    """

    __slots__ = ("keys", "own_names", "own_terms", "particular", "rules", "users")

    def __init__(self, keys: frozenset[PolicyKey]) -> None:
        self.keys = keys
        self.users = 0
        self.rules: dict[Direction, frozenset[PolicyRules]] = {}
        self.own_terms: dict[Direction, list[Term]] = {}
        self.own_names: dict[Direction, frozenset[str]] = {}
        self.particular = False

    def prepare(self, book: PolicyBook) -> None:
        """Take the rules as they are now."""
        for direction in DIRECTIONS:
            rules = self.rules[direction] = book.rules(self.keys, direction)
            terms = dict.fromkeys(term for one in rules for term in one.own_terms)
            self.own_terms[direction] = list(terms)
            self.own_names[direction] = frozenset[str]().union(*(one.own_names for one in rules))
        self.particular = any(self.own_terms.values()) or any(self.own_names.values())

    def own(self, direction: Direction, traits: Traits | None) -> Own:
        """What counts of the own side, for an address with these traits."""
        if traits is None:
            return Own()
        names = self.own_names[direction]
        return Own(
            frozenset(term for term in self.own_terms[direction] if matches(term, traits)),
            frozenset(port for port in traits.ports if port.name in names),
        )


class _Local:
    __slots__ = ("applied", "endpoint", "slots")

    def __init__(self, endpoint: Endpoint, applied: _Applied) -> None:
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
        self._applied: dict[frozenset[PolicyKey], _Applied] = {}
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

    def apply(self, endpoint: Callable[[str], Endpoint | None], changed: Set[str]) -> None:
        """First step: which policies apply. ``changed``: endpoints that are new, other or gone."""
        policies = tuple(self._book.changed)
        touched = dict.fromkeys(policies)
        here = self._interfaces_of.keys()
        others = here & changed | self._locals.keys() & changed | self._renamed
        old = set(self._applied.values())
        if len(policies) > _FEW:
            others |= here
        elif policies:
            self._follow(policies, [local for name, local in self._locals.items() if name not in others])
        for name in sorted(others):
            self._renew(name, endpoint(name) if name in here else None)
        self._count(old, touched)
        self._book.refresh(touched)
        fresh = {
            applied
            for applied in self._applied.values()
            if not applied.rules or not touched.keys().isdisjoint(applied.keys)
        }
        for applied in fresh:
            applied.prepare(self._book)
        if fresh:
            self._stale.update((n, None) for n, local in self._locals.items() if local.applied in fresh)
        self._renamed = set()

    def judge(self, traits_at: Callable[[Addr], Traits | None]) -> None:
        """Second step: the subjects, and where the packets of each interface go."""
        self._stale.update((n, None) for n, local in self._locals.items() if local.applied.particular)
        moves: dict[Slot, SubjectKey | None] = dict.fromkeys(self._left)
        for name in self._stale:
            if (local := self._locals.get(name)) is not None:
                keys = _keys(local, traits_at)
                moves.update({**dict.fromkeys(local.slots), **keys})
                local.slots = dict.fromkeys(keys)
        self._subjects.assign(moves)
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

    def _follow(self, policies: tuple[PolicyKey, ...], locals_: list[_Local]) -> None:
        """A few policies have changed, and the endpoints have not."""
        known: dict[tuple[_Applied, frozenset[PolicyKey]], _Applied] = {}
        gone = frozenset(policies)
        for local in locals_:
            step = (local.applied, self._book.selects(policies, local.endpoint.labels))
            if step not in known:
                applied, selecting = step
                same = applied.keys & gone == selecting
                known[step] = applied if same else self._obtain(applied.keys - gone | selecting)
            self._move(local, known[step])

    def _renew(self, name: str, endpoint: Endpoint | None) -> None:
        """An endpoint is new here, or other than before; None: gone."""
        local = self._locals.get(name)
        if endpoint is None:
            if local is not None:
                local.applied.users -= 1
                self._left.update(local.slots)
                del self._locals[name]
        elif local is None:
            local = _Local(endpoint, self._obtain(self._book.selecting(endpoint.labels)))
            local.applied.users += 1
            self._locals[name] = local
        else:
            local.endpoint = endpoint
            self._move(local, self._obtain(self._book.selecting(endpoint.labels)))
        self._stale[name] = None

    def _obtain(self, keys: frozenset[PolicyKey]) -> _Applied:
        applied = self._applied.get(keys)
        if applied is None:
            applied = self._applied[keys] = _Applied(keys)
        return applied

    def _move(self, local: _Local, applied: _Applied) -> None:
        if applied is not local.applied:
            local.applied.users -= 1
            applied.users += 1
            local.applied = applied
            self._stale[local.endpoint.name] = None

    def _count(self, old: set[_Applied], touched: dict[PolicyKey, None]) -> None:
        """Which policies are in force. ``touched`` gets those of which this has changed."""
        for applied in list(self._applied.values()):
            if applied.users and applied not in old:
                touched.update(dict.fromkeys(self._book.use(applied.keys, 1)))
        for applied in list(self._applied.values()):
            if not applied.users:
                del self._applied[applied.keys]
                if applied in old:
                    touched.update(dict.fromkeys(self._book.use(applied.keys, -1)))

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
        rules = applied.rules[direction]
        if not rules:
            continue
        if local.endpoint.addresses and (applied.own_terms[direction] or applied.own_names[direction]):
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
