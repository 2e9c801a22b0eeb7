"""``towpath ipam check``: leaks, orphans, addresses used twice; and the mending of what can be mended."""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

import click
import msgspec

from towpath.api.ipam_inquiry import Answer, ProblemSeen
from towpath.cli.cluster import ClusterOptions, cluster_options
from towpath.cli.exit import FINDING, INCONCLUSIVE
from towpath.cli.ipam_ask import NO_AGENT, ask, with_agent
from towpath.cli.ipam_check_blocks import check_blocks
from towpath.cli.ipam_files import read_files
from towpath.cli.nodes import NodeOptions, node_options
from towpath.cli.output import emit, mark, output_option, table
from towpath.kube.client import Client
from towpath.kube.kinds import NODES, PODS
from towpath.model.net import Addr


@click.command()
@click.option("--fix", is_flag=True, help="Mend what can be mended; without it nothing is changed.")
@click.option("--node", "only", multiple=True, help="Only this node (may be repeated).")
@node_options(default=False, churn=0.0)
@cluster_options
@output_option
@click.pass_context
def check(
    ctx: click.Context,
    fix: bool,
    only: tuple[str, ...],
    nodes: NodeOptions,
    kubeconfig: str,
    context: str,
    output: str,
) -> None:
    """Every node's leases against its kernel and the API server, and block mode's objects against each other.

    What is found is what --fix would mend, and what only an operator can: it is the dry run of itself.
    Nothing that a running pod uses is ever freed. With --read-nodes host-local's files are looked at as well,
    on nodes of stock Canal too; these are only told. Exit code 3: something is wrong (with --fix: still); 6:
    a node could not be asked.
    """
    options = ClusterOptions(kubeconfig, context)

    async def gather(client: Client) -> tuple[dict[str, Answer], dict[str, Answer], dict[str, Any] | None]:
        known = (await client.list(NODES)).items
        if unknown := sorted(set(only) - {node.metadata.name for node in known}):
            raise click.UsageError(f"there is no node {', '.join(unknown)}", ctx)
        known = [node for node in known if not only or node.metadata.name in only]
        found = await ask(client, with_agent(known), "check")
        blocks = await check_blocks(client, _routed(found), fix=fix) if not only else None
        absent = {node.metadata.name for node in known} - found.keys()
        found |= {name: Answer(nonce="", error=NO_AGENT) for name in absent}
        if nodes.wanted:
            pods = (await client.list(PODS)).items
            leaked, unread = await read_files(client, options, nodes, sorted(found), pods)
            found = {name: _with_files(found[name], leaked.get(name), unread.get(name, "")) for name in found}
        broken = [name for name, answer in found.items() if any(p.mendable for p in answer.problems)]
        return dict(sorted(found.items())), await ask(client, broken, "mend") if fix else {}, blocks

    found, mended, blocks = options.run(gather)
    rows = [_row(node, answer, mended.get(node)) for node, answer in found.items()]
    if blocks is not None:
        rows.append(blocks)
    emit(rows, output, lambda: _screen(rows))
    if any(row["error"] for row in rows):
        ctx.exit(INCONCLUSIVE)
    if any(row["left"] if fix else row["problems"] for row in rows):
        ctx.exit(FINDING)


def _routed(found: Mapping[str, Answer]) -> dict[str, frozenset[Addr]]:
    """What the kernels of nodes that answered in full lead to without a lease."""
    return {
        node: frozenset(ip_address(text) for p in answer.problems for text in p.addresses)
        for node, answer in found.items()
        if not answer.error and not answer.more
    }


def _with_files(answer: Answer, leaked: tuple[ProblemSeen, ...] | None, unread: str) -> Answer:
    """What the agent said, and what the files say; where there is no agent, the files are all there is."""
    if leaked is None:
        return msgspec.structs.replace(answer, error="; ".join(filter(None, (answer.error, unread))))
    error = "" if answer.error == NO_AGENT else answer.error
    return msgspec.structs.replace(answer, error=error, problems=(*answer.problems, *leaked))


def _row(node: str, answer: Answer, mended: Answer | None) -> dict[str, Any]:
    """One node as plain data; ``left`` are problems that mending did not end."""
    told = tuple(p for p in answer.problems if p.code == "TP4020")
    after = (*mended.problems, *told) if mended is not None else answer.problems
    return {
        "node": node,
        "error": answer.error or (mended.error if mended is not None else ""),
        "waiting": answer.waiting,
        "collected": (mended or answer).collected,
        "more": answer.more,
        "problems": [_problem(p) for p in answer.problems],
        "mended": list(mended.done) if mended is not None else [],
        "refused": list(mended.refused) if mended is not None else [],
        "left": [_problem(p) for p in after],
    }


def _problem(one: Any) -> dict[str, Any]:
    return {
        "code": one.code,
        "severity": one.severity,
        "object": one.object,
        "message": one.message,
        "addresses": list(one.addresses),
        "fix": one.fix,
        "mendable": one.mendable,
    }


def _screen(rows: list[dict[str, Any]]) -> str:
    lines = []
    for row in rows:
        number = len(row["problems"])
        state = mark(row["error"], "error") if row["error"] else mark("ok", "ok")
        if number:
            state = mark(f"{number + row['more']} problem(s)", "error")
        figures = [row["waiting"], row["collected"], len(row["mended"])]
        lines.append([row["node"], state, *map(str, figures)])
    screen = table(["NODE", "STATE", "IN-GRACE", "COLLECTED", "MENDED"], lines) if lines else "no nodes"
    for row in rows:
        for p in row["problems"]:
            screen += f"\n  {mark('!', 'error')} {row['node']}: {p['code']} {p['object']} {p['message']}"
            screen += f"\n      to mend it: {p['fix']}"
        screen += "".join(f"\n  {mark('✓', 'ok')} {row['node']}: {text}" for text in row["mended"])
        screen += "".join(f"\n  {mark('!', 'error')} {row['node']}: {text}" for text in row["refused"])
    return screen
