"""The kubelet's Node object: registration, conditions, images, and the Lease that says it is alive."""

import asyncio
import contextlib
import os
import platform
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from towpath import __version__
from towpath.kube.client import Client
from towpath.kube.errors import AlreadyExists, KubeError, NotFound
from towpath.kube.kinds import LEASES, NODES, Kind, Raw
from towpath.lab.kubelet_cni import Cni, CniFailed
from towpath.lab.kubelet_status import image_id, rfc3339, tagged_name
from towpath.lab.topology import LabSpec, NodeSpec, internal_ips
from towpath.log import get_logger

LEASE_NAMESPACE = "kube-node-lease"
_RAW_NODES: Kind[Raw] = NODES.raw()

VERSION = "v1.32.0-towpath.lab"
# kubelet: STATUS by way of CRI every 5 s, every 100 ms until the node is ready for the first time.
_STATUS_POLL, _STATUS_POLL_FAST = 5.0, 0.05
_STATUS_POLL_A_NODE = 0.02  # in a large lab, asking would take from what is asked
# A lab notices a lost node in seconds (controllers' node_grace), so its heart beats faster than the 10 s
# of a real kubelet.
_HEARTBEAT, _LEASE_SECONDS = 2.0, 8
_PODS, _IMAGE_BYTES = "110", 1 << 20

log = get_logger(__name__)


