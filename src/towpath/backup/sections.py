"""Which objects belong into a backup, in parts that can be brought back one by one."""

from typing import Any

from towpath.inventory.pods import holds_addresses

Raw = dict[str, Any]

SECTIONS = {
    "definitions": "custom resource definitions of the network's own kinds",
    "policies": "policies of every API, tiers and sets of addresses",
    "networks": "NetworkAttachmentDefinitions",
    "charts": "HelmCharts and HelmChartConfigs of the network",
    "settings": "ConfigMaps, Felix's and BGP's configuration, IP pools",
    "ipam": "blocks, handles and reservations of addresses",
    "namespaces": "namespaces, with the labels that policies select by",
    "nodes": "annotations and pod CIDRs of nodes",
    "pods": "pods with their labels, ports, nodes and addresses, for twins",
    "node-state": "what every node held: rules, routes, tunnels, leases, configurations, versions",
}
FOR_TWINS, NODE_STATE = "pods", "node-state"
# Who owns a pod makes it anew; what a node holds is made of what it is told.
NEVER_BACK = frozenset({FOR_TWINS, NODE_STATE})
# What comes back unless something else is asked for. Addresses that were given out since would be
# given out again if blocks came back; nodes and namespaces belong to the cluster.
BY_DEFAULT = ("definitions", "policies", "networks")

GROUPS = (
    "crd.projectcalico.org",
    "projectcalico.org",
    "policy.networking.k8s.io",
    "networking.k8s.io",
    "k8s.cni.cncf.io",
    "whereabouts.cni.cncf.io",
    "helm.cattle.io",
)
_CALICO = ("crd.projectcalico.org", "projectcalico.org")
_POLICIES = frozenset(
    {
        "networkpolicies",
        "globalnetworkpolicies",
        "tiers",
        "networksets",
        "globalnetworksets",
        "hostendpoints",
        "stagednetworkpolicies",
        "stagedglobalnetworkpolicies",
        "stagedkubernetesnetworkpolicies",
    }
)
_ADDRESSES = frozenset({"ipamblocks", "ipamhandles", "blockaffinities", "ipamconfigs", "ipreservations"})
_CHARTS = ("rke2-canal", "rke2-multus", "rke2-flannel", "towpath")
_CONFIG_MAPS = (
    "rke2-canal",
    "canal-config",
    "kube-flannel",
    "rke2-flannel",
    "multus",
    "rke2-multus",
    "towpath",
)


def section(group: str, plural: str) -> str:
    """The part that a kind belongs to; empty for what is not saved.

    Aggregated kinds that only show others (``projectcalico.org`` where the custom resources are served) are
    for the caller to leave out.
    """
    if group in _CALICO:
        return "policies" if plural in _POLICIES else "ipam" if plural in _ADDRESSES else "settings"
    match group, plural:
        case ("", "configmaps"):
            return "settings"
        case ("", "namespaces" | "nodes" | "pods"):
            return plural
        case ("apiextensions.k8s.io", "customresourcedefinitions"):
            return "definitions"
        case ("networking.k8s.io", "networkpolicies"):
            return "policies"
        case ("helm.cattle.io", "helmcharts" | "helmchartconfigs"):
            return "charts"
        case ("policy.networking.k8s.io", _):
            return "policies"
        case ("k8s.cni.cncf.io", _):
            return "policies" if plural == "multi-networkpolicies" else "networks"
        case ("whereabouts.cni.cncf.io", _):
            return "ipam"
    return ""


def belongs(group: str, plural: str, raw: Raw) -> bool:
    """Whether this object of a kind that is saved is the network's own."""
    name: str = raw["metadata"]["name"]
    if "deletionTimestamp" in raw["metadata"]:
        return False
    match group, plural:
        case ("apiextensions.k8s.io", _):
            own = ((raw.get("spec") or {}).get("group") or "") in GROUPS
            return own and name.partition(".")[2] != "helm.cattle.io"
        case ("", "configmaps"):
            return name.startswith(_CONFIG_MAPS)
        case ("", "pods"):
            return holds_addresses(raw)
        case ("helm.cattle.io", _):
            return name.startswith(_CHARTS)
    return True
