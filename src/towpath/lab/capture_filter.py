"""A small part of pcap-filter(7): protocols, ``host``, ``net``, ``port``, ``vni``, and, or, not, parentheses.

A VXLAN packet matches by its outer or its inner headers, so that ``host POD`` finds a pod's traffic in the
tunnel.
"""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from towpath.lab.capture_decode import Packet

Filter = Callable[[Packet], bool]

_PROTOCOLS = {"tcp", "udp", "icmp", "icmp6", "sctp", "arp"}


def parse_filter(words: list[str]) -> Filter:
    """A predicate on packets; no words match everything. Raises ValueError naming the word at fault."""
    tokens = " ".join(words).replace("(", " ( ").replace(")", " ) ").split()
    if not tokens:
        return lambda _: True
    parser = _Parser(tokens)
    result = parser.either()
    if parser.rest():
        raise ValueError(f"unexpected {parser.rest()[0]!r}")
    return result


class _Parser:
    def __init__(self, tokens: list[str]) -> None:
        self._tokens, self._at = tokens, 0

    def rest(self) -> list[str]:
        return self._tokens[self._at :]

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self, what: str) -> str:
        if not self._peek():
            raise ValueError(f"{what} is missing at the end")
        self._at += 1
        return self._tokens[self._at - 1]

    def either(self) -> Filter:
        left = self._both()
        while self._peek() == "or":
            self._at += 1
            left = _or(left, self._both())
        return left

    def _both(self) -> Filter:
        left = self._one()
        while self._peek() not in ("", "or", ")"):
            if self._peek() == "and":
                self._at += 1
            left = _and(left, self._one())
        return left

    def _one(self) -> Filter:
        word = self._next("an expression")
        if word == "not":
            inner = self._one()
            return lambda packet: not inner(packet)
        if word == "(":
            inner = self.either()
            if self._next("a closing parenthesis") != ")":
                raise ValueError("a closing parenthesis is missing")
            return inner
        return _anywhere(self._primitive(word))

    def _primitive(self, word: str) -> Filter:
        if word in _PROTOCOLS:
            return lambda packet: packet.protocol == word
        if word in ("ip", "ip6"):
            version = 4 if word == "ip" else 6
            return lambda packet: packet.source is not None and packet.source.version == version
        if word == "vxlan":
            return lambda packet: packet.inner is not None
        if word in ("src", "dst"):
            return self._directed(word, self._next("host, net or port"))
        return self._directed("", word)

    def _directed(self, side: str, word: str) -> Filter:
        if word == "vni":
            vni = int(self._next("a number"))
            return lambda packet: packet.vni == vni
        if word == "port":
            port = int(self._next("a port"))
            return lambda packet: port in _ports(packet, side)
        if word in ("host", "net"):
            text = self._next("an address")
            network = ip_network(text) if word == "net" else ip_network(ip_address(text))
            return lambda packet: any(
                address is not None and address.version == network.version and address in network
                for address in _addresses(packet, side)
            )
        raise ValueError(f"unknown word {word!r}")


def _ports(packet: Packet, side: str) -> tuple[int, ...]:
    return {"src": (packet.sport,), "dst": (packet.dport,)}.get(side, (packet.sport, packet.dport))


def _addresses(packet: Packet, side: str) -> tuple[IPv4Address | IPv6Address | None, ...]:
    both = (packet.source, packet.destination)
    return {"src": both[:1], "dst": both[1:]}.get(side, both)


def _anywhere(test: Filter) -> Filter:
    def match(packet: Packet) -> bool:
        return test(packet) or (packet.inner is not None and match(packet.inner))

    return match


def _and(left: Filter, right: Filter) -> Filter:
    return lambda packet: left(packet) and right(packet)


def _or(left: Filter, right: Filter) -> Filter:
    return lambda packet: left(packet) or right(packet)
