"""The static part of policy: how a packet's class is found, and what becomes of it (docs/adr/0005).

A flow's first packet is judged by the sending pod's egress and by the receiving pod's ingress, after DNAT and
before SNAT; what follows it, or is related to it, by nothing any more. What the node itself sends to its pods
passes neither chain: kubelet's probes are not to be told from it, or forbidden, by an address.

A policy chain asks for the class of the other side (``src_class`` or ``dst_class``), which leaves it in
``meta priority``, and looks the class up in a verdict map. nft cannot chain two look-ups in one rule, a mark
belongs to others, and the priority of a flow's first packet is nobody's: what follows is accepted before.
"""

from towpath.desired.names import POD_PREFIX
from towpath.model.attachment import Attachment
from towpath.model.nft import Key, NftChain
from towpath.model.policy import (
    CLASS4,
    CLASS6,
    DENIED,
    DST_CLASS,
    NET_CLASS4,
    NET_CLASS6,
    SRC_CLASS,
    Program,
    Sampling,
)

# What a pod's sending and receiving is judged by; None: by nothing yet, and so it is dropped.
Verdicts = tuple[Key | None, Key | None]

# A pod without policy: go on after the jump, so that the receiving pod's chain is asked as well.
NO_POLICY: Key = ("return",)
NO_POLICIES: Verdicts = (NO_POLICY, NO_POLICY)

POLICY_SETS = {decl.name: decl for decl in (CLASS4, CLASS6, NET_CLASS4, NET_CLASS6)}

# How log lines of denied packets begin; which rule it was is worked out from the packet.
DENIAL_MARK = "tp-denied"
_BURST = 50

_POD = f'"{POD_PREFIX}*"'
# Before pods' chains: a pod always reaches itself. The address it sends from, which was checked, is that of
# the interface the packet goes out by.
HAIRPIN = tuple(
    f"iifname {_POD} oifname . {family} saddr @pod_src{version} accept"
    for family, version in (("ip", 4), ("ip6", 6))
)
# Behind them: a packet that policy has let pass has no class any more, or a queue would take it for its own.
RESTORED = (f"iifname {_POD} meta priority set none", f"oifname {_POD} meta priority set none")


def verdicts_of(policy: Program, att: Attachment) -> Verdicts:
    """What the policy says of an attachment. What is no pod of Kubernetes is not subject to any."""
    if att.pod is None:
        return NO_POLICIES
    return policy.from_pod.get(att.host_ifname), policy.to_pod.get(att.host_ifname)


def policy_chains(sampling: Sampling) -> dict[str, NftChain]:
    """Exact addresses come first: their classes contain what is true of their networks."""
    chains = [NftChain(name=DENIED, rules=(*_sampled(sampling), "counter drop"))]
    for name, side in ((SRC_CLASS, "saddr"), (DST_CLASS, "daddr")):
        rules = (
            f"meta priority set {family} {side} map @{kind}{version} return"
            for family, version in (("ip", 4), ("ip6", 6))
            for kind in ("class", "net_class")
        )
        chains.append(NftChain(name=name, rules=(*rules, "meta priority set none")))
    return {chain.name: chain for chain in chains}


def _sampled(sampling: Sampling) -> tuple[str, ...]:
    """What comes too fast is denied without a word; both are counted."""
    if not sampling.denials:
        return ()
    limit = f"limit rate {sampling.denials}/second burst {max(sampling.denials, _BURST)} packets"
    return (f'{limit} counter log prefix "{DENIAL_MARK}" group {sampling.group}',)
