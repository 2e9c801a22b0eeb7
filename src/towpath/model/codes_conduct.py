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
}
