"""The table ``inet towpath``: static chains over dynamic sets, so that a pod is some elements and no rule.

Names are tied to what they name: a release that changes a set's type or a chain's hook changes its name too,
because nftables can change neither in place, and only under a new name can old and new coexist.

Priorities: kube-proxy's NAT is at -100 and 100; ours come after both (as flannel's appended rules do) and
are tied with neither, so that the order never depends on who registered first.
"""

from collections.abc import Iterable
from typing import Literal

from msgspec.structs import replace

from towpath.desired import protection, revocation
from towpath.desired.host_chains import host_chains
from towpath.desired.hostports import hostport_elements
from towpath.desired.masquerade import masquerade_rules
from towpath.desired.names import POD_PREFIX
from towpath.desired.policy_chains import (
    HAIRPIN,
    NO_POLICIES,
    POLICY_SETS,
    RESTORED,
    Verdicts,
    policy_chains,
    verdicts_of,
)
from towpath.model.attachment import Attachment
from towpath.model.failsafe import DEFAULT_FAILSAFES, Failsafes
from towpath.model.net import Net
from towpath.model.network import ClusterNetwork
from towpath.model.nft import Hook, HookName, Key, NftChain, NftSet, NftTable, Owner
from towpath.model.op import NftUpdate
from towpath.model.policy import Program

_Type = Literal["filter", "nat"]

TABLE = "towpath"
# Chains and sets by which what pods send gets the node's address.
MASQUERADING = ("nat_postrouting", "masq")
MASQUERADED = ("net4", "net6", "local4", "local6")

_POD = f'"{POD_PREFIX}*"'
_VERDICT = ("verdict",)
_TARGET4, _TARGET6 = ("ipv4_addr", "inet_service"), ("ipv6_addr", "inet_service")
_PORT = ("inet_proto", "inet_service")

SETS: dict[str, NftSet] = {
    decl.name: decl
    for decl in (
        NftSet(name="pod_src4", key=("ifname", "ipv4_addr")),
        NftSet(name="pod_src6", key=("ifname", "ipv6_addr")),
        NftSet(name="pod_from", key=("ifname",), data=_VERDICT),
        NftSet(name="pod_to", key=("ifname",), data=_VERDICT),
        NftSet(name="net4", key=("ipv4_addr",), interval=True),
        NftSet(name="net6", key=("ipv6_addr",), interval=True),
        NftSet(name="local4", key=("ipv4_addr",), interval=True),
        NftSet(name="local6", key=("ipv6_addr",), interval=True),
        NftSet(name="hostport4", key=_PORT, data=_TARGET4),
        NftSet(name="hostport6", key=_PORT, data=_TARGET6),
        NftSet(name="hostport_ip4", key=("ipv4_addr", *_PORT), data=_TARGET4),
        NftSet(name="hostport_ip6", key=("ipv6_addr", *_PORT), data=_TARGET6),
        *protection.SETS,
    )
}

# Loopback never comes in by a wire. Both directions, and first of all: route_localnet on the pods' links
# would otherwise let a pod, or its neighbour on a wire, speak to the node's 127.0.0.1 (CVE-2020-8558).
_PREROUTING = (
    'iifname != "lo" ip saddr 127.0.0.0/8 counter drop',
    'iifname != "lo" ip daddr 127.0.0.0/8 counter drop',
    f"iifname {_POD} goto antispoof",
)
# An interface without elements here is unknown: all it sends is dropped. Link-local IPv6 is never forwarded
# and serves neighbour discovery, but a pod is no router (advertisements and redirects count from link-local
# addresses only); "::" is what a pod's kernel asks and reports from before it has an address.
_ANTISPOOF = (
    "iifname . ip saddr @pod_src4 return",
    "iifname . ip6 saddr @pod_src6 return",
    "icmpv6 type { nd-router-advert, nd-redirect } counter drop",
    "ip6 saddr fe80::/10 ip6 daddr { fe80::/10, ff02::/16 } return",
    "ip6 saddr :: icmpv6 type { nd-router-solicit, nd-neighbor-solicit, mld2-listener-report } return",
    "counter drop",
)
_DISCOVERY = (
    f"iifname {_POD} icmpv6 type {{ mld-listener-report, mld-listener-done, nd-router-solicit, "
    "nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report } accept"
)
_INPUT = (
    "ct state established,related accept",
    _DISCOVERY,
    f"iifname {_POD} ct state invalid counter drop",
)
_FORWARD = (
    "ct state established,related accept",
    f"iifname {_POD} ct state invalid counter drop",
    f"oifname {_POD} ct state invalid counter drop",
)
_JUDGED = (f"iifname {_POD} jump from_pod", f"oifname {_POD} jump to_pod")
_HOSTPORTS = (
    "dnat ip to ip daddr . meta l4proto . th dport map @hostport_ip4",
    "meta nfproto ipv4 dnat ip to meta l4proto . th dport map @hostport4",
    # The kernel routes nothing to ::1 that comes in by another device, so no answer would get back: better
    # refused at once (clients then try 127.0.0.1) than never answered.
    "ip6 daddr ::1 return",
    "dnat ip6 to ip6 daddr . meta l4proto . th dport map @hostport_ip6",
    "meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @hostport6",
)


