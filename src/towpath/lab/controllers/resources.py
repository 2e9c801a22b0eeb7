"""The kinds the controllers work on: where they live in the API, what they are called, how they decode."""

from typing import Generic, TypeVar

import msgspec

from towpath.kube.kinds import Kind
from towpath.lab.controllers import objects_apps as apps
from towpath.lab.controllers import objects_core as core
from towpath.lab.controllers.objects_meta import Partial

T = TypeVar("T")


class Resource(msgspec.Struct, Generic[T], frozen=True):
    """``kind`` as in manifests ("Pod"); ``api`` where the collection is."""

    kind: str
    api: Kind[T]

    @property
    def api_version(self) -> str:
        """``group/version`` as in manifests."""
        return f"{self.api.group}/{self.api.version}" if self.api.group else self.api.version

    @property
    def id(self) -> str:
        """``plural.group``, as ``kubectl api-resources -o name`` prints it."""
        return f"{self.api.plural}.{self.api.group}" if self.api.group else self.api.plural


def _core(kind: str, plural: str, type_: type[T], *, namespaced: bool = True) -> Resource[T]:
    return Resource(kind, Kind(plural=plural, type=type_, namespaced=namespaced))


def _apps(kind: str, plural: str, type_: type[T]) -> Resource[T]:
    return Resource(kind, Kind(plural=plural, type=type_, group="apps"))


PODS = _core("Pod", "pods", core.Pod)
BINDINGS = _core("Binding", "pods", Partial)  # POSTed to the ``binding`` subresource of a pod
NODES = _core("Node", "nodes", core.Node, namespaced=False)
NAMESPACES = _core("Namespace", "namespaces", core.Namespace, namespaced=False)
SERVICES = _core("Service", "services", core.Service)
ENDPOINTS = _core("Endpoints", "endpoints", core.Endpoints)
SERVICE_ACCOUNTS = _core("ServiceAccount", "serviceaccounts", Partial)
CONFIG_MAPS = _core("ConfigMap", "configmaps", core.ConfigMap)
EVENTS = _core("Event", "events", Partial)
LEASES: Resource[core.Lease] = Resource(
    "Lease", Kind(plural="leases", type=core.Lease, group="coordination.k8s.io")
)
ENDPOINT_SLICES: Resource[core.EndpointSlice] = Resource(
    "EndpointSlice", Kind(plural="endpointslices", type=core.EndpointSlice, group="discovery.k8s.io")
)
DEPLOYMENTS = _apps("Deployment", "deployments", apps.Deployment)
REPLICA_SETS = _apps("ReplicaSet", "replicasets", apps.ReplicaSet)
DAEMON_SETS = _apps("DaemonSet", "daemonsets", apps.DaemonSet)
STATEFUL_SETS = _apps("StatefulSet", "statefulsets", apps.StatefulSet)
CONTROLLER_REVISIONS = _apps("ControllerRevision", "controllerrevisions", apps.ControllerRevision)
CRDS: Resource[Partial] = Resource(
    "CustomResourceDefinition",
    Kind(plural="customresourcedefinitions", type=Partial, group="apiextensions.k8s.io", namespaced=False),
)
