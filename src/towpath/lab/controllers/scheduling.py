"""Which node a pod goes to: filters with upstream's words, then the emptiest node. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from towpath.lab.controllers.objects_core import Node, NodeSelector, Pod, PodAffinity, PodAffinityTerm, Taint
from towpath.lab.controllers.podstate import FINISHED
from towpath.lab.controllers.quantity import parse_quantity
from towpath.lab.controllers.selectors import equal, matches, term_matches, untolerated

BLOCKING = frozenset({"NoSchedule", "NoExecute"})
UNSCHEDULABLE = Taint(key="node.kubernetes.io/unschedulable", effect="NoSchedule")


class NodeView(msgspec.Struct, frozen=True):
    """A node and the unfinished pods bound, or about to be bound, to it."""

    node: Node
    pods: tuple[Pod, ...] = ()

    @property
    def name(self) -> str:
        """The node's name."""
        return self.node.metadata.name


Repeller = tuple[NodeView, Pod, PodAffinityTerm]


class Placed(msgspec.Struct, frozen=True):
    """The pod fits; ``node`` is the best."""

    node: str


class Unplaced(msgspec.Struct, frozen=True):
    """No node fits; ``message`` counts the reasons as ``kubectl describe`` shows them."""

    message: str


def schedule(pod: Pod, nodes: Sequence[NodeView]) -> Placed | Unplaced:
    """The best node of those that fit: fewest of the same set, then fewest pods, then by name."""
    fitting: list[NodeView] = []
    reasons: Counter[str] = Counter()
    repellers = _repellers(nodes)
    for view in nodes:
        reason = misfit(pod, view, nodes, repellers)
        if reason:
            reasons[reason] += 1
        else:
            fitting.append(view)
    if fitting:
        return Placed(min(fitting, key=lambda v: _cost(pod, v)).name)
    if not nodes:
        return Unplaced("no nodes available to schedule pods")
    listed = ", ".join(sorted(f"{n} {reason}" for reason, n in reasons.items()))
    return Unplaced(f"0/{len(nodes)} nodes are available: {listed}.")


def misfit(pod: Pod, view: NodeView, nodes: Sequence[NodeView], repellers: Sequence[Repeller]) -> str:
    """Why the node will not do, the first reason in upstream's order; empty if it will."""
    meta, spec = view.node.metadata, view.node.spec
    taints = list(spec.taints or ())
    if spec.unschedulable and untolerated([UNSCHEDULABLE], pod.spec.tolerations, BLOCKING):
        return "node(s) were unschedulable"
    taint = untolerated(taints, pod.spec.tolerations, BLOCKING)
    if taint:
        return f"node(s) had untolerated taint {{{taint.key}: {taint.value}}}"
    if not selected(pod, meta.labels or {}, meta.name):
        return "node(s) didn't match Pod's node affinity/selector"
    return _ports(pod, view) or _resources(pod, view) or _neighbours(pod, view, nodes, repellers)


def selected(pod: Pod, labels: dict[str, str], name: str) -> bool:
    """The pod's nodeSelector and required node affinity admit a node of these labels and this name."""
    if not equal(pod.spec.node_selector, labels):
        return False
    affinity = pod.spec.affinity.node_affinity if pod.spec.affinity else None
    return _admits(affinity.required if affinity else None, labels, name)


def _admits(selector: NodeSelector | None, labels: dict[str, str], name: str) -> bool:
    if selector is None:
        return True
    return any(term_matches(t, labels, name) for t in selector.node_selector_terms or ())


def host_ports(pod: Pod) -> set[tuple[str, str, int]]:
    """(host address, protocol, port) of every host port the pod asks for."""
    ports = (p for c in pod.spec.containers or () for p in c.ports or ())
    return {(p.host_ip or "0.0.0.0", p.protocol, p.host_port) for p in ports if p.host_port}  # noqa: S104


def _ports(pod: Pod, view: NodeView) -> str:
    wanted = host_ports(pod)
    if not wanted:
        return ""
    for held in (h for other in view.pods for h in host_ports(other)):
        for ask in wanted:
            same_address = ask[0] == held[0] or "0.0.0.0" in (ask[0], held[0])  # noqa: S104
            if ask[1:] == held[1:] and same_address:
                return "node(s) didn't have free ports for the requested pod ports"
    return ""


def _requests(pod: Pod, resource: str) -> float:
    given = (c.resources.requests or {} for c in pod.spec.containers or () if c.resources)
    try:
        return sum(parse_quantity(r.get(resource, 0)) for r in given)
    except ValueError:
        return 0.0  # the API server's to refuse; here it must not stop the pods behind it


