"""``towpath inventory``."""

from datetime import UTC, datetime

import click
import msgspec

from towpath.cli.cluster import ClusterOptions, cluster_options
from towpath.cli.nodes import NodeOptions, node_options, read
from towpath.cli.output import emit, output_option, progress, progress_done, table
from towpath.inventory.cluster import Inventory
from towpath.inventory.components import is_network
from towpath.kube.client import Client
from towpath.upgrade.survey import survey


@click.command()
@node_options(default=False, churn=0.0)
@cluster_options
@output_option
def command(nodes: NodeOptions, kubeconfig: str, context: str, output: str) -> None:
    """What the cluster's pod network consists of: nodes, versions, charts, policies, addresses.

    With -o json the file that `towpath preflight -f` reads, on this machine or another.
    """
    now = datetime.now(UTC)
    options = ClusterOptions(kubeconfig, context)

    async def look(client: Client) -> Inventory:
        return await read(client, await survey(client, now, progress), options, nodes)

    found = options.run(look)
    progress_done()
    emit(msgspec.to_builtins(found), output, lambda: screen(found))


def screen(found: Inventory) -> str:
    """For a person."""
    lines = [f"{found.server}, {len(found.nodes)} nodes, taken {found.taken}", ""]
    rows = []
    for node in found.nodes:
        facts = node.facts
        role = "server" if node.server else "agent"
        cidrs = ",".join(node.pod_cidrs) or "-"
        rows.append([facts.name, role, facts.release, facts.os, facts.kernel, cidrs, str(node.pods)])
    lines.append(table(["NODE", "ROLE", "KUBELET", "OS", "KERNEL", "POD-CIDRS", "PODS"], rows))
    rows = [
        [f"{part.namespace}/{part.name}", str(image), part.strategy, f"{part.ready}/{part.desired}"]
        for part in found.components
        for image in sorted(set(part.wanted.values()))
        if is_network(image)
    ]
    if rows:
        lines += ["", table(["DAEMONSET", "IMAGE", "UPDATES", "READY"], rows)]
    if found.charts:
        rows = [
            [c.name, c.version or "-", c.failure_policy or "-", "frozen" if c.frozen else "-"]
            for c in found.charts
        ]
        lines += ["", table(["HELMCHART", "VERSION", "ON-FAILURE", "STATE"], rows)]
    counts = [[name, str(count)] for name, count in sorted(found.objects.items()) if count]
    if counts:
        lines += ["", table(["CUSTOM RESOURCE", "OBJECTS"], counts)]
    saved = found.snapshots
    told = "not told" if saved is None else max((one.taken for one in saved), default="never")
    lines += ["", f"etcd saved: {told}", *(f"left out: {why}" for why in found.left_out)]
    return "\n".join(lines)
