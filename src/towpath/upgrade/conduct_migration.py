"""What the conductor does next where nodes go from Canal to Towpath, or back. Pure.

A node is moved by a pod that carries out ``towpath node takeover`` (or ``handback``) on it, which goes on
wherever an earlier one stopped (``migrate``). The conductor's part: who is next, the label that brings the
DaemonSet of the other network, gates, and the way back of a node that does not pass them.
"""

from towpath.install.migration import TAKEOVER
from towpath.upgrade import around
from towpath.upgrade.actions import Action, EndMove, Gate, Label, Note, StartMove, Wait
from towpath.upgrade.journal import Event, Journal
from towpath.upgrade.plan import NodeStep, Plan
from towpath.upgrade.seen import Direction, Seen, SeenNetworks

_NOTHING = SeenNetworks({}, {}, {}, {})
_TURN: tuple[Event, ...] = ("touch", "passed", "gone", "failed", "restored")
_TROUBLE: dict[str, Event] = {"forward": "failed"}


def forward(plan: Plan, journal: Journal, seen: Seen, now: float) -> Action:
    """One node after the other, in the plan's order."""
    if not journal.records:
        return Note("begin", text=plan.hash)
    if due := around.let_in(plan, journal):
        return due
    left = [step for step in plan.nodes if journal.passed(step.node) is None]
    return _turn(plan, journal, seen, left[0], now) if left else Note("done")


def _turn(plan: Plan, journal: Journal, seen: Seen, step: NodeStep, now: float) -> Action:
    node = step.node
    if node not in seen.nodes:
        return Note("gone", node)
    last = journal.last(_TURN, node)
    if last is None or last.event != "touch":
        return around.before(plan, journal, node, seen.cordoned, seen.at) or Note("touch", node)
    due = bring(plan, journal, seen, node, _wanted(plan), last.at, now)
    return due or Gate(node, plan.gates.canary_soak if step is plan.nodes[0] else plan.gates.soak)


def mend(plan: Plan, journal: Journal, seen: Seen, now: float) -> Action:
    """The node that failed goes back; the others stay as they are."""
    failed = journal.last(("failed",))
    return _give_back(plan, journal, seen, failed.node if failed else "", failed.text if failed else "", now)


def _give_back(plan: Plan, journal: Journal, seen: Seen, node: str, why: str, now: float) -> Action:
    if node not in seen.nodes:
        return Note("restored", node, "the node is not there any more")
    since = journal.last(("failed", "abort", "resume"))
    due = bring(plan, journal, seen, node, _back(plan), since.at if since else now, now)
    return due or around.after(journal, node) or Note("restored", node, why)


def back(plan: Plan, journal: Journal, seen: Seen, now: float) -> Action:
    """Every node as it was, the last one touched first."""
    said = journal.last(("rollback",))
    for step in reversed(plan.nodes):
        touched = journal.last(("touch",), step.node)
        if step.node not in seen.nodes or touched is None:
            continue
        if said is not None and touched.at < said.at:
            return Note("touch", step.node, "it goes back")
        due = bring(plan, journal, seen, step.node, _back(plan), touched.at, now)
        if due := due or around.after(journal, step.node):
            return due
    return Note("rolled-back")


def abort(plan: Plan, journal: Journal, seen: Seen, now: float) -> Action:
    """A node in the middle of its turn goes back; those that have passed stay where they are."""
    for step in plan.nodes:
        last = journal.last(("cordon", *_TURN), step.node)
        if last is not None and last.event in ("cordon", "touch", "failed"):
            return _give_back(plan, journal, seen, step.node, "aborted in the middle of its turn", now)
    if due := around.let_in(plan, journal):
        return due
    there = [step.node for step in plan.nodes if journal.passed(step.node)]
    whose = "Towpath's" if _wanted(plan) == "takeover" else "Canal's"
    return Note("aborted", text=f"these are {whose} and stay so: {', '.join(there) or 'none'}")


def bring(
    plan: Plan, journal: Journal, seen: Seen, node: str, way: Direction, since: float, now: float
) -> Action | None:
    """What takes the node that way; None when it is there. Trouble is noted as fits the journal's mode."""
    at, trouble = seen.networks or _NOTHING, _TROUBLE.get(journal.mode, "pause")
    move, moved = at.moves.get(node), journal.last(("move", "moved"), node)
    within = max(since, moved.at if moved else since) + plan.gates.move_within
    done = moved is not None and moved.event == "moved" and moved.text == way
    if move is not None:
        if move.direction != way or done:
            return EndMove(node, move.name)
        match move.phase:
            case "Succeeded":
                return Note("moved", node, way)
            case "Failed" if moved is None or moved.at < since:
                return EndMove(node, move.name)  # of an earlier try
            case "Failed":
                return Note(trouble, node, f"{way} of {node} stopped: {move.why}")
        if now > within:
            late = f"{way} of {node} has not ended in {plan.gates.move_within:.0f} s"
            return Note(trouble, node, f"{late}: {move.why or move.phase}")
        return Wait(f"{way} of {node}{f' ({move.why})' if move.why else ''}", within)
    if done or (way == "handback" and moved is None and at.labels.get(node) is None):
        return _ready(plan, at, node, way, max(since, moved.at if moved else since), now, trouble)
    if (
        way == "handback"
        and moved is None
        and at.labels.get(node) == TAKEOVER
        and _wanted(plan) == "takeover"
    ):
        return Label(node, "")  # Towpath's agent came because this plan called it, and nothing was moved yet
    if way == "takeover" and node not in at.towpath:
        if at.labels.get(node) is None:
            return Label(node, TAKEOVER)
        if now > since + plan.gates.ready_within:
            return Note(trouble, node, f"Towpath's agent has not come to {node}: does its DaemonSet want it?")
        return Wait(f"Towpath's agent on {node}", since + plan.gates.ready_within)
    return StartMove(node, way)


def _ready(
    plan: Plan, at: SeenNetworks, node: str, way: Direction, since: float, now: float, trouble: Event
) -> Action | None:
    pod = (at.towpath if way == "takeover" else at.canal).get(node)
    if pod is not None and pod.ready:
        return None
    until = since + plan.gates.ready_within
    if now > until:
        why = pod.why if pod else "no pod has come"
        return Note(trouble, node, f"the network's pod on {node} is not ready: {why}")
    return Wait(f"the network's pod on {node} to be ready", until)


def _wanted(plan: Plan) -> Direction:
    return plan.migration.direction if plan.migration else "takeover"


def _back(plan: Plan) -> Direction:
    return "handback" if _wanted(plan) == "takeover" else "takeover"
