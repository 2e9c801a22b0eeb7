"""The catalogue's part on policy, TP5nnn: TP5130 to TP5149 are what ``towpath policy check`` finds."""

from towpath.model.code import Code

POLICY: dict[str, Code] = {
    "TP5001": Code(
        title="A rule of a policy cannot be understood",
        cause=(
            "A field has a value that means nothing, asks for something Towpath does not offer, or is not "
            "known to this version. The rule fails closed: one that allows is left out, one that denies or "
            "passes denies everything. The policy's other rules are in force."
        ),
        fix="Correct the field the message names, or upgrade Towpath if it belongs to a newer API.",
    ),
    "TP5002": Code(
        title="A policy cannot be understood as a whole",
        cause=(
            "Whom it selects, its tier, its order or the form of its rules cannot be told. It fails closed: "
            "it selects all pods it may speak of where that is not known, and allows nothing."
        ),
        fix="Correct the field the message names, or delete the policy.",
    ),
    "TP5003": Code(
        title="A policy names a Service that has no endpoints",
        cause=(
            "The Service does not exist under that name and namespace, or its selector finds no pods. A rule "
            "speaks of what stands behind the Service, and so matches nothing until there is something."
        ),
        fix="Correct the name or namespace in the policy, or the Service's selector.",
    ),
    "TP5040": Code(
        title="A network set of Calico's cannot be understood in full",
        cause=(
            "One of its networks, a label, or another field has a value that means nothing. What can be read "
            "of it stays in use. Rules that deny what it selects deny everything until then, since what is "
            "missing may be anything; rules that allow do without the missing part, and those that allow "
            "what is not in the set allow nothing."
        ),
        fix="Correct the field the message names.",
    ),
    "TP5041": Code(
        title="A host endpoint of Calico's cannot be understood in full",
        cause=(
            "Its node or interface, an address, a port, a label or a profile cannot be told. What no policy "
            "decides is denied on it, whatever its profiles say."
        ),
        fix="Correct the field the message names, or delete the host endpoint.",
    ),
    "TP5042": Code(
        title="A tier cannot be understood",
        cause=(
            "Its order or default action has a value that means nothing, or it is one of those that Calico "
            "makes itself and says otherwise. Tiers of Calico's stay as they are; another one comes last and "
            "denies by default, as a tier that does not exist."
        ),
        fix="Correct the field the message names.",
    ),
    "TP5043": Code(
        title="A staged policy cannot be understood",
        cause="Its kind, its spec or its stagedAction cannot be told; policy diff leaves it out.",
        fix="Correct the field the message names. Staged policies are never in force.",
    ),
    "TP5044": Code(
        title="A rule matches nothing",
        cause=(
            "Its IP version, its protocol and the families of its lists of networks exclude each other: no "
            "packet is IPv4 and IPv6 at once. A list of exceptions counts as well, as it does in Calico."
        ),
        fix="Make them agree, or make one rule for each family.",
    ),
    "TP5045": Code(
        title="A host endpoint stands at no interface",
        cause=(
            "It names no interface, and no interface of its node has any of its expectedIPs. Which one it is "
            "about cannot be told, and so nothing of it is enforced until one has."
        ),
        fix="Correct expectedIPs, or name the interface in interfaceName.",
    ),
    "TP5046": Code(
        title="Two host endpoints stand at one interface",
        cause="The first of them by name counts, as in Calico; the other is without effect there.",
        fix="Delete one of them, or give them different interfaces.",
    ),
    "TP5047": Code(
        title="IPVS leads packets past policies",
        cause=(
            "kube-proxy runs in ipvs mode, or something else makes virtual services. What is sent to one is "
            "sent on by the host itself and never forwarded: pods' ingress policies do not see it, and "
            "egress policies see the service's address. Policies are enforced for all other traffic."
        ),
        fix=(
            "Set kube-proxy's mode to nftables or iptables (in RKE2: kube-proxy-arg: proxy-mode=iptables), "
            "then run kube-proxy --cleanup or restart the node, which removes kube-ipvs0."
        ),
    ),
    "TP5130": Code(
        title="An object that policies speak of cannot be read",
        cause="A pod, namespace, node, service account or EndpointSlice has no name or not its kind's shape.",
        fix="Correct the field the message names; what is said of policies leaves the object out until then.",
    ),
    "TP5131": Code(
        title="A policy selects nothing",
        cause="No pod or host endpoint there is has the labels that it asks for; it is without effect.",
        fix="Correct its selectors or the labels, or delete the policy.",
    ),
    "TP5132": Code(
        title="A rule's selector matches nothing",
        cause=(
            "No pod, node, host endpoint or network set there is has the labels that one side of the rule "
            "asks for. A rule that allows then allows nothing."
        ),
        fix="Correct the selector or the labels, or remove the rule.",
    ),
    "TP5133": Code(
        title="A rule can never decide",
        cause="A rule that is read before it matches all that it matches, and decides or passes.",
        fix="Remove the rule, or put it in front of the other.",
    ),
    "TP5134": Code(
        title="A policy can never decide",
        cause=(
            "What it selects is selected by policies that are read before it, and all its rules come too "
            "late: a rule of theirs, or the default of their tier, decides first."
        ),
        fix="Delete the policy, or give it a place (tier, order, priority) in front of the other.",
    ),
    "TP5135": Code(
        title="An empty list of peers means everybody",
        cause=(
            "In a NetworkPolicy an empty `from` or `to` is as one that is left out: the rule allows "
            "everything there is. Nobody is allowed by having no rule at all."
        ),
        fix="Name peers; or leave the field out if everybody is meant; or remove the rule if nobody is.",
    ),
    "TP5136": Code(
        title="A policy is in a tier that does not exist",
        cause="No Tier has the name. The policy is read after all tiers, and denies what it does not allow.",
        fix="Make the Tier, or correct the policy's.",
    ),
    "TP5137": Code(
        title="A named port is nobody's",
        cause="No container's port has the name and protocol that the rule asks for: it matches nothing.",
        fix="Correct the name, name the container's port, or write the number.",
    ),
    "TP5138": Code(
        title="A MultiNetworkPolicy is for no network",
        cause=(
            "The annotation k8s.v1.cni.cncf.io/policy-for says which networks' interfaces the policy is for. "
            "It is missing, or an entry of it is no network's name; for what it does name it is in force."
        ),
        fix="Name NetworkAttachmentDefinitions, NAME or NAMESPACE/NAME, with commas between them.",
    ),
    "TP5160": Code(
        title="The agent hears nothing of denied packets",
        cause=(
            "The kernel lets one process listen to a group of NFLOG, and another one has this group, or the "
            "kernel has no nfnetlink_log. Policies are enforced all the same; `towpath policy log` shows "
            "nothing of this node."
        ),
        fix="End the other listener (ulogd, Calico's Felix with flow logs), or give the agent another group.",
    ),
    "TP5161": Code(
        title="An annotation on revocation means nothing",
        cause=(
            "towpath.dev/revocation says whether flows that policy denies by now are cut: "
            "enforce or survive. "
            "Any other value counts as none, so that what the next wider one says holds."
        ),
        fix="Write enforce or survive, or remove the annotation.",
    ),
}
