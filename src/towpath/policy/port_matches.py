"""A rule's list of ports, gathered: one criterion a protocol, whatever the order they were written in."""

from collections.abc import Iterable

from towpath.policy.connections import normalised
from towpath.policy.ir import PORT_PROTOCOLS, SCTP, TCP, UDP, Action, Direction, Peer, Ports, Rule
from towpath.policy.reading import Field

# As the Kubernetes APIs name them.
PROTOCOLS = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP}

# A protocol and its destination ports, None where any will do.
Match = tuple[int | None, Ports | None]
ANY_PORT: tuple[Match, ...] = ((None, None),)


class PortMatches:
    """Any of what was added. Nothing added is no match at all: whoever means every port says ANY_PORT."""

    def __init__(self) -> None:
        self._ranges: dict[int, list[tuple[int, int]]] = {}
        self._names: dict[int, set[str]] = {}
        self._whole: set[int] = set()

    def protocol(self, protocol: int) -> None:
        """All ports of it."""
        self._whole.add(protocol)

    def range(self, protocol: int, first: int, last: int) -> None:
        """From ``first`` to ``last``, both included."""
        self._ranges.setdefault(protocol, []).append((first, last))

    def name(self, name: str, protocols: Iterable[int] = PORT_PROTOCOLS) -> None:
        """What the destination calls so, in any of the protocols."""
        for protocol in protocols:
            self._names.setdefault(protocol, set()).add(name)

    @property
    def named(self) -> bool:
        """Whether there is a name among them, which only pods have."""
        return bool(self._names)

    def matches(self) -> tuple[Match, ...]:
        """By protocol."""
        found: list[Match] = []
        for protocol in sorted({*self._whole, *self._ranges, *self._names}):
            if protocol in self._whole:
                found.append((protocol, None))
            else:
                ranges = normalised(self._ranges.get(protocol, ()))
                found.append((protocol, Ports(ranges, tuple(sorted(self._names.get(protocol, ()))))))
        return tuple(found)


def port_range(first: Field, last: Field) -> tuple[int, int]:
    """Two port numbers, in order. Raises Unreadable."""
    low = first.integer(1, 65535)
    high = last.integer(1, 65535)
    if high < low:
        raise last.unreadable(f"is less than the first port, {low}", "write the smaller number first")
    return low, high


def expand(
    action: Action, direction: Direction, peers: Iterable[tuple[str, Peer]], matches: tuple[Match, ...]
) -> tuple[Rule, ...]:
    """A rule for each peer, with its path, and each match."""
    rules: list[Rule] = []
    for path, peer in peers:
        for protocol, ports in matches:
            if direction == "ingress":
                rule = Rule(action=action, path=path, protocol=protocol, source=peer, destination_ports=ports)
            else:
                rule = Rule(
                    action=action, path=path, protocol=protocol, destination=peer, destination_ports=ports
                )
            rules.append(rule)
    return tuple(rules)
