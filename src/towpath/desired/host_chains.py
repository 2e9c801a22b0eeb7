"""What host endpoints put into the table: a node's own traffic, and what passes through it, by interface.

Base chains of their own, each there only if a host endpoint of this node asks in its place, and all of them
lead to the engine's chains (``policy.host_policies``), which tell the interfaces apart. Where and when is
Calico's (``felix/rules/static.go``): before tracking, before DNAT, and as filters; what an earlier one has
allowed is not asked about by a later one. How a later one knows differs, since marks belong to others:

- a packet that goes untracked has the same addresses later, so the same policies are asked once more;
- a connection that was allowed before DNAT bears a label of conntrack's.

Failsafes, and what the node's own network consists of (tunnels between peers, neighbour discovery without
which no failsafe could be reached by IPv6), come before all policies and in the same transaction. Pods'
traffic to the host is judged by the pods' policies, and the host's to its pods by none, as in Calico.
"""

from collections.abc import Iterable, Sequence

from towpath.desired.names import POD_PREFIX
from towpath.desired.policy_chains import HAIRPIN
from towpath.model.failsafe import EVERYWHERE, Failsafe, Failsafes
from towpath.model.net import Family, Net
from towpath.model.network import ClusterNetwork
from towpath.model.nft import Hook, HookName, NftChain
from towpath.model.policy import (
    HOST_FORWARD_IN,
    HOST_FORWARD_OUT,
    HOST_IN,
    HOST_OUT,
    HOST_PRE_DNAT,
    HOST_RAW_IN,
    HOST_RAW_OUT,
    PRE_DNAT,
    UNTRACKED,
    Program,
)

_POD = f'"{POD_PREFIX}*"'
_FAMILIES: tuple[tuple[str, Family], ...] = (("ip", 4), ("ip6", 6))
_LABEL = 127  # of 128: others count from below, if they use any
_KNOWN = "ct state established,related accept"
_FREE = "meta priority set none"  # see ``policy_chains.RESTORED``
_NEIGHBOURS = (
    "icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done, nd-router-solicit, "
    "nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report } accept"
)


def host_chains(
    program: Program, failsafes: Failsafes, network: ClusterNetwork, *, clustered: bool
) -> dict[str, NftChain]:
    """The base chains for those of the engine's that there are, and what they call."""
    there = program.chains.keys()
    tunnels = network.backend == "vxlan" and clustered
    incoming = (_NEIGHBOURS, *_tunnels(network, tunnels, "saddr"))
    outgoing = (_NEIGHBOURS, *_tunnels(network, tunnels, "daddr"))
    safe_in = _safe(failsafes.inbound, "dport", "saddr")
    safe_out = _safe(failsafes.outbound, "dport", "daddr")
    # Before tracking nothing tells an answer from a question.
    answers_in = _safe(failsafes.outbound, "sport", "saddr")
    answers_out = _safe(failsafes.inbound, "sport", "daddr")
    again_in = ("ct state untracked jump " + HOST_RAW_IN,) if HOST_RAW_IN in there else ()
    again_out = ("ct state untracked jump " + HOST_RAW_OUT,) if HOST_RAW_OUT in there else ()
    allowed = (f"ct label {_LABEL} accept",) if HOST_PRE_DNAT in there else ()
    pods_in, pods_out = f"iifname {_POD} accept", f"oifname {_POD} accept"
    leaving = (pods_out, *outgoing, *safe_out, *again_out, f"jump {HOST_OUT}", _FREE)
    found: list[NftChain] = []
    if HOST_RAW_IN in there:
        rules = (pods_in, *incoming, *safe_in, *answers_in, f"jump {HOST_RAW_IN}", _FREE)
        found.append(_base("raw_prerouting", "prerouting", -290, rules))
    if HOST_RAW_OUT in there:
        rules = (pods_out, *outgoing, *safe_out, *answers_out, f"jump {HOST_RAW_OUT}", _FREE)
        found.append(_base("raw_output", "output", -290, rules))
    if HOST_RAW_IN in there or HOST_RAW_OUT in there:
        found.append(NftChain(name=UNTRACKED, rules=("notrack", _FREE, "accept")))
    if HOST_PRE_DNAT in there:
        rules = (_KNOWN, *incoming, *safe_in, *again_in, f"jump {HOST_PRE_DNAT}", _FREE)
        found.append(_base("host_prerouting", "prerouting", -140, rules))
        found.append(NftChain(name=PRE_DNAT, rules=(f"ct label set {_LABEL}", _FREE, "accept")))
    if HOST_IN in there:
        rules = (_KNOWN, pods_in, *incoming, *safe_in, *allowed, *again_in, f"jump {HOST_IN}", _FREE)
        found.append(_base("host_input", "input", 10, rules))
    if HOST_OUT in there:
        # Where a packet leaves by is not known until it was routed anew behind DNAT.
        rules = (_KNOWN, "ct status dnat accept", "jump host_leaving")
        found.append(_base("host_output", "output", 10, rules))
        rules = (_KNOWN, "iif 0 ct status dnat jump host_leaving")
        found.append(_base("host_postrouting", "postrouting", 10, rules))
        found.append(NftChain(name="host_leaving", rules=leaving))
    if HOST_FORWARD_IN in there:
        rules = (_KNOWN, *HAIRPIN, *allowed, *again_in, f"jump {HOST_FORWARD_IN}", _FREE)
        found.append(_base("host_entering", "forward", 10, rules))
    if HOST_FORWARD_OUT in there:
        found.append(
            _base("host_passing", "forward", 20, (_KNOWN, *HAIRPIN, f"jump {HOST_FORWARD_OUT}", _FREE))
        )
    return {chain.name: chain for chain in found}


def _tunnels(network: ClusterNetwork, tunnels: bool, side: str) -> tuple[str, ...]:
    """Frames from peers and to them."""
    if not tunnels:
        return ()
    return tuple(f"udp dport {network.port} {ip} {side} @peer{v} accept" for ip, v in _FAMILIES)


def _safe(failsafes: Sequence[Failsafe], port: str, side: str) -> tuple[str, ...]:
    """One rule for all ports that have the same networks."""
    by_nets: dict[tuple[Net, ...], list[Failsafe]] = {}
    for one in failsafes:
        by_nets.setdefault(one.nets, []).append(one)
    rules: list[str] = []
    for nets, several in by_nets.items():
        keys = sorted({(one.protocol, one.port) for one in several})
        match = f"meta l4proto . th {port} {_any_of(f'{protocol} . {number}' for protocol, number in keys)}"
        if nets == EVERYWHERE:
            rules.append(f"{match} accept")
            continue
        for ip, version in _FAMILIES:
            mine = sorted({str(net) for net in nets if net.version == version})
            if mine:
                rules.append(f"{ip} {side} {_any_of(mine)} {match} accept")
    return tuple(rules)


def _any_of(texts: Iterable[str]) -> str:
    return f"{{ {', '.join(texts)} }}"


def _base(name: str, hook: HookName, priority: int, rules: tuple[str, ...]) -> NftChain:
    return NftChain(name=name, hook=Hook(type="filter", hook=hook, priority=priority), rules=rules)
