"""New sets and chains as messages, where they are plain: sets of one field without intervals or timeouts,
chains without a hook.
"""

import sys
from struct import Struct

from towpath.kernel.nft_text import name as checked
from towpath.kernel.nft_types import VERDICT, NotPlain, set_type
from towpath.kernel.wire import attr, nested, text
from towpath.model.nft import NftSet

_TABLE, _SET_NAME, _CHAIN_NAME = 1, 2, 3
_FLAGS, _KEY_TYPE, _KEY_LENGTH, _DATA_TYPE, _DATA_LENGTH, _ID, _USERDATA, _EXPR = 3, 4, 5, 6, 7, 10, 13, 17
_MAP = 0x8
_EXPR_NAME, _EXPR_DATA = 1, 2
_VERDICT_TYPE, _VERDICT_LENGTH = 0xFFFFFF00, 16
# What nft keeps with a set to read its values by: the byte orders of keys and data; no intervals of data.
_KEY_ORDER, _DATA_ORDER, _DATA_INTERVALS = 0, 1, 6
_HOST, _NETWORK = 1, 2

_INET = bytes((1, 0, 0, 0))
_U32 = Struct(">I").pack


def declared_set(table: str, decl: NftSet, number: int) -> bytes:
    """A set, empty; ``number`` tells it from others of its transaction. Raises NotPlain; ValueError for what
    cannot be a name.
    """
    if decl.interval or decl.timeout or len(decl.key) != 1 or len(decl.data) > 1:
        raise NotPlain
    kind, length, host = set_type(decl.key[0])
    body = _INET + text(_TABLE, checked(table)) + text(_SET_NAME, checked(decl.name))
    body += attr(_FLAGS, _U32(_MAP if decl.data else 0))
    body += attr(_KEY_TYPE, _U32(kind)) + attr(_KEY_LENGTH, _U32(length)) + attr(_ID, _U32(number))
    kept = _order(_KEY_ORDER, host=host)
    if decl.data:
        data, size, host = (_VERDICT_TYPE, _VERDICT_LENGTH, True)
        if decl.data != VERDICT:
            data, size, host = set_type(decl.data[0])
        body += attr(_DATA_TYPE, _U32(data)) + attr(_DATA_LENGTH, _U32(size))
        kept += _order(_DATA_ORDER, host=host) + bytes((_DATA_INTERVALS, 4, 0, 0, 0, 0))
    body += attr(_USERDATA, kept)
    if decl.counter:
        body += nested(_EXPR, text(_EXPR_NAME, "counter") + nested(_EXPR_DATA, b""))
    return body


def declared_chain(table: str, chain: str) -> bytes:
    """A chain without a hook. Raises ValueError for what cannot be a name."""
    return _INET + text(_TABLE, checked(table)) + text(_CHAIN_NAME, checked(chain))


def _order(kind: int, *, host: bool) -> bytes:
    return bytes((kind, 4)) + (_HOST if host else _NETWORK).to_bytes(4, sys.byteorder)
