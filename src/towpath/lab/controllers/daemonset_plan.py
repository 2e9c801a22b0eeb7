"""One pod of a DaemonSet on every eligible node, and the next step of its rolling update. Pure.

Semantics are upstream's (kubernetes/pkg/controller/daemon), without its per-node creation back-off for
pods that fail: the work queue's own back-off serves.
"""

from collections.abc import Mapping, Sequence

import msgspec

from towpath.lab.controllers.actions import Action, Emit, reference
from towpath.lab.controllers.deployment_math import portion
from towpath.lab.controllers.hashing import with_labels
from towpath.lab.controllers.objects_apps import DaemonSet
from towpath.lab.controllers.objects_core import Node, Pod, PodSpec, Taint
from towpath.lab.controllers.objects_meta import Body, parse_time
from towpath.lab.controllers.podstate import FINISHED, is_available
from towpath.lab.controllers.replicaset_plan import create_pod, delete_pod, pod_body
from towpath.lab.controllers.resources import DAEMON_SETS
from towpath.lab.controllers.scheduling import selected
from towpath.lab.controllers.selectors import untolerated

REVISION_HASH = "controller-revision-hash"
GENERATION = "pod-template-generation"
_NO_SCHEDULE, _NO_EXECUTE = frozenset({"NoSchedule"}), frozenset({"NoExecute"})


def _toleration(name: str, effect: str) -> Body:
    return {"key": f"node.kubernetes.io/{name}", "operator": "Exists", "effect": effect}


TOLERATIONS: tuple[Body, ...] = (
    _toleration("not-ready", "NoExecute"),
    _toleration("unreachable", "NoExecute"),
    _toleration("disk-pressure", "NoSchedule"),
    _toleration("memory-pressure", "NoSchedule"),
    _toleration("pid-pressure", "NoSchedule"),
    _toleration("unschedulable", "NoSchedule"),
)
HOST_NETWORK_TOLERATION = _toleration("network-unavailable", "NoSchedule")


class Suitability(msgspec.Struct, frozen=True):
    """``run``: a pod belongs here. ``stay``: one that is here already may continue."""

    run: bool
    stay: bool


class NodePods(msgspec.Struct, frozen=True):
    """A DaemonSet's pods on one node. ``new`` are of the current revision."""

    node: str
    suitable: Suitability
    new: tuple[Pod, ...] = ()
    old: tuple[Pod, ...] = ()


def tolerations(template: Body) -> list[Body]:
    """The template's tolerations and those every daemon pod has."""
    spec = template.get("spec") or {}
    given: list[Body] = list(spec.get("tolerations") or ())
    extra = [*TOLERATIONS, *([HOST_NETWORK_TOLERATION] if spec.get("hostNetwork") else [])]
    return given + [t for t in extra if t not in given]


def needs(template: Body) -> Pod:
    """What the daemon's pods ask of a node, decoded once for all nodes."""
    spec = {**(template.get("spec") or {}), "tolerations": tolerations(template)}
    return Pod(spec=msgspec.convert(spec, PodSpec))


def suitability(asked: Pod, node: Node) -> Suitability:
    """Whether the node is selected and its taints are tolerated; ``asked`` as ``needs`` gives it."""
    meta = node.metadata
    if asked.spec.node_name and asked.spec.node_name != meta.name:
        return Suitability(False, False)
    if not selected(asked, meta.labels or {}, meta.name):
        return Suitability(False, False)
    taints: list[Taint] = list(node.spec.taints or ())
    stay = untolerated(taints, asked.spec.tolerations, _NO_EXECUTE) is None
    return Suitability(stay and untolerated(taints, asked.spec.tolerations, _NO_SCHEDULE) is None, stay)


def target_node(pod: Pod) -> str:
    """Where a daemon pod is, or is meant to be: its affinity names the node before the scheduler does."""
    if pod.spec.node_name:
        return pod.spec.node_name
    affinity = pod.spec.affinity.node_affinity if pod.spec.affinity else None
    for term in (affinity.required.node_selector_terms or ()) if affinity and affinity.required else ():
        for field in term.match_fields or ():
            if field.key == "metadata.name" and field.operator == "In" and field.values:
                return field.values[0]
    return ""


def by_node(
    item: DaemonSet, revision: str, pods: Sequence[Pod], nodes: Mapping[str, Node]
) -> tuple[list[NodePods], list[Pod]]:
    """The set's pods per existing node, and those whose node is gone or not known."""
    new: dict[str, list[Pod]] = {}
    old: dict[str, list[Pod]] = {}
    lost: list[Pod] = []
    for pod in sorted(pods, key=lambda p: parse_time(p.metadata.creation_timestamp)):
        if pod.metadata.deleting and pod.status.phase in FINISHED:
            continue
        node = target_node(pod)
        if node not in nodes:
            lost.append(pod)
            continue
        side = new if pod.metadata.label(REVISION_HASH) == revision else old
        side.setdefault(node, []).append(pod)
    asked = needs(item.spec.template)
    rows = [
        NodePods(name, suitability(asked, node), tuple(new.get(name, ())), tuple(old.get(name, ())))
        for name, node in sorted(nodes.items())
    ]
    return rows, lost


