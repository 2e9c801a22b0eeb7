"""Admission: what upstream's plugins and strategies change or refuse, by type."""

from collections.abc import Callable

from towpath.lab.apiserver.call import Call, Server
from towpath.lab.apiserver.crds import admit_crd
from towpath.lab.apiserver.errors import Obj, forbidden
from towpath.lab.apiserver.service_addresses import admit_service

Admit = Callable[[Server, Call, Obj, Obj | None], None]
SYSTEM_PRIORITIES = {"system-node-critical": 2000001000, "system-cluster-critical": 2000000000}
TOLERATED_SECONDS = 300
_PROTECTED = ("default", "kube-system", "kube-public")


def admit_pod(server: Server, call: Call, pod: Obj, old: Obj | None) -> None:
    """New pods: service account, priority; all pods: the two default tolerations."""
    spec = pod["spec"]
    if old is None:
        account = spec.get("serviceAccountName") or "default"
        spec["serviceAccountName"] = spec["serviceAccount"] = account
        _priority(server, call, pod)
    elif "priority" in old["spec"]:
        spec.setdefault("priority", old["spec"]["priority"])
    tolerations = spec.get("tolerations") or []
    for condition in ("not-ready", "unreachable"):
        key = f"node.kubernetes.io/{condition}"
        if not any(
            t.get("key") in (key, "", None) and t.get("effect") in ("NoExecute", "", None)
            for t in tolerations
        ):
            tolerations = [
                *tolerations,
                {
                    "key": key,
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": TOLERATED_SECONDS,
                },
            ]
    spec["tolerations"] = tolerations


def _priority(server: Server, call: Call, pod: Obj) -> None:
    spec, name = pod["spec"], pod["spec"].get("priorityClassName") or ""
    value, policy = SYSTEM_PRIORITIES.get(name, 0), "PreemptLowerPriority"
    if name and name not in SYSTEM_PRIORITIES:
        found = server.store.get("scheduling.k8s.io/priorityclasses", "", name)
        if found is None:
            raise forbidden(
                "", "pods", pod["metadata"].get("name", ""), f"no PriorityClass with name {name} was found"
            )
        value, policy = found.obj["value"], found.obj.get("preemptionPolicy", policy)
    spec["priority"] = value
    spec.setdefault("preemptionPolicy", policy)


ADMIT: dict[str, Admit] = {
    "apiextensions.CustomResourceDefinition": admit_crd,
    "core.Pod": admit_pod,
    "core.Service": admit_service,
}


def check_deletable(call: Call, name: str) -> None:
    """The lifecycle plugin: the builtin namespaces stay. Raises ApiError 403."""
    if call.resource.type == "core.Namespace" and name in _PROTECTED:
        raise forbidden("", "namespaces", name, "this namespace may not be deleted")
