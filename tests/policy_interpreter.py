"""What a compiled ``Program`` does with a packet: the rule forms that the compiler writes, and no others.

The static chains ``src_class``, ``dst_class`` and ``denied`` are played as ``desired.ruleset`` has them.
"""

import re
from ipaddress import IPv4Network, IPv6Network, ip_address
from itertools import pairwise
from typing import NamedTuple

from msgspec.structs import replace

from towpath.model.net import Addr
from towpath.model.nft import Key, NftSet, NftTable
from towpath.model.op import NftUpdate
from towpath.model.policy import (
    DENIED,
    DST_CLASS,
    HOST_PLACES,
    POD_FROM,
    POD_TO,
    PRE_DNAT,
    SRC_CLASS,
    UNTRACKED,
    Program,
)
from towpath.policy.evaluate import Flow
from towpath.policy.ir import Direction

_MATCH = re.compile(
    r"(?P<what>meta nfproto|meta l4proto|th sport|th dport|icmp type|icmp code|icmpv6 type|icmpv6 code"
    r"|ip saddr|ip daddr|ip6 saddr|ip6 daddr) (?P<value>\{[^}]*\}|\S+) ?"
)
_END = re.compile(
    r"(?P<counter>counter )?(?P<verdict>return|goto (?P<goto>[\w-]+)|jump (?P<jump>[\w-]+)"
    r"|meta priority vmap @(?P<vmap>[\w-]+))"
    r"|limit rate \S+ burst \d+ packets log prefix \"(?P<prefix>[^\"]*)\" group (?P<group>\d+)"
)


_INTERFACE = re.compile(
    r"(?P<side>[io])ifname (?P<op>!= )?\"(?P<name>[^\"]+)\" (?P<invalid>ct state invalid )?"
    r"(?P<counter>counter )?(?P<verdict>return|goto [\w-]+)"
)

# Of a node whose pods' policy nobody has spoken of yet.
EMPTY = NftTable(name="towpath", sets={decl.name: decl for decl in (POD_FROM, POD_TO)})


class Seen(NamedTuple):
    """What became of a packet, and the prefixes of what was logged on the way."""

    allowed: bool
    logged: tuple[str, ...]


def table_of(program: Program) -> NftTable:
    """With the elements of ``pod_from`` and ``pod_to``, as the kernel has them."""
    verdicts = {
        decl.name: replace(decl, elements={(name,): data for name, data in elements.items()})
        for decl, elements in ((POD_FROM, program.from_pod), (POD_TO, program.to_pod))
    }
    return NftTable(name="towpath", sets={**program.sets, **verdicts}, chains=program.chains)


def judged(table: NftTable, interface: str, direction: Direction, flow: Flow) -> Seen:
    """A pod's egress or ingress, by its host interface. A pod that is not in the map is not known."""
    verdicts = table.sets[POD_FROM.name if direction == "egress" else POD_TO.name].elements
    packet = _Packet(table, flow)
    verdict = verdicts.get((interface,), (f"goto {DENIED}",))[0]
    return Seen(packet.follow(str(verdict)), tuple(packet.logged))


def judged_at(table: NftTable, chain: str, interface: str, flow: Flow) -> tuple[bool | None, list[str]]:
    """A host endpoint's verdict at a place's chain, and what is logged: None if that is left to others."""
    packet = _Packet(table, flow)
    for rule in table.chains[chain].rules if chain in table.chains else ():
        found = _INTERFACE.fullmatch(rule)
        assert found, f"no rule that tells interfaces apart: {rule!r}"
        assert found["side"] == ("o" if chain.endswith("_out") else "i")
        if (interface == found["name"]) != (found["op"] is not None) and not found["invalid"]:
            assert bool(found["counter"]) == (found["verdict"] == f"goto {DENIED}")
            back = packet.follow(found["verdict"])
            return (packet.explicit or None) if back else False, packet.logged
    return None, []


def class_of(table: NftTable, address: Addr) -> int:
    """What ``src_class`` and ``dst_class`` leave in ``meta priority``."""
    listed = table.sets[f"class{address.version}"].elements.get((address,))
    if listed is not None:
        return _number(listed)
    around = [
        _number(data)
        for (net,), data in table.sets[f"net_class{address.version}"].elements.items()
        if isinstance(net, IPv4Network | IPv6Network) and address in net
    ]
    assert len(around) < 2, f"{address} is in overlapping networks"
    return around[0] if around else 0