def manage(item: DaemonSet, revision: str, rows: Sequence[NodePods], now: float) -> list[Action]:
    """Create what is missing, delete what is failed, surplus or misplaced. Updates are ``roll``'s."""
    actions: list[Action] = []
    surge = limits(item, rows)[0]
    for row in rows:
        everything = [*row.old, *row.new]
        alive = [p for p in everything if p.status.phase not in FINISHED]
        dead = [p for p in everything if p.status.phase in FINISHED and not p.metadata.deleting]
        if not row.suitable.stay:
            actions += [
                delete_pod(DAEMON_SETS, item.metadata, p) for p in everything if not p.metadata.deleting
            ]
            continue
        for pod in dead:
            about = reference(DAEMON_SETS, item.metadata)
            words = f"Found failed daemon pod {pod.metadata.key} on node {row.node}, will try to kill it"
            actions += [Emit(about, "Warning", "FailedDaemonPod", words)]
            actions.append(delete_pod(DAEMON_SETS, item.metadata, pod))
        if not everything and row.suitable.run:
            actions.append(_create(item, revision, row.node))
        present = [p for p in alive if not p.metadata.deleting]
        actions += [
            delete_pod(DAEMON_SETS, item.metadata, p)
            for p in _duplicates(item, present, revision, surge, now)
        ]
    return actions


def _duplicates(item: DaemonSet, present: Sequence[Pod], revision: str, surge: int, now: float) -> list[Pod]:
    """Pods of one node beyond one; during a surge, beyond one old and one new."""
    if len(present) <= 1:
        return []
    new = [p for p in present if p.metadata.label(REVISION_HASH) == revision]
    old = [p for p in present if p.metadata.label(REVISION_HASH) != revision]
    if surge == 0:
        ranked = sorted(
            present, key=lambda p: (not p.spec.node_name, parse_time(p.metadata.creation_timestamp))
        )
        return ranked[1:]
    doomed = [*old[1:], *new[1:]]
    if old and new and is_available(new[0], item.spec.min_ready_seconds, now):
        doomed.append(old[0])
    return doomed


def limits(item: DaemonSet, rows: Sequence[NodePods]) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) as counts of the nodes that should run a pod."""
    if item.spec.update_strategy.type != "RollingUpdate":
        return 0, 0
    rolling, total = item.spec.update_strategy.rolling_update, sum(r.suitable.run for r in rows)
    surge = portion(rolling.max_surge if rolling else None, total, 0, up=True)
    unavailable = portion(rolling.max_unavailable if rolling else None, total, 1, up=True)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return surge, unavailable


def roll(item: DaemonSet, revision: str, rows: Sequence[NodePods], now: float) -> list[Action]:
    """The deletions (or surge creations) a rolling update allows now; nothing for OnDelete."""
    if item.spec.update_strategy.type != "RollingUpdate":
        return []
    surge, unavailable = limits(item, rows)
    if surge:
        return _roll_surge(item, revision, rows, surge, now)
    down, free, candidates = 0, [], []
    for row in rows:
        if not row.suitable.run:
            continue
        old = [p for p in row.old if p.status.phase not in FINISHED]
        new = [p for p in row.new if p.status.phase not in FINISHED]
        if new or not old:
            down += not any(_up(item, p, now) for p in new)
        elif any(p.metadata.deleting for p in old):
            down += 1
        elif not _up(item, old[0], now):
            free.append(old[0])  # serves nobody: replacing it costs nothing
            down += 1
        else:
            candidates.append(old[0])
    doomed = free + candidates[: max(0, unavailable - down)]
    return [delete_pod(DAEMON_SETS, item.metadata, p) for p in doomed]


def _roll_surge(
    item: DaemonSet, revision: str, rows: Sequence[NodePods], surge: int, now: float
) -> list[Action]:
    """Start the new pod beside the old; ``manage`` ends the old once the new is available."""
    actions: list[Action] = []
    under_way = 0
    waiting: list[str] = []
    for row in rows:
        old = [p for p in row.old if p.status.phase not in FINISHED]
        new = [p for p in row.new if p.status.phase not in FINISHED]
        if not old or not row.suitable.run:
            continue
        if new:
            under_way += 1
        elif not _up(item, old[0], now):
            if not old[0].metadata.deleting:
                actions.append(delete_pod(DAEMON_SETS, item.metadata, old[0]))
        else:
            waiting.append(row.node)
    chosen = waiting[: max(0, surge - under_way)]
    return [*actions, *(_create(item, revision, node) for node in chosen)]


def _up(item: DaemonSet, pod: Pod, now: float) -> bool:
    return not pod.metadata.deleting and is_available(pod, item.spec.min_ready_seconds, now)


def _create(item: DaemonSet, revision: str, node: str) -> Action:
    """A daemon pod tied to ``node`` by affinity, as upstream does: the scheduler has the last word."""
    labels = {REVISION_HASH: revision, GENERATION: template_generation(item)}
    body = pod_body(DAEMON_SETS, item.metadata, with_labels(item.spec.template, labels))
    spec: Body = {**body["spec"], "tolerations": tolerations(item.spec.template)}
    affinity: Body = dict(spec.get("affinity") or {})
    name_is = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [name_is]}}
    affinity["nodeAffinity"] = {**(affinity.get("nodeAffinity") or {}), **required}
    spec["affinity"] = affinity
    return create_pod(DAEMON_SETS, item.metadata, {**body, "spec": spec})


def template_generation(item: DaemonSet) -> str:
    """``pod-template-generation``: the deprecated annotation, or the generation itself."""
    return item.metadata.annotation("deprecated.daemonset.template.generation") or str(
        item.metadata.generation
    )
