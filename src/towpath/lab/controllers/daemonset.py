"""DaemonSets: revisions, one pod a node, rolling updates."""

from towpath.lab.controllers import daemonset_plan as daemons
from towpath.lab.controllers.actions import Action, Plan
from towpath.lab.controllers.controller import Context, Controller
from towpath.lab.controllers.daemonset_status import plan_status
from towpath.lab.controllers.history import history, surplus
from towpath.lab.controllers.informers import namespaces
from towpath.lab.controllers.objects_apps import DaemonSet
from towpath.lab.controllers.objects_core import Node, Pod
from towpath.lab.controllers.ownership import claim
from towpath.lab.controllers.podstate import next_availability
from towpath.lab.controllers.replicaset_plan import delete_pod
from towpath.lab.controllers.resources import CONTROLLER_REVISIONS, DAEMON_SETS, NODES, PODS
from towpath.lab.controllers.selectors import matches


class DaemonSetController(Controller):
    """See ``daemonset_plan`` for what it decides."""

    name = "daemonset-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._sets = self.informer(DAEMON_SETS)
        self._pods = self.informer(PODS)
        self._nodes = self.informer(NODES)
        self._revisions = self.informer(CONTROLLER_REVISIONS)
        self._sets_in = self._sets.index(namespaces)
        self._pods_in = self._pods.index(namespaces)
        self._revisions_in = self._revisions.index(namespaces)
        self._sets.subscribe(self.enqueue)
        self._pods.subscribe(self.enqueue_owner(DAEMON_SETS))
        self._pods.subscribe(self._orphan)
        self._revisions.subscribe(self.enqueue_owner(DAEMON_SETS))
        self._nodes.subscribe(self._node_changed)

    async def reconcile(self, key: str) -> Plan:
        """Bring one DaemonSet forward by a step."""
        item = self._sets.get(key)
        if item is None:
            return Plan()
        meta, now = item.metadata, self.context.now()
        pods, adoptions = claim(
            DAEMON_SETS, meta, item.spec.selector, PODS, self._pods_in.get(meta.namespace)
        )
        kept = self._revisions_in.get(meta.namespace)
        revisions, adopted = claim(DAEMON_SETS, meta, item.spec.selector, CONTROLLER_REVISIONS, kept)
        if adoptions or adopted:
            return Plan((*adoptions, *adopted))
        names = (r.metadata.name for r in kept)
        found = history(DAEMON_SETS, meta, item.spec.template, item.status.collision_count, revisions, names)
        nodes = {n.metadata.name: n for n in self._nodes.all()}
        rows, lost = daemons.by_node(item, found.hash, pods, nodes)
        actions: list[Action] = []
        if not meta.deleting:
            actions += found.actions
            actions += daemons.manage(item, found.hash, rows, now) or daemons.roll(
                item, found.hash, rows, now
            )
            actions += [delete_pod(DAEMON_SETS, meta, p) for p in lost if not p.spec.node_name]
            in_use = frozenset(p.metadata.label(daemons.REVISION_HASH) or "" for p in pods)
            actions += surplus(found, item.spec.revision_history_limit, in_use)
        actions += plan_status(item, rows, now)
        return Plan(tuple(actions), next_availability(pods, item.spec.min_ready_seconds, now))

    def _node_changed(self, before: Node | None, after: Node | None) -> None:
        """Heartbeats change nothing here; labels, taints and existence do."""
        if before and after and _relevant(before) == _relevant(after):
            return
        for item in self._sets.all():
            self.queue.add(item.metadata.key)

    def _orphan(self, _: Pod | None, after: Pod | None) -> None:
        if after is None or after.metadata.owner is not None or after.metadata.deleting:
            return
        for item in self._sets_in.get(after.metadata.namespace):
            if _selects(item, after):
                self.queue.add(item.metadata.key)


def _selects(item: DaemonSet, pod: Pod) -> bool:
    return matches(item.spec.selector, pod.metadata.labels)


def _relevant(node: Node) -> object:
    taints = [(t.key, t.value, t.effect) for t in node.spec.taints or ()]
    return node.metadata.labels, taints, node.spec.unschedulable, node.metadata.deleting
