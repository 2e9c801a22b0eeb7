"""What is done around the nodes' turns: the chart is frozen, the window waited for, a node emptied. Pure."""

from datetime import UTC, datetime

from towpath.upgrade.actions import Action, Cordon, Drain, Note, SetFrozen, Wait
from towpath.upgrade.journal import Journal
from towpath.upgrade.plan import Plan
from towpath.upgrade.seen import ChartSeen
from towpath.upgrade.window import Window


def freeze(plan: Plan, chart: ChartSeen | None) -> Action | None:
    """Before anything else: a chart that rolls by itself rolls without gates."""
    if plan.chart is None or chart is None or chart.frozen:
        return None
    return SetFrozen(plan.chart.name, frozen=True)


def thaw(plan: Plan, journal: Journal, chart: ChartSeen | None, *, back: bool) -> Action | None:
    """At the end, if it was the conductor that froze it and the chart is of the version that runs now.

    Helm would take the images of another chart's version as drift and put its own back, on all nodes.
    """
    if plan.chart is None or plan.chart.frozen or chart is None or not chart.frozen:
        return None
    wanted = plan.chart.before if back else plan.chart.after
    if chart.version and chart.version == wanted:
        return SetFrozen(plan.chart.name, frozen=False)
    has = f"is of {chart.version}" if chart.version else "does not tell its version"
    runs = wanted or "no known chart"
    why = f"TP7405 HelmChart {plan.chart.name} stays frozen: it {has}, what runs now is of {runs}"
    last = journal.last(("chart",))
    return None if last is not None and last.text == why else Note("chart", text=why)


def before(plan: Plan, journal: Journal, node: str, cordoned: frozenset[str], at: float) -> Action | None:
    """What must be so before a node's pod is replaced. ``at``: the time on the wall, seconds since 1970."""
    if plan.window and not _begun(journal, node):
        opens = Window.parse(plan.window).opens(at)
        if opens > at:
            when = datetime.fromtimestamp(opens, UTC).strftime("%a %Y-%m-%d %H:%M UTC")
            return Wait(f"the window {plan.window}: it opens {when}, then {node} is begun", opens)
    if not plan.evict:
        return None
    if node not in cordoned:
        return Cordon(node, on=True)
    emptied = journal.last(("cordon", "drained", "passed", "restored"), node)
    if plan.evict == "drain" and (emptied is None or emptied.event != "drained"):
        return Drain(node)
    return None


def after(journal: Journal, node: str) -> Action | None:
    """When a node's turn is over: pods may come again, if it was the conductor that kept them away."""
    last = journal.last(("cordon", "uncordon"), node)
    return Cordon(node, on=False) if last is not None and last.event == "cordon" else None


def let_in(plan: Plan, journal: Journal) -> Action | None:
    """``after`` of the first node for which it is due, of those whose turn is over."""
    for step in plan.nodes:
        last = journal.last(("cordon", "touch", "passed", "gone", "failed", "restored"), step.node)
        if last is not None and last.event in ("passed", "restored") and (due := after(journal, step.node)):
            return due
    return None


def _begun(journal: Journal, node: str) -> bool:
    last = journal.last(("cordon", "touch", "failed", "restored", "passed"), node)
    return last is not None and last.event in ("cordon", "touch")
