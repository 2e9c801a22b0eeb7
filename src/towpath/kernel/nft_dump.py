"""What the kernel says of a table, without libnftables: sets and their elements, chains, rules by number.

Through libnftables and its JSON a set of 150 000 elements took seconds and 220 MB on the way to the same
values (docs/adr/0001). Attribute numbers are those of uapi nf_tables.h.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from struct import Struct
from typing import Any

import msgspec

from towpath.kernel.nft_types import INTERVAL_END, VERDICT, Decoder, type_names
from towpath.kernel.nft_verdict import verdict_words
from towpath.kernel.wire import attributes, listed, string, text, unpack_head
from towpath.model.nft import Hook, Key, NftSet

GET_TABLE, GET_CHAIN, GET_RULE, GET_SET, GET_ELEMENTS = (10 << 8 | n for n in (1, 4, 7, 10, 13))
INET = bytes((1, 0, 0, 0))
_BODY = 4
_TABLE, _NAME = 1, 2
_CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 3, 4, 5, 7
_HOOK_NUMBER, _HOOK_PRIORITY = 1, 2
_RULE_HANDLE, _RULE_EXPRESSIONS, _RULE_USERDATA = 3, 4, 7
_SET_FLAGS, _SET_KEY_TYPE, _SET_DATA_TYPE, _SET_HANDLE, _SET_EXPR = 3, 4, 6, 16, 17
_ANONYMOUS, _INTERVAL, _MAP, _TIMEOUT = 0x1, 0x4, 0x8, 0x10
_LIST_ELEMENTS, _LIST_ELEM = 3, 1
_ELEM_KEY, _ELEM_DATA, _ELEM_FLAGS, _ELEM_EXPIRATION, _ELEM_EXPR, _ELEM_KEY_END = 1, 2, 3, 5, 7, 10
_DATA_VALUE, _DATA_VERDICT = 1, 2
_EXPR_NAME, _EXPR_DATA, _COUNTER_BYTES, _COUNTER_PACKETS = 1, 2, 1, 2
_COMMENT, _LOOKUP_SET, _WITHIN = 0, 1, b"__"

_HOOKS = dict(enumerate(("prerouting", "input", "forward", "output", "postrouting")))
# Of an element, its key and the key's value.
_HEADERS = 12


class Rule(msgspec.Struct, frozen=True):
    """A listed rule. Of two in one table with equal ``print``, comments and expressions are equal."""

    chain: str
    handle: int
    comment: str
    print: bytes


class Chain(msgspec.Struct, frozen=True):
    """A listed chain, without its rules."""

    name: str
    hook: Hook | None


def of_table(table: str, chain: str = "") -> bytes:
    """The body of a request for what is in a table, or in one of its chains."""
    return INET + text(_TABLE, table) + (text(_NAME, chain) if chain else b"")


def of_set(table: str, name: str) -> bytes:
    """The body of a request for a set's elements."""
    return INET + text(_TABLE, table) + text(_NAME, name)


def chains(messages: Iterable[bytes], table: str) -> Iterator[Chain]:
    """Those of ``table``: older kernels tell the chains of all tables."""
    for message in messages:
        found = attributes(message, _BODY)
        if string(found.get(_TABLE, b"")) == table:
            yield Chain(string(found[_CHAIN_NAME]), _hook(found))


def _hook(found: dict[int, bytes]) -> Hook | None:
    if _CHAIN_HOOK not in found:
        return None
    place = attributes(found[_CHAIN_HOOK])
    number = _number(place[_HOOK_NUMBER])
    fields: dict[str, Any] = {  # a stranger's chain may have a hook that ours never have
        "type": string(found[_CHAIN_TYPE]),
        "hook": _HOOKS.get(number, f"hook {number}"),
        "priority": int.from_bytes(place[_HOOK_PRIORITY], "big", signed=True),
        "policy": "accept" if _number(found.get(_CHAIN_POLICY, b"\1")) else "drop",
    }
    return Hook(**fields)


def rules(messages: Iterable[bytes], table: str, anonymous: Mapping[str, int]) -> Iterator[Rule]:
    """Those of ``table``, each chain's in order. ``anonymous`` from ``anonymous_sets``."""
    for message in messages:
        found = attributes(message, _BODY)
        if string(found.get(_TABLE, b"")) == table:
            comment = _comment(found.get(_RULE_USERDATA, b""))
            print_ = _print(found.get(_RULE_EXPRESSIONS, b""), comment, anonymous)
            yield Rule(string(found[_NAME]), _number(found[_RULE_HANDLE]), comment, print_)


