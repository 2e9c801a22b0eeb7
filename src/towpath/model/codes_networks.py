"""TP6nnn: extra networks of pods."""

from towpath.model.code import Code

NETWORKS: dict[str, Code] = {
    "TP6001": Code(
        "A pod's annotation of networks cannot be read",
        "k8s.v1.cni.cncf.io/networks is neither NAME, NAMESPACE/NAME@INTERFACE with commas between them, nor "
        "a JSON list of objects with the standard's keys. The message names entry, field and character.",
        "Correct the annotation in the pod's template; the pod starts when it is made anew.",
    ),
    "TP6002": Code(
        "A pod asks for a network that does not exist",
        "There is no NetworkAttachmentDefinition of that name in that namespace; without a namespace in the "
        "annotation, in the pod's own.",
        "Create it, or correct the name; `towpath net ls` shows those there are. The kubelet tries again.",
    ),
    "TP6003": Code(
        "A pod asks for a network of a namespace that is not for it",
        "With the setting network_isolation pods may use networks of their own namespace and of those in "
        "network_global_namespaces.",
        "Use a network of the pod's namespace, move the definition, or change the setting.",
    ),
    "TP6004": Code(
        "The configuration in a NetworkAttachmentDefinition cannot be used",
        "spec.config is no JSON object, has no plugin with a type, or a version of CNI that is not spoken; "
        "or it is empty and no configuration on the node has the object's name.",
        "Correct spec.config; `towpath net check` says whether it is read.",
    ),
    "TP6005": Code(
        "An interface name cannot be used",
        "It is longer than 15 bytes, has characters that Linux does not take, or another of the pod's "
        "networks has it. Networks without a name of their own are net1, net2, … by their place in the list.",
        "Choose another in the pod's annotation.",
    ),
    "TP6006": Code(
        "A pod asks for an address, MAC or port that cannot be had",
        "It is malformed, a multicast address, or not of the network.",
        "Correct the pod's annotation.",
    ),
    "TP6007": Code(
        "A pod asks for something that no plugin of the network can do",
        "The standard has such a request fail unless a plugin of the network declares the capability.",
        'Add "capabilities": {"NAME": true} to the plugin that has it, or remove the key.',
    ),
    "TP6008": Code(
        "The configuration of a network names a plugin or a host path that is not allowed",
        "Plugins run as root on the node, so whoever writes a NetworkAttachmentDefinition would be root. "
        "Types and paths are therefore of a list.",
        "Use what is allowed, or add to the agents' settings network_types and network_paths.",
    ),
    "TP6009": Code(
        "A plugin of an extra network failed",
        "It refused, crashed, ran longer than network_seconds, printed what is no result, or is not "
        "installed. All that had been attached to the pod was detached again, and the kubelet tries again.",
        "Act on the plugin's own words in the message.",
    ),
    "TP6010": Code(
        "An extra network could not be detached",
        "Its plugin refused DEL or could not be run. What ADD was given is kept; the runtime's next DEL, and "
        "later calls of other pods, try it again.",
        "Act on the plugin's own words; a plugin that was uninstalled has to come back for this.",
    ),
    "TP6011": Code(
        "The default route of a pod could not be moved to an extra network",
        "default-route names a gateway that the interface cannot reach, or two networks are to have it.",
        "Correct default-route in the pod's annotation.",
    ),
    "TP6012": Code(
        "The networks of a pod could not be written to its annotation network-status",
        "The API server did not take it; the pod runs, and it is tried again.",
        "See the message; the agents need the right to patch pods/status.",
    ),
    "TP6013": Code(
        "A network that all pods get cannot be served",
        "A network of the setting network_defaults is missing, or its configuration cannot be used. No pod "
        "starts without it, but for those of network_system_namespaces.",
        "Create or correct its NetworkAttachmentDefinition, or take it from the setting.",
    ),
    "TP6014": Code(
        "A plugin did not give a pod what it asked for",
        "The annotation asks for addresses or a MAC, and the plugin's result has others.",
        "Use a plugin that honours args.cni or the capabilities ips and mac, or ask for less.",
    ),
    "TP6015": Code(
        "A pod has no device left for a network",
        "The definition has k8s.v1.cni.cncf.io/resourceName: each attachment takes one of the devices that "
        "the kubelet gave the pod of that resource, in the order of its networks, and there are too few.",
        "Ask for as many in the limits of the pod's containers, or name a device with deviceID.",
    ),
    "TP6026": Code(
        "The kubelet does not tell which devices a pod has",
        "Networks with k8s.v1.cni.cncf.io/resourceName take their device from the kubelet's list of pods' "
        "devices (pod-resources/kubelet.sock, v1), which the shim connects to. It cannot be reached, does "
        "not answer, or does not have the pod. The kubelet tries the pod again.",
        "Look at the kubelet; if it has another root folder, set network_kubelet_socket.",
    ),
    "TP6025": Code(
        "Policy cannot be enforced on a pod's interface in another network",
        "There are MultiNetworkPolicies, and the pod's namespace could not be reached to put them in force, "
        "or its kernel did not take the rules. A new pod does not start without them; in one that runs, the "
        "rules stay as they are, and it is tried again with the runtime's next call of any pod.",
        "See the message. If it names the shim, install that of the agent's release; else look at the "
        "kernel's nftables.",
    ),
    "TP6016": Code(
        "The journal of extra networks cannot be used",
        "networks.db in the agent's state folder cannot be opened or written, or a row of it is damaged.",
        "Look for a full or failing disk; pods with extra networks start again by themselves after that.",
    ),
    "TP6017": Code(
        "A running pod's networks cannot be changed",
        "Its annotation k8s.v1.cni.cncf.io/networks was changed. To attach or detach while a pod runs takes "
        "root in its network namespace, which the agent has not: towpath-ns lends it, and does not run on "
        "the node, or cannot reach the agent.",
        "Install towpath-ns (helper: true in the values of the installation), or start the pod anew.",
    ),
}
