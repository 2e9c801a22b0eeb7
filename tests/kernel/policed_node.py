"""A node with the real policy engine: objects in, and its rules in a real kernel."""

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from msgspec.structs import replace
from wired_node import WiredNode

from towpath.desired.names import host_ifname
from towpath.desired.snapshot import Snapshot
from towpath.model.attachment import PortMapping
from towpath.model.net import Addr
from towpath.model.policy import Program, Sampling
from towpath.policy.engine import Engine
from towpath.policy.world import assemble

A, B = ("10.42.1.2", "fd00:10:42:1::2"), ("10.42.1.3", "fd00:10:42:1::3")
PODS = {"a": A, "b": B}


class PolicedNode(WiredNode):
    """Pods ``default/a`` and ``default/b``, labelled ``app``. ``enforce`` says what the objects are now.

    ``ports``: what b publishes on the host.
    """

    def __init__(self, sampling: Sampling = Sampling(), ports: tuple[PortMapping, ...] = ()) -> None:  # noqa: B008 (a value)
        self.sampling = sampling
        self.engine = Engine(sampling=sampling)
        self.program: Program | None = None
        self.local: dict[Addr, str] = {}
        super().__init__()
        for name, addresses in PODS.items():
            self.add(name, *addresses, ports=ports if name == "b" else ())
            self.local.update({ip_address(a): f"Pod/default/{name}" for a in addresses})
        self.enforce()

    def snapshot(self) -> Snapshot:
        return replace(super().snapshot(), policy=self.program)

    def enforce(self, *objects: dict[str, Any]) -> None:
        """Exactly these policies, and the pods with their namespace."""
        self.engine = Engine(sampling=self.sampling)
        self.engine.load(assemble([*cluster(), *objects]).world)
        self.engine.set_local({host_ifname("default", name): f"Pod/default/{name}" for name in PODS})
        self.program = self.engine.program()
        self.reconcile()


def cluster() -> list[dict[str, Any]]:
    """The namespace and the pods."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}
    return [namespace, *(pod(name, addresses) for name, addresses in PODS.items())]


def pod(name: str, addresses: Sequence[str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"nodeName": "n1", "containers": [{"name": "main"}]},
        "status": {"podIP": addresses[0], "podIPs": [{"ip": a} for a in addresses], "phase": "Running"},
    }


def network_policy(name: str, app: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"podSelector": {"matchLabels": {"app": app}}, **spec},
    }


def calico_policy(name: str, app: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": f"app == '{app}'", **spec},
    }
