"""What the conductor does next: from the plan, the journal and what it sees. Pure.

It is driven by what is, not by where it was: who takes over after a crash sees the same and does the same.
"""

from towpath.upgrade import around
from towpath.upgrade import conduct_migration as migration
from towpath.upgrade.actions import Action, DeletePod, Gate, Note, SetImages, SetStrategy, Wait
from towpath.upgrade.edited import edited
from towpath.upgrade.journal import Journal
from towpath.upgrade.plan import NodeStep, Plan
from towpath.upgrade.seen import Seen, SeenPod

ON_DELETE = {"type": "OnDelete"}


def next_action(plan: Plan, journal: Journal, seen: Seen, now: float) -> Action | None:
    """None: there is nothing left to do."""
    match journal.mode:
        case "done" | "rolled-back" | "aborted":
            return None
        case "paused":
            last = journal.last(("pause", "restored"))
            return Wait(last.text or f"{last.node} was rolled back" if last else "", None)
    moves = plan.migration is not None
    match journal.mode:
        case "mending":
            return (migration.mend if moves else _mend)(plan, journal, seen, now)
        case "back":
            return (migration.back if moves else _back)(plan, journal, seen, now)
        case "aborting":
            return (migration.abort if moves else _abort)(plan, journal, seen, now)
    return (migration.forward if moves else _forward)(plan, journal, seen, now)


def _forward(plan: Plan, journal: Journal, seen: Seen, now: float) -> Action:
    if not journal.records:
        return Note("begin", text=plan.hash, template=seen.template)
    left = [step for step in plan.nodes if journal.passed(step.node) is None]
    if due := around.let_in(plan, journal):
        return due
    if not left:
        if seen.strategy != plan.strategy:
            return SetStrategy(plan.strategy, "release")
        return around.thaw(plan, journal, seen.chart, back=False) or Note("done")
    if frozen := around.freeze(plan, seen.chart):
        return frozen
    if seen.strategy.get("type") != "OnDelete":
        return SetStrategy(ON_DELETE, "freeze")
    if why := edited(plan, journal, seen):
        return Note("pause", text=f"TP7412 {why}", template=seen.template)
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
        waits = around.before(plan, journal, node, seen.cordoned, seen.at)
        return waits or DeletePod(node, pod.name, pod.uid)
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
    return _give_back(plan, journal, seen, failed.node if failed else "", failed.text if failed else "", now)


def _give_back(plan: Plan, journal: Journal, seen: Seen, node: str, why: str, now: float) -> Action:
    if _images(plan, seen.images) != plan.before:
        return SetImages(plan.before, "back")
    pod = seen.pods.get(node)
    if node not in seen.nodes:
        return Note("restored", node, "the node is not there any more")
    if pod is not None and _images(plan, pod.images) != plan.before:
        return DeletePod(node, pod.name, pod.uid)
    if pod is None or not pod.ready:
        return _old_again(plan, journal, node, pod, now)
    return around.after(journal, node) or Note("restored", node, why)


def _abort(plan: Plan, journal: Journal, seen: Seen, now: float) -> Action:
    """No node is begun any more; one in the middle of its turn gets its old pod. Nothing rolls afterwards:

    the template is the old one again, and while some nodes are new, it stays OnDelete and the chart frozen.
    """
    for step in plan.nodes:
        last = journal.last(("cordon", "touch", "passed", "gone", "failed", "restored"), step.node)
        if last is not None and last.event in ("cordon", "touch", "failed"):
            return _give_back(plan, journal, seen, step.node, "aborted in the middle of its turn", now)
    if due := around.let_in(plan, journal):
        return due
    if _images(plan, seen.images) != plan.before:
        return SetImages(plan.before, "back")
    new = [node for node, pod in sorted(seen.pods.items()) if _images(plan, pod.images) == plan.after]
    if new:
        return Note("aborted", text=f"these have the new version and keep it: {', '.join(new)}")
    if seen.strategy != plan.strategy:
        return SetStrategy(plan.strategy, "release")
    thawed = around.thaw(plan, journal, seen.chart, back=True)
    return thawed or Note("aborted", text="no node has the new version")


def _back(plan: Plan, journal: Journal, seen: Seen, now: float) -> Action:
    """Everything as it was, the last node touched first."""
    if _images(plan, seen.images) != plan.before or _any_new(plan, seen):
        if frozen := around.freeze(plan, seen.chart):
            return frozen
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
        if due := around.after(journal, step.node):
            return due
    if seen.strategy != plan.strategy:
        return SetStrategy(plan.strategy, "release")
    return around.thaw(plan, journal, seen.chart, back=True) or Note("rolled-back")


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
