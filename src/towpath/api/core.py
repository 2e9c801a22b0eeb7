"""``v1`` Node, Pod and Namespace, as far as the agent reads them."""

import msgspec

from towpath.api.meta import ObjectMeta


class NodeAddress(msgspec.Struct, frozen=True, gc=False):
    """``v1.NodeAddress``; ``type`` InternalIP, ExternalIP, Hostname…"""

    type: str = ""
    address: str = ""


class Condition(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """``v1.NodeCondition`` or ``v1.PodCondition``."""

    type: str = ""
    status: str = ""
    reason: str | None = None
    message: str | None = None
    last_transition_time: str | None = None


class NodeSpec(msgspec.Struct, frozen=True, gc=False):
    """``v1.NodeSpec``. The wire name ends in a capital CIDR, which camel case would not give."""

    pod_cidr: str = msgspec.field(name="podCIDR", default="")
    pod_cidrs: list[str] | None = msgspec.field(name="podCIDRs", default=None)
    unschedulable: bool = False


class NodeStatus(msgspec.Struct, frozen=True, gc=False):
    """``v1.NodeStatus``."""

    addresses: list[NodeAddress] | None = None
    conditions: list[Condition] | None = None


class Node(msgspec.Struct, frozen=True, gc=False):
    """``v1.Node``."""

    metadata: ObjectMeta = ObjectMeta()
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class ContainerPort(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """``v1.ContainerPort``."""

    container_port: int = 0
    name: str = ""
    protocol: str = "TCP"
    host_port: int = 0


class Container(msgspec.Struct, frozen=True, gc=False):
    """``v1.Container``: its name and ports."""

    name: str = ""
    image: str = ""
    ports: list[ContainerPort] | None = None


class PodSpec(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """``v1.PodSpec``."""

    node_name: str = ""
    host_network: bool | None = None
    service_account_name: str = ""
    containers: list[Container] | None = None
    init_containers: list[Container] | None = None


class PodIP(msgspec.Struct, frozen=True, gc=False):
    """``v1.PodIP``."""

    ip: str = ""


class PodStatus(msgspec.Struct, frozen=True, gc=False):
    """``v1.PodStatus``."""

    phase: str = ""
    conditions: list[Condition] | None = None
    pod_ip: str = msgspec.field(name="podIP", default="")
    pod_ips: list[PodIP] | None = msgspec.field(name="podIPs", default=None)


class Pod(msgspec.Struct, frozen=True, gc=False):
    """``v1.Pod``."""

    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class Namespace(msgspec.Struct, frozen=True, gc=False):
    """``v1.Namespace``."""

    metadata: ObjectMeta = ObjectMeta()


class ServiceAccount(msgspec.Struct, frozen=True, gc=False):
    """``v1.ServiceAccount``."""

    metadata: ObjectMeta = ObjectMeta()
