"""What a lab on a real control plane needs beside the agent: rights, which a real API server asks for."""

from typing import Any

from towpath.install.render import RULES
from towpath.kube.kinds import Kind, Raw
from towpath.lab import manifests

_GROUP = "rbac.authorization.k8s.io"
_ROLES: Kind[Raw] = Kind(plural="clusterroles", type=dict, group=_GROUP, namespaced=False)
_BINDINGS: Kind[Raw] = Kind(plural="clusterrolebindings", type=dict, group=_GROUP, namespaced=False)


def rights() -> list[tuple[Kind[Raw], dict[str, Any]]]:
    """The agent's role as an installation has it; and the lab's kubelets are service proxies as well."""
    agent = {
        "kind": "ServiceAccount",
        "name": manifests.DAEMONSET,
        "namespace": manifests.NAMESPACE,
    }
    nodes = {"apiGroup": _GROUP, "kind": "Group", "name": "system:nodes"}
    return [
        (_ROLES, _object("ClusterRole", manifests.DAEMONSET, rules=list(RULES))),
        (_BINDINGS, _binding(manifests.DAEMONSET, manifests.DAEMONSET, agent)),
        (_BINDINGS, _binding("towpath-lab-service-proxies", "system:node-proxier", nodes)),
    ]


def _binding(name: str, role: str, subject: dict[str, str]) -> dict[str, Any]:
    reference = {"apiGroup": _GROUP, "kind": "ClusterRole", "name": role}
    return _object("ClusterRoleBinding", name, roleRef=reference, subjects=[subject])


def _object(kind: str, name: str, **body: Any) -> dict[str, Any]:
    return {"apiVersion": f"{_GROUP}/v1", "kind": kind, "metadata": {"name": name}, **body}
