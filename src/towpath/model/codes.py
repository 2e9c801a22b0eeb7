"""The catalogue behind ``towpath explain TPnnnn``: one entry a code, never reused, never renumbered.

TP1nnn agent and configuration, TP2nnn CNI, TP3nnn fabric, TP4nnn addresses, TP5nnn policy, TP6nnn extra
networks, TP7nnn upgrade, TP8nnn images, TP9nnn lab.
"""

from towpath.model.code import Code
from towpath.model.codes_conduct import CONDUCT
from towpath.model.codes_image import IMAGE
from towpath.model.codes_ipam import IPAM
from towpath.model.codes_migrate import MIGRATE
from towpath.model.codes_networks import NETWORKS
from towpath.model.codes_policy import POLICY
from towpath.model.codes_upgrade import UPGRADE

__all__ = ["CODES", "Code"]

CODES: dict[str, Code] = {
    "TP1010": Code(
        title="The interface that carries the overlay cannot be told",
        cause=(
            "None of the Node's InternalIPs is an address of this machine, the iface setting or the "
            "annotation node-public-ip names what is not there, or a family has no address there."
        ),
        fix=(
            "Set the kubelet's --node-ip to an address of the machine, correct iface or the annotation, or "
            "give the interface an address. What was known before stays in use until then."
        ),
    ),
    "TP1011": Code(
        title="The overlay uses the interface of the default route, for want of better knowledge",
        cause="The Node's InternalIPs are not addresses of this machine (a cloud provider's, behind NAT?).",
        fix="Name the interface with the iface setting, or the address with the annotation node-public-ip.",
    ),
    "TP1020": Code(
        title="The kernel refused an operation",
        cause=(
            "A module or right is missing, or something else that manages the node's network holds what is "
            "needed; the message has the kernel's own words. Everything else has been done."
        ),
        fix="Remove the cause; the operation is tried again by itself, at least every ten seconds.",
    ),
    "TP1022": Code(
        title="The agent cannot compare the kernel with what should be",
        cause="The kernel does not let itself be listed, or the agent has a defect; the message tells which.",
        fix="Look at the agent's log. Pods that run are not affected; changes are not followed until then.",
    ),
    "TP1023": Code(
        title="Somebody else keeps changing this node's part of the pod network",
        cause=(
            "The agent puts back what others delete or rewrite, within a second. Something on the node does "
            "it again and again; each time, packets may be lost, or pass that should not."
        ),
        fix=(
            "The message names the operation and who usually makes it necessary: have systemd-networkd and "
            "NetworkManager leave cali* and flannel* alone, take net.ipv4.* lines out of sysctl.d, and have "
            "firewall scripts delete their own tables rather than flush the ruleset."
        ),
    ),
    "TP1024": Code(
        title="A device of somebody else has the name of the overlay's",
        cause=(
            "flannel.1 or flannel-v6.1 is there, but it is no VXLAN device of this cluster's VNI, or has an "
            "endpoint or port other than ours and not this node's MAC. It is not deleted: whoever "
            "made it may live by it. The message says what differs."
        ),
        fix=(
            "Find out who made it (another cluster's flanneld, a leftover of an old installation); rename or "
            "delete it. The agent makes its own within a second."
        ),
    ),
    "TP1030": Code(
        title="Checksum offload on the overlay is broken and has been switched off",
        cause=(
            "Datagrams whose checksum the kernel left to the device never reached a peer, while those with a "
            "computed checksum always did: the NIC, its driver or the hypervisor mishandles the checksum of "
            "encapsulated packets. Without offload nothing is lost but some throughput."
        ),
        fix=(
            "Update driver, firmware or hypervisor. Offload is tried again when the device is made anew, "
            "which a reboot does; offload_probe: false leaves it alone."
        ),
    ),
    "TP1040": Code(
        title="An object of the API cannot be understood",
        cause="A field has a shape that its kind does not have; what was last understood of it stays in use.",
        fix="Look at the object with kubectl get -o yaml; the message names the field.",
    ),
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
            "The runtime sent ADD for a container and interface that have a lease, without a DEL in between."
        ),
        fix="Remove the container; where the runtime has forgotten it, CNI GC frees what it held.",
    ),
    "TP3001": Code(
        title="A node's public address cannot be read; it is not reached in that family",
        cause="Its flannel annotation public-ip or public-ipv6 is missing or is no address a tunnel could "
        "end at.",
        fix="Restart the network agent of that node, which writes the annotation anew; remove a wrong "
        "public-ip-overwrite.",
    ),
    "TP3002": Code(
        title="A node uses another flannel backend; it is not reached",
        cause="Its annotation backend-type differs from Backend.Type in this node's net-conf.json.",
        fix="Run every node with the same backend; after a change of net-conf.json restart all agents.",
    ),
    "TP3003": Code(
        title="A node's VXLAN data cannot be read; it is not reached in that family",
        cause="Its annotation backend-data or backend-v6-data is not flannel's JSON with a VNI and a "
        "unicast VtepMAC.",
        fix="Restart the network agent of that node, which writes the annotation anew.",
    ),
    "TP3004": Code(
        title="A node's podCIDR cannot be used; it is not reached in that family",
        cause="Node.spec.podCIDRs lacks the family, cannot be read, or lies outside the cluster's pod "
        "network.",
        fix="Make the controller manager's cluster CIDRs agree with Network and IPv6Network of net- "
        "conf.json.",
    ),
    "TP3005": Code(
        title="Two nodes claim overlapping podCIDRs; only the first by name is reached",
        cause="One of the Node objects is stale: a machine was registered anew under another name.",
        fix="Delete the stale Node object.",
    ),
    "TP3006": Code(
        title="Two nodes claim one VTEP MAC; only the first by name is reached",
        cause="A node's state was copied to another machine, with its annotations or its flannel device.",
        fix="On one of them remove flannel's annotations and devices and restart its agent.",
    ),
    "TP3007": Code(
        title="Another node claims this node's own address; it is not reached",
        cause="Its Node object is a former registration of this machine, or its public-ip-overwrite is "
        "wrong.",
        fix="Delete the stale Node object, or correct the annotation.",
    ),
    "TP3008": Code(
        title="A node is not on this node's link, which host-gw needs; it is not reached",
        cause="A router lies between the two nodes.",
        fix="Use the backend vxlan with DirectRouting, which needs no tunnel where there is no router.",
    ),
    "TP3009": Code(
        title="A node's VNI differs from ours",
        cause="net-conf.json is not the same on all nodes. The peer drops what it is sent.",
        fix="Configure one VNI and restart all agents.",
    ),
    "TP3010": Code(
        title="This node's part in the pod network is unknown",
        cause="Its Node object is not there yet, or the controller manager has assigned no podCIDR of the "
        "family. Until it is known nothing of that family is changed or taken down.",
        fix="See that the kubelet registers under the agent's node name and that --allocate-node-cidrs is "
        "on.",
    ),
    "TP3011": Code(
        title="This node's podCIDR lies outside the cluster's pod network",
        cause="The controller manager's cluster CIDR and Network or IPv6Network of net-conf.json differ.",
        fix="Make them agree; a podCIDR cannot be changed, so that a wrong Node object must be deleted "
        "and made anew.",
    ),
    "TP3012": Code(
        title="The underlay has no address of a family that is on",
        cause="The interface that carries the overlay lost it, never had it, or the wrong interface was "
        "chosen.",
        fix="Give the interface an address, or name the right one to the agent (iface).",
    ),
    "TP3013": Code(
        title="The MTU is too small for IPv6",
        cause="Below 1280 bytes the kernel switches IPv6 off on a link, and the overlay takes 70 bytes off "
        "the underlay.",
        fix="Raise the underlay's MTU to at least 1350, or run IPv4 only.",
    ),
    "TP3014": Code(
        title="A configured MTU is larger than the network carries",
        cause="Backend.MTU exceeds that of the interface, or pod_mtu what the overlay leaves of it.",
        fix="Remove the setting: both are computed from the interface.",
    ),
    "TP3015": Code(
        title="Two pods of this node publish one host port; the earlier one has it",
        cause="The runtime started a pod whose port was still taken (outside Kubernetes nothing prevents "
        "it).",
        fix="Give one of them another host port and start it anew.",
    ),
    "TP3016": Code(
        title="The link of a running pod is gone",
        cause="Somebody deleted its host end. Only the runtime can bring a new one into the pod's namespace.",
        fix="Delete the pod; its controller makes another.",
    ),
    "TP3017": Code(
        title="This node's public-ip-overwrite is no address",
        cause="A user-set annotation cannot be read; the interface's address is announced in its place.",
        fix="Correct or remove the annotation.",
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
    "TP4006": Code(
        title="The lease store was damaged and has been made anew",
        cause=(
            "The database could not be read any more: a failing disk, or somebody wrote to the file. It was "
            "put aside; which pod has which address was read off the kernel and the API server. Running pods "
            "were not touched. What is lost is which addresses were released within the last minute."
        ),
        fix=("Look for disk errors (dmesg, smartctl), then delete the file the message names."),
    ),
    "TP4005": Code(
        title="A lease cannot be read",
        cause=(
            "A row of the lease store is damaged or was written by an unknown version. Its address "
            "stays taken."
        ),
        fix="Delete the pod it belongs to; the DEL frees the address.",
    ),
    **IPAM,
    **POLICY,
    **NETWORKS,
    **MIGRATE,
    **IMAGE,
    **UPGRADE,
    **CONDUCT,
    "TP5150": Code(
        title="A new pod's policy could not be put in force",
        cause=(
            "The kernel refused the change, or the pod went while it was being attached. Without its policy "
            "a pod is attached to nothing, so ADD fails and the runtime tries again."
        ),
        fix="See the agent's log and `towpath status`; TP1020 has the kernel's words.",
    ),
    "TP9001": Code(
        "The machine forbids the namespaces a lab is made of.",
        "unshare(2) was refused: user namespaces are off for ordinary users (sysctl, AppArmor, seccomp), or "
        "the lab was started in a container without the rights to make namespaces.",
        "Allow them (user.max_user_namespaces; Debian: kernel.unprivileged_userns_clone=1; Ubuntu: "
        "kernel.apparmor_restrict_unprivileged_userns=0) or run as root.",
    ),
    "TP9002": Code(
        "The folder of this user's labs belongs to somebody else.",
        "A folder towpath-UID exists where temporary files go, but with another owner or open to others; the "
        "lab's kubeconfig will not be put there.",
        "Remove the folder, or set XDG_RUNTIME_DIR to a folder of your own.",
    ),
    "TP9003": Code(
        "No such lab is running.",
        "No lab was started under this name, or it has ended; a lab lives only as long as its processes.",
        "Start one with `towpath lab up`.",
    ),
    "TP9004": Code(
        "The topology file cannot be used.",
        "It is no YAML, has an unknown key, a wrong value, or names a node twice.",
        "Correct the key the message names; docs/lab.md lists all keys.",
    ),
    "TP9005": Code(
        "A library the lab needs is not installed.",
        "The nftables library is loaded from the distribution.",
        "Install libnftables1 (Debian: apt install libnftables1).",
    ),
    "TP9006": Code(
        "A lab of this name is running already.",
        "Its control socket answers.",
        "Use it, end it with `towpath lab down`, or give the new one another --name.",
    ),
    "TP9007": Code(
        "The lab ended while it was starting.",
        "One of its first processes failed; the message carries the end of its log.",
        "If the log does not say enough, TOWPATH_DEBUG=1 shows where; please report it.",
    ),
    "TP9008": Code(
        "The cluster did not become Ready in time.",
        "A node or an agent is missing, as the message says; on a very busy machine everything is late.",
        "Act on what the agent said last, if the message has it; else try again on a quieter machine.",
    ),
    "TP9009": Code(
        "This kernel has IPv6 switched off.",
        "A dual-stack or IPv6 lab was asked for, and the kernel was started without IPv6.",
        "Use `towpath lab up --ipv4`, or switch IPv6 on (kernel parameter ipv6.disable=0).",
    ),
    "TP9020": Code(
        "A program of Kubernetes, or one needed to build or run it, is missing or cannot run.",
        "TOWPATH_KUBE_BIN names a folder that lacks a program, holds one for another machine or of a version "
        "before 1.20; or a Debian package is not installed.",
        "Install the package the message names, or correct TOWPATH_KUBE_BIN.",
    ),
    "TP9021": Code(
        "There is no room for the Kubernetes binaries.",
        "Building them needs 8 GiB for some minutes; they stay in the user's cache folder.",
        "Make room, set XDG_CACHE_HOME to a folder on a larger disk, or name binaries with TOWPATH_KUBE_BIN.",
    ),
    "TP9022": Code(
        "The source of Kubernetes could not be fetched.",
        "Debian's mirror does not answer, a proxy forbids it, or the machine's clock or keyring is wrong.",
        "Read the log the message names; make http://deb.debian.org/debian reachable, or name binaries with "
        "TOWPATH_KUBE_BIN.",
    ),
    "TP9023": Code(
        "Kubernetes could not be built.",
        "A tool failed; its complaint is in the message and everything it said in the log.",
        "Read the log; what it needs is Debian 12's golang-go, dpkg-dev, make and rsync. Or name binaries "
        "with TOWPATH_KUBE_BIN.",
    ),
    "TP9024": Code(
        "The real control plane did not become ready, or a part of it ended.",
        "etcd, kube-apiserver, kube-controller-manager or kube-scheduler refused a flag or could not listen; "
        "the message has the end of its log.",
        "Read the log the message names; an address or port may be taken, or the version too new for "
        "Debian's etcd (put a newer etcd beside the binaries of TOWPATH_KUBE_BIN).",
    ),
    "TP9025": Code(
        "A world for real nodes cannot be made",
        "Real kubelets and containerd run as root, in namespaces and control groups of their own; the kernel "
        "or the user at hand does not allow them.",
        "Run as root on a machine with /sys/fs/cgroup mounted.",
    ),
    "TP9026": Code(
        "An image for the real cluster cannot be built",
        "Images are made from this machine's Debian files and a C compiler.",
        "Install what the message names.",
    ),
    "TP9027": Code(
        "A real node does not boot",
        "Its containerd, its first process or something it needs from this machine is missing.",
        "Install what the message names; otherwise read the node's logs.",
    ),
}