def rule_counters(
    messages: Iterable[bytes], table: str, chain: str
) -> list[tuple[str, tuple[int, int] | None]]:
    """Comment, packets and bytes of each rule of a chain, in order; None of one that does not count."""
    counted: list[tuple[str, tuple[int, int] | None]] = []
    for message in messages:
        found = attributes(message, _BODY)
        if string(found.get(_TABLE, b"")) == table and string(found.get(_NAME, b"")) == chain:
            expressions = [_counted(body) for _, body in listed(found.get(_RULE_EXPRESSIONS, b""))]
            values = next((value for value in expressions if value is not None), None)
            counted.append((_comment(found.get(_RULE_USERDATA, b"")), values))
    return counted


def _counted(expression: bytes) -> tuple[int, int] | None:
    """Packets and bytes; None if it is no counter."""
    expr = attributes(expression)
    if string(expr.get(_EXPR_NAME, b"")) != "counter":
        return None
    values = attributes(expr.get(_EXPR_DATA, b""))
    return _number(values.get(_COUNTER_PACKETS, b"")), _number(values.get(_COUNTER_BYTES, b""))


def _print(expressions: bytes, comment: str, anonymous: Mapping[str, int]) -> bytes:
    """Of the expressions without what they have counted; of a set within the rule, which one it is."""
    state = blake2b(comment.encode(), digest_size=16)
    if b"counter\0" not in expressions and _WITHIN not in expressions:
        state.update(expressions)
        return state.digest()
    for _, expression in listed(expressions):
        found = attributes(expression)
        name, data = found.get(_EXPR_NAME, b""), found.get(_EXPR_DATA, b"")
        state.update(name)
        if name == b"counter\0":
            continue
        state.update(data)
        if name == b"lookup\0":
            which = anonymous.get(string(attributes(data).get(_LOOKUP_SET, b"")), 0)
            state.update(which.to_bytes(8, "big"))
    return state.digest()


def _comment(userdata: bytes) -> str:
    offset = 0
    while offset + 2 <= len(userdata):
        kind, size = userdata[offset], userdata[offset + 1]
        if kind == _COMMENT:
            return string(userdata[offset + 2 : offset + 2 + size])
        offset += 2 + size
    return ""


def anonymous_sets(messages: Iterable[bytes], table: str) -> dict[str, int]:
    """Handles of the sets within rules: their names are used again."""
    found = (attributes(message, _BODY) for message in messages)
    return {
        string(s[_NAME]): _number(s.get(_SET_HANDLE, b""))
        for s in found
        if _number(s.get(_SET_FLAGS, b"")) & _ANONYMOUS and string(s.get(_TABLE, b"")) == table
    }


def sets(messages: Iterable[bytes], table: str) -> Iterator[NftSet]:
    """Declarations of the named ones: those within a rule are part of it."""
    for message in messages:
        found = attributes(message, _BODY)
        flags = _number(found.get(_SET_FLAGS, b""))
        if flags & _ANONYMOUS or string(found.get(_TABLE, b"")) != table:
            continue
        yield NftSet(
            name=string(found[_NAME]),
            key=type_names(_number(found.get(_SET_KEY_TYPE, b""))),
            data=type_names(_number(found.get(_SET_DATA_TYPE, b""))) if flags & _MAP else (),
            interval=bool(flags & _INTERVAL),
            timeout=bool(flags & _TIMEOUT),
            counter=string(attributes(found.get(_SET_EXPR, b"")).get(_EXPR_NAME, b"")) == "counter",
        )


def digest(messages: Iterable[bytes]) -> bytes:
    """Equal for equal dumps of a set's elements."""
    state = blake2b(digest_size=16)
    for message in messages:
        state.update(message)
    return state.digest()


def elements(decl: NftSet, messages: Sequence[bytes]) -> dict[Key, Key]:
    """A set's elements, from their dump; of foreign values the model has no form for, text."""
    if decl.interval and len(decl.key) == 1:
        return _intervals(decl, messages)
    decoder, data = Decoder(decl.key), _Data(decl.data)
    if decl.interval:
        return {decoder.interval(e.key, e.end or e.key): data.of(e.data) for e in _elements(messages)}
    found: dict[Key, Key] = {}
    for blob in _blobs(messages):
        if not _alike(found, blob, decoder, data):
            found.update((decoder.key(e.key), data.of(e.data)) for e in _parsed(blob))
    return found


def counters(decl: NftSet, messages: Sequence[bytes]) -> dict[Key, tuple[int, int]]:
    """Packets and bytes that found each element of a set that counts them (no interval set)."""
    decoder = Decoder(decl.key)
    found: dict[Key, tuple[int, int]] = {}
    for element in _elements(messages):
        if (values := _counted(element.expr)) is not None:
            found[decoder.key(element.key)] = values
    return found


