"""Removal of a whole table, without the loss of a single packet.

A transaction is atomic for rules, which a packet follows as they were when it entered a chain, and not for a
map's elements: the kernel looks for those of this very moment (nft_lookup, nft_genmask_cur). A packet that is
under way when a table goes meets rules that look into maps which are empty by then, and so whatever stands
behind them: mostly a drop. Tried on Linux 6.18: of 221,350 packets 361 were lost to 1,697 removals in one
transaction each, and none of 244,700 to removals in the two steps made here.
"""

import time

from towpath.kernel import nft_dump
from towpath.kernel.nft_socket import Message, NftSocket
from towpath.kernel.nft_text import name as checked
from towpath.kernel.wire import text

_FAMILIES = {
    "inet": bytes((1, 0, 0, 0)),
    "ip": bytes((2, 0, 0, 0)),
    "ip6": bytes((10, 0, 0, 0)),
}
_DEL_TABLE, _DEL_CHAIN, _DEL_RULE = (10 << 8 | n for n in (2, 5, 8))
_TABLE, _RULE_CHAIN, _CHAIN_NAME = 1, 2, 3
# A packet passes a table in microseconds; a virtual processor may be taken away from it for milliseconds.
_PASSED_SECONDS = 0.02


def unhook(socket: NftSocket, *tables: tuple[str, str]) -> None:
    """Take ``tables`` (family and name) out of every packet's way, and wait until those that had entered them
    have left.

    Raises Refused, OSError, KernelRefused; a table that is not there is none to wait for.
    """
    step: list[Message] = []
    for family, table in tables:
        body = _FAMILIES[family] + text(_TABLE, checked(table))
        listed = nft_dump.chains(socket.dump(nft_dump.GET_CHAIN, body), table)
        hooked = [chain.name for chain in listed if chain.hook is not None]
        step += [(_DEL_RULE, 0, body + text(_RULE_CHAIN, checked(chain))) for chain in hooked]
        step += [(_DEL_CHAIN, 0, body + text(_CHAIN_NAME, checked(chain))) for chain in hooked]
    if step:
        socket.execute([step])
        time.sleep(_PASSED_SECONDS)


def remove(socket: NftSocket, *tables: tuple[str, str]) -> None:
    """Delete ``tables``, which must be there, with all they hold. Raises Refused, OSError, KernelRefused."""
    unhook(socket, *tables)
    socket.execute([[(_DEL_TABLE, 0, _FAMILIES[of] + text(_TABLE, checked(name))) for of, name in tables]])
