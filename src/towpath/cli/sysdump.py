"""``towpath sysdump FILE``."""

from datetime import UTC, datetime
from pathlib import Path

import click

from towpath import __version__
from towpath.backup.saving import save
from towpath.cli.archive_file import refuse_unwritable, write_whole
from towpath.cli.cluster import ClusterOptions, cluster_options
from towpath.cli.exit import FINDING
from towpath.cli.nodes import NodeOptions, node_options, read
from towpath.cli.output import mark, progress, progress_done
from towpath.kube.client import Client
from towpath.sysdump.collect import Dump, collect
from towpath.sysdump.pack import pack, readme
from towpath.upgrade.survey import survey


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@node_options(default=None, churn=5.0)
@cluster_options
@click.pass_context
def command(
    ctx: click.Context, file: Path, force: bool, nodes: NodeOptions, kubeconfig: str, context: str
) -> None:
    """One archive FILE for a bug report: inventory, objects, the network's logs and Events, secrets removed.

    It reads only (and sends a pod to every node that reads there, unless --no-read-nodes). Its README says
    what is in it and what could not be read; exit code 3 in that case.
    """
    refuse_unwritable(file, force=force)
    taken = datetime.now(UTC)
    options = ClusterOptions(kubeconfig, context)

    async def work(client: Client) -> Dump:
        found = await read(client, await survey(client, taken, progress), options, nodes)
        return await collect(client, found, await save(client, progress), progress)

    dump = options.run(work)
    progress_done()
    write_whole(file, pack({**dump.files, "README": readme(dump, __version__, taken)}, taken))
    for why in dump.left_out:
        click.echo(f"{mark('✗', 'error')} left out: {why}")
    click.echo(f"{len(dump.files)} files in {file}; look through it before you send it (README says at what)")
    if dump.left_out:
        ctx.exit(FINDING)
