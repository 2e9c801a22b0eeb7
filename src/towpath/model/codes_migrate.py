"""The catalogue's part on taking a node over from Canal and handing it back: TP7101 to TP7129."""

from towpath.model.code import Code

MIGRATE: dict[str, Code] = {
    "TP7101": Code(
        title="There is no Canal on this node to take over",
        cause="The CNI configuration in force is not Canal's, or there is none.",
        fix=(
            "On a node without pods just install Towpath. Elsewhere look at /etc/cni/net.d: the first file "
            "by "
            "name has to be Canal's conflist (calico with host-local)."
        ),
    ),
    "TP7102": Code(
        title="Another plugin stands before Canal's",
        cause=(
            "The runtime loads a file that comes before Canal's conflist by name, and it is not Multus's. Or "
            "something has put such a file before Towpath's while the node was being taken over."
        ),
        fix=(
            "Remove it from the node first, as its own documentation says; Towpath does what Multus does "
            "itself."
        ),
    ),
    "TP7103": Code(
        title="The node depends on what Towpath does not have",
        cause=(
            "There are devices or routes of a backend that is not vxlan or host-gw: ipip, WireGuard, "
            "Calico's "
            "own VXLAN, BGP or eBPF."
        ),
        fix="Change the cluster to flannel's vxlan or host-gw and iptables or nftables first.",
    ),
    "TP7104": Code(
        title="There is no kube-proxy on this node",
        cause=(
            "Neither its iptables or nftables rules nor its IPVS device are there. Calico's eBPF mode "
            "replaces "
            "it; Towpath does not, and services would stop working."
        ),
        fix="Run kube-proxy on the node (RKE2: do not disable it) and begin again.",
    ),
    "TP7105": Code(
        title="Somebody else's rules are mixed with Canal's",
        cause=(
            "A rule in one of Canal's chains does not bear its mark, a rule of somebody's leads to one of "
            "its "
            "chains, or a chain has a name as Canal's have that Canal does not use. To remove Canal's would "
            "take that along, or fail half-way."
        ),
        fix="Move or delete what the message names; iptables-save shows it.",
    ),
    "TP7106": Code(
        title="A pod's link cannot be taken over",
        cause=(
            "host-local has no lease for it, or neither the API server nor the runtime's cache says whose it "
            "is. Towpath's firewall would not know it, and drop what it sends."
        ),
        fix="Delete the pod, or a leftover link with ip link delete, and begin again.",
    ),
    "TP7107": Code(
        title="A program is missing that a migration needs",
        cause="Canal's rules can only be seen and removed with the program that made them.",
        fix="Install iptables and ipset (Debian's names); Towpath's own image for takeovers has both.",
    ),
    "TP7108": Code(
        title="A firewall lets pods' packets pass only because Canal accepts them",
        cause=(
            "A chain's policy is DROP, or it ends in a rule that drops or rejects everything. Felix and "
            "flanneld accept pods' packets before that in the same chain, and without them it would drop "
            "them: "
            "an accept in Towpath's table cannot override a drop elsewhere."
        ),
        fix=(
            "Accept the pod network there, or set the policy to ACCEPT (iptables -P FORWARD ACCEPT; with "
            "firewalld, put the interfaces cali+ and flannel.1 into the zone trusted)."
        ),
    ),
    "TP7109": Code(
        title="Canal's daemons have not left the node",
        cause=(
            "calico-node or flanneld still runs, and would put back what is removed; or its installer has "
            "put "
            "Canal's CNI configuration in force again. Until they have left, Canal's and Towpath's rules "
            "stand side by side, and pods work."
        ),
        fix=(
            "See that the DaemonSet rke2-canal keeps off Nodes labelled towpath.dev/network=towpath "
            "(docs/guides/migrate-from-canal.md), and run the command again."
        ),
    ),
    "TP7110": Code(
        title="Towpath's rules did not come into force in time",
        cause=(
            "Its agent does not run on this node, cannot reach the API server, or cannot carry out "
            "something; "
            "the message has what was missing in the kernel. Canal's rules are still there, and pods work."
        ),
        fix="Look at towpath status and the agent's log; run the command again, or hand back.",
    ),
    "TP7111": Code(
        title="Nobody knows what Canal's CNI configuration was",
        cause="This node was never taken over, or the record of it is gone.",
        fix="Give the conflist with --canal-conflist (any other node's /etc/cni/net.d/10-canal.conflist).",
    ),
    "TP7112": Code(
        title="The record of an earlier run cannot be read",
        cause="A line of migration.jsonl in the state folder is damaged.",
        fix="Move the file aside and run the command again: it finds out what is left to do.",
    ),
    "TP7113": Code(
        title="Leases of host-local that nothing stands behind",
        cause="Containers ended and their DEL never came through (after a reboot, say). Nothing uses them.",
        fix="Nothing: they are not imported, and their addresses become free.",
    ),
    "TP7114": Code(
        title="The API server cannot be reached",
        cause="A takeover has to know whose the pods are, and the agent which policies they are subject to.",
        fix="See to the API server, or to --kubeconfig, and run the command again. A handback does without.",
    ),
    "TP7115": Code(
        title="Something of Canal's cannot be removed, or is back",
        cause="The message has the rule, set or device, and the words of the program that refused.",
        fix="Remove the cause and run the command again; Towpath's rules are in force, and pods work.",
    ),
    "TP7116": Code(
        title="The agent is held",
        cause=(
            "A takeover or a handback is under way, or the node has been handed back to Canal: the agent "
            "does "
            "nothing, as it would cut off pods that it does not know."
        ),
        fix=(
            "Run towpath node takeover on the node to the end, or remove Towpath's DaemonSet from it. If "
            "neither is under way, delete hold.json in the agent's state folder."
        ),
    ),
    "TP7117": Code(
        title="A lease cannot be handed back",
        cause="host-local has the address for another container: Canal has given it out too early.",
        fix="Delete one of the two pods the message names, and run the command again.",
    ),
    "TP7118": Code(
        title="Canal's rules did not come into force in time",
        cause=(
            "calico-node or flanneld does not run on this node, or has not programmed every pod; the message "
            "names what was missing. Towpath's rules are still there, and pods work."
        ),
        fix="Look at the canal pod of this node; run the command again, or take over again.",
    ),
    "TP7119": Code(
        title="CNI calls are under way and do not end",
        cause="A runtime is in the middle of an ADD or DEL of the plugins that are to be replaced.",
        fix="See what the processes in the message wait for (the API server?), and run the command again.",
    ),
    "TP7120": Code(
        title="Towpath is not installed on this node",
        cause="The CNI program or its socket's name is missing in the runtime's folder.",
        fix=(
            "Label the Node towpath.dev/network=takeover, so that Towpath's DaemonSet gets there, and wait "
            "for it."
        ),
    ),
    "TP7122": Code(
        title="What Multus began for a pod cannot be read",
        cause="A file of its memory (/var/lib/cni/multus) is damaged, or in a form that is not known.",
        fix="Move the file aside and run the command again; release by hand what its pod's plugins leased.",
    ),
    "TP7121": Code(
        title="A program of Canal's failed",
        cause="portmap could not publish a pod's host ports; the message has its words.",
        fix="Remove the cause and run the command again; Towpath still serves the ports.",
    ),
}
