"""``v1`` objects (and EndpointSlices) as the controllers read them."""

import msgspec

from towpath.lab.controllers.objects_meta import Body, Condition, LabelSelector, Meta, Requirement


class Toleration(msgspec.Struct, frozen=True, rename="camel"):
    """``v1.Toleration``."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""
    toleration_seconds: int | None = None


class Taint(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """``v1.Taint``."""

    key: str
    effect: str
    value: str = ""
    time_added: str | None = None


class NodeSelectorTerm(msgspec.Struct, frozen=True, rename="camel"):
    """``v1.NodeSelectorTerm``: all of its requirements must hold."""

    match_expressions: list[Requirement] | None = None
    match_fields: list[Requirement] | None = None


class NodeSelector(msgspec.Struct, frozen=True, rename="camel"):
    """``v1.NodeSelector``: any of its terms must hold."""

    node_selector_terms: list[NodeSelectorTerm] | None = None


class PreferredTerm(msgspec.Struct, frozen=True):
    """``v1.PreferredSchedulingTerm``."""

    weight: int = 1
    preference: NodeSelectorTerm = NodeSelectorTerm()


class NodeAffinity(msgspec.Struct, frozen=True):
    """``v1.NodeAffinity``."""

    required: NodeSelector | None = msgspec.field(
        name="requiredDuringSchedulingIgnoredDuringExecution", default=None
    )
    preferred: list[PreferredTerm] | None = msgspec.field(
        name="preferredDuringSchedulingIgnoredDuringExecution", default=None
    )


class PodAffinityTerm(msgspec.Struct, frozen=True, rename="camel"):
    """``v1.PodAffinityTerm``. No selector matches no pod; an empty one matches all."""

    label_selector: LabelSelector | None = None
    namespaces: list[str] | None = None
    topology_key: str = ""


class PodAffinity(msgspec.Struct, frozen=True):
    """``v1.PodAffinity`` and ``v1.PodAntiAffinity``: required terms only."""

    required: list[PodAffinityTerm] | None = msgspec.field(
        name="requiredDuringSchedulingIgnoredDuringExecution", default=None
    )


class Affinity(msgspec.Struct, frozen=True, rename="camel"):
    """``v1.Affinity``."""

    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAffinity | None = None


class ContainerPort(msgspec.Struct, frozen=True, rename="camel"):
    """``v1.ContainerPort``."""

    container_port: int = 0
    name: str = ""
    protocol: str = "TCP"
    host_port: int = 0
    host_ip: str = msgspec.field(name="hostIP", default="")


class Resources(msgspec.Struct, frozen=True):
    """``v1.ResourceRequirements``: quantities as written."""

    requests: dict[str, str | int | float] | None = None


class Container(msgspec.Struct, frozen=True):
    """``v1.Container``."""

    name: str = ""
    ports: list[ContainerPort] | None = None
    resources: Resources | None = None


class PodSpec(msgspec.Struct, frozen=True, rename="camel"):
    """``v1.PodSpec``."""

    node_name: str = ""
    scheduler_name: str = "default-scheduler"
    node_selector: dict[str, str] | None = None
    affinity: Affinity | None = None
    tolerations: list[Toleration] | None = None
    containers: list[Container] | None = None
    host_network: bool | None = None
    hostname: str = ""
    subdomain: str = ""


class PodIP(msgspec.Struct, frozen=True):
    """``v1.PodIP``."""

    ip: str = ""


class ContainerStatus(msgspec.Struct, frozen=True, rename="camel"):
    """``v1.ContainerStatus``: how often it died."""

    restart_count: int = 0


class PodStatus(msgspec.Struct, frozen=True, rename="camel"):
    """``v1.PodStatus``."""

    phase: str = ""
    conditions: list[Condition] | None = None
    pod_ip: str = msgspec.field(name="podIP", default="")
    pod_ips: list[PodIP] | None = msgspec.field(name="podIPs", default=None)
    container_statuses: list[ContainerStatus] | None = None


class Pod(msgspec.Struct, frozen=True):
    """``v1.Pod``."""

    metadata: Meta = Meta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class NodeSpec(msgspec.Struct, frozen=True):
    """``v1.NodeSpec``."""

    pod_cidr: str = msgspec.field(name="podCIDR", default="")
    pod_cidrs: list[str] | None = msgspec.field(name="podCIDRs", default=None)
    unschedulable: bool | None = None
    taints: list[Taint] | None = None


class NodeStatus(msgspec.Struct, frozen=True):
    """``v1.NodeStatus``."""

    conditions: list[Condition] | None = None
    allocatable: dict[str, str | int | float] | None = None


class Node(msgspec.Struct, frozen=True):
    """``v1.Node``."""

    metadata: Meta = Meta()
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class LeaseSpec(msgspec.Struct, frozen=True, rename="camel"):
    """``coordination.k8s.io/v1.LeaseSpec``: ``renew_time`` is RFC 3339 with microseconds."""

    renew_time: str | None = None


class Lease(msgspec.Struct, frozen=True):
    """``coordination.k8s.io/v1.Lease``; those of ``kube-node-lease`` are the nodes' heartbeats."""

    metadata: Meta = Meta()
    spec: LeaseSpec = LeaseSpec()


