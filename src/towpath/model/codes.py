"""The catalogue behind ``towpath explain TPnnnn``: one entry a code, never reused, never renumbered.

TP1nnn agent and configuration, TP2nnn CNI, TP3nnn fabric, TP4nnn addresses, TP5nnn policy, TP6nnn extra
networks, TP7nnn upgrade, TP8nnn images, TP9nnn lab.
"""

import msgspec


class Code(msgspec.Struct, frozen=True):
    """``title`` one sentence; ``cause`` why it comes about; ``fix`` what an operator does."""

    title: str
    cause: str
    fix: str


CODES: dict[str, Code] = {
    "TP2001": Code(
        title="ADD was refused because the pod cannot be identified",
        cause=(
            "The pod is neither in the agent's cache nor known to the API server, or the server does "
            "not answer. Without its labels nobody knows which policy applies, so it is not wired (CNI "
            "error 11)."
        ),
        fix=(
            "Nothing if the API server comes back: the kubelet tries again. Else look at the agent's "
            "log and at the API server."
        ),
    ),
    "TP2002": Code(
        title="A host port is published by two pods",
        cause=(
            "A pod asks for a hostPort that another pod on the node has, on the same host address (CNI "
            "error 11)."
        ),
        fix="Delete or move the pod that holds it; the message names it.",
    ),
    "TP2003": Code(
        title="An interface was to be attached twice",
        cause=(
            "The runtime sent ADD for a container and interface that have a lease, without a DEL in "
            "between."
        ),
        fix="Remove the container; where the runtime has forgotten it, CNI GC frees what it held.",
    ),
    "TP4001": Code(
        title="A range of addresses has none left",
        cause=(
            "Every address of the node's podCIDR (or of the configured ranges) is leased, or routed to "
            "interfaces that have no lease. The pod is refused with CNI error 11 and tried again."
        ),
        fix=(
            "Move pods to other nodes, or give nodes larger podCIDRs (--node-cidr-mask-size); a /24 "
            "holds 253 pods."
        ),
    ),
    "TP4002": Code(
        title="An address without a lease is in use on the node",
        cause=(
            "A route of the node leads to exactly this address, but no lease says whose it is: a pod "
            "wired by Canal, or a lease store that was lost. It is not given to anybody else."
        ),
        fix=(
            "Look who has it (`ip route get ADDRESS`); remove the stale interface, or let the pod be "
            "recreated."
        ),
    ),
    "TP4003": Code(
        title="The node has no podCIDR",
        cause=(
            "The Node object has no spec.podCIDR yet: kube-controller-manager runs without --allocate- "
            "node-cidrs, or has not come to it."
        ),
        fix="Set --allocate-node-cidrs and --cluster-cidr, or spec.podCIDR(s) of the Node by hand.",
    ),
    "TP4004": Code(
        title="The lease store cannot be used",
        cause=(
            "The database of leases is damaged, locked, or its disk is full. No address is given out "
            "that is not durably recorded, so pods wait."
        ),
        fix=(
            "Free space, or move a damaged file aside and restart the agent: addresses in use are "
            "recognised by their routes."
        ),
    ),
    "TP4005": Code(
        title="A lease cannot be read",
        cause=(
            "A row of the lease store is damaged or was written by an unknown version. Its address "
            "stays taken."
        ),
        fix="Delete the pod it belongs to; the DEL frees the address.",
    ),
}
