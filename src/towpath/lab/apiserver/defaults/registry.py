"""Defaults by type."""

from collections.abc import Callable

from towpath.lab.apiserver.crds import default_crd
from towpath.lab.apiserver.defaults import cluster, pod, workloads
from towpath.lab.apiserver.errors import Obj


def _pod_template(obj: Obj) -> None:
    pod.default_pod_spec(obj.setdefault("template", {}).setdefault("spec", {}))


def _workload_status(default: Callable[[Obj], None], **status: int) -> Callable[[Obj], None]:
    """The counters that upstream's types always carry."""

    def fill(obj: Obj) -> None:
        default(obj)
        found = obj.setdefault("status", {})
        for key, value in status.items():
            found.setdefault(key, value)

    return fill


_DAEMONS = {
    "currentNumberScheduled": 0,
    "numberMisscheduled": 0,
    "desiredNumberScheduled": 0,
    "numberReady": 0,
}

DEFAULTS: dict[str, Callable[[Obj], None]] = {
    "apiextensions.CustomResourceDefinition": default_crd,
    "apps.DaemonSet": _workload_status(workloads.default_daemon_set, **_DAEMONS),
    "apps.Deployment": _workload_status(workloads.default_deployment),
    "apps.ReplicaSet": _workload_status(workloads.default_replica_set, replicas=0),
    "apps.StatefulSet": _workload_status(workloads.default_stateful_set, replicas=0, availableReplicas=0),
    "batch.CronJob": workloads.default_cron_job,
    "batch.Job": workloads.default_job,
    "core.Endpoints": cluster.default_endpoints,
    "core.Event": cluster.default_event,
    "core.Namespace": cluster.default_namespace,
    "core.Node": cluster.default_node,
    "core.PersistentVolume": cluster.default_volume,
    "core.PersistentVolumeClaim": cluster.default_claim,
    "core.Pod": pod.default_pod,
    "core.PodTemplate": _pod_template,
    "core.Secret": cluster.default_secret,
    "core.Service": cluster.default_service,
    "discovery.EndpointSlice": cluster.default_endpoint_slice,
    "events.Event": cluster.default_event,
    "networking.Ingress": cluster.default_ingress,
    "networking.NetworkPolicy": cluster.default_network_policy,
    "policy.PodDisruptionBudget": cluster.default_budget,
    "rbac.ClusterRoleBinding": cluster.default_role_binding,
    "rbac.RoleBinding": cluster.default_role_binding,
    "scheduling.PriorityClass": cluster.default_priority_class,
}