class _Packet:
    def __init__(self, table: NftTable, flow: Flow) -> None:
        self._table = table
        self._flow = flow
        self._class = -1  # until looked up
        self.explicit = False  # allowed before tracking or DNAT
        self.logged: list[str] = []

    def follow(self, verdict: str) -> bool:
        """Whether it comes back by ``return``. Every chain ends with a verdict."""
        if verdict == "return":
            return True
        chain = verdict.removeprefix("goto ")
        if chain == DENIED:
            return False
        if chain in (UNTRACKED, PRE_DNAT):
            self.explicit = True
            return True
        for rule in self._table.chains[chain].rules:
            end = self._rest(rule)
            if end is None:
                continue
            match = _END.fullmatch(end)
            assert match, f"no rule that the compiler writes: {rule!r}"
            if match["prefix"] is not None:
                self.logged.append(match["prefix"])
            elif match["jump"]:
                self._look_up(match["jump"])
            elif match["vmap"]:
                data = self._table.sets[match["vmap"]].elements.get((self._class,))
                if data is not None:
                    return self.follow(str(data[0]))
            else:
                assert bool(match["counter"]) == (match["goto"] == DENIED), rule
                return self.follow(match["verdict"])
        raise AssertionError(f"chain {chain} has no end")

    def _look_up(self, chain: str) -> None:
        address = {SRC_CLASS: self._flow.source, DST_CLASS: self._flow.destination}[chain]
        self._class = class_of(self._table, address)

    def _rest(self, rule: str) -> str | None:
        """What follows the criteria, None if one does not match."""
        place = 0
        while match := _MATCH.match(rule, place):
            if not self._matches(match["what"], match["value"].strip("{} ").split(", ")):
                return None
            place = match.end()
        return rule[place:]

    def _matches(self, what: str, values: list[str]) -> bool:
        flow = self._flow
        if what == "meta nfproto":
            return values == [f"ipv{flow.family}"]
        if what.startswith("ip"):
            family, side = what.split()
            if (family == "ip") != (flow.family == 4):
                return False
            return (flow.source if side == "saddr" else flow.destination) in map(ip_address, values)
        number = {
            "meta l4proto": flow.protocol,
            "th sport": flow.source_port,
            "th dport": flow.destination_port,
            "icmp type": flow.icmp_type,
            "icmpv6 type": flow.icmp_type,
            "icmp code": flow.icmp_code,
            "icmpv6 code": flow.icmp_code,
        }[what]
        ranges = (value.partition("-") for value in values)
        return any(int(first) <= number <= int(last or first) for first, _, last in ranges)


def applied(table: NftTable, update: NftUpdate) -> NftTable:
    """The table after a transaction, which must be one that says exactly what it changes."""
    sets, chains = dict(table.sets), dict(table.chains)
    for decl in update.add_sets:
        assert decl.name not in sets and not decl.elements
        sets[decl.name] = decl
    for decl, gone in update.del_elements:
        elements = dict(sets[decl.name].elements)
        for key, data in gone.items():
            assert elements.pop(key) == data
        sets[decl.name] = replace(decl, elements=elements)
    for decl, come in update.add_elements:
        elements = sets[decl.name].elements
        assert not elements.keys() & come.keys()
        sets[decl.name] = replace(decl, elements={**elements, **come})
    declared = {name for name, _ in update.add_chains}
    assert not declared & chains.keys() and declared <= {chain.name for chain in update.set_chains}
    for chain in update.set_chains:
        assert (chain.name in declared) == (chain.name not in chains)
        assert chains.get(chain.name) != chain
        chains[chain.name] = chain
    for name in update.del_chains:
        del chains[name]
    for name in update.del_sets:
        if sets[name].data == ("verdict",):
            assert not sets[name].elements
        del sets[name]
    return NftTable(name=table.name, sets=sets, chains=chains)


def check(table: NftTable) -> None:
    """Everything named is there, everything there is used, and networks do not overlap."""
    named = {str(data[0]).split()[-1] for decl in table.sets.values() for data in _verdicts(decl)}
    rules = " ".join(rule for chain in table.chains.values() for rule in chain.rules)
    named |= set(re.findall(r"goto ([\w-]+)", rules))
    assert named - {"return", DENIED, UNTRACKED, PRE_DNAT} == table.chains.keys() - HOST_PLACES
    used = set(re.findall(r"@([\w-]+)", rules))
    fixed = {"class4", "class6", "net_class4", "net_class6", POD_FROM.name, POD_TO.name}
    assert table.sets.keys() - fixed == used
    for name in ("net_class4", "net_class6"):
        nets = [key[0] for key in table.sets[name].elements]
        spans = sorted(
            (int(net.network_address), int(net.broadcast_address))
            for net in nets
            if isinstance(net, IPv4Network | IPv6Network)
        )
        assert len(spans) == len(nets)
        assert all(one[1] < other[0] for one, other in pairwise(spans))


def _verdicts(decl: NftSet) -> list[Key]:
    return list(decl.elements.values()) if decl.data == ("verdict",) else []


def _number(data: Key) -> int:
    assert isinstance(data[0], int)
    return data[0]
