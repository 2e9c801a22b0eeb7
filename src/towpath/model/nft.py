"""nftables objects as values: one table of static chains over dynamic sets and maps.

Rules are nft text; set elements are typed tuples, so that nothing unparsed reaches the kernel
(libnftables would try to resolve ``300.1.1.1`` as a host name).
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal

import msgspec

# Who may change a table: everybody with NET_ADMIN, if it is "free" (no flags) or "kept" (the flag persist,
# left by an owner that ended); the asking process alone, its "own"; another process, so that it is "foreign".
Owner = Literal["free", "kept", "own", "foreign"]

# One field of a set key or of map data, by nft type:
#   ifname -> str; ipv4_addr/ipv6_addr -> address, or network in interval sets; inet_proto -> str ("tcp");
#   inet_service, mark -> int, or (low, high) in interval sets; classid -> int (nft prints 0x10005 as "1:5");
#   verdict -> str ("accept", "goto pod-x").
Field = str | int | IPv4Address | IPv6Address | IPv4Network | IPv6Network | tuple[int, int]
Key = tuple[Field, ...]


class NftSet(msgspec.Struct, frozen=True, kw_only=True):
    """A set (``data`` empty, every element maps to ``()``) or a map.

    ``key`` and ``data`` are nft type names, concatenated in order: ``("ifname", "ipv4_addr")``;
    ``data=("verdict",)`` makes a verdict map. ``interval`` only for CIDRs and port ranges: it costs
    milliseconds per element where a hash costs microseconds. ``counter``: each element counts the packets
    that found it.

    ``timeout``, of a set: its elements are added each for so many milliseconds, its data, ``(5000,)``. They
    pass by themselves and are no part of a state: a listing has none of them, and none are desired.
    """

    name: str
    key: tuple[str, ...]
    data: tuple[str, ...] = ()
    interval: bool = False
    counter: bool = False
    timeout: bool = False
    elements: dict[Key, Key] = {}


HookName = Literal["prerouting", "input", "forward", "output", "postrouting"]


class Hook(msgspec.Struct, frozen=True, kw_only=True):
    """Where a base chain is attached. ``priority`` is the plain integer nft prints for inet tables."""

    type: Literal["filter", "nat", "route"]
    hook: HookName
    priority: int
    policy: Literal["accept", "drop"] = "accept"


class NftChain(msgspec.Struct, frozen=True, kw_only=True):
    """A chain and its rules, in order. ``hook`` None for a chain reached only by jump or verdict map."""

    name: str
    hook: Hook | None = None
    rules: tuple[str, ...] = ()


class NftTable(msgspec.Struct, frozen=True, kw_only=True):
    """The table ``inet NAME`` with all it holds, by name.

    ``owner`` desired: "own", or "free" where it does not matter. ``doubled``: the table ``NAME_next`` is in
    force too, because an update (``NftUpdate.recreate``) was cut off.
    """

    name: str
    owner: Owner = "free"
    doubled: bool = False
    sets: dict[str, NftSet] = {}
    chains: dict[str, NftChain] = {}
