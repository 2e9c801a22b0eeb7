"""What the node itself shows after its turn, by the judges that looked at it before the upgrade."""

from collections.abc import Iterable

import msgspec

from towpath.inventory.cluster import NodeState, node_state
from towpath.inventory.components import node_facts
from towpath.kube.client import Client
from towpath.kube.kinds import NODES
from towpath.model.finding import Finding
from towpath.preflight import tunnel_judges
from towpath.preflight.kernel_judges import JUDGES
from towpath.preflight.situation import Untold
from towpath.upgrade.gates import Verdict
from towpath.upgrade.node_reading import Reading, read_nodes
from towpath.upgrade.plan import Plan

_PEERS = 2  # nodes that are asked what they have for the one that had its turn
_TUNNELS = (21, tunnel_judges.ends)


async def read_node(client: Client, plan: Plan, node: str) -> Verdict:
    """Look at the node and at some of its peers. Raises ApiError."""
    measure = plan.measure
    if measure is None or not measure.read:
        return Verdict("pass", "not wanted by the plan")
    reading = Reading(image=measure.image, python=measure.python, churn=measure.churn)
    order = [step.node for step in plan.nodes]
    after = order[order.index(node) + 1 :] + order[: order.index(node)]
    answers = await read_nodes(client, [node, *after[:_PEERS]], reading, lambda _: None)
    if answers[node].report is None:
        return Verdict("untold", f"the node cannot be read: {answers[node].why}")
    states = [
        msgspec.structs.replace(
            node_state(raw, node_facts(raw), 0), report=answers[name].report if name in answers else None
        )
        for raw in (await client.list(NODES.raw())).items
        for name in (raw["metadata"]["name"],)
    ]
    return verdict(node, states, frozenset(plan.skipped))


def verdict(node: str, states: Iterable[NodeState], skipped: frozenset[int]) -> Verdict:
    """Errors fail, what cannot be told pauses, warnings are written down. Pure."""
    states = tuple(states)
    state = next((one for one in states if one.facts.name == node), None)
    if state is None or state.report is None:
        return Verdict("untold", f"{node} is not among the nodes that were read")
    findings: list[Finding] = []
    untold: list[str] = []
    for number, _, judge in JUDGES:
        if number in skipped or (number == 23 and state.report.churn is None):
            continue
        try:
            findings += judge(state, state.report)
        except Untold as why:
            untold.append(str(why))
    if _TUNNELS[0] not in skipped:
        findings += _TUNNELS[1](states)
    errors = [one for one in findings if one.severity == "error"]
    if errors:
        return Verdict("fail", "; ".join(map(str, errors)))
    if untold:
        return Verdict("untold", "; ".join(untold))
    return Verdict(
        "pass", "; ".join(map(str, findings)) or "rules, tunnel, programs and sysctls are in order"
    )