def _resources(pod: Pod, view: NodeView) -> str:
    allocatable = view.node.status.allocatable or {}
    if "pods" in allocatable and len(view.pods) + 1 > parse_quantity(allocatable["pods"]):
        return "Too many pods"
    for resource in ("cpu", "memory"):
        asked = _requests(pod, resource)
        if asked and resource in allocatable:
            taken = sum(_requests(p, resource) for p in view.pods)
            if taken + asked > parse_quantity(allocatable[resource]):
                return f"Insufficient {resource}"
    return ""


def _neighbours(pod: Pod, view: NodeView, nodes: Sequence[NodeView], repellers: Sequence[Repeller]) -> str:
    affinity = pod.spec.affinity
    if affinity and affinity.pod_affinity:
        for term in affinity.pod_affinity.required or ():
            first = _selects(term, pod, pod) and not any(_in_domain(term, pod, v) for v in nodes)
            if not first and not any(_in_domain(term, pod, v) for v in _domain(term, view, nodes)):
                return "node(s) didn't match pod affinity rules"
    for term in _required(affinity.pod_anti_affinity if affinity else None):
        if any(_in_domain(term, pod, v) for v in _domain(term, view, nodes)):
            return "node(s) didn't match pod anti-affinity rules"
    for where, held, term in repellers:
        domain = {v.name for v in _domain(term, view, nodes)}
        if where.name in domain and _selects(term, held, pod):
            return "node(s) didn't satisfy existing pods anti-affinity rules"
    return ""


def _repellers(nodes: Sequence[NodeView]) -> list[Repeller]:
    """Every required anti-affinity term of the pods that are there: they may keep others out as well."""
    return [
        (view, pod, term)
        for view in nodes
        for pod in view.pods
        if pod.spec.affinity
        for term in _required(pod.spec.affinity.pod_anti_affinity)
    ]


def _required(affinity: PodAffinity | None) -> Iterable[PodAffinityTerm]:
    return (affinity.required or ()) if affinity else ()


def _domain(term: PodAffinityTerm, view: NodeView, nodes: Sequence[NodeView]) -> list[NodeView]:
    """The nodes that share the topology value with ``view``; none where it lacks the label."""
    value = view.node.metadata.label(term.topology_key)
    return [v for v in nodes if value is not None and v.node.metadata.label(term.topology_key) == value]


def _in_domain(term: PodAffinityTerm, owner: Pod, view: NodeView) -> bool:
    return any(_selects(term, owner, other) for other in view.pods)


def _selects(term: PodAffinityTerm, owner: Pod, other: Pod) -> bool:
    namespaces = term.namespaces or [owner.metadata.namespace]
    return other.metadata.namespace in namespaces and matches(term.label_selector, other.metadata.labels)


def _cost(pod: Pod, view: NodeView) -> tuple[int, int, int, int, str]:
    """Lower is better."""
    unwanted = [t for t in view.node.spec.taints or () if t.effect == "PreferNoSchedule"]
    avoided = bool(untolerated(unwanted, pod.spec.tolerations, frozenset({"PreferNoSchedule"})))
    affinity = pod.spec.affinity.node_affinity if pod.spec.affinity else None
    labels = view.node.metadata.labels or {}
    liked = sum(
        p.weight
        for p in (affinity.preferred or () if affinity else ())
        if term_matches(p.preference, labels, view.name)
    )
    owner = pod.metadata.owner
    same = sum(1 for p in view.pods if owner and p.metadata.owner and p.metadata.owner.uid == owner.uid)
    return (int(avoided), -liked, same, len(view.pods), view.name)


def schedule_all(
    pending: Sequence[Pod], nodes: Sequence[Node], pods: Iterable[Pod], assumed: dict[str, str]
) -> list[tuple[Pod, Placed | Unplaced]]:
    """Place pods one after the other, each decision seen by the next.

    ``pods`` are all that exist; ``assumed`` (uid → node) are decisions the API has not echoed yet.
    """
    held: dict[str, list[Pod]] = {n.metadata.name: [] for n in nodes if not n.metadata.deleting}
    for pod in pods:
        node = pod.spec.node_name or assumed.get(pod.metadata.uid, "")
        if node in held and pod.status.phase not in FINISHED:
            held[node].append(pod)
    views = {
        n.metadata.name: NodeView(n, tuple(held[n.metadata.name])) for n in nodes if n.metadata.name in held
    }
    decisions: list[tuple[Pod, Placed | Unplaced]] = []
    for pod in pending:
        decision = schedule(pod, list(views.values()))
        if isinstance(decision, Placed):
            view = views[decision.node]
            views[decision.node] = NodeView(view.node, (*view.pods, pod))
        decisions.append((pod, decision))
    return decisions
