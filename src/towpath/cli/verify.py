"""``towpath verify``: what runs where, the kernel against the desired state, and who reaches whom."""

import asyncio
import secrets
from typing import Any

import click
import msgspec

from towpath.api.core import Node, Pod
from towpath.api.report import VERIFY, agent_report
from towpath.cli import net, policy_live, verify_live, verify_rollout
from towpath.cli.beside import lab_of
from towpath.cli.cluster import ClusterOptions, cluster_options
from towpath.cli.exit import FINDING, INCONCLUSIVE, CliError
from towpath.cli.nodes import NodeOptions, look_at_nodes, node_options
from towpath.cli.output import emit, mark, output_option, progress, progress_done, table
from towpath.cli.several import contexts_option
from towpath.kube.client import Client
from towpath.kube.kinds import NODES, PODS
from towpath.lab import matrix
from towpath.lab.client import LabClient
from towpath.lab.matrix_policy import by_policy
from towpath.lab.rundir import LabError
from towpath.policy.ir import World
from towpath.policy.world import assemble

ANSWER_WITHIN = 10.0
ASK_EVERY = 0.2
DENIED_WITHIN = 1.0  # what is denied is waited for as long


class NodeVerdict(msgspec.Struct, frozen=True):
    """``state`` ok, differs or silent; ``differences`` are the operations the kernel would need."""

    node: str
    state: str
    differences: tuple[str, ...] = ()


async def compare_kernels(client: Client, on: frozenset[str]) -> list[NodeVerdict]:
    """Have the agents on these nodes observe their kernels afresh; what each would have to change.

    The question is an annotation with a nonce on the Node, the answer one with the same nonce: it needs no
    port open anywhere, and no agent can answer with an old observation.
    """
    nonce = secrets.token_hex(8)
    nodes = [node for node in (await client.list(NODES)).items if node.metadata.name in on]
    for node in nodes:
        await client.patch(NODES, node.metadata.name, {"metadata": {"annotations": {VERIFY: nonce}}})
    verdicts: dict[str, NodeVerdict] = {}
    deadline = asyncio.get_running_loop().time() + ANSWER_WITHIN
    while len(verdicts) < len(nodes) and asyncio.get_running_loop().time() < deadline:
        for node in (await client.list(NODES)).items:
            report = agent_report(node)
            if node.metadata.name in on and report is not None and report.verified == nonce:
                state = "differs" if report.drift else "ok"
                verdicts[node.metadata.name] = NodeVerdict(node.metadata.name, state, report.drift)
        progress(f"kernel against desired state: {len(verdicts)}/{len(nodes)} nodes answered")
        if len(verdicts) < len(nodes):
            await asyncio.sleep(ASK_EVERY)
    progress_done()
    names = sorted(node.metadata.name for node in nodes)
    return [verdicts.get(name) or NodeVerdict(name, "silent") for name in names]


def reach(lab: LabClient, nodes: list[Node], pods: list[Pod], world: World) -> tuple[matrix.Verdict, ...]:
    """Ask the lab to try every cell of the expected table, in which policies have their say."""
    try:
        about = lab.call("inspect")
        cells = by_policy(matrix.expected(nodes, pods, about["outside"]), world, nodes, pods)
        verdicts: list[matrix.Verdict] = []
        for allowed, seconds in ((True, 3.0), (False, DENIED_WITHIN)):
            some = [cell for cell in cells if cell.allowed == allowed]
            probes = matrix.questions(some)
            answers = lab.call("run-in", progress=progress, probes=probes, timeout=seconds) if some else []
            verdicts += matrix.judge(some, answers)
    except LabError as e:
        raise CliError(str(e)) from e
    progress_done()
    return tuple(verdicts)


def matrix_table(verdicts: tuple[matrix.Verdict, ...]) -> str:
    """One row a relation: as expected of asked, per family and protocol; then every cell that failed."""
    columns = sorted({(v.cell.family, v.cell.protocol) for v in verdicts})
    rows = []
    for relation in matrix.RELATIONS:
        row = [relation]
        for family, protocol in columns:
            of = [v for v in verdicts if (v.cell.family, v.cell.protocol) == (family, protocol)]
            of = [v for v in of if v.cell.relation == relation]
            row.append(mark(_counts(of), "error" if any(v.why for v in of) else "ok") if of else "-")
        rows.append(row)
    heads = ["FROM → TO", *(f"IPv{family} {protocol.upper()}" for family, protocol in columns)]
    failed = [v for v in verdicts if v.why]
    lines = [f"  {mark('✗', 'error')} {cell_text(v.cell)}: {v.why}" for v in failed[:20]]
    if len(failed) > len(lines):
        lines.append(f"  and {len(failed) - len(lines)} more (-o json shows all)")
    return "\n".join([table(heads, rows), *lines])


def _counts(verdicts: list[matrix.Verdict]) -> str:
    """``4/4``: as many reached as should; ``4/4, 2/2 denied`` where policies deny some."""
    counts = []
    for allowed, word in ((True, ""), (False, " denied")):
        of = [v for v in verdicts if v.cell.allowed == allowed]
        if of:
            counts.append(f"{sum(not v.why for v in of)}/{len(of)}{word}")
    return ", ".join(counts)