class NamespaceSpec(msgspec.Struct, frozen=True):
    """``v1.NamespaceSpec``."""

    finalizers: list[str] | None = None


class NamespaceStatus(msgspec.Struct, frozen=True):
    """``v1.NamespaceStatus``."""

    phase: str = ""
    conditions: list[Condition] | None = None


class Namespace(msgspec.Struct, frozen=True):
    """``v1.Namespace``."""

    metadata: Meta = Meta()
    spec: NamespaceSpec = NamespaceSpec()
    status: NamespaceStatus = NamespaceStatus()


class ConfigMap(msgspec.Struct, frozen=True):
    """``v1.ConfigMap``."""

    metadata: Meta = Meta()
    data: dict[str, str] | None = None


class ServicePort(msgspec.Struct, frozen=True, rename="camel"):
    """``v1.ServicePort``. ``target_port`` a number, a container port's name, or None for ``port``."""

    port: int = 0
    name: str = ""
    protocol: str = "TCP"
    target_port: int | str | None = None
    node_port: int = 0
    app_protocol: str | None = None


class LoadBalancerIngress(msgspec.Struct, frozen=True):
    """``v1.LoadBalancerIngress``."""

    ip: str = ""


class LoadBalancerStatus(msgspec.Struct, frozen=True):
    """``v1.LoadBalancerStatus``."""

    ingress: list[LoadBalancerIngress] | None = None


class ServiceStatus(msgspec.Struct, frozen=True, rename="camel"):
    """``v1.ServiceStatus``."""

    load_balancer: LoadBalancerStatus = LoadBalancerStatus()


class ServiceSpec(msgspec.Struct, frozen=True, rename="camel"):
    """``v1.ServiceSpec``."""

    type: str = "ClusterIP"
    selector: dict[str, str] | None = None
    ports: list[ServicePort] | None = None
    cluster_ip: str = msgspec.field(name="clusterIP", default="")
    cluster_ips: list[str] | None = msgspec.field(name="clusterIPs", default=None)
    ip_families: list[str] | None = None
    external_ips: list[str] | None = msgspec.field(name="externalIPs", default=None)
    publish_not_ready_addresses: bool | None = None
    external_traffic_policy: str = "Cluster"
    internal_traffic_policy: str = "Cluster"
    session_affinity: str = "None"


class Service(msgspec.Struct, frozen=True):
    """``v1.Service``."""

    metadata: Meta = Meta()
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()


class EndpointConditions(msgspec.Struct, frozen=True):
    """``discovery.k8s.io/v1.EndpointConditions``; None means ready, serving and not terminating."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Endpoint(msgspec.Struct, frozen=True, rename="camel"):
    """``discovery.k8s.io/v1.Endpoint``; ``topology`` is what v1beta1 has in the place of its node's name."""

    addresses: list[str]
    conditions: EndpointConditions = EndpointConditions()
    node_name: str = ""
    hostname: str = ""
    target_ref: Body | None = None
    topology: dict[str, str] | msgspec.UnsetType = msgspec.UNSET

    @property
    def node(self) -> str:
        """The node it is on, "" for none."""
        if self.node_name or self.topology is msgspec.UNSET:
            return self.node_name
        return self.topology.get("kubernetes.io/hostname", "")


class EndpointPort(msgspec.Struct, frozen=True, rename="camel"):
    """``discovery.k8s.io/v1.EndpointPort``."""

    name: str | None = None
    port: int | None = None
    protocol: str | None = None
    app_protocol: str | None = None


class EndpointSlice(msgspec.Struct, frozen=True, rename="camel"):
    """``discovery.k8s.io/v1.EndpointSlice``."""

    metadata: Meta = Meta()
    address_type: str = "IPv4"
    endpoints: list[Endpoint] | None = None
    ports: list[EndpointPort] | None = None


class Endpoints(msgspec.Struct, frozen=True):
    """``v1.Endpoints``: its subsets as written, for comparison only."""

    metadata: Meta = Meta()
    subsets: list[Body] | None = None
