"""Node lifecycle: silent nodes become unknown, conditions become taints, taints end pods."""

import asyncio

from towpath.lab.controllers.actions import Action, Delete, Emit, Plan, reference, soonest
from towpath.lab.controllers.controller import Context, Controller
from towpath.lab.controllers.nodehealth import (
    evictions,
    heartbeat,
    silence_patch,
    taint_patch,
    unready_patches,
)
from towpath.lab.controllers.objects_core import Lease, Node, Pod
from towpath.lab.controllers.podstate import condition
from towpath.lab.controllers.resources import LEASES, NODES, PODS

LEASE_NAMESPACE = "kube-node-lease"
_STALL = 1.0  # a timer this late says that we were asleep, and what we did not hear proves nothing


class NodeLifecycleController(Controller):
    """See ``nodehealth`` for what it decides. Heartbeats are timed by our clock, never by the kubelet's."""

    name = "node-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._nodes = self.informer(NODES)
        self._pods = self.informer(PODS)
        self._leases = self.informer(LEASES)
        self._pods_on = self._pods.index(lambda p: [p.spec.node_name] if p.spec.node_name else [])
        self._heard: dict[str, tuple[str, float]] = {}
        self._due: dict[str, float] = {}
        self._gone: dict[str, float] = {}
        self._nodes.subscribe(self._node_changed)
        self._leases.subscribe(self._lease_changed)
        self._pods.subscribe(self._pod_changed)

    async def reconcile(self, key: str) -> Plan:
        """Judge one node, or clean up after one that is gone."""
        node = self._nodes.get(key)
        if node is None:
            return self._after_node(key)
        self._gone.pop(key, None)
        now = self.context.now()
        actions: list[Action] = []
        left = self._silence_left(key)
        silent = silence_patch(node, now) if left <= 0 else None
        if silent:
            message = f"Node {key} status is now: NodeNotReady"
            actions += [silent, Emit(reference(NODES, node.metadata), "Normal", "NodeNotReady", message)]
            return Plan(tuple(actions))
        taint = taint_patch(node, now)
        if taint:
            actions.append(taint)
        pods = self._pods_on.get(key)
        ready = condition(node.status.conditions, "Ready")
        if ready is not None and ready.status == "Unknown":  # else its kubelet speaks for its pods
            actions += unready_patches(pods, now)
        doomed, wait = evictions(node, pods, now)
        actions += [evict(p) for p in doomed]
        if left > 0:
            self._due[key] = asyncio.get_running_loop().time() + left
        return Plan(tuple(actions), soonest(left if left > 0 else None, wait))

    def _silence_left(self, key: str) -> float:
        """Seconds until the node counts as silent; zero or less if it does."""
        now = asyncio.get_running_loop().time()
        due = self._due.pop(key, None)
        beat, since = self._heard.setdefault(key, ("", now))
        stalled = due is not None and now - due > _STALL
        if stalled or self._leases.cut_off or self._nodes.cut_off:
            self._heard[key] = beat, now
            return self.context.settings.node_grace
        return since + self.context.settings.node_grace - now

    def _after_node(self, key: str) -> Plan:
        """Pods of a node that no longer exists are removed for good: no kubelet will ever end them."""
        self._heard.pop(key, None)
        self._due.pop(key, None)
        pods = self._pods_on.get(key)
        if not pods:
            self._gone.pop(key, None)
            return Plan()
        now = asyncio.get_running_loop().time()
        left = self._gone.setdefault(key, now) + self.context.settings.orphan_grace - now
        if left > 0:
            return Plan(recheck=left)
        return Plan(
            tuple(Delete(PODS, p.metadata.namespace, p.metadata.name, p.metadata.uid, grace=0) for p in pods)
        )

    def _hear(self, name: str, beat: str) -> None:
        known = self._heard.get(name)
        if known is None or known[0] != beat:
            self._heard[name] = beat, asyncio.get_running_loop().time()

    def _node_changed(self, before: Node | None, after: Node | None) -> None:
        node = after or before
        if node is None:
            return
        name = node.metadata.name
        if after is not None:
            self._hear(name, self._beat(after))
        if not before or not after or _relevant(before) != _relevant(after):
            self.queue.add(name)

    def _beat(self, node: Node) -> str:
        lease = self._leases.objects.get((LEASE_NAMESPACE, node.metadata.name))
        return heartbeat(node, lease.spec.renew_time or "" if lease else "")

    def _lease_changed(self, _: Lease | None, after: Lease | None) -> None:
        if after is None or after.metadata.namespace != LEASE_NAMESPACE:
            return
        node = self._nodes.get(after.metadata.name)
        if node is not None:
            self._hear(after.metadata.name, self._beat(node))

    def _pod_changed(self, before: Pod | None, after: Pod | None) -> None:
        """A pod that came to a node that is tainted, or is not there."""
        name = after.spec.node_name if after else ""
        if not name or (before and before.spec.node_name == name):
            return
        node = self._nodes.get(name)
        if node is None or any(t.effect == "NoExecute" for t in node.spec.taints or ()):
            self.queue.add(name)


def _relevant(node: Node) -> object:
    states = [(c.type, c.status) for c in node.status.conditions or ()]
    return states, node.spec.taints, node.spec.unschedulable, node.metadata.uid


def evict(pod: Pod) -> Delete:
    """The deletion of a pod that no longer tolerates its node."""
    meta = pod.metadata
    message = f"Marking for deletion Pod {meta.key}"
    event = Emit(reference(PODS, meta), "Normal", "TaintManagerEviction", message)
    return Delete(PODS, meta.namespace, meta.name, meta.uid, event=event)
