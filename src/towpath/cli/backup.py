"""``towpath backup FILE``."""

from pathlib import Path

import click

from towpath.backup.archive import Archive, pack
from towpath.backup.saving import save
from towpath.backup.sections import SECTIONS
from towpath.cli.archive_file import refuse_unwritable, write_whole
from towpath.cli.cluster import ClusterOptions, cluster_options
from towpath.cli.exit import FINDING
from towpath.cli.nodes import NodeOptions, node_options, reports_of
from towpath.cli.output import mark, progress, progress_done, table
from towpath.kube.client import Client


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@node_options(default=False, churn=0.0)
@cluster_options
@click.pass_context
def command(
    ctx: click.Context, file: Path, force: bool, nodes: NodeOptions, kubeconfig: str, context: str
) -> None:
    """Save what the pod network was told (policies, networks, charts, settings) in the archive FILE.

    With --read-nodes also what every node holds: rules, routes, tunnels, leases, configurations, versions.
    Kubernetes has no snapshot over several kinds: everything is read twice, and what changed between the two
    is named. Exit code 3 when a kind, or a node, could not be read.
    """
    refuse_unwritable(file, force=force)
    options = ClusterOptions(kubeconfig, context)

    async def work(client: Client) -> tuple[Archive, dict[str, str]]:
        reports, unread = await reports_of(client, options, nodes) if nodes.wanted else ({}, {})
        return await save(client, progress, reports), unread

    archive, unread = options.run(work)
    progress_done()
    write_whole(file, pack(archive))
    click.echo(summary(archive))
    for node, why in unread.items():
        click.echo(f"{mark('✗', 'error')} node {node} was not looked at: {why}")
    click.echo(f"\n{len(archive.objects)} objects of {archive.manifest.server} in {file}")
    if archive.manifest.left_out or unread:
        ctx.exit(FINDING)


def summary(archive: Archive) -> str:
    """How much of what is in an archive, and what to know about it."""
    counts = dict.fromkeys(SECTIONS, 0)
    for one in archive.objects:
        counts[one.entry.section] += 1
    rows = [[name, str(counts[name]), SECTIONS[name]] for name in SECTIONS]
    lines = [table(["SECTION", "OBJECTS", ""], rows)]
    if archive.manifest.moved:
        lines.append(
            f"{mark('!', 'warning')} changed while it was saved: {', '.join(archive.manifest.moved)}"
        )
    lines += [f"{mark('✗', 'error')} left out: {why}" for why in archive.manifest.left_out]
    return "\n".join(lines)