def remaining(decl: NftSet, messages: Sequence[bytes]) -> dict[Key, int]:
    """The milliseconds that each element of a set with timeouts has left."""
    decoder = Decoder(decl.key)
    found: dict[Key, int] = {}
    for blob in _blobs(messages):
        for kind, body in listed(blob):
            element = attributes(body)
            if kind == _LIST_ELEM and _ELEM_KEY in element:
                key = attributes(element[_ELEM_KEY]).get(_DATA_VALUE, b"")
                found[decoder.key(key)] = _number(element.get(_ELEM_EXPIRATION, b""))
    return found


class _Element(msgspec.Struct, gc=False):
    """``data`` is the whole attribute's payload; ``end`` of a concatenation of intervals."""

    key: bytes
    data: bytes
    end: bytes
    expr: bytes
    closes: bool


class _Data:
    """Data by its bytes: few are different, and all their elements then share one value."""

    def __init__(self, types: Sequence[str]) -> None:
        self._types, self._decoder = types, Decoder(types)
        self._known: dict[bytes, Key] = {b"": ()}

    def of(self, raw: bytes) -> Key:
        """What the attribute ``NFTA_SET_ELEM_DATA`` holds."""
        if (known := self._known.get(raw)) is None:
            found = attributes(raw)
            if self._types == VERDICT:
                known = (verdict_words(found.get(_DATA_VERDICT, b"")),)
            else:
                known = self._decoder.key(found.get(_DATA_VALUE, b""))
            self._known[raw] = known
        return known


def _blobs(messages: Iterable[bytes]) -> Iterator[bytes]:
    for message in messages:
        if (blob := attributes(message, _BODY).get(_LIST_ELEMENTS)) is not None:
            yield blob


def _elements(messages: Iterable[bytes]) -> Iterator[_Element]:
    for blob in _blobs(messages):
        yield from _parsed(blob)


def _parsed(blob: bytes) -> Iterator[_Element]:
    for kind, body in listed(blob):
        if kind != _LIST_ELEM:
            continue
        found = attributes(body)
        if _ELEM_KEY not in found:  # the catch-all element: no set of ours has one
            continue
        yield _Element(
            key=attributes(found[_ELEM_KEY]).get(_DATA_VALUE, b""),
            data=found.get(_ELEM_DATA, b""),
            end=attributes(found[_ELEM_KEY_END]).get(_DATA_VALUE, b"") if _ELEM_KEY_END in found else b"",
            expr=found.get(_ELEM_EXPR, b""),
            closes=bool(_number(found.get(_ELEM_FLAGS, b"")) & INTERVAL_END),
        )


def _alike(found: dict[Key, Key], blob: bytes, decoder: Decoder, data: _Data) -> bool:
    """Add the elements of ``blob`` if all are a key, and maybe data, of one size; False if they are not.

    Nearly always they are, and then their headers need only be compared.
    """
    size = unpack_head(blob)[0] if len(blob) >= _HEADERS else 0
    first = blob[4:size]
    if [kind for kind, _ in listed(first)] not in ([_ELEM_KEY], [_ELEM_KEY, _ELEM_DATA]) or len(blob) % size:
        return False
    key = unpack_head(blob, _HEADERS - 4)[0] - 4
    behind = _HEADERS + key + -key % 4
    layout = f"={_HEADERS}s{key}s{-key % 4}x" + (f"4s{size - behind - 4}s" if size > behind else "0s0s")
    same, same_data = blob[:_HEADERS], blob[behind : behind + 4] if size > behind else b""
    of_key, of_data = decoder.key, data.of
    for head, value, data_head, raw in Struct(layout).iter_unpack(blob):
        if head != same or data_head != same_data:
            return False
        found[of_key(value)] = of_data(raw)
    return True


def _intervals(decl: NftSet, messages: Iterable[bytes]) -> dict[Key, Key]:
    """From elements that begin an interval and those that end one: the first value behind it.

    A dump in the midst of somebody's transaction can show an element twice, as it was and as it becomes. The
    caller sees by the generation that there was one, and looks again.
    """
    decoder, data = Decoder(decl.key), _Data(decl.data)
    marks = sorted(((e.key, not e.closes, e.data) for e in _elements(messages)), reverse=True)
    found: list[tuple[Key, Key]] = []
    behind: bytes | None = None
    for value, begins, raw in marks:
        if begins and value != behind:
            last = _before(behind) if behind is not None else b"\xff" * len(value)
            found.append((decoder.interval(value, last), data.of(raw)))
        behind = value
    return dict(reversed(found))


def _before(value: bytes) -> bytes:
    return (int.from_bytes(value, "big") - 1).to_bytes(len(value), "big")


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, "big")
