"""``towpath status``: one screen that says whether the pod network is in order."""

from typing import Any

import click

from towpath.api.core import Node, Pod
from towpath.api.report import agent_report
from towpath.cli.cluster import ClusterOptions, cluster_options
from towpath.cli.exit import FINDING
from towpath.cli.output import emit, mark, output_option, table
from towpath.kube.client import Client
from towpath.kube.kinds import NODES, PODS

_NAMED = 3
ANNOTATION = "flannel.alpha.coreos.com/"


def condition(node: Node, kind: str) -> str:
    """A node condition's status, "Unknown" where it is absent."""
    return next((c.status for c in node.status.conditions or [] if c.type == kind), "Unknown")


def describe_node(node: Node, pods: list[Pod]) -> dict[str, Any]:
    """One node as plain data: what the API says, and what its agent says."""
    report = agent_report(node)
    annotations = node.metadata.annotations or {}
    cidrs = node.spec.pod_cidrs or ([node.spec.pod_cidr] if node.spec.pod_cidr else [])
    local = [p for p in pods if p.spec.node_name == node.metadata.name and not p.spec.host_network]
    problems = []
    if condition(node, "Ready") != "True":
        problems.append("node is not Ready")
    if condition(node, "NetworkUnavailable") != "False":
        problems.append("NetworkUnavailable is not False")
    if report is None:
        problems.append("no report from an agent")
    else:
        problems += [f"differs: {line}" for line in report.drift] + list(report.findings)
        if not report.ready:
            problems.append("agent is not ready")
    return {
        "node": node.metadata.name,
        "agent": report.version if report else "",
        "backend": annotations.get(ANNOTATION + "backend-type", ""),
        "tunnel": [
            annotations[ANNOTATION + key]
            for key in ("public-ip", "public-ipv6")
            if annotations.get(ANNOTATION + key)
        ],
        "podCIDRs": cidrs,
        "pods": len(local),
        "podsWithoutAddress": sum(not p.status.pod_ip and p.status.phase == "Pending" for p in local),
        "problems": problems,
    }


def as_table(nodes: list[dict[str, Any]]) -> str:
    """The screen."""
    rows = []
    for n in nodes:
        state = mark("ok", "ok") if not n["problems"] else mark(f"{len(n['problems'])} problem(s)", "error")
        waiting = f" ({n['podsWithoutAddress']} waiting)" if n["podsWithoutAddress"] else ""
        rows.append(
            [
                n["node"],
                state,
                n["agent"] or "-",
                n["backend"] or "-",
                ",".join(n["tunnel"]) or "-",
                ",".join(n["podCIDRs"]) or "-",
                f"{n['pods']}{waiting}",
            ]
        )
    screen = table(["NODE", "STATE", "AGENT", "BACKEND", "TUNNEL", "POD-CIDRS", "PODS"], rows)
    having: dict[str, list[str]] = {}
    for n in nodes:
        for problem in n["problems"]:
            having.setdefault(problem, []).append(n["node"])
    for problem, names in having.items():  # a policy's is every node's
        who = f"all {len(names)} nodes" if len(names) == len(nodes) > _NAMED else ", ".join(names[:_NAMED])
        rest = f" and {len(names) - _NAMED} more" if len(nodes) > len(names) > _NAMED else ""
        screen += f"\n  {mark('!', 'error')} {who}{rest}: {problem}"
    return screen


@click.command()
@cluster_options
@output_option
@click.pass_context
def command(ctx: click.Context, kubeconfig: str, context: str, output: str) -> None:
    """Nodes, agents, addresses, findings. Exit code 3 when something is not in order."""

    async def gather(client: Client) -> list[dict[str, Any]]:
        nodes, pods = await client.list(NODES), await client.list(PODS)
        return [describe_node(n, pods.items) for n in sorted(nodes.items, key=lambda n: n.metadata.name)]

    nodes = ClusterOptions(kubeconfig, context).run(gather)
    emit(nodes, output, lambda: as_table(nodes) if nodes else "no nodes")
    if not nodes or any(n["problems"] for n in nodes):
        ctx.exit(FINDING)
