"""The rules of policy chains as the kernel's expressions, so that a chain changes together with its elements.

libnftables cannot take elements without listing the table's, which costs seconds where there are many. These
few statements are all that the chains consist of which policies change in place; any other rule is its.
"""

import re
from struct import Struct

from towpath.kernel.nft_declared import declared_set
from towpath.kernel.nft_text import comment_of
from towpath.kernel.nft_text import name as checked
from towpath.kernel.nft_types import NotPlain
from towpath.kernel.nft_verdict import verdict
from towpath.kernel.wire import attr, nested, text
from towpath.model.nft import NftChain, NftSet

_EXPR, _NAME, _DATA = 1, 1, 2
_DREG, _META_KEY, _IMMEDIATE_DATA = 1, 2, 2
_CMP_SREG, _CMP_OP, _CMP_DATA = 1, 2, 3
_LOOKUP_SET, _LOOKUP_SREG, _LOOKUP_DREG = 1, 2, 3
_DATA_VALUE, _DATA_VERDICT = 1, 2
_VERDICT_REGISTER, _REGISTER = 0, 1
_PRIORITY, _NFPROTO, _L4PROTO = 2, 15, 16
_EQUAL, _AT_MOST, _AT_LEAST = 0, 3, 5
_PAYLOAD_BASE, _PAYLOAD_OFFSET, _PAYLOAD_LENGTH, _TRANSPORT = 2, 3, 4, 2
_NFPROTOS = {"ipv4": b"\2", "ipv6": b"\n"}
_COMMENT = 0

_U32 = Struct(">I").pack
_PORTS = {"sport": 0, "dport": 2}
_RULE = re.compile(
    r"(?:meta nfproto (?P<family>ipv4|ipv6) )?(?:meta l4proto (?P<protocol>\d+) )?"
    r"(?:th (?P<end>[sd]port) (?P<first>\d+)(?:-(?P<last>\d+))? )?(?P<counter>counter )?"
    r"(?:meta priority vmap @(?P<map>\S+)|(?P<verdict>accept|drop|return|(?:jump|goto) \S+))"
)


def plain(item: NftSet | NftChain) -> bool:
    """Whether a set, or all rules of a chain, can be encoded here."""
    if isinstance(item, NftChain):
        return item.hook is None and all(_RULE.fullmatch(rule) for rule in item.rules)
    try:
        declared_set("", item, 0)
    except NotPlain:
        return False
    return True


def expressions(rule: str) -> bytes:
    """The expressions a rule consists of. Raises NotPlain; ValueError for a name that cannot be one."""
    found = _RULE.fullmatch(rule)
    if found is None:
        raise NotPlain
    parts = []
    if found["family"]:
        parts += [_meta(_NFPROTO), _compare(_EQUAL, _NFPROTOS[found["family"]])]
    if found["protocol"]:
        parts += [_meta(_L4PROTO), _compare(_EQUAL, _number(found["protocol"], 1))]
    if found["end"]:
        first, last = found["first"], found["last"] or found["first"]
        parts.append(_transport(_PORTS[found["end"]], 2))
        if first == last:
            parts.append(_compare(_EQUAL, _number(first, 2)))
        else:
            parts += [_compare(_AT_LEAST, _number(first, 2)), _compare(_AT_MOST, _number(last, 2))]
    if found["counter"]:
        parts.append(_expression("counter", b""))
    if found["map"]:
        parts += [_meta(_PRIORITY), _vmap(checked(found["map"]))]
    else:
        decided = nested(_DATA_VERDICT, verdict(found["verdict"]))
        place = attr(_DREG, _U32(_VERDICT_REGISTER))
        parts.append(_expression("immediate", place + nested(_IMMEDIATE_DATA, decided)))
    return b"".join(parts)


def comment(rule: str) -> bytes:
    """What a rule's user data says."""
    words = comment_of(rule).encode() + b"\0"
    return bytes((_COMMENT, len(words))) + words


def _expression(kind: str, data: bytes) -> bytes:
    return nested(_EXPR, text(_NAME, kind) + nested(_DATA, data))


def _meta(key: int) -> bytes:
    return _expression("meta", attr(_META_KEY, _U32(key)) + attr(_DREG, _U32(_REGISTER)))


def _transport(offset: int, length: int) -> bytes:
    where = attr(_PAYLOAD_BASE, _U32(_TRANSPORT)) + attr(_PAYLOAD_OFFSET, _U32(offset))
    return _expression("payload", attr(_DREG, _U32(_REGISTER)) + where + attr(_PAYLOAD_LENGTH, _U32(length)))


def _compare(how: int, value: bytes) -> bytes:
    data = nested(_CMP_DATA, attr(_DATA_VALUE, value))
    return _expression("cmp", attr(_CMP_SREG, _U32(_REGISTER)) + attr(_CMP_OP, _U32(how)) + data)


def _number(digits: str, size: int) -> bytes:
    try:
        return int(digits).to_bytes(size, "big")
    except OverflowError as error:
        raise NotPlain from error


def _vmap(name: str) -> bytes:
    registers = attr(_LOOKUP_SREG, _U32(_REGISTER)) + attr(_LOOKUP_DREG, _U32(_VERDICT_REGISTER))
    return _expression("lookup", text(_LOOKUP_SET, name) + registers)
