"""Who owns a table: the flags owner and persist, of which libnftables 1.0.6 knows only the first.

An owner is a netlink socket. While it is open nobody else can change or delete the table, and a foreign
``flush ruleset`` passes it by; anybody can still list it. When the socket closes, a table with persist
(Linux 6.9) stays and anybody can change it, or become its owner; without, it would go with its owner. Neither
flag can be given to a table, or taken from it, once it is there: only the owner of one that persists changes.
"""

import contextlib
from collections.abc import Iterable
from typing import NamedTuple

from towpath.kernel.nft_socket import Message, NftSocket, Refused
from towpath.kernel.nft_text import name as checked
from towpath.kernel.wire import attr, attributes, string, text
from towpath.model.nft import Owner

_NEW_TABLE, _DEL_TABLE = 10 << 8 | 0, 10 << 8 | 2
_INET = bytes((1, 0, 0, 0))
_NAME, _FLAGS, _HANDLE, _OWNER = 1, 2, 4, 7
_F_OWNER, _F_PERSIST = 0x2, 0x4
_PROBE = "towpath_probe"


class Listed(NamedTuple):
    """A table: its handle (one made anew has another), its owner, and the owner's port if there is one.

    A process' first socket of nftables has the process' ID as its port.
    """

    handle: int
    owner: Owner
    port: int


def listed(messages: Iterable[bytes], port: int) -> dict[str, Listed]:
    """Tables by name, from a dump of the family inet; ``port`` is that of the asking socket."""
    found = {}
    for message in messages:
        attrs = attributes(message, 4)
        flags, owner = _number(attrs.get(_FLAGS)), _number(attrs.get(_OWNER))
        whose: Owner = "kept" if flags & _F_PERSIST else "free"
        if flags & _F_OWNER:
            whose = "own" if owner == port else "foreign"
        found[string(attrs.get(_NAME, b""))] = Listed(_number(attrs.get(_HANDLE)), whose, owner)
    return found


def take(table: str) -> Message:
    """Make ``table``, or become the owner of one that persists."""
    return _NEW_TABLE, 0, _body(table) + attr(_FLAGS, (_F_OWNER | _F_PERSIST).to_bytes(4, "big"))


def remove(table: str) -> Message:
    """Delete ``table`` with all it holds."""
    return _DEL_TABLE, 0, _body(table)


def ownable() -> bool:
    """Whether this kernel has owners that end and leave their table. Tried, and undone, in one transaction.

    Raises OSError.
    """
    with contextlib.closing(NftSocket()) as socket:
        try:
            socket.execute([[take(_PROBE), remove(_PROBE)]])
        except Refused:
            return False
    return True


def _body(table: str) -> bytes:
    return _INET + text(_NAME, checked(table))


def _number(payload: bytes | None) -> int:
    return int.from_bytes(payload or b"", "big")
