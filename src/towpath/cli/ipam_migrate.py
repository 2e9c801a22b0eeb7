"""``towpath ipam migrate``: from podCIDRs to blocks and back, node by node, with pods running."""

import asyncio
import contextlib
import time
from collections.abc import Iterable
from ipaddress import ip_network
from typing import Any

import click

from towpath.agent.addresses import running_pods
from towpath.api.core import Node
from towpath.api.report import BY_BLOCKS, IPAM_MODE, LEAVING, agent_report
from towpath.cli.cluster import ClusterOptions, cluster_options
from towpath.cli.exit import FINDING
from towpath.cli.ipam_ask import ask, with_agent
from towpath.cli.output import emit, mark, output_option, table
from towpath.ipam.blocks import Block, read_block
from towpath.ipam.errors import BadBlock
from towpath.ipam.migration import Standing, in_the_way, lacking
from towpath.ipam.pools import Pool, check_pools, read_pool
from towpath.kube.client import Client
from towpath.kube.errors import Conflict, NotFound
from towpath.kube.kinds import IP_POOLS, IPAM_BLOCKS, NODES, PODS
from towpath.model.net import Net
from towpath.policy.selector_parse import parse_selector

MODES = (BY_BLOCKS, "podCIDR")
Row = dict[str, Any]
_EVERY, _TRIES = 2.0, 10
_KINDS = "kubectl apply -f manifests/calico-ipam.yaml (or let Calico bring its kinds)"


@click.command()
@click.option(
    "--to", "wanted", type=click.Choice(MODES), required=True, help="How addresses are to be given."
)
@click.option("--dry-run", is_flag=True, help="Look only; no Node is changed.")
@click.option(
    "--wait", "seconds", type=click.FloatRange(min=0), default=0.0, help="Until all are moved, so long."
)
@cluster_options
@output_option
@click.pass_context
def migrate(
    ctx: click.Context,
    wanted: str,
    dry_run: bool,
    seconds: float,
    kubeconfig: str,
    context: str,
    output: str,
) -> None:
    """Move a cluster between podCIDRs and blocks with pods running: checks, conducts, and says what is left.

    The agents' setting (chart: agent.ipam_mode) is yours to roll out; this verb says when that is safe, and
    does the rest on the Nodes. It can be run any number of times. To podCIDRs nodes are told first to take no
    address of others' any more; pods that have one are named, to be restarted; a node whose agent has the
    setting is let go once nobody has anything of its podCIDRs. Exit code 3: something is left to be done.
    """

    async def work(client: Client) -> tuple[list[str], list[Row]]:
        deadline = time.monotonic() + seconds
        while True:
            found = await (_to_blocks if wanted == BY_BLOCKS else _to_pod_cidrs)(client, change=not dry_run)
            if all(row["moved"] for row in found[1]) or time.monotonic() >= deadline:
                return found
            await asyncio.sleep(_EVERY)

    problems, rows = ClusterOptions(kubeconfig, context).run(work)
    emit({"problems": problems, "nodes": rows}, output, lambda: _screen(problems, rows))
    if problems or not all(row["moved"] for row in rows):
        ctx.exit(FINDING)


async def _to_blocks(client: Client, *, change: bool) -> tuple[list[str], list[Row]]:
    """What hinders all, and each node. Raises KubeError."""
    nodes = (await client.list(NODES)).items
    try:
        pools, bad = await _pools(client)
    except NotFound:
        return [f"there is no kind {IP_POOLS.plural}.{IP_POOLS.group}: {_KINDS}; TP4030"], [
            _row(_standing(node), ["the kinds come first"], moved=False) for node in nodes
        ]
    answers = await ask(client, with_agent(nodes), "check")
    networks = {ip_network(text) for answer in answers.values() for text in answer.pools}
    good, outside = check_pools(pools, sorted(networks, key=str)) if networks else (tuple(pools), ())
    problems = [f"IPPool/{one.name}: {one.problem}; TP4032" for one in (*bad, *outside)]
    problems += lacking(good, sorted(networks, key=str))
    rows = []
    for node in nodes:
        one, answer = _standing(node), answers.get(node.metadata.name)
        todo = [f"{p.code} {p.object} {p.message}" for p in answer.problems if _blocking(p)] if answer else []
        todo += [answer.error] if answer is not None and answer.error else []
        if one.says == LEAVING and one.runs == BY_BLOCKS and change:
            await _say(client, node, None)  # the agent says ``blocks`` again by itself
        if not one.runs:
            todo.append("no Towpath agent has reported from it: until one has, the others keep to podCIDRs")
        elif one.runs != BY_BLOCKS:
            todo.append("roll out agent.ipam_mode=blocks to it")
        elif one.says != BY_BLOCKS:
            todo.append("its agent marks what is leased: wait, or see towpath status")
        rows.append(_row(one, todo, moved=one.says == one.runs == BY_BLOCKS))
    return problems, rows


