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
    "TP7320": Code(
        "The kernel lacks a module that the network needs",
        "Distributions ship some modules in a package of their own; RHEL 10 has no xtables modules at all "
        "without it.",
        "Install the package with the kernel's extra modules.",
    ),
    "TP7321": Code(
        "ipset does not understand the kernel's sets",
        "The program is older than what made them, or the image lacks what it needs: Felix cannot write its "
        "sets then, and policies stand still.",
        "Take an image with a newer ipset, or an older kernel.",
    ),
    "TP7322": Code(
        "The node's iptables is known to lose rules",
        "Versions 1.8.0 to 1.8.4 lose or double rules in their nftables back end.",
        "Install 1.8.5 or newer, or remove it: RKE2 brings its own.",
    ),
    "TP7323": Code(
        "Rules stand in both back ends of iptables",
        "Both are in force at once, and only one of them is kept up to date: pods are cut off by rules that "
        "nobody sees.",
        "Flush the back end that nobody writes any more.",
    ),
    "TP7324": Code(
        "A port that the target opens on the host is taken",
        "The new program would not start, or another would answer for its health.",
        "Move the other program to another port.",
    ),
    "TP7325": Code(
        "A service on the host works against the network",
        "firewalld and nm-cloud-setup write rules and routes of their own that cut pods off.",
        "Disable it.",
    ),
    "TP7326": Code(
        "NetworkManager may take the network's interfaces over",
        "It is not told to leave cali* and flannel* alone.",
        "Write the file that the finding names.",
    ),
    "TP7327": Code(
        "The node does not forward packets",
        "Something has set the sysctl back since the network set it.",
        "Set it, and look for the sysctl.d file that undoes it.",
    ),
    "TP7328": Code(
        "Felix does not start with a loose reverse path filter",
        "net.ipv4.conf.all.rp_filter is 2; running it does not look again, a new pod of it will.",
        "Set it to 1 before the upgrade.",
    ),
    "TP7329": Code(
        "Addresses are held by pods that are gone",
        "host-local frees nothing by itself: an ADD that failed half-way keeps its address for ever.",
        "Delete the files of the addresses named, after a look that no sandbox has them.",
    ),
    "TP7330": Code(
        "Nothing masquerades pods' packets",
        "The chain is gone, is not called, or is empty: pods reach nothing outside, and what they began "
        "meanwhile stays broken in conntrack.",
        "Restart the node's network pod.",
    ),
    "TP7331": Code(
        "Masquerading rules are doubled or out of order",
        "Two versions, or two back ends, have written them: pods' own addresses may be translated, and "
        "policies then see a node instead of a pod.",
        "Delete the chain's rules and restart the node's network pod.",
    ),
    "TP7332": Code(
        "A tunnel has another MAC than its node says",
        "Peers send frames to the one the node says; the kernel drops them.",
        "Restart the node's network pod.",
    ),
    "TP7333": Code(
        "A peer's entry for a tunnel is not what its node says",
        "The peer has missed an event: its frames go to a MAC that is nobody's any more.",
        "Restart the network pod of the node named.",
    ),
    "TP7334": Code(
        "A tunnel is larger than what it goes through",
        "Packets of full size are lost; small ones pass, so that probes are green and downloads hang.",
        "Set the underlay's MTU right, and restart the network pod.",
    ),
    "TP7335": Code(
        "A tunnel is not like the others",
        "Another VNI or port is another network; another MTU loses large packets one way.",
        "Make the nodes alike before the upgrade.",
    ),
    "TP7336": Code(
        "Rules are written again and again",
        "Two programs fight over them, or one does not recognise its own (flannel 0.24.3): each time there "
        "is a moment without them.",
        "Find out who writes them.",
    ),
    "TP7337": Code(
        "A CNI program on the host is not that of the image that runs",
        "The installer could not overwrite it (text file busy), or did not run: shim and daemon of different "
        "versions do not understand each other.",
        "Restart the pod that installs it.",
    ),
    "TP7338": Code(
        "There is no CNI configuration on the node",
        "The runtime makes no pod until there is one.",
        "Look at the log of the container that installs it.",
    ),
    "TP7340": Code(
        "The service account of the network lacks a right that the new images need",
        "Rights come with the chart, images may come without it: pinned in a HelmChartConfig, or rolled "
        "while the chart is frozen. The programs are Ready then, and cannot read or write what they must.",
        "Apply the ClusterRoles of the target's chart first: they only add rights.",
    ),
    "TP7341": Code(
        "A custom resource that the new images need is not defined",
        "Definitions come with the chart, images may come without it; or somebody, or a chart, deleted it.",
        "Apply the definitions of the target's chart first; look in a backup for objects that it had.",
    ),
    "TP7342": Code(
        "Policies mean something else to the engine that comes",
        "It enforces kinds that the other does not, or orders policies of equal order otherwise: somebody "
        "will be let in, or shut out, by the upgrade alone.",
        "Change the policies so that both agree; skip the check by its number if the change is wanted.",
    ),
    "TP7343": Code(
        "A HelmChartConfig sets a key that the target's chart has no more",
        "Helm takes no notice of keys that a chart does not know: the network does what the chart says by "
        "itself.",
        "Read the chart's values; set what took the key's place, or remove it.",
    ),
    "TP7344": Code(
        "A default of the chart changes",
        "Who has not set the key gets the new value with the upgrade.",
        "Set the old value in a HelmChartConfig if the cluster depends on it.",
    ),
    "TP7345": Code(
        "Snapshots of etcd lie on their nodes only",
        "No fresh one is in a bucket. Whether somebody has copied one, the cluster does not know. A snapshot "
        "can be restored only with the server token that it was taken under.",
        "Copy one off the node with server/token, or configure S3 for snapshots.",
    ),
    "TP7346": Code(
        "Canal's CNI configuration on a node is not what its ConfigMap says",
        "The ConfigMap was changed after the pod had started, or somebody edited the file: the next pod of "
        "Canal writes it anew, and pods are wired otherwise from then on.",
        "Put what was edited into the chart's values, or restart the pod now and look.",
    ),
}
