"""Codes of conducting an upgrade and of watching one afterwards: TP740n, TP76nn."""

from towpath.model.code import Code

CONDUCT: dict[str, Code] = {
    "TP7401": Code(
        "The plan no longer fits the cluster",
        "Since it was made, images, nodes or the cluster itself have changed; nothing was done.",
        "Make a new plan.",
    ),
    "TP7402": Code(
        "Another conductor is at work",
        "Its Lease towpath-upgrade in kube-system is held and renewed by another process.",
        "Wait for it, or end it: its work is taken up from the journal.",
    ),
    "TP7403": Code(
        "The journal does not allow this",
        "Another upgrade is under way, this one has ended, or its ConfigMap was changed by hand.",
        "Do what the message says.",
    ),
    "TP7404": Code(
        "There is no plan to carry out",
        "The file is none, was changed after it was made, or there is nothing to change.",
        "Make a new plan with `towpath upgrade plan`.",
    ),
    "TP7405": Code(
        "A HelmChart stays frozen after the upgrade",
        "The conductor froze it, so that helm-controller does not roll the DaemonSet without gates. It is of "
        "another version than what runs now: unfrozen, helm would put its own images back on all nodes.",
        "Upgrade RKE2's servers to the release whose chart it is (or back), then remove the annotation "
        "helmcharts.helm.cattle.io/unmanaged.",
    ),
    "TP7406": Code(
        "Somebody else keeps what would be changed",
        "Argo CD or Flux compares the object with its source and undoes what differs, the upgrade too.",
        "Pause its syncing and plan with --managed-elsewhere; afterwards change the source to the new "
        "version before it may sync again.",
    ),
    "TP7407": Code(
        "The maintenance window cannot be read",
        "It is misspelt, or its time zone is not known here.",
        "Write it as `Sat 22:00-04:00 UTC` or `Mon-Fri 01:00-05:00 Europe/Berlin`.",
    ),
    "TP7408": Code(
        "Probes cannot run",
        "Their pods do not become ready, or nothing they ask is answered even before anything was done.",
        "Look at the pods in the namespaces towpath-probe-…; a plan with --no-probes does without them.",
    ),
    "TP7409": Code(
        "The cluster is not prepared for a migration",
        "Both networks' DaemonSets have to be there, and each has to keep off the nodes of the other, by the "
        "label towpath.dev/network.",
        "Follow docs/guides/migrate-from-canal.md, 'Before'; then make the plan again.",
    ),
    "TP7410": Code(
        "Images could not be pulled on every node, or are not the same everywhere",
        "A registry that a node does not reach, a tag that is not there, or one that was moved meanwhile.",
        "Look at the image and the nodes that are named; load the images by hand where there is no registry.",
    ),
    "TP7411": Code(
        "This machine's clock is not the API server's",
        "Windows, the times of the journal and the lease that keeps two conductors apart go by it.",
        "Set the clock (chronyc makestep, timedatectl); nothing was begun.",
    ),
    "TP7412": Code(
        "Somebody else has changed the DaemonSet in the middle of an upgrade",
        "Another person, helm, Argo CD or Flux. While it is OnDelete no pod has changed by that; the next "
        "node would get what nobody planned, so the upgrade stands still.",
        "kubectl get daemonset --show-managed-fields tells who. `towpath upgrade resume` sets the plan's "
        "images again and goes on with all else as it is now; `rollback` gives every node its old images.",
    ),
    "TP7413": Code(
        "This identity may not do what an upgrade needs",
        "Its roles lack the verbs that are named, each with its resource and namespace.",
        "Have them granted, or use another kubeconfig. What was begun stands as the journal says; the same "
        "command goes on.",
    ),
    "TP7601": Code(
        "A container of the pod network was started again after the upgrade",
        "It ended by itself, was killed for its memory, or did not answer its liveness probe.",
        "Read its log before the restart: kubectl logs -p.",
    ),
    "TP7602": Code(
        "A node has no network pod that is ready",
        "After the upgrade it was, at the last look it is not.",
        "kubectl describe the pod; look at the node.",
    ),
    "TP7603": Code(
        "A log says what is known to mean trouble",
        "The line matches one of the catalogue's patterns; the message tells what it means.",
        "Do what the message says; `towpath upgrade rollback` if it concerns all nodes.",
    ),
    "TP7604": Code(
        "Traffic is lost",
        "Probes got no answer although nothing is being done.",
        "`towpath probe --html` shows where and when.",
    ),
    "TP7605": Code(
        "A denied question was answered",
        "A port that a NetworkPolicy closes was open: policies are not enforced on some node.",
        "`towpath policy explain` tells which rule should have denied it; roll back if it stays so.",
    ),
    "TP7606": Code(
        "Answers take longer than before the upgrade",
        "The 99.9th percentile is more than twice what it was.",
        "See whether the nodes are busier than they were; compare with `towpath probe`.",
    ),
    "TP7607": Code(
        "A network pod holds much more memory than before",
        "It leaks, or the new version needs more.",
        "Watch whether it grows on, and report it.",
    ),
    "TP7608": Code(
        "A network pod uses much more of the processor than before",
        "Often it writes rules anew all the time (flannel#1913).",
        "`towpath verify` looks for rules that change; read the log.",
    ),
    "TP7609": Code(
        "Custom resources of the network have vanished",
        "A definition was deleted with all its objects, or most objects of a kind (rke2#10168).",
        "Find out who did it; `towpath restore` brings back what the backup holds.",
    ),
    "TP7610": Code(
        "Many more TCP segments are sent again than before",
        "Packets of the node or its pods are lost, or come late.",
        "Look for loss on the way: the devices' counters, the underlay, the MTU.",
    ),
    "TP7611": Code(
        "Devices or conntrack drop many more packets than before",
        "A queue is full, or the table of connections is.",
        "Compare ip -s link and conntrack -S; raise nf_conntrack_max if it is reached.",
    ),
    "TP7612": Code(
        "A node's tunnels carry next to nothing, and were busy before",
        "Its pods are idle, or cut off from other nodes.",
        "`towpath probe` tells which; `towpath verify --read-nodes` looks at the tunnel's ends.",
    ),
    "TP7613": Code(
        "A node's own state is not in order any more",
        "What the code in the message says was not so before the upgrade.",
        "`towpath explain` that code.",
    ),
}
