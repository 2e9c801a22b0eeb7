"""An NftUpdate as nft commands.

Every step is indivisible and the list is in an order that is safe to cut: should a transaction be too
large for the socket, what comes first is not yet visible to any rule (new sets, new chains reached by
nobody), then come additions, then the rules that use them, then removals (``nft_steps``).
"""

import hashlib
import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from towpath.kernel.nft_steps import Change, additions, removals
from towpath.model.nft import Field, Hook, Key, NftChain, NftSet
from towpath.model.op import NftUpdate

# Commands that must take effect together.
Step = tuple[str, ...]

PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "dccp": 33, "ipv6-icmp": 58, "sctp": 132, "udplite": 136}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]{0,126}")
# A trailing asterisk would be a prefix to nft; the kernel counts bytes.
IFNAME = re.compile(r"[!#-)+-.0-\[\]-z|~]{1,15}")
_VERDICT = re.compile(r"accept|drop|return|continue|(goto|jump) [A-Za-z_][A-Za-z0-9_.\-]*")


def comment_of(rule: str) -> str:
    """The comment our rules carry: it tells a rule of ours, and which text it was made from."""
    return f"tp:{hashlib.sha256(rule.encode()).hexdigest()[:16]}"


def commands(update: NftUpdate, *, present: bool = False) -> list[Step]:
    """The update's steps, in order. Raises ValueError for a name, key or value that nft must not see.

    ``present``: the table is there. To add it once more would ask for its flags to be taken away, which the
    kernel refuses where it is owned or persists.
    """
    table = f"inet {name(update.table)}"
    hidden = {chain for chain, hook in update.add_chains if hook is None}
    script: list[Step] = [] if present else [(f"add table {table}",)]
    if update.recreate:  # deleting what may be absent is an error; what has just been added is not absent
        anew = f"delete table {table}", f"add table {table}"
        script = [anew if present else (f"add table {table}", *anew)]
    script += [(f"add {'map' if s.data else 'set'} {table} {_declaration(s)}",) for s in update.add_sets]
    script += [(f"add chain {table} {_chain(chain, hook)}",) for chain, hook in update.add_chains]
    script += [_fill(table, chain) for chain in update.set_chains if chain.name in hidden]
    script += (_commands(table, step) for step in additions(update))
    script += [_fill(table, chain) for chain in update.set_chains if chain.name not in hidden]
    script += (_commands(table, step) for step in removals(update))
    script += [(f"flush chain {table} {name(chain)}",) for chain in update.del_chains]
    script += [(f"delete chain {table} {name(chain)}",) for chain in update.del_chains]
    return script + [(f"delete set {table} {name(decl)}",) for decl in update.del_sets]


def name(value: str) -> str:
    """``value`` if it can be a table's, set's or chain's name. Raises ValueError."""
    if not _NAME.fullmatch(value):
        raise ValueError(f"{value!r} is no name for nftables")
    return value


def key_text(types: tuple[str, ...], key: Key) -> str:
    """A key, or a map's data, in nft's syntax. Raises ValueError."""
    return " . ".join(_field(kind, field) for kind, field in zip(types, key, strict=True))


def _declaration(decl: NftSet) -> str:
    types = " . ".join(name(kind) for kind in decl.key)
    if decl.data:
        types += " : " + " . ".join(name(kind) for kind in decl.data)
    flags = (" flags interval;" if decl.interval else "") + (" counter;" if decl.counter else "")
    flags += " flags timeout;" if decl.timeout else ""
    return f"{name(decl.name)} {{ type {types};{flags} }}"


def _chain(chain: str, hook: Hook | None) -> str:
    if hook is None:
        return name(chain)
    place = f"type {hook.type} hook {hook.hook} priority {hook.priority}"
    return f"{name(chain)} {{ {place}; policy {hook.policy}; }}"


def _fill(table: str, chain: NftChain) -> Step:
    """Declare, flush and refill a chain: cut anywhere inside, it would let packets through."""
    lines = [f"add chain {table} {_chain(chain.name, chain.hook)}", f"flush chain {table} {chain.name}"]
    for rule in chain.rules:
        if "\n" in rule or ";" in rule:
            raise ValueError(f"rule of chain {chain.name} is more than one: {rule!r}")
        lines.append(f'add rule {table} {chain.name} {rule} comment "{comment_of(rule)}"')
    return tuple(lines)


def _commands(table: str, step: tuple[Change, ...]) -> Step:
    return tuple(_command(table, *change) for change in step)


def _command(table: str, verb: str, decl: NftSet, elements: Iterable[tuple[Key, Key]]) -> str:
    with_data = verb == "add" and decl.data
    timed = verb == "add" and decl.timeout
    texts = (
        key_text(decl.key, key)
        + (f" : {key_text(decl.data, data)}" if with_data else "")
        + (f" timeout {_milliseconds(data)}ms" if timed else "")
        for key, data in elements
    )
    return f"{verb} element {table} {name(decl.name)} {{ {', '.join(texts)} }}"


def _milliseconds(data: Key) -> int:
    match data:
        case (int() as number,) if number > 0:
            return number
    raise ValueError(f"{data!r} is no timeout for nftables")


def _field(kind: str, value: Field) -> str:
    match value:
        case IPv4Address() | IPv4Network() if kind == "ipv4_addr":
            return str(value)
        case IPv6Address() | IPv6Network() if kind == "ipv6_addr":
            return str(value)
        case str() if kind == "ifname" and IFNAME.fullmatch(value):
            return f'"{value}"'
        case str() if kind == "inet_proto" and value in PROTOCOLS:
            return str(PROTOCOLS[value])  # /etc/protocols, which nft would ask, is not in every image
        case str() if kind == "verdict" and _VERDICT.fullmatch(value):
            return value
        case int() if kind == "classid" and 0 <= value < 1 << 32:
            return f"{value >> 16:x}:{value & 0xFFFF:x}"
        case int() if kind in ("inet_service", "mark", "inet_proto", "icmp_type", "icmpv6_type"):
            return str(int(value))
        case (int(), int()) if kind == "inet_service":
            return f"{value[0]}-{value[1]}" if value[0] != value[1] else str(value[0])
    raise ValueError(f"{value!r} is no {kind} for nftables")
