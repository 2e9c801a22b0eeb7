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
    "TP4021": Code(
        title="An address of an extra network is in use on its segment",
        cause=(
            "Before a pod got it on a macvlan or bridge network, or from `towpath-ipam` on another's, the "
            "segment was asked for it, and somebody answered: a pod of another node, a machine beside the "
            "cluster, or the pod's own predecessor that is not gone yet. The sandbox was refused, and the "
            "kubelet tries again."
        ),
        fix=(
            "Find the MAC address the message has (`bridge fdb`, `ip neigh`); reserve what other machines "
            "have. Where several pods are to share an address, network_ask_ms: 0 asks nobody."
        ),
    ),
    "TP4019": Code(
        title="An IPReservation cannot be read",
        cause=(
            "A CIDR in spec.reservedCIDRs is none, and reserves nothing; or the agent may not list "
            "IPReservations at all, as with the ClusterRole of an older release."
        ),
        fix="Correct the object; `towpath ipam reserve` lists them. Apply the release's own ClusterRole.",
    ),
    "TP4030": Code(
        title="The kinds of block mode are not there",
        cause=(
            "The agent is told to give out addresses by blocks (ipam_mode: blocks), and the API server does "
            "not know Calico's IPPool, IPAMBlock, BlockAffinity, IPAMHandle or IPAMConfig. Pods that run go "
            "on; no new one gets an address."
        ),
        fix="`kubectl apply -f manifests/calico-ipam.yaml`, or install Calico's own definitions.",
    ),
    "TP4031": Code(
        title="An object of block mode contradicts itself",
        cause=(
            "An IPAMBlock, BlockAffinity, IPAMHandle or IPAMConfig was edited into what cannot be: of a "
            "block it is not certain what is taken. Nothing is given out of it nor written; its pods run on."
        ),
        fix="Put the object right, from a backup (`towpath backup`) or by hand: the message names the field.",
    ),
    "TP4032": Code(
        title="An IPPool cannot be used",
        cause=(
            "Its CIDR, blockSize or a selector cannot be read, it overlaps an older pool, or it lies outside "
            "of the cluster's networks, where pods would neither be routed nor masqueraded."
        ),
        fix="Correct the pool, or delete it. Pods that have addresses of it keep them.",
    ),
    "TP4033": Code(
        title="No address can be marked as a node's",
        cause=(
            "The node's stock is used up, and the API server does not take the write by which it would have "
            "more: it is away, or the agent's ClusterRole lacks the right (chart: `agent.ipam_mode`)."
        ),
        fix="See the message; the kubelet tries again by itself.",
    ),
    "TP4034": Code(
        title="No pool has an address left for a pod",
        cause=(
            "Every block of the pools that select the node and the pod's namespace is taken or full, or the "
            "node may have no more of them (IPAMConfig: maxBlocksPerHost, autoAllocateBlocks) nor borrow "
            "(strictAffinity). The message says which."
        ),
        fix="Add an IPPool, raise maxBlocksPerHost, or allow to borrow; the kubelet tries again by itself.",
    ),
    "TP4035": Code(
        title="An annotation asks for what cannot be",
        cause=(
            "cni.projectcalico.org/ipv4pools, ipv6pools, ipAddrs, ipAddrsNoIpam or hwAddr of the pod or its "
            "namespace is no JSON list, names no pool of that family, or one that does not select the node."
        ),
        fix="Correct the annotation; a pod keeps what it has, a new one is needed.",
    ),
    "TP4050": Code(
        title="The kinds of towpath-ipam are not there",
        cause=(
            "An extra network names towpath-ipam as its IPAM plugin, and the API server does not know "
            "NetworkRange, NetworkBlock, NetworkBlockAffinity or NetworkBlockHandle. Pods with other "
            "networks are not affected. Or the agents are not told to serve it (network_ipam)."
        ),
        fix=(
            "`kubectl apply -f manifests/towpath-ipam.yaml`, and the setting network_ipam: true (chart: "
            "`agent.network_ipam`), which comes with the rights; the kubelet tries again by itself."
        ),
    ),
    "TP4051": Code(
        title="A range of an extra network cannot be used",
        cause=(
            "It overlaps the pods' own network or another network's range: an address of both could be given "
            "out twice. Or its NetworkRange has another block_size, or was edited into what cannot be."
        ),
        fix=(
            "Use the same range in both networks, or another. A range that nothing uses any more: "
            "`kubectl delete networkranges NAME`."
        ),
    ),
    "TP4052": Code(
        title="The ipam section of a towpath-ipam network makes no sense",
        cause="A key is missing or its value cannot be: the message names it. No address was given out.",
        fix="Correct the NetworkAttachmentDefinition (docs/ipam-plugin.md); the kubelet tries again.",
    ),
    "TP4040": Code(
        title="A block and its affinity contradict each other",
        cause=(
            "A BlockAffinity says that a block is a node's, and the block does not exist or is another's; "
            "or a block has a node and no BlockAffinity says so. A node that died between two writes leaves "
            "this, and its agent finishes it within a minute; what stays was made by hand or by others."
        ),
        fix="`towpath ipam check --fix`.",
    ),
    "TP4041": Code(
        title="An IPAMHandle does not count what the blocks have",
        cause=(
            "Its numbers and the addresses that blocks have under it differ, or there is no such handle, or "
            "it counts nothing. Calico's release by handle may then leave addresses taken."
        ),
        fix="`towpath ipam check --fix` counts anew.",
    ),
    "TP4042": Code(
        title="A node that is no more has blocks or addresses",
        cause="Its Node object is gone, and by the API server no pod is on it.",
        fix=(
            "Nothing: other nodes' agents clear it away after five minutes. At once: `towpath ipam check "
            "--fix`."
        ),
    ),
    "TP4043": Code(
        title="An address is marked for a pod that does not have it",
        cause=(
            "Calico's CNI marked it with a pod's name, and the pod is gone, over, or has another address: "
            "its DEL never came."
        ),
        fix=(
            "`towpath ipam check --fix`, where the pod is gone and its node's agent answers; else Calico's "
            "kube-controllers, where they run, or `calicoctl ipam release --ip=ADDRESS`."
        ),
    ),
    "TP4044": Code(
        title="A pod's address is marked in no block",
        cause=(
            "The pod has an address of an IPPool, and the address is free in its block, or there is no such "
            "block: another pod may get it. So it is after blocks were edited or restored from an old "
            "backup."
        ),
        fix="`towpath ipam check --fix` marks it as the node's.",
    ),
    "TP4045": Code(
        title="Two blocks overlap",
        cause=(
            "Both have some addresses in common, so that one can be given out twice. So it is after a "
            "pool's blockSize was changed by replacing the pool while its blocks were there."
        ),
        fix="Drain the nodes of one of the blocks, then delete that block and its affinity.",
    ),
}
