"""What of the compiled policy a flow's first packet finds in the kernel's table, up to what decides.

Played over the table as it is desired, so that it can be told without sending anything. Only forms that the
compiler and ``desired.policy_chains`` write are understood.
"""

import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

import msgspec

from towpath.model.net import Addr
from towpath.model.nft import Key, NftTable
from towpath.model.policy import DENIED, DST_CLASS, POD_FROM, POD_TO, PRE_DNAT, SRC_CLASS, UNTRACKED
from towpath.policy.evaluate import Flow
from towpath.policy.host_places import ALL_INTERFACES
from towpath.policy.host_policies import CHAINS
from towpath.policy.ir import Aspect, Direction

_MATCH = re.compile(
    r"(?P<what>meta nfproto|meta l4proto|th sport|th dport|icmp type|icmp code|icmpv6 type|icmpv6 code"
    r"|ip saddr|ip daddr|ip6 saddr|ip6 daddr) (?P<value>\{[^}]*\}|\S+) ?"
)
_VMAP = re.compile(r"meta priority vmap @(?P<set>\S+)")
_LOG = r'log (?:prefix "[^"]*" )?(?:[a-z-]+ \d+ )*'
_VERDICT = re.compile(
    rf"(?:counter |{_LOG})*(?P<verdict>return|accept|drop|(?P<how>goto|jump) (?P<chain>\S+))"
)
_AT = re.compile(r'[io]ifname (?:"(?P<name>[^"]+)"|!= "lo") (?P<rest>.+)')
_INVALID = "ct state invalid "  # which a first packet is not
_ENDS = ("return", "accept", "drop", DENIED, UNTRACKED, PRE_DNAT)
_STATEMENT = re.compile(r"(counter|log|limit|ct|set|add|update)\b")  # decides nothing if no verdict follows


class Element(msgspec.Struct, frozen=True):
    """An element of the set or map ``set``; ``data`` what the map has for it."""

    set: str
    key: Key
    data: Key = ()


class RuleHit(msgspec.Struct, frozen=True):
    """A rule of ``chain`` that sends the packet elsewhere, or decides."""

    chain: str
    text: str


Hit = Element | RuleHit


class Untraceable(Exception):
    """The table has a rule of a form that is not known here, or leads to what it does not have."""


def trace(table: NftTable, interface: str, direction: Direction, flow: Flow) -> tuple[Hit, ...]:
    """What judges the flow for the pod behind ``interface``, in order; the last one decides.

    Nothing if the interface has no verdict yet, and so is denied. Raises Untraceable.
    """
    start = (POD_FROM if direction == "egress" else POD_TO).name
    verdict = table.sets[start].elements.get((interface,)) if start in table.sets else None
    if verdict is None:
        return ()
    return (Element(start, (interface,), verdict), *_follow(table, str(verdict[0]), flow))


def trace_host(
    table: NftTable, interface: str, direction: Direction, aspects: Sequence[Aspect], flow: Flow
) -> tuple[Hit, ...]:
    """What judges the flow for the host endpoint that stands at ``interface`` (``*``: at all that no other
    does), where these aspects are asked, up to the one that decides. Nothing of what is not asked.

    Raises Untraceable.
    """
    hits: list[Hit] = []
    for aspect in aspects:
        for rule, verdict in _standing(table, CHAINS[aspect, direction], interface):
            hits += (RuleHit(CHAINS[aspect, direction], rule), *_follow(table, verdict, flow))
            if aspect not in ("untracked", "pre-dnat") or not _verdict(hits[-1]).endswith("return"):
                return tuple(hits)
    return tuple(hits)


def _standing(table: NftTable, chain: str, interface: str) -> Iterator[tuple[str, str]]:
    """The rule of a place that is about the interface, and its verdict."""
    for rule in table.chains[chain].rules if chain in table.chains else ():
        match = _AT.fullmatch(rule)
        verdict = _VERDICT.fullmatch(match["rest"].removeprefix(_INVALID)) if match is not None else None
        if match is None or verdict is None:
            raise Untraceable(f"{rule!r} of {chain} is of no form that is known here")
        if (match["name"] or ALL_INTERFACES) == interface and not match["rest"].startswith(_INVALID):
            yield rule, verdict["verdict"]
            return


