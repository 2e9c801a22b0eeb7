"""Cutting flows that were allowed once and are denied now: the sets and chains for it, and their elements.

Policy asks about first packets only, and what follows is accepted as established. To delete a flow's
conntrack entry is not enough: the server's next packet makes another, the other way round, which the other
side's policy may well allow. So both directions of the flow are in a set that is asked before anything is
established, for as long as conntrack would have remembered the flow. TCP's ends are told by a reset when they
speak.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from towpath.model.net import Addr, Family
from towpath.model.nft import Hook, Key, NftChain, NftSet
from towpath.model.op import NftUpdate

ANNOTATION = "towpath.dev/revocation"
SURVIVE, ENFORCE = "survive", "enforce"

# By protocol number, as elements name it.
_PORTS: Mapping[int, str] = {6: "tcp", 17: "udp", 33: "dccp", 132: "sctp", 136: "udplite"}
_NUMBERS = {name: number for number, name in _PORTS.items()}
_ICMP = {1, 58}


def _set(name: str, address: str, *fields: str) -> NftSet:
    return NftSet(name=name, key=(address, address, *fields), timeout=True)


_TUPLE = ("inet_proto", "inet_service", "inet_service")
WITH_PORTS: Mapping[Family, NftSet] = {
    4: _set("revoked4", "ipv4_addr", *_TUPLE),
    6: _set("revoked6", "ipv6_addr", *_TUPLE),
}
_WITH_TYPES: Mapping[Family, NftSet] = {
    4: _set("revoked_icmp4", "ipv4_addr", "icmp_type"),
    6: _set("revoked_icmp6", "ipv6_addr", "icmpv6_type"),
}
SETS = {decl.name: decl for decl in (*WITH_PORTS.values(), *_WITH_TYPES.values())}

# The first rule of the chains ``input`` and ``forward``.
FIRST = ("jump revoked",)


class Flow(NamedTuple):
    """As it is between destination NAT and source NAT, where it is judged: from who began it to who answers.

    ``first`` and ``second``: source and destination port, or ICMP's type and code; ``back``: the answer's.
    """

    source: Addr
    destination: Addr
    protocol: int
    first: int = 0
    second: int = 0
    back: int = 0

    @property
    def family(self) -> Family:
        """That of both addresses."""
        return 4 if self.source.version == 4 else 6


def chains() -> dict[str, NftChain]:
    """Our own resets pass by ``output``, in the name of the flow's other end."""
    made = (
        NftChain(
            name="revoked",
            rules=(
                "ip saddr . ip daddr . meta l4proto . th sport . th dport @revoked4 goto cut",
                "ip6 saddr . ip6 daddr . meta l4proto . th sport . th dport @revoked6 goto cut",
                "ip saddr . ip daddr . icmp type @revoked_icmp4 goto cut",
                "ip6 saddr . ip6 daddr . icmpv6 type @revoked_icmp6 goto cut",
            ),
        ),
        NftChain(name="cut", rules=("tcp flags ! rst counter reject with tcp reset", "counter drop")),
        NftChain(
            name="revoked_output",
            hook=Hook(type="filter", hook="output", priority=0),
            rules=("tcp flags rst return", *FIRST),
        ),
    )
    return {chain.name: chain for chain in made}


def cut(flows: Iterable[tuple[Flow, int]], table: str) -> NftUpdate:
    """Both directions of each, for so many milliseconds."""
    return NftUpdate(table=table, add_elements=_grouped((flow, (ms,)) for flow, ms in flows))


def lifted(flows: Iterable[Flow], table: str) -> NftUpdate:
    """They may go on, or whoever has their addresses and ports next."""
    return NftUpdate(table=table, del_elements=_grouped((flow, ()) for flow in flows))


def _grouped(flows: Iterable[tuple[Flow, Key]]) -> tuple[tuple[NftSet, dict[Key, Key]], ...]:
    found: dict[str, dict[Key, Key]] = {}
    for flow, data in flows:
        for name, key in keys(flow):
            found.setdefault(name, {})[key] = data
    return tuple((SETS[name], elements) for name, elements in found.items())


def keys(flow: Flow) -> Iterator[tuple[str, Key]]:
    """The set and the key of each direction; none for a protocol that has neither ports nor types."""
    one, other = flow.source, flow.destination
    if (protocol := _PORTS.get(flow.protocol)) is not None:
        name = WITH_PORTS[flow.family].name
        yield name, (one, other, protocol, flow.first, flow.second)
        yield name, (other, one, protocol, flow.second, flow.first)
    elif flow.protocol in _ICMP:
        name = _WITH_TYPES[flow.family].name
        yield name, (one, other, flow.first)
        yield name, (other, one, flow.back)


def flow_of(key: Key) -> Flow | None:
    """Of a key of ``WITH_PORTS``, in the direction that the key has."""
    source, destination, protocol, first, second = key
    number = _NUMBERS.get(str(protocol))
    if number is None or not isinstance(first, int) or not isinstance(second, int):
        return None
    if isinstance(source, str | int | tuple) or isinstance(destination, str | int | tuple):
        return None
    return Flow(source, destination, number, first, second)  # type: ignore[arg-type]
