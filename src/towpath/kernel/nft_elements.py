"""Elements, plain sets and chains, and the removal of both, straight to the kernel.

libnftables lists tables, chains, sets and objects before each transaction, to know the types of a set it is
told about by name, and all elements of all sets where one holds intervals. We know the types. One batch of
messages (uapi nf_tables.h) is one transaction as well. What is not the plain case is libnftables'.
"""

from collections.abc import Callable, Iterable, Iterator

from towpath.kernel.nft_declared import declared_chain, declared_set
from towpath.kernel.nft_rules import comment, expressions
from towpath.kernel.nft_socket import Message
from towpath.kernel.nft_steps import Change, additions, removals
from towpath.kernel.nft_text import name as checked
from towpath.kernel.nft_types import INTERVAL_END, VERDICT, NotPlain, encode_bounds, encoder
from towpath.kernel.nft_verdict import verdict
from towpath.kernel.wire import attr, nested, text
from towpath.model.nft import Key, NftChain, NftSet
from towpath.model.op import NftUpdate

_NEW_CHAIN, _DEL_CHAIN, _NEW_RULE, _DEL_RULE, _NEW_SET, _DEL_SET = (10 << 8 | n for n in (3, 5, 6, 8, 9, 11))
_NEW_ELEMENTS, _DEL_ELEMENTS = 10 << 8 | 12, 10 << 8 | 14
_CREATE, _APPEND = 0x400, 0x800
_RULE_EXPRESSIONS, _RULE_USERDATA = 4, 7
_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_SET_NAME, _RULE_CHAIN, _CHAIN_NAME = 2, 2, 3
_LIST_ELEM = 1
_ELEM_KEY, _ELEM_DATA, _ELEM_FLAGS, _ELEM_TIMEOUT, _ELEM_KEY_END = 1, 2, 3, 4, 10
_DATA_VALUE, _DATA_VERDICT = 1, 2
# Of an element, its key and the key's value.
_HEADERS = 12
# An attribute holds 64 kB; elements are some 30 to 200 bytes, and begin a new message after this many.
_BODY = 60_000

_INET = bytes((1, 0, 0, 0))
_END_FLAG = attr(_ELEM_FLAGS, INTERVAL_END.to_bytes(4, "big"))

# What must take effect together.
Step = list[Message]
_Encoder = Callable[[Key, Key], bytes]


def messages(update: NftUpdate) -> list[Step]:
    """The steps of ``update``, in an order that is safe to cut; the removals of chains and sets are one.

    Raises NotPlain where it declares, or holds, a value or a rule that cannot be encoded here; ValueError for
    what cannot be a name.
    """
    if update.recreate or any(hook is not None for _, hook in update.add_chains):
        raise NotPlain
    table = update.table
    new = {chain for chain, _ in update.add_chains}
    encoders: dict[str, _Encoder] = {}
    steps = [_declared(update)] if update.add_sets or new else []
    steps += [_refill(table, chain) for chain in update.set_chains if chain.name in new]
    steps += [_step(table, changes, encoders) for changes in additions(update)]
    steps += [_refill(table, chain) for chain in update.set_chains if chain.name not in new]
    steps += [_step(table, changes, encoders) for changes in removals(update)]
    gone = [(_DEL_RULE, 0, _object(table, _RULE_CHAIN, chain)) for chain in update.del_chains]
    gone += [(_DEL_CHAIN, 0, _object(table, _CHAIN_NAME, chain)) for chain in update.del_chains]
    gone += [(_DEL_SET, 0, _object(table, _SET_NAME, decl)) for decl in update.del_sets]
    if gone:
        steps.append(gone)
    if not steps:
        raise NotPlain
    return steps


def _declared(update: NftUpdate) -> Step:
    """New chains may lead to each other, so that all are there before any has rules."""
    step = [
        (_NEW_SET, _CREATE, declared_set(update.table, decl, number))
        for number, decl in enumerate(update.add_sets, 1)
    ]
    chains = (declared_chain(update.table, chain) for chain, _ in update.add_chains)
    return step + [(_NEW_CHAIN, _CREATE, chain) for chain in chains]


