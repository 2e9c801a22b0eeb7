"""Codes of what ``towpath ipam`` finds: leaks, orphans, addresses used twice, ranges that fill up."""

from towpath.model.code import Code

IPAM: dict[str, Code] = {
    "TP4010": Code(
        title="A lease is leaked",
        cause=(
            "Its DEL never came. Two witnesses agree that nobody uses the address: the node (the pod's "
            "link is gone, the node was booted since, or the runtime does not list the container) and the "
            "API server (the pod is gone, has finished, or is another one of the same name)."
        ),
        fix=(
            "Nothing: the agent frees it after lease_grace_seconds. At once: `towpath ipam check --fix`, "
            "or `towpath ipam release ADDRESS`."
        ),
    ),
    "TP4011": Code(
        title="A pod has a lease and no interface",
        cause=(
            "The host's end of the pod's link is gone (somebody deleted it, or the pod's sandbox died), "
            "or the runtime does not list its container, while the API server says that the pod is there. "
            "Its address stays taken."
        ),
        fix="Delete the pod; its controller makes another.",
    ),
    "TP4012": Code(
        title="A pod that is gone still has its interface",
        cause=(
            "The API server says that the pod is gone or has finished, and has said so for longer than "
            "lease_grace_seconds, but the runtime has not detached its sandbox. One witness alone frees "
            "no address."
        ),
        fix=(
            "Look for the sandbox on the node (`crictl pods`) and remove it (`crictl stopp`, `crictl "
            "rmp`): its DEL frees the address. After a runtime's reinstallation, a reboot does."
        ),
    ),
    "TP4013": Code(
        title="An address is leased to an interface that is not known",
        cause=(
            "The lease store has the address and not the attachment it belongs to: somebody edited the "
            "file, or it was restored in parts."
        ),
        fix=(
            "`towpath ipam check --fix` frees it if no route leads to it and no pod has it by the API "
            "server; else find that pod and delete it."
        ),
    ),
    "TP4014": Code(
        title="A pod's address is not marked as leased",
        cause=(
            "The lease store has the attachment and not the lease of its address: somebody edited the "
            "file, or it was restored in parts. While the pod's route is there, the address is not given "
            "out again."
        ),
        fix="`towpath ipam check --fix` marks it.",
    ),
    "TP4015": Code(
        title="Two pods have one address",
        cause=(
            "By the API server, by the lease store or by the kernel's routes, two pods have the same "
            "address: another IPAM gave it out, a podCIDR was changed under running pods, or a store was "
            "restored from a backup. The agent of the newer pod's node has taken the address from it: no "
            "route leads to it, and nothing is sent by it, so that the older pod's traffic stays its own."
        ),
        fix="Delete the newer pod: it gets another address. If the older one goes first, it keeps this one.",
    ),
    "TP4016": Code(
        title="A pod's address is outside of its node's podCIDRs",
        cause=(
            "The Node got another podCIDR while pods were running (it was deleted and made again), or the "
            "lease was brought from elsewhere. Another node may give the same address out."
        ),
        fix="Delete the pod; its next address is of the node's own range.",
    ),
    "TP4017": Code(
        title="A pod has an address that its node leased to nobody",
        cause=(
            "The API server says that a pod of this node has the address, and no lease does: the lease "
            "store was lost or put aside, or another network gave the address out."
        ),
        fix="Delete the pod. While a route leads to the address, it is not given out again.",
    ),
    "TP4018": Code(
        title="A range of addresses is filling up",
        cause="More than 80 per cent of the node's range are leased, in use by others, or reserved.",
        fix=(
            "`towpath ipam show` says by whom and how long it will do; `towpath ipam check` finds what is "
            "leaked. Lower the kubelet's maxPods, move pods, or give nodes larger podCIDRs."
        ),
    ),
    "TP4020": Code(
        title="host-local has leaked an address",
        cause=(
            "On a node without Towpath's agent, a file of host-local's leases an address to a container that "
            "has no interface on the node, and by the API server no pod has it: its DEL never came (a "
            "reboot, a crash), and nothing of Canal's collects it. A pod that begins right now can look so."
        ),
        fix="Check again, then remove the file on its node. `towpath node takeover` leaves it behind.",
    ),
    "TP4019": Code(
        title="An IPReservation cannot be read",
        cause=(
            "A CIDR in spec.reservedCIDRs is none, and reserves nothing; or the agent may not list "
            "IPReservations at all, as with the ClusterRole of an older release."
        ),
        fix="Correct the object; `towpath ipam reserve` lists them. Apply the release's own ClusterRole.",
    ),
}
