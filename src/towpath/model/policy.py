"""Compiled network policy as values: the dynamic part of the table ``inet towpath``.

``docs/adr/0005-policy-classes.md`` says how the parts work together. The static part (``src_class``,
``dst_class``, ``denied``, the hooks) is ``desired.ruleset``'s.
"""

import msgspec

from towpath.model.nft import Key, NftChain, NftSet

# Address -> class. 0, or absent: an address of which no rule knows anything.
CLASS4 = NftSet(name="class4", key=("ipv4_addr",), data=("classid",))
CLASS6 = NftSet(name="class6", key=("ipv6_addr",), data=("classid",))
# Network -> class, for the addresses that are not in the maps above. No two overlap.
NET_CLASS4 = NftSet(name="net_class4", key=("ipv4_addr",), data=("classid",), interval=True)
NET_CLASS6 = NftSet(name="net_class6", key=("ipv6_addr",), data=("classid",), interval=True)
# A pod's host interface -> what its egress and its ingress are judged by.
POD_FROM = NftSet(name="pod_from", key=("ifname",), data=("verdict",))
POD_TO = NftSet(name="pod_to", key=("ifname",), data=("verdict",))

# Where host endpoints' interfaces are told apart: chains of ours that ``desired.host_chains`` leads to, each
# there only if a host endpoint of this node has something to say in its place.
HOST_IN, HOST_OUT = "host_in", "host_out"
HOST_FORWARD_IN, HOST_FORWARD_OUT = "host_forward_in", "host_forward_out"
HOST_RAW_IN, HOST_RAW_OUT = "host_raw_in", "host_raw_out"
HOST_PRE_DNAT = "host_pre_dnat"

HOST_PLACES = frozenset(
    (HOST_IN, HOST_OUT, HOST_FORWARD_IN, HOST_FORWARD_OUT, HOST_RAW_IN, HOST_RAW_OUT, HOST_PRE_DNAT)
)

# What becomes of packets that policies before connection tracking, or before DNAT, allow: static as well.
UNTRACKED, PRE_DNAT = "untracked", "pre_dnat_allowed"

# The static chains that ours name. The first two leave a class in ``meta priority``, 0 if none.
SRC_CLASS, DST_CLASS, DENIED = "src_class", "dst_class", "denied"


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """What of a policy's doings is told through NFLOG, and to which group. ``denials``: at most so many a
    second, 0 for none.
    """

    group: int = 4
    denials: int = 10


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """All that policy puts into the table. ``sets``: the four above, and a verdict map for each policy chain.

    ``from_pod`` and ``to_pod``: the elements of ``pod_from`` and ``pod_to`` by interface: ``("return",)``
    where no policy applies, ``("goto pe-…",)``, or ``("goto denied",)`` for a pod that is not known yet.
    ``sampling`` is how ``denied`` and the rules that log tell of it; ``revoking``: flows may be cut that were
    allowed before.
    """

    sets: dict[str, NftSet] = {}
    chains: dict[str, NftChain] = {}
    from_pod: dict[str, Key] = {}
    to_pod: dict[str, Key] = {}
    sampling: Sampling = Sampling()
    revoking: bool = False