def _refill(table: str, chain: NftChain) -> Step:
    if chain.hook is not None:
        raise NotPlain
    head = _object(table, _RULE_CHAIN, chain.name)
    step: Step = [(_DEL_RULE, 0, head)]
    for rule in chain.rules:
        body = nested(_RULE_EXPRESSIONS, expressions(rule)) + attr(_RULE_USERDATA, comment(rule))
        step.append((_NEW_RULE, _CREATE | _APPEND, head + body))
    return step


def _object(table: str, kind: int, name: str) -> bytes:
    return _INET + text(_TABLE, checked(table)) + text(kind, checked(name))


def _step(table: str, changes: tuple[Change, ...], encoders: dict[str, _Encoder]) -> Step:
    step: Step = []
    for verb, decl, elements in changes:
        one = encoders.setdefault(decl.name, _encoder(decl))
        kind, flags = (_NEW_ELEMENTS, _CREATE) if verb == "add" else (_DEL_ELEMENTS, 0)
        head = _object(table, _LIST_SET, decl.name)
        step += ((kind, flags, head + nested(_LIST_ELEMENTS, body)) for body in _bodies(one, elements))
    return step


def _bodies(one: _Encoder, elements: Iterable[tuple[Key, Key]]) -> Iterator[bytes]:
    """The elements' encodings, as many a message as fit."""
    parts: list[bytes] = []
    size = 0
    for key, data in elements:
        part = one(key, data)
        if size + len(part) > _BODY:
            yield b"".join(parts)
            parts, size = [], 0
        parts.append(part)
        size += len(part)
    yield b"".join(parts)


def _encoder(decl: NftSet) -> _Encoder:
    if not decl.interval:
        return _plain(decl)
    if len(decl.key) > 1:
        return lambda key, data: _concatenated(decl, key, data)
    return lambda key, data: _interval(decl, key, data)


def _plain(decl: NftSet) -> _Encoder:
    """Elements of one set have headers alike, and few different data: most of it is made once."""
    of_key = encoder(decl.key)
    heads: dict[tuple[int, int], tuple[bytes, bytes]] = {}
    datas: dict[Key, bytes] = {}

    def element(key: Key, data: Key) -> bytes:
        value, more = of_key(key), datas.get(data)
        if more is None:
            more = datas[data] = _data(decl, data)
        sizes = len(value), len(more)
        if (around := heads.get(sizes)) is None:
            whole = nested(_LIST_ELEM, _key(_ELEM_KEY, value) + more)
            around = heads[sizes] = whole[:_HEADERS], whole[_HEADERS + len(value) : len(whole) - len(more)]
        return around[0] + value + around[1] + more

    return element


def _interval(decl: NftSet, key: Key, data: Key) -> bytes:
    """Two elements: where it begins, and the first value behind its end, which the last of all has not."""
    first, last = encode_bounds(decl.key, key)
    begin = nested(_LIST_ELEM, _key(_ELEM_KEY, first) + _data(decl, data))
    behind = int.from_bytes(last, "big") + 1
    if behind >> 8 * len(last):
        return begin
    return begin + nested(_LIST_ELEM, _key(_ELEM_KEY, behind.to_bytes(len(last), "big")) + _END_FLAG)


def _concatenated(decl: NftSet, key: Key, data: Key) -> bytes:
    first, last = encode_bounds(decl.key, key)
    return nested(_LIST_ELEM, _key(_ELEM_KEY, first) + _key(_ELEM_KEY_END, last) + _data(decl, data))


def _key(kind: int, value: bytes) -> bytes:
    return nested(kind, attr(_DATA_VALUE, value))


def _data(decl: NftSet, data: Key) -> bytes:
    if decl.timeout:
        return _timeout(data)
    if not decl.data:
        return b""
    if decl.data == VERDICT:
        if len(data) != 1:
            raise NotPlain
        return nested(_ELEM_DATA, nested(_DATA_VERDICT, verdict(data[0])))
    return nested(_ELEM_DATA, attr(_DATA_VALUE, encoder(decl.data)(data)))


def _timeout(data: Key) -> bytes:
    match data:
        case (int() as number,) if number > 0:
            return attr(_ELEM_TIMEOUT, number.to_bytes(8, "big"))
        case ():
            return b""  # to be deleted
    raise NotPlain
