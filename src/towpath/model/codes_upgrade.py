"""Codes of upgrades: TP7nnn."""

from towpath.model.code import Code

UPGRADE: dict[str, Code] = {
    "TP7001": Code(
        "The release is not known",
        "It is misspelt, or newer than this version of Towpath.",
        "Look at `towpath releases`; give a newer catalogue with --catalogue.",
    ),
    "TP7010": Code(
        "The target is older than what runs",
        "Kubernetes does not support going back a minor, and the network's custom resources may not go back.",
        "Choose a newer release; to go back, restore etcd as RKE2's documentation of rollbacks says.",
    ),
    "TP7011": Code(
        "A Kubernetes minor is skipped",
        "Kubernetes supports upgrades from one minor to the next only.",
        "Upgrade to a release of the next minor first.",
    ),
    "TP7012": Code(
        "The target was made before the release that runs",
        "Releases of several minors are made side by side. An older one of the next minor holds older "
        "components: of RKE2's possible steps to a next minor a quarter would take Calico back.",
        "Choose a release of that minor made on the same day or later.",
    ),
    "TP7013": Code(
        "The upgrade takes a component back to an older version",
        "The target holds an older one than the release that runs. What the newer one has written (rules, "
        "sets, custom resources) may be unreadable to the older one.",
        "Choose a release made no earlier than the one that runs.",
    ),
    "TP7014": Code(
        "The target has no such chart",
        "RKE2 has dropped or renamed it.",
        "Find out what takes its place before you upgrade.",
    ),
    "TP7015": Code(
        "The chart drops a custom resource",
        "The definitions are ordinary templates of the chart, not marked to be kept: helm deletes what the "
        "new chart has no more, and Kubernetes then deletes every object of that kind.",
        "Save the objects and convert them to what takes their place; annotate the definition with "
        "helm.sh/resource-policy: keep if they must stay.",
    ),
    "TP7017": Code(
        "Others met a problem on this way",
        "The releases or components meet the condition of an entry of the catalogue; its issue tells more.",
        "Read the issue and do what the entry says.",
    ),
    "TP7018": Code(
        "It is not known which custom resources the chart drops",
        "The catalogue has no list of one of the two charts.",
        "Compare the charts' own manifests (helm template).",
    ),
    "TP7019": Code(
        "Sources disagree on a version",
        "The release's notes and the images it lists say different things; the catalogue takes the images.",
        "Look at the image that runs.",
    ),
    "TP7020": Code(
        "A chart mixes versions of one program",
        "Two of its images hold different versions of Calico.",
        "Choose another chart.",
    ),
    "TP7501": Code(
        "A DaemonSet's controller has not seen its latest template",
        "kube-controller-manager is not running or behind: what the DaemonSet's status says is old.",
        "Wait; look at kube-controller-manager if it lasts.",
    ),
    "TP7502": Code(
        "A DaemonSet of the pod network is not complete",
        "On some node it is not updated or not ready, or no node is meant to run it.",
        "Look at the pods that the other findings name.",
    ),
    "TP7503": Code(
        "A pod of the network was made from an older template",
        "The DaemonSet was changed and the node's turn has not come, or it waits to be deleted (OnDelete).",
        "Wait for the roll, or delete the pod when its turn has come.",
    ),
    "TP7504": Code(
        "A pod of the network is not ready",
        "A container waits, fails or does not answer its readiness probe; the message names it.",
        "kubectl describe the pod and read the container's log.",
    ),
    "TP7505": Code(
        "A node runs another version than the release expected",
        "The image that the container was started from is not the one RKE2 lists for the release. That the "
        "right one lies on the node (node.status.images) says only that it was pulled.",
        "Roll the DaemonSet on this node.",
    ),
    "TP7506": Code(
        "The cluster runs nothing of the release expected",
        "None of its images is in a DaemonSet's template: the cluster has another network.",
        "Name the release of the network that runs.",
    ),
    "TP7507": Code(
        "One tag is two images",
        "Nodes have pulled the same tag at different times, and it was moved in between, or they differ in "
        "architecture and the registry gives no common index.",
        "Pull it afresh and pin it by digest.",
    ),
    "TP7201": Code(
        "The archive is damaged, or is none",
        "It was cut off, changed, made by a newer Towpath, or is another file; nothing of it was used.",
        "Take another copy of it; the message names the part.",
    ),
    "TP7202": Code(
        "The archive is of another cluster",
        "The UID of its namespace kube-system is not this cluster's; nothing was written.",
        "Look what would be written with --dry-run; if that is what you want, say --other-cluster.",
    ),
    "TP7301": Code(
        "A kubelet is too old or too new for the target",
        "Kubernetes lets a kubelet be at most three minors older than the API server, and never newer.",
        "Upgrade the nodes named first, or choose another target.",
    ),
    "TP7306": Code(
        "A HelmChartConfig cannot be read",
        "Its valuesContent is not YAML: helm will fail at the upgrade.",
        "Correct it.",
    ),
    "TP7307": Code(
        "A HelmChartConfig pins another image than the target's",
        "The chart is upgraded and the image is not: its rights and custom resources then do not fit.",
        "Remove the pin, or leave it on purpose.",
    ),
    "TP7308": Code(
        "A failed upgrade would uninstall the network",
        "Up to August 2026 helm-controller's failurePolicy is reinstall: it uninstalls a chart whose upgrade "
        "failed. For the pod network that is an outage of the cluster.",
        "Set spec.failurePolicy: abort on the HelmChart before the upgrade.",
    ),
    "TP7309": Code(
        "Helm's last record of the chart is not deployed",
        "An upgrade failed or was interrupted; the next one will be refused or make it worse.",
        "Read the helm-install job, and finish or roll back that release first.",
    ),
    "TP7310": Code(
        "There is no fresh snapshot of etcd",
        "Going back a Kubernetes minor is possible only by restoring one.",
        "rke2 etcd-snapshot save; keep a copy with server/token off the node.",
    ),
    "TP7311": Code(
        "Servers hold different charts",
        "Each server applies the charts of its own release when it starts: one that restarts late takes the "
        "network back.",
        "Freeze the chart with a .skip file on every server until all are of one release.",
    ),
    "TP7312": Code(
        "Helm ran on an older server",
        "The job that applies the new chart landed on a server that has not been upgraded, whose "
        "Kubernetes the chart may refuse.",
        "Cordon the older servers while the chart is applied.",
    ),
    "TP7313": Code(
        "A node is not Ready",
        "Whether the upgrade harms it could not be told.",
        "Mend it, or take it out of the cluster, before the upgrade.",
    ),
    "TP7314": Code(
        "An image of the target does not lie on every node",
        "It would be pulled while the node's network is being replaced.",
        "Pull it on the nodes named before the upgrade.",
    ),
    "TP7315": Code(
        "A node has hardly an address left",
        "Pods that are made anew during the upgrade need addresses before old ones are free.",
        "Move pods away; look for leases that nobody holds.",
    ),
    "TP7316": Code(
        "A node does not say where its tunnel ends",
        "flanneld (or Towpath) has not written its annotations: peers do not send to this node.",
        "Look at the log of its network pod.",
    ),
    "TP7317": Code(
        "A node's tunnel annotation cannot be read",
        "Somebody else wrote it; peers ignore the node.",
        "Let its agent write it anew.",
    ),
    "TP7318": Code(
        "Two nodes say that their tunnels end in the same place",
        "A machine was cloned with its flannel.1 or its address: frames for one reach the other.",
        "Delete flannel.1 on one of them and restart its network pod.",
    ),
}
