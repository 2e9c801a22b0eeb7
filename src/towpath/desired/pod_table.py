"""The firewall inside a pod: policy for one interface in another network, a table of its own.

It stands where every kind of interface can be judged with connections tracked, which the node's own hooks
cannot (docs/adr/0007). The engine's chains are those of the pod network; what differs is how packets come to
them. Packets that pass through the pod are judged as well: it may be a router.
"""

import re
from collections.abc import Iterator
from hashlib import sha1

from towpath.desired.policy_chains import POLICY_SETS, Verdicts, policy_chains
from towpath.model.nft import Hook, HookName, Key, NftChain, NftSet, NftTable, Owner
from towpath.model.policy import DENIED, Program, Sampling

_PREFIX = "towpath_"
_NAME = re.compile(r"[A-Za-z0-9_]+")
_REFERS = re.compile(r"@([\w-]+)|\b(?:goto|jump) ([\w-]+)")
_FILTER = 0
_SENDING, _RECEIVING = "sending", "receiving"
# Addresses are resolved whatever policy says, as on the pod network (RFC 4861), and groups joined (RFC 3810).
_RESOLVING = (
    "icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done, nd-router-solicit, "
    "nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, nd-redirect, mld2-listener-report } accept"
)
_KNOWN = "ct state established,related accept"
# NFLOG of a pod's namespace is heard by nobody.
_SILENT = Sampling(denials=0)
NOTHING: Verdicts = ((f"goto {DENIED}",), (f"goto {DENIED}",))
"""Of a pod whose policy is not known yet."""


def table_name(ifname: str) -> str:
    """A table for each interface."""
    if _NAME.fullmatch(ifname):
        return _PREFIX + ifname
    return _PREFIX + sha1(ifname.encode(), usedforsecurity=False).hexdigest()[:11]


def pod_table(ifname: str, program: Program, verdicts: Verdicts, owner: Owner) -> NftTable:
    """What the pod's namespace should hold. ``verdicts``: what its sending and its getting are judged by."""
    chains = {chain.name: chain for chain in _base_chains(ifname, verdicts)}
    chains |= policy_chains(_SILENT)
    sets = {name: program.sets.get(name, decl) for name, decl in POLICY_SETS.items()}
    waiting = [text for verdict in verdicts for text in _texts(verdict)]
    while waiting:
        for name in _referred(waiting.pop()):
            if name in program.chains and name not in chains:
                chains[name] = program.chains[name]
                waiting += program.chains[name].rules
            elif name in program.sets and name not in sets:
                sets[name] = program.sets[name]
                waiting += _verdicts_in(program.sets[name])
    return NftTable(name=table_name(ifname), owner=owner, sets=sets, chains=chains)


def no_table(ifname: str, owner: Owner) -> NftTable:
    """Of an interface that no policy is for any more: a table with nothing in it."""
    return NftTable(name=table_name(ifname), owner=owner)


def _base_chains(ifname: str, verdicts: Verdicts) -> Iterator[NftChain]:
    sends, gets = (verdict[0] if verdict is not None else f"goto {DENIED}" for verdict in verdicts)
    for name, verdict in ((_SENDING, sends), (_RECEIVING, gets)):
        # The engine's chains end with what they say, or return to what comes next.
        yield NftChain(
            name=name, rules=(_KNOWN, _RESOLVING, *([] if verdict == "return" else [str(verdict)]))
        )
    inwards, outwards = f'iifname "{ifname}"', f'oifname "{ifname}"'
    received = f"{inwards} jump {_RECEIVING}", f"{inwards} meta priority set none"
    sent = f"{outwards} jump {_SENDING}", f"{outwards} meta priority set none"
    yield _base("input", *received)
    yield _base("output", *sent)
    yield _base("forward", *received, *sent)


def _base(hook: HookName, *rules: str) -> NftChain:
    return NftChain(name=hook, hook=Hook(type="filter", hook=hook, priority=_FILTER), rules=rules)


def _texts(verdict: Key | None) -> list[str]:
    return [str(field) for field in verdict or ()]


def _referred(text: str) -> Iterator[str]:
    for found in _REFERS.finditer(text):
        yield found[1] or found[2]


def _verdicts_in(one: NftSet) -> list[str]:
    return [str(data[0]) for data in one.elements.values()] if one.data == ("verdict",) else []