class NodeKeeper:
    """Registers the node, polls the network's readiness, writes the status when it changes."""

    def __init__(self, client: Client, cni: Cni, spec: LabSpec, one: NodeSpec, boot_id: str) -> None:
        self._client, self._cni, self._spec, self._one, self._boot_id = client, cni, spec, one, boot_id
        self._images: set[str] = set()
        self._transitions: dict[str, tuple[str, str]] = {}
        self._sent: object = None
        self._problem: str | None = "container runtime network not ready: cni plugin not initialized"
        self._changed = asyncio.Event()
        self.network_ready = asyncio.Event()

    def note_images(self, images: set[str]) -> None:
        """Images that containers of this node have used; they stay listed, as pulled images do."""
        if not images <= self._images:
            self._images |= images
            self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        await self._until_accepted(self._register)
        await asyncio.gather(self._poll_network(), self._heartbeat(), self._keep_status())

    async def _register(self) -> None:
        labels = {
            "kubernetes.io/hostname": self._one.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64" if platform.machine() == "x86_64" else "arm64",
            **self._one.labels,
        }
        node: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self._one.name, "labels": labels, "annotations": self._one.annotations},
            "spec": {"podCIDRs": list(self._one.pod_cidrs)} if self._one.pod_cidrs else {},
            "status": self._status(),
        }
        taints = [dict(taint) for taint in self._one.taints]
        not_ready = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
        node["spec"]["taints"] = [*taints, not_ready]
        with contextlib.suppress(AlreadyExists):
            await self._client.create(_RAW_NODES, node)

    async def _poll_network(self) -> None:
        first = max(_STATUS_POLL_FAST, _STATUS_POLL_A_NODE * len(self._spec.nodes))
        while True:
            before = self._problem
            try:
                async with asyncio.timeout(10):
                    await self._cni.status()
                self._problem = None
                self.network_ready.set()
            except (CniFailed, TimeoutError, OSError) as failed:
                self._problem = (
                    "container runtime network not ready: NetworkReady=false "
                    f"reason:NetworkPluginNotReady message:Network plugin returns error: {failed}"
                )
            if self._problem != before:
                self._changed.set()
            fast = self._problem is not None and not self.network_ready.is_set()
            await asyncio.sleep(first if fast else _STATUS_POLL)

    async def _keep_status(self) -> None:
        while True:
            try:
                await self._write_status()
            except NotFound:  # somebody deleted the Node: a kubelet registers again
                await self._until_accepted(self._register)
                self._sent = None
                continue
            except KubeError as failed:
                log.info("node_status_not_written", error=str(failed))
                await asyncio.sleep(1.0)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(60):
                    await self._changed.wait()
            self._changed.clear()

    async def _write_status(self) -> None:
        status = self._status()
        if status == self._sent:
            return
        # Addresses merge by type, of which a dual-stack node has one twice: they are set at registration.
        body = {"status": {k: v for k, v in status.items() if k != "addresses"}}
        await self._client.patch(_RAW_NODES, self._one.name, body, type="strategic", subresource="status")
        self._sent = status

    async def _until_accepted(self, action: Callable[[], Awaitable[None]]) -> None:
        wait = 0.05
        while True:
            try:
                await action()
                return
            except KubeError as failed:
                log.info("node_registration_retried", error=str(failed))
                await asyncio.sleep(wait)
                wait = min(wait * 2, 2.0)

    async def _heartbeat(self) -> None:
        renewed = time.monotonic()
        while True:
            try:
                await self._renew_lease()
                if (
                    time.monotonic() - renewed > _LEASE_SECONDS / 2
                ):  # we were taken for dead: say what is true
                    self._sent = None
                    self._changed.set()
                renewed = time.monotonic()
            except KubeError as failed:
                log.info("lease_not_renewed", error=str(failed))
            await asyncio.sleep(_HEARTBEAT)

    async def _renew_lease(self) -> None:
        now = rfc3339(time.time()).replace("Z", f".{time.time_ns() // 1000 % 1_000_000:06d}Z")
        renewed = {"holderIdentity": self._one.name, "leaseDurationSeconds": _LEASE_SECONDS, "renewTime": now}
        try:
            await self._client.patch(LEASES, self._one.name, {"spec": renewed}, LEASE_NAMESPACE)
        except NotFound:
            lease = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self._one.name, "namespace": LEASE_NAMESPACE},
                "spec": renewed,
            }
            await self._client.create(LEASES, lease, LEASE_NAMESPACE)

    def _status(self) -> dict[str, Any]:
        addresses = [{"type": "InternalIP", "address": ip} for ip in internal_ips(self._spec, self._one)]
        resources = {"cpu": str(os.cpu_count() or 1), "memory": _memory(), "pods": _PODS}
        return {
            "addresses": [*addresses, {"type": "Hostname", "address": self._one.name}],
            "capacity": resources,
            "allocatable": resources,
            "conditions": self._conditions(),
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "images": [
                {"names": [image_id(image), tagged_name(image)], "sizeBytes": _IMAGE_BYTES}
                for image in sorted(self._images)
            ],
            "nodeInfo": self._node_info(),
        }

    def _conditions(self) -> list[dict[str, Any]]:
        good = ("MemoryPressure", "DiskPressure", "PIDPressure")
        words = {"MemoryPressure": "sufficient memory available", "DiskPressure": "no disk pressure"}
        result = [
            self._condition(
                kind,
                "False",
                f"KubeletHas{'Sufficient' if kind != 'DiskPressure' else 'No'}{kind}",
                f"kubelet has {words.get(kind, 'sufficient PID available')}",
            )
            for kind in good
        ]
        if self._problem:
            return [*result, self._condition("Ready", "False", "KubeletNotReady", self._problem)]
        return [*result, self._condition("Ready", "True", "KubeletReady", "kubelet is posting ready status")]

    def _condition(self, kind: str, status: str, reason: str, message: str) -> dict[str, Any]:
        before, since = self._transitions.get(kind, ("", ""))
        if before != status:
            since = rfc3339(time.time())
            self._transitions[kind] = (status, since)
        return {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "lastTransitionTime": since,
            "lastHeartbeatTime": since,
        }

    def _node_info(self) -> dict[str, str]:
        machine = uuid.uuid5(uuid.NAMESPACE_DNS, f"{self._one.name}.{self._spec.name}.towpath.lab")
        return {
            "architecture": "amd64" if platform.machine() == "x86_64" else "arm64",
            "bootID": self._boot_id,
            "containerRuntimeVersion": f"towpath-lab://{__version__}",
            "kernelVersion": platform.release(),
            "kubeProxyVersion": VERSION,
            "kubeletVersion": VERSION,
            "machineID": machine.hex,
            "operatingSystem": "linux",
            "osImage": "Towpath lab",
            "systemUUID": str(machine),
        }


def _memory() -> str:
    pages: int = os.sysconf("SC_PHYS_PAGES")
    return f"{pages * os.sysconf('SC_PAGE_SIZE') // 1024}Ki"
