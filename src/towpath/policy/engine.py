"""The compiler: labelled endpoints and policies in, nftables sets and chains out, by differences.

``docs/adr/0005-policy-classes.md`` has the layout and the reasons. Events are only noted; what follows from
them is worked out when somebody asks, so that many events at once cost no more than their sum:

1. which policies select this node's endpoints, and which terms that brings and takes (``LocalPolicies``);
2. what these tell apart: profiles of endpoints, networks (``Population``);
3. which terms each cohort of addresses matches, hence the classes and their numbers (``Classes``);
4. what each subject lets each class do (``Subjects.follow``, ``LocalPolicies.judge``);
5. what the maps from addresses to classes hold (``ClassMaps``).
"""

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from towpath.model.net import Addr, Family
from towpath.model.nft import Key, NftSet, NftTable
from towpath.model.op import NftUpdate
from towpath.model.policy import (
    CLASS4,
    CLASS6,
    NET_CLASS4,
    NET_CLASS6,
    POD_FROM,
    POD_TO,
    PRE_DNAT,
    UNTRACKED,
    Program,
    Sampling,
)
from towpath.policy.addresses import Addresses
from towpath.policy.causes import Cause, LogRule, Packet, cause
from towpath.policy.class_maps import ClassMaps
from towpath.policy.classes import Classes, Seeds
from towpath.policy.conn_chains import ConnectionChains
from towpath.policy.conn_rules import RETURN
from towpath.policy.connections import Connections
from towpath.policy.facts import Cohort, Traits
from towpath.policy.host_policies import HostPolicies
from towpath.policy.ir import Aspect, Direction, Endpoint, NetworkSet, Policy, Tier, World
from towpath.policy.live import LiveProgram
from towpath.policy.local_policies import LocalPolicies
from towpath.policy.policy_book import PolicyBook, PolicyKey
from towpath.policy.population import Population
from towpath.policy.subjects import Subject, Subjects
from towpath.policy.terms import Terms, traits_of
from towpath.policy.vocabulary import Vocabulary