async def _to_pod_cidrs(client: Client, *, change: bool) -> tuple[list[str], list[Row]]:
    """As above. A Node is let go only if what is in the way was looked for after it said that it leaves."""
    nodes = (await client.list(NODES)).items
    for node in nodes:
        if _standing(node).says == BY_BLOCKS and change:
            await _say(client, node, LEAVING)
    # An agent's answer says that it has seen what was said on Nodes before: it takes nothing new by now.
    by_blocks = with_agent(node for node in nodes if _standing(node).runs == BY_BLOCKS)
    answers = await ask(client, by_blocks, "show")
    unheard = [f"Node/{name}: {answer.error}" for name, answer in answers.items() if answer.error]
    blocks = await _blocks(client)
    pods = running_pods((await client.list(PODS)).items) or ()
    rows = []
    for node in nodes:
        one = _standing(node)
        todo = in_the_way(one, blocks, pods) if one.says else []
        if one.says == BY_BLOCKS:
            todo.insert(0, "it is not told yet that it is to take no others' addresses")
        elif one.says == LEAVING and one.runs == BY_BLOCKS:
            todo.append("roll out agent.ipam_mode=podCIDR to it, once nothing else is in the way of any node")
        elif one.says == LEAVING and not todo and not unheard and change and await _say(client, node, None):
            one = Standing(name=one.name, runs=one.runs, pod_cidrs=one.pod_cidrs)
        rows.append(_row(one, todo, moved=not one.says and one.runs != BY_BLOCKS))
    return unheard, rows


def _blocking(problem: Any) -> bool:
    return problem.severity == "error" and not problem.mendable


async def _say(client: Client, node: Node, mode: str | None) -> bool:
    """Whether it was said; not where the Node says something else than it did. Raises KubeError."""
    before = _standing(node).says
    for _ in range(_TRIES):
        now = await client.get(NODES, node.metadata.name)
        if _standing(now).says != before:
            return False
        meta = {"resourceVersion": now.metadata.resource_version, "annotations": {IPAM_MODE: mode}}
        with contextlib.suppress(Conflict):
            await client.patch(NODES, node.metadata.name, {"metadata": meta})
            return True
    return False


async def _pools(client: Client) -> tuple[list[Pool], list[BadBlock]]:
    good: list[Pool] = []
    bad: list[BadBlock] = []
    for obj in (await client.list(IP_POOLS)).items:
        try:
            if pool := read_pool(obj, lambda text, labels: parse_selector(text).matches(labels)):
                good.append(pool)
        except BadBlock as error:
            bad.append(error)
    return good, bad


async def _blocks(client: Client) -> dict[Net, Block]:
    """Raises BadBlock: what cannot be read may be in the way."""
    with contextlib.suppress(NotFound):
        found = [read_block(obj) for obj in (await client.list(IPAM_BLOCKS)).items]
        return {block.cidr: block for block in found}
    return {}


def _standing(node: Node) -> Standing:
    report = agent_report(node)
    runs = "" if report is None else BY_BLOCKS if report.leased is not None else "podCIDR"
    says = (node.metadata.annotations or {}).get(IPAM_MODE, "")
    return Standing(name=node.metadata.name, says=says, runs=runs, pod_cidrs=tuple(_cidrs(node)))


def _cidrs(node: Node) -> Iterable[Net]:
    for text in node.spec.pod_cidrs or [node.spec.pod_cidr]:
        with contextlib.suppress(ValueError):
            yield ip_network(text)


def _row(one: Standing, todo: list[str], *, moved: bool) -> Row:
    return {"node": one.name, "agent": one.runs, "says": one.says, "moved": moved, "left": todo}


def _screen(problems: list[str], rows: list[Row]) -> str:
    lines = [
        [r["node"], r["agent"] or "-", r["says"] or "-", mark("moved", "ok") if r["moved"] else "not yet"]
        for r in rows
    ]
    screen = table(["NODE", "AGENT", "NODE-SAYS", "STATE"], lines)
    screen += "".join(f"\n  {mark('!', 'error')} {text}" for text in problems)
    for row in rows:
        screen += "".join(f"\n  {mark('!', 'warning')} {row['node']}: {text}" for text in row["left"])
    return screen
