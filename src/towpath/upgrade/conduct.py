"""What the conductor does next: from the plan, the journal and what it sees. Pure.

It is driven by what is, not by where it was: who takes over after a crash sees the same and does the same.
"""

from typing import Any, NamedTuple

from towpath.upgrade.journal import Event, Journal
from towpath.upgrade.plan import NodeStep, Plan

ON_DELETE = {"type": "OnDelete"}


class SeenPod(NamedTuple):
    """The DaemonSet's pod on a node. ``images``: container to image, of its spec; ``why`` it is not ready."""

    name: str
    uid: str
    images: dict[str, str]
    ready: bool
    why: str = ""


class Seen(NamedTuple):
    """The DaemonSet and its pods by node; ``nodes`` are those that there are."""

    strategy: dict[str, Any]
    images: dict[str, str]
    pods: dict[str, SeenPod]
    nodes: frozenset[str]


class Note(NamedTuple):
    """Write this, and look again."""

    event: Event
    node: str = ""
    text: str = ""


class SetStrategy(NamedTuple):
    """Of the DaemonSet."""

    strategy: dict[str, Any]
    event: Event

    def describe(self) -> str:
        """One line."""
        return f"set the update strategy to {self.strategy.get('type')}"


class SetImages(NamedTuple):
    """Of the template. With OnDelete no pod changes by that."""

    images: dict[str, str]
    text: str

    def describe(self) -> str:
        """One line."""
        return f"set the images of the template ({self.text})"


class DeletePod(NamedTuple):
    """The old pod of a node, and no other that may have come meanwhile."""

    node: str
    name: str
    uid: str

    def describe(self) -> str:
        """One line."""
        return f"replace the pod on {self.node}"


class Gate(NamedTuple):
    """Ask whether the node is well; the answer is noted."""

    node: str
    soak: float

    def describe(self) -> str:
        """One line."""
        return f"gates of {self.node}"


class Wait(NamedTuple):
    """Nothing to do until something changes, or ``until`` (seconds since 1970; None: for somebody's word)."""

    why: str
    until: float | None


Action = Note | SetStrategy | SetImages | DeletePod | Gate | Wait


def next_action(plan: Plan, journal: Journal, seen: Seen, now: float) -> Action | None:
    """None: there is nothing left to do."""
    match journal.mode:
        case "done" | "rolled-back":
            return None
        case "paused":
            last = journal.last(("pause", "restored"))
            return Wait(last.text or f"{last.node} was rolled back" if last else "", None)
        case "mending":
            return _mend(plan, journal, seen, now)
        case "back":
            return _back(plan, journal, seen, now)
    return _forward(plan, journal, seen, now)


def _forward(plan: Plan, journal: Journal, seen: Seen, now: float) -> Action:
    if not journal.records:
        return Note("begin", text=plan.hash)
    left = [step for step in plan.nodes if journal.passed(step.node) is None]
    if not left:
        return Note("done") if seen.strategy == plan.strategy else SetStrategy(plan.strategy, "release")
    if seen.strategy.get("type") != "OnDelete":
        return SetStrategy(ON_DELETE, "freeze")
    if _images(plan, seen.images) != plan.after:
        return SetImages(plan.after, "forward")
    return _node(plan, journal, seen, left[0], now)


def _node(plan: Plan, journal: Journal, seen: Seen, step: NodeStep, now: float) -> Action:
    node, gates = step.node, plan.gates
    if node not in seen.nodes:
        return Note("gone", node)
    pod = seen.pods.get(node)
    touched = journal.last(("touch",), node)
    if pod is not None and _images(plan, pod.images) != plan.after:
        return DeletePod(node, pod.name, pod.uid)
    if pod is None or not pod.ready:
        begun = touched.at if touched else now
        if now - begun > gates.ready_within:
            why = pod.why if pod else "no new pod has come"
            return Note(
                "failed", node, f"not ready {gates.ready_within:.0f} s after its pod was replaced: {why}"
            )
        if touched is None:
            return Note("touch", node, "its pod was not ready before")
        return Wait(f"{node} to be ready", begun + gates.ready_within)
    return Gate(node, gates.canary_soak if step is plan.nodes[0] else gates.soak)


def _mend(plan: Plan, journal: Journal, seen: Seen, now: float) -> Action:
    """The node that failed gets its old pod back; the others stay as they are: nothing else is deleted."""
    failed = journal.last(("failed",))
    node = failed.node if failed else ""
    if _images(plan, seen.images) != plan.before:
        return SetImages(plan.before, "back")
    pod = seen.pods.get(node)
    if node not in seen.nodes:
        return Note("restored", node, "the node is not there any more")
    if pod is not None and _images(plan, pod.images) != plan.before:
        return DeletePod(node, pod.name, pod.uid)
    if pod is None or not pod.ready:
        return _old_again(plan, journal, node, pod, now)
    return Note("restored", node, failed.text if failed else "")


def _back(plan: Plan, journal: Journal, seen: Seen, now: float) -> Action:
    """Everything as it was, the last node touched first."""
    if _images(plan, seen.images) != plan.before or _any_new(plan, seen):
        if seen.strategy.get("type") != "OnDelete":
            return SetStrategy(ON_DELETE, "freeze")
        if _images(plan, seen.images) != plan.before:
            return SetImages(plan.before, "back")
    for step in reversed(plan.nodes):
        pod = seen.pods.get(step.node)
        if step.node not in seen.nodes:
            continue
        if pod is not None and _images(plan, pod.images) != plan.before:
            return DeletePod(step.node, pod.name, pod.uid)
        if pod is None or not pod.ready:
            return _old_again(plan, journal, step.node, pod, now)
    if seen.strategy != plan.strategy:
        return SetStrategy(plan.strategy, "release")
    return Note("rolled-back")


def _old_again(plan: Plan, journal: Journal, node: str, pod: SeenPod | None, now: float) -> Action:
    """Wait for the old version; if that does not come to life either, somebody must look."""
    last = journal.last(("touch", "failed", "rollback"))
    until = (last.at if last else now) + plan.gates.ready_within
    if now > until:
        why = pod.why if pod else "no pod has come"
        return Note("pause", node, f"{node} is to have its old version again, and that is not ready: {why}")
    return Wait(f"{node} to have its old pod again", until)


def _any_new(plan: Plan, seen: Seen) -> bool:
    return any(_images(plan, pod.images) != plan.before for pod in seen.pods.values())


def _images(plan: Plan, images: dict[str, str]) -> dict[str, str]:
    """Those of the plan's containers."""
    return {name: images.get(name, "") for name in plan.images}
