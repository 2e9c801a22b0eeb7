"""Validators by type: the new object and the old one (None on creation) to causes."""

from collections.abc import Callable

from towpath.lab.apiserver.crds import crd_causes
from towpath.lab.apiserver.errors import Cause, Obj
from towpath.lab.apiserver.validation import cluster, pods, services, workloads

VALIDATORS: dict[str, Callable[[Obj, Obj | None], list[Cause]]] = {
    "apiextensions.CustomResourceDefinition": crd_causes,
    "apps.DaemonSet": workloads.daemon_set_causes,
    "apps.Deployment": workloads.deployment_causes,
    "apps.ReplicaSet": workloads.replica_set_causes,
    "apps.StatefulSet": workloads.stateful_set_causes,
    "batch.CronJob": workloads.cron_job_causes,
    "batch.Job": workloads.job_causes,
    "core.ConfigMap": cluster.config_map_causes,
    "core.Endpoints": services.endpoints_causes,
    "core.Event": cluster.event_causes,
    "core.Node": cluster.node_causes,
    "core.PersistentVolume": cluster.volume_causes,
    "core.PersistentVolumeClaim": cluster.claim_causes,
    "core.Pod": pods.pod_causes,
    "core.Secret": cluster.secret_causes,
    "core.Service": services.service_causes,
    "discovery.EndpointSlice": services.endpoint_slice_causes,
    "events.Event": cluster.event_causes,
    "networking.Ingress": cluster.ingress_causes,
    "networking.NetworkPolicy": services.network_policy_causes,
    "policy.PodDisruptionBudget": cluster.budget_causes,
    "rbac.ClusterRoleBinding": cluster.role_binding_causes,
    "rbac.RoleBinding": cluster.role_binding_causes,
    "scheduling.PriorityClass": cluster.priority_class_causes,
}
