"""The scheduler: pending pods are placed in batches, by the rules of ``scheduling``."""

from towpath.lab.controllers.actions import Action, Create, Emit, Patch, Plan, reference
from towpath.lab.controllers.conditions import as_body, make, replaced
from towpath.lab.controllers.controller import Context, Controller
from towpath.lab.controllers.objects_core import Node, Pod
from towpath.lab.controllers.objects_meta import Body
from towpath.lab.controllers.podstate import FINISHED, condition
from towpath.lab.controllers.resources import BINDINGS, NODES, PODS
from towpath.lab.controllers.scheduling import Placed, schedule_all

_ALL = "pending pods"


class Scheduler(Controller):
    """One key stands for everything that waits: each pass places all of it, in order of age."""

    name = "default-scheduler"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._pods = self.informer(PODS)
        self._nodes = self.informer(NODES)
        self._pending = self._pods.index(lambda p: [_ALL] if _pending(p) else [])
        self._assumed: dict[str, str] = {}
        self._pods.subscribe(self._pod_changed)
        self._nodes.subscribe(self._node_changed)

    async def reconcile(self, key: str) -> Plan:
        """Place what can be placed; say of the rest why not."""
        waiting = [p for p in self._pending.get(_ALL) if p.metadata.uid not in self._assumed]
        if not waiting:
            return Plan()
        waiting.sort(key=lambda p: (p.metadata.creation_timestamp or "", p.metadata.name))
        decisions = schedule_all(waiting, self._nodes.all(), self._pods.all(), self._assumed)
        bindings: list[Action] = []
        refusals: list[Action] = []
        for pod, decision in decisions:
            if isinstance(decision, Placed):
                self._assumed[pod.metadata.uid] = decision.node
                bindings.append(bind(pod, decision.node))
            else:
                refusals += refuse(pod, decision.message, self.context.now())
        try:
            await self.write(key, bindings)
        except BaseException:
            # Which of them arrived will show; binding one twice is refused and does no harm.
            for pod in waiting:
                self._assumed.pop(pod.metadata.uid, None)
            raise
        return Plan(tuple(refusals))

    def _pod_changed(self, before: Pod | None, after: Pod | None) -> None:
        if after is None or after.spec.node_name or after.status.phase in FINISHED:
            pod = after or before
            if pod:
                self._assumed.pop(pod.metadata.uid, None)
        if after is not None and _pending(after):
            if before is None or before.metadata.labels != after.metadata.labels or not _refused(after):
                self.queue.add(_ALL)
        elif (
            before is not None
            and (after is None or after.status.phase in FINISHED)
            and self._pending.get(_ALL)
        ):
            self.queue.add(_ALL)  # somebody left: there may be room now

    def _node_changed(self, before: Node | None, after: Node | None) -> None:
        if after and (before is None or _relevant(before) != _relevant(after)):
            self.queue.add(_ALL)


def _pending(pod: Pod) -> bool:
    ours = pod.spec.scheduler_name in ("", "default-scheduler")
    return ours and not pod.spec.node_name and not pod.metadata.deleting and pod.status.phase not in FINISHED


def _refused(pod: Pod) -> bool:
    scheduled = condition(pod.status.conditions, "PodScheduled")
    return scheduled is not None and scheduled.status == "False"


def _relevant(node: Node) -> object:
    taints = [(t.key, t.value, t.effect) for t in node.spec.taints or ()]
    return node.metadata.labels, taints, node.spec.unschedulable, node.status.allocatable


def bind(pod: Pod, node: str) -> Action:
    """The binding of a pod to a node, and its Scheduled event."""
    meta = pod.metadata
    body: Body = {
        "metadata": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    }
    message = f"Successfully assigned {meta.key} to {node}"
    event = Emit(reference(PODS, meta), "Normal", "Scheduled", message)
    return Create(BINDINGS, meta.namespace, body, meta.name, "binding", event=event)


def refuse(pod: Pod, message: str, now: float) -> list[Action]:
    """PodScheduled=False and the FailedScheduling event, once for each new reason."""
    before = condition(pod.status.conditions, "PodScheduled")
    if before is not None and (before.status, before.message) == ("False", message):
        return []
    new = make("PodScheduled", "False", "Unschedulable", message, now, before)
    conditions = [as_body(c) for c in replaced(pod.status.conditions, new, "PodScheduled")]
    for entry in conditions:
        entry.pop("lastUpdateTime", None)
    meta = pod.metadata
    body: Body = {
        "metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version},
        "status": {"conditions": conditions},
    }
    event = Emit(reference(PODS, meta), "Warning", "FailedScheduling", message)
    return [Patch(PODS, meta.namespace, meta.name, body, "status", event=event)]
