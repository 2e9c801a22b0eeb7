"""The static part of policy: how a packet's class is found, and what becomes of it (docs/adr/0005).

A policy chain asks for the class of the other side (``src_class`` or ``dst_class``), which leaves it in
``meta priority``, and looks the class up in a verdict map. nft cannot chain two look-ups in one rule, a mark
belongs to others, and the priority of a flow's first packet is nobody's: what follows is accepted before.
"""

from towpath.desired.names import POD_PREFIX
from towpath.model.attachment import Attachment
from towpath.model.nft import Key, NftChain
from towpath.model.policy import DENIED, DST_CLASS, SRC_CLASS, Program

# What a pod's sending and receiving is judged by; None: by nothing yet, and so it is dropped.
Verdicts = tuple[Key | None, Key | None]

# A pod without policy: go on after the jump, so that the receiving pod's chain is asked as well.
NO_POLICY: Key = ("return",)
NO_POLICIES: Verdicts = (NO_POLICY, NO_POLICY)

# At the end of the forward chain: whom policy has judged, and let pass, has no class any more.
RESTORED = tuple(f'{side} "{POD_PREFIX}*" meta priority set 0:0' for side in ("iifname", "oifname"))


def verdicts_of(policy: Program, att: Attachment) -> Verdicts:
    """What the policy says of an attachment. What is no pod of Kubernetes is not subject to any."""
    if att.pod is None:
        return NO_POLICIES
    return policy.from_pod.get(att.host_ifname), policy.to_pod.get(att.host_ifname)


def policy_chains() -> dict[str, NftChain]:
    """Exact addresses come last and win: their classes contain what is true of their networks."""
    chains = [NftChain(name=DENIED, rules=("counter drop",))]
    for name, side in ((SRC_CLASS, "saddr"), (DST_CLASS, "daddr")):
        rules = (
            f"meta priority set {family} {side} map @{kind}{version}"
            for family, version in (("ip", 4), ("ip6", 6))
            for kind in ("net_class", "class")
        )
        chains.append(NftChain(name=name, rules=("meta priority set 0:0", *rules)))
    return {chain.name: chain for chain in chains}