def lets_pass(hits: Sequence[Hit]) -> bool:
    """Whether what ``trace_host`` found does not deny the flow: where nobody asks, it goes on."""
    return not hits or not _verdict(hits[-1]).endswith((DENIED, "drop"))


def _verdict(hit: Hit) -> str:
    return str(hit.data[0]) if isinstance(hit, Element) else hit.text


def allows(hits: Sequence[Hit]) -> bool:
    """Whether what ``trace`` found allows the flow."""
    return bool(hits) and _verdict(hits[-1]).endswith(("return", "accept"))


def _follow(table: NftTable, verdict: str, flow: Flow) -> Iterator[Hit]:
    chain = verdict.removeprefix("goto ")
    if chain in _ENDS:
        return
    if chain not in table.chains:
        raise Untraceable(f"there is no chain {chain}")
    found: Element | None = None
    for rule in table.chains[chain].rules:
        end = _rest(rule, flow)
        if end is None:
            continue
        if end in (f"jump {SRC_CLASS}", f"jump {DST_CLASS}"):
            found = _class(table, flow.source if end.endswith(SRC_CLASS) else flow.destination)
            if found is not None:
                yield found
        elif match := _VMAP.fullmatch(end):
            key = found.data if found is not None else (0,)
            data = table.sets[match["set"]].elements.get(key) if match["set"] in table.sets else None
            if data is not None:
                yield Element(match["set"], key, data)
                yield from _follow(table, str(data[0]), flow)
                return
        elif (match := _VERDICT.fullmatch(end)) and match["how"] != "jump":
            yield RuleHit(chain, rule)
            yield from _follow(table, match["verdict"], flow)
            return
        elif not _STATEMENT.match(end):
            raise Untraceable(f"{rule!r} of {chain} is of no form that is known here")
    raise Untraceable(f"chain {chain} has no end")


def _class(table: NftTable, address: Addr) -> Element | None:
    """Where ``src_class`` and ``dst_class`` find the class of an address; None: it has none."""
    exact, around = f"class{address.version}", f"net_class{address.version}"
    if exact in table.sets and (data := table.sets[exact].elements.get((address,))) is not None:
        return Element(exact, (address,), data)
    for key, data in table.sets[around].elements.items() if around in table.sets else ():
        if isinstance(key[0], IPv4Network | IPv6Network) and address in key[0]:
            return Element(around, key, data)
    return None


def _rest(rule: str, flow: Flow) -> str | None:
    """What follows the criteria, None if one does not match."""
    place = 0
    while match := _MATCH.match(rule, place):
        try:
            matches = _matches(match["what"], match["value"].strip("{} ").split(", "), flow)
        except ValueError as odd:
            raise Untraceable(f"{rule!r} is of no form that is known here") from odd
        if not matches:
            return None
        place = match.end()
    return rule[place:]


def _matches(what: str, values: list[str], flow: Flow) -> bool:
    if what == "meta nfproto":
        return values == [f"ipv{flow.family}"]
    if what.startswith("ip"):
        family, side = what.split()
        address = flow.source if side == "saddr" else flow.destination
        return (family == "ip") == (flow.family == 4) and address in map(ip_address, values)
    number = {
        "meta l4proto": flow.protocol,
        "th sport": flow.source_port,
        "th dport": flow.destination_port,
        "icmp type": flow.icmp_type,
        "icmpv6 type": flow.icmp_type,
        "icmp code": flow.icmp_code,
        "icmpv6 code": flow.icmp_code,
    }[what]
    return any(
        int(first) <= number <= int(last or first) for first, _, last in (v.partition("-") for v in values)
    )