def ruleset(
    network: ClusterNetwork,
    local: Iterable[Net],
    attachments: Iterable[Attachment],
    policy: Program | None = None,
    peering: protection.Peering | None = None,
    failsafes: Failsafes = DEFAULT_FAILSAFES,
) -> NftTable:
    """The whole table: ``local`` are this node's pod subnets, ``attachments`` its pods.

    Where two attachments publish the same port, the earlier one keeps it (``hostports.conflicts`` tells).
    Without ``policy`` everything is allowed; with it, a pod that it does not know is allowed nothing.
    ``peering`` None: outside a cluster, where overlays are other people's. ``failsafes``: what host endpoints
    never close.
    """
    elements: dict[str, dict[Key, Key]] = {name: {} for name in SETS}
    elements |= protection.elements(peering or protection.Peering())
    for net in network.networks:
        elements[f"net{net.version}"][(net,)] = ()
    for net in local:
        elements[f"local{net.version}"][(net,)] = ()
    for att in attachments:
        verdicts = NO_POLICIES if policy is None else verdicts_of(policy, att)
        for name, more in pod_elements(att, verdicts).items():
            for key, data in more.items():
                elements[name].setdefault(key, data)
    sets = {name: replace(decl, elements=elements[name]) for name, decl in SETS.items()}
    owner: Owner = "own" if network.own_table else "free"
    static = chains(network, clustered=peering is not None, policy=policy)
    if policy is None:
        return NftTable(name=TABLE, owner=owner, sets=sets, chains=static)
    sets |= {**POLICY_SETS, **policy.sets, **(revocation.SETS if policy.revoking else {})}
    hosts = host_chains(policy, failsafes, network, clustered=peering is not None)
    return NftTable(name=TABLE, owner=owner, sets=sets, chains={**static, **hosts, **policy.chains})


def chains(
    network: ClusterNetwork, *, clustered: bool = False, policy: Program | None = None
) -> dict[str, NftChain]:
    """The static part. It depends on the cluster's settings only, never on pods or nodes.

    ``clustered``: there are peers to tell from others. ``policy``: there may be policies, set up so.
    """
    postrouting, masq = masquerade_rules(network)
    incoming, forwarded = protection.before_judging(network) if clustered else ((), ())
    forwarded += HAIRPIN if policy is not None else ()
    cutting = revocation.FIRST if policy is not None and policy.revoking else ()
    restored = RESTORED if policy is not None else ()
    hooked = (
        _base("prerouting", "filter", "prerouting", -300, _PREROUTING),
        _base("nat_prerouting", "nat", "prerouting", -90, ("fib daddr type local jump hostports",)),
        _base("nat_output", "nat", "output", -90, ("fib daddr type local jump hostports",)),
        _base("nat_postrouting", "nat", "postrouting", 110, postrouting),
        _base("input", "filter", "input", 0, (*cutting, *_INPUT, *incoming, _JUDGED[0])),
        _base("forward", "filter", "forward", 0, (*cutting, *_FORWARD, *forwarded, *_JUDGED, *restored)),
    )
    called = (
        NftChain(name="antispoof", rules=_ANTISPOOF),
        NftChain(name="hostports", rules=_HOSTPORTS),
        NftChain(name="masq", rules=masq),
        NftChain(name="from_pod", rules=("iifname vmap @pod_from", "counter drop")),
        NftChain(name="to_pod", rules=("oifname vmap @pod_to", "counter drop")),
    )
    found = {chain.name: chain for chain in (*called, *hooked)}
    if clustered:
        found |= protection.chains(network)
    if policy is None:
        return found
    return found | policy_chains(policy.sampling) | (revocation.chains() if policy.revoking else {})


def pod_elements(att: Attachment, verdicts: Verdicts = NO_POLICIES) -> dict[str, dict[Key, Key]]:
    """What one attachment puts into the sets: its addresses, its verdicts, its published ports."""
    dev = att.host_ifname
    elements: dict[str, dict[Key, Key]] = {}
    for name, verdict in zip(("pod_from", "pod_to"), verdicts, strict=True):
        if verdict is not None:
            elements[name] = {(dev,): verdict}
    for addr in att.addresses:
        elements.setdefault(f"pod_src{addr.version}", {})[(dev, addr)] = ()
    return elements | hostport_elements(att)


def bind(att: Attachment, verdicts: Verdicts = NO_POLICIES) -> NftUpdate:
    """The transaction of ADD: before it, the pod's interface is unknown and everything of it is dropped.

    So it is after it, where a verdict is None: until reconciliation has brought the pod's policy.
    """
    return NftUpdate(table=TABLE, add_elements=_declared(pod_elements(att, verdicts)))


def unbind(att: Attachment) -> NftUpdate:
    """The transaction of DEL."""
    return NftUpdate(table=TABLE, del_elements=_declared(pod_elements(att)))


def _declared(elements: dict[str, dict[Key, Key]]) -> tuple[tuple[NftSet, dict[Key, Key]], ...]:
    return tuple((SETS[name], members) for name, members in elements.items())


def _base(name: str, kind: _Type, hook: HookName, priority: int, rules: tuple[str, ...]) -> NftChain:
    return NftChain(name=name, hook=Hook(type=kind, hook=hook, priority=priority), rules=rules)