TABLE = "towpath"
_NUMBERS = 1 << 24  # more classes than there ever are
_MAPS: dict[Family, tuple[NftSet, NftSet]] = {4: (CLASS4, NET_CLASS4), 6: (CLASS6, NET_CLASS6)}


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Many events. What is removed goes first."""

    removed_endpoints: tuple[str, ...] = ()
    removed_network_sets: tuple[str, ...] = ()
    removed_policies: tuple[PolicyKey, ...] = ()
    removed_tiers: tuple[str, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    network_sets: tuple[NetworkSet, ...] = ()
    policies: tuple[Policy, ...] = ()
    tiers: tuple[Tier, ...] = ()


class _Judges(NamedTuple):
    """For one thing to be done with what is allowed."""

    subjects: Subjects
    chains: ConnectionChains


_SAMPLING = Sampling()


class Engine:
    """Synchronous and deterministic. Removing what is not there, and putting what is, changes nothing."""

    def __init__(self, table: str = TABLE, sampling: Sampling = _SAMPLING) -> None:
        self._program = LiveProgram(table, (CLASS4, CLASS6, NET_CLASS4, NET_CLASS6), apart=(POD_FROM, POD_TO))
        maps, vocabulary = self._program.maps, Vocabulary()
        self._terms = Terms()
        self._classes = Classes()
        self._addresses: dict[Family, Addresses] = {family: Addresses(family) for family in _MAPS}
        self._population = Population(vocabulary, self._addresses)
        self._maps = tuple(
            ClassMaps(self._addresses[family], self._classes, maps[single.name], maps[intervals.name])
            for family, (single, intervals) in _MAPS.items()
        )
        self._sampling = sampling
        tracked, untracked, pre_dnat = self._judging = (
            self._judges("p"),
            self._judges("u", f"goto {UNTRACKED}"),
            self._judges("d", f"goto {PRE_DNAT}"),
        )
        self._book = PolicyBook(self._terms, vocabulary)
        self._locals = LocalPolicies(self._book, tracked.subjects, self._program)
        judges: dict[Aspect, Subjects] = {
            "local": tracked.subjects,
            "forwarded": tracked.subjects,
            "untracked": untracked.subjects,
            "pre-dnat": pre_dnat.subjects,
        }
        self._hosts = HostPolicies(self._book, judges, self._classes, self._program)
        self._noted = True

    def seed(self, table: NftTable) -> None:
        """What the kernel holds, from an earlier process: what there is of it keeps its numbers and names.

        Before the first question, and after ``set_local``; later it means nothing.
        """
        single: dict[Family, dict[int, int]] = {4: {}, 6: {}}
        networks: dict[Key, int] = {}
        for family, (one, interval) in _MAPS.items():
            for key, number in _numbers(table, one):
                if isinstance(key[0], IPv4Address | IPv6Address):
                    single[family][int(key[0])] = number
            networks.update(_numbers(table, interval))
        self._classes.seed(Seeds(single, networks, self._blocks))
        self._locals.seed(table)

    def _blocks(self, cohort: Cohort) -> tuple[Key, ...]:
        return self._addresses[cohort.family].blocks(cohort.node)

    def apply(self, batch: Batch) -> None:
        """Many events at once."""
        for name in (*batch.removed_endpoints, *batch.removed_network_sets):
            self._population.drop(name)
        for key in batch.removed_policies:
            self._book.remove(key)
        for name in batch.removed_tiers:
            self._book.remove_tier(name)
        for endpoint in batch.endpoints:
            self._population.put(endpoint)
        for network_set in batch.network_sets:
            self._population.put(network_set)
        for policy in batch.policies:
            self._book.upsert(policy)
        for tier in batch.tiers:
            self._book.upsert_tier(tier)
        self._noted = True

    def load(self, world: World) -> None:
        """All of a world, in addition to what is there."""
        self.apply(
            Batch(
                endpoints=world.endpoints,
                network_sets=world.network_sets,
                policies=world.policies,
                tiers=world.tiers,
            )
        )

    def upsert_endpoint(self, endpoint: Endpoint) -> None:
        """New, or instead of the one with its name."""
        self._population.put(endpoint)
        self._noted = True

    def remove_endpoint(self, name: str) -> None:
        """Gone."""
        self._population.drop(name)
        self._noted = True

    def upsert_network_set(self, network_set: NetworkSet) -> None:
        """New, or instead of the one with its name."""
        self._population.put(network_set)
        self._noted = True

    def remove_network_set(self, name: str) -> None:
        """Gone."""
        self._population.drop(name)
        self._noted = True

    def upsert_policy(self, policy: Policy) -> None:
        """New, or instead of the one with its key."""
        self._book.upsert(policy)
        self._noted = True

    def remove_policy(self, key: PolicyKey) -> None:
        """Gone."""
        self._book.remove(key)
        self._noted = True

    def upsert_tier(self, tier: Tier) -> None:
        """New, or instead of the one with its name."""
        self._book.upsert_tier(tier)
        self._noted = True

    def remove_tier(self, name: str) -> None:
        """Gone. Policies that name it are enforced nevertheless, after all others."""
        self._book.remove_tier(name)
        self._noted = True

    def set_local(self, interfaces: Mapping[str, str]) -> None:
        """This node's pods: host interfaces and the names of the endpoints behind them, all of them.

        An interface whose endpoint has not been put yet gets ``goto denied``.
        """
        self._locals.set_interfaces(interfaces)
        self._noted = True

    def set_hosts(self, interfaces: Mapping[str, str]) -> None:
        """This node's host endpoints by the interfaces they stand at, ``*`` for all that are not named."""
        self._hosts.set_interfaces(interfaces)
        self._noted = True

    def program(self) -> Program:
        """All of it as it should be now. Changes count from here."""
        self._settle()
        self._program.told()
        apart = self._program.apart
        return Program(
            sets={name: live.snapshot() for name, live in self._program.maps.items()},
            chains=dict(self._program.chains),
            from_pod={str(key[0]): data for key, data in apart[POD_FROM.name].elements.items()},
            to_pod={str(key[0]): data for key, data in apart[POD_TO.name].elements.items()},
            sampling=self._sampling,
        )

    def verdicts(self, interface: str) -> tuple[Key | None, Key | None]:
        """Of a pod's interface its elements of ``pod_from`` and ``pod_to``, None if it is not local."""
        self._settle()
        apart = self._program.apart
        sent, got = (apart[decl.name].elements.get((interface,)) for decl in (POD_FROM, POD_TO))
        return sent, got

    def changes(self) -> NftUpdate | None:
        """The transaction from the program last told, by this or ``program``, to what should be now.

        It includes the elements of ``pod_from`` and ``pod_to``. None: nothing to do. If nothing was told yet,
        it makes everything.
        """
        self._settle()
        update = self._program.update()
        self._program.told()
        return update

    def _settle(self) -> None:
        """Follow all that was noted."""
        if not self._noted:
            return
        self._noted = False
        self._locals.apply(self._population.endpoint, self._population.pending)
        self._hosts.apply(self._population.endpoint, self._population.pending)
        self._book.settled()
        self._population.settle(self._terms.settle())
        changes = self._classes.settle(list(self._moves()))
        for judges in self._judging:
            judges.subjects.follow(changes)
        self._locals.judge(self._traits_at)
        self._hosts.judge(changes)
        for judges in self._judging:
            judges.chains.sweep()
        for maps in self._maps:
            maps.show(changes)

    def _judges(self, letter: str, allowed: str = RETURN) -> "_Judges":
        chains = ConnectionChains(self._program, self._sampling.group, allowed)
        return _Judges(Subjects(self._classes, chains, self._program, letter), chains)

    def _moves(self) -> Iterator[tuple[Cohort, Traits | None]]:
        """Cohorts that match other terms than they did, or are no more."""
        for family, addresses in self._addresses.items():
            for cohort in sorted(addresses.changed, key=lambda cohort: cohort.serial):
                traits = None
                if cohort.members or (cohort.atom and addresses.has(cohort.node)):
                    traits = traits_of(family, cohort.profiles, addresses.groups_of(cohort))
                else:
                    addresses.discard(cohort)
                if traits != cohort.traits:
                    yield cohort, traits

    def _traits_at(self, address: Addr) -> Traits | None:
        family: Family = 4 if address.version == 4 else 6
        cohort = self._addresses[family].cohort_of.get(int(address))
        return cohort.traits if cohort is not None else None

    # Asked about single packets.

    def allows(self, endpoint: str, direction: Direction, packet: Packet) -> bool | None:
        """Whether the program lets a local endpoint send, or get, a packet; None: it is not known."""
        self._settle()
        found = self._locals.judging(endpoint, direction, packet.own)
        if not isinstance(found, Subject):
            return found
        outcome = found.decisions.outcome(packet.family, self._peer(packet.peer))
        if isinstance(outcome, Connections):
            return outcome.contains(packet.protocol, packet.first, packet.second)
        return self._cause(found, packet).allowed

    def cause(self, endpoint: str, direction: Direction, packet: Packet) -> Cause | None:
        """Why, or why not; None: the endpoint is not known."""
        self._settle()
        found = self._locals.judging(endpoint, direction, packet.own)
        if found is None:
            return None
        if not isinstance(found, Subject):
            return Cause(allowed=found)
        why = self._cause(found, packet)
        if why.policy or not why.tier:
            return why
        return replace(why, policies=self._book.names(self._locals.applied(endpoint), direction, why.tier))

    def host_cause(
        self, interface: str, aspect: Aspect, direction: Direction, packet: Packet
    ) -> Cause | None:
        """Why, or why not, as the host endpoint at an interface has it; None: there is none."""
        self._settle()
        name = self._hosts.standing_at(interface)
        if name is None:
            return None
        found = self._hosts.judging(name, aspect, direction, self._peer(packet.own))
        why = self._cause(found, packet) if isinstance(found, Subject) else Cause(allowed=found)
        if why.tier and not why.policy:
            applied = self._hosts.applied(name, aspect)
            why = replace(why, policies=self._book.names(applied, direction, why.tier))
        return replace(why, host=name)

    def applied(self, endpoint: str) -> frozenset[PolicyKey]:
        """The policies in force on a local endpoint."""
        self._settle()
        return self._locals.applied(endpoint)

    def logged(self, identity: str) -> LogRule | None:
        """The rule in force whose log lines end with this; None: there is none any more."""
        self._settle()
        return self._book.logged(identity)

    def _cause(self, subject: Subject, packet: Packet) -> Cause:
        return cause(subject.decisions, packet, self._peer(packet.peer))

    def _peer(self, address: Addr) -> Traits | None:
        """Of any address: as the networks around it make it where nobody has it."""
        addresses = self._addresses[4 if address.version == 4 else 6]
        number = int(address)
        cohort = addresses.cohort_of.get(number) or addresses.tree.find(number).atom
        return cohort.traits


def _numbers(table: NftTable, decl: NftSet) -> Iterator[tuple[Key, int]]:
    """What a map of classes says, as far as an engine can have said it."""
    found = table.sets.get(decl.name)
    if found is not None and found.data == decl.data:
        for key, data in found.elements.items():
            if isinstance(data[0], int) and 0 < data[0] < _NUMBERS:
                yield key, data[0]