def cell_text(cell: matrix.Cell) -> str:
    """A cell in words."""
    port = f":{cell.port}" if cell.port else ""
    where = f"[{cell.addr}]{port}" if cell.family == 6 else f"{cell.addr}{port}"
    return f"{' '.join(cell.origin)} → {cell.target} {cell.protocol} {where}"


def screen(kernels: list[NodeVerdict], verdicts: tuple[matrix.Verdict, ...] | None) -> str:
    """Kernels and reachability for a person."""
    states = {"ok": "ok", "differs": "error", "silent": "warning"}
    words = {"ok": "kernel equals desired", "silent": f"no answer within {ANSWER_WITHIN:.0f} s"}
    lines = []
    for k in kernels:
        text = words.get(k.state, f"{len(k.differences)} difference(s)")
        lines.append(f"{mark('✓' if k.state == 'ok' else '✗', states[k.state])} {k.node}: {text}")
        lines += [f"    {difference}" for difference in k.differences]
    if verdicts is None:
        return "\n".join(
            [*lines, "", "Who reaches whom is asked in a lab; elsewhere --probes asks on every path."]
        )
    failed = sum(bool(v.why) for v in verdicts)
    text = f"{failed} of {len(verdicts)} failed" if failed else f"all {len(verdicts)} as expected"
    verdict = mark(f"Reachability: {text}", "error" if failed else "ok")
    return "\n".join([*lines, "", matrix_table(verdicts), "", verdict])


def as_data(kernels: list[NodeVerdict], verdicts: tuple[matrix.Verdict, ...] | None) -> dict[str, Any]:
    """The same as plain data."""
    cells = [
        {
            "relation": v.cell.relation,
            "family": v.cell.family,
            "protocol": v.cell.protocol,
            "from": " ".join(v.cell.origin),
            "to": v.cell.target,
            "address": v.cell.addr,
            "port": v.cell.port,
            "expected": "reached" if v.cell.allowed else "denied",
            "ok": not v.why,
            "ms": v.ms,
            "why": v.why,
        }
        for v in verdicts or ()
    ]
    return {"nodes": [msgspec.to_builtins(k) for k in kernels], "reachability": cells}


@click.command()
@contexts_option
@node_options(default=False)
@cluster_options
@click.option(
    "--expect", default="", metavar="RELEASE", help="Every node must run this RKE2 release's images."
)
@click.option("--probes", is_flag=True, help="Ask on every path for ten seconds (see `towpath probe`).")
@output_option
@click.pass_context
def command(
    ctx: click.Context,
    nodes: NodeOptions,
    kubeconfig: str,
    context: str,
    expect: str,
    output: str,
    *,
    probes: bool,
) -> None:
    """What runs on every node, the kernel against desired state, who reaches whom.

    On any cluster: the network's DaemonSets, and the images that run, not those that merely lie there. Where
    Towpath's agents run, they compare their kernels as well; in a lab, every pair of pods is tried, and what
    policies deny must not get through. What `towpath net check` finds of pods' other networks is said, too,
    and lines of the network's logs of the last ten minutes that are known to mean trouble.

    With --probes pods of its own ask six kinds of questions from every node, on all paths, denied ones among
    them, on any cluster.

    With --read-nodes a short-lived pod on every node reads its rules, tunnels, leases, programs and sysctls,
    and looks for --churn seconds whether the rules are rewritten: on Canal as on Towpath.

    Exit code 3 when something differs or cannot be reached, 6 when an agent gave no answer
    or a node cannot be read.
    """

    async def gather(
        client: Client,
    ) -> tuple[verify_rollout.Rollout, list[NodeVerdict], list[Node], list[Pod], World]:
        rollout = await verify_rollout.gather(client, expect)
        rollout = rollout.with_findings(*await verify_live.logs(client))
        if probes:
            probed.append(await verify_live.probes(client, nodes.image, lab))
            rollout = rollout.with_findings(probed[0].findings, probed[0].untold)
        if nodes.wanted:
            rollout = rollout.with_findings(*await look_at_nodes(client, options, nodes))
        if rollout.has_agents:
            rollout = rollout.with_findings(tuple(await net.findings(client)), ())
        kernels = await compare_kernels(client, rollout.with_agents)
        those, pods = (await client.list(NODES)).items, (await client.list(PODS)).items
        world = assemble((await policy_live.gather(client))[0]).world if lab else World()
        return rollout, kernels, those, pods, world

    lab, options = lab_of(kubeconfig, context), ClusterOptions(kubeconfig, context)
    probed: list[verify_live.Probed] = []
    rollout, kernels, those, pods, world = options.run(gather)
    verdicts = reach(lab, those, pods, world) if lab else None
    data = {"rollout": verify_rollout.as_data(rollout), **as_data(kernels, verdicts)}
    if probed:
        data["probes"] = msgspec.to_builtins(probed[0].traffic)
    said = [verify_rollout.screen(rollout), screen(kernels, verdicts), *(one.words for one in probed)]
    emit(data, output, lambda: "\n\n".join(said))
    if any(k.state == "differs" for k in kernels) or any(v.why for v in verdicts or ()):
        ctx.exit(FINDING)
    if any(finding.severity == "error" for finding in rollout.findings):
        ctx.exit(FINDING)
    if not rollout.parts or rollout.untold or any(k.state == "silent" for k in kernels):
        ctx.exit(INCONCLUSIVE)
