"""``towpath restore FILE``."""

from collections.abc import Iterable
from pathlib import Path

import click

from towpath.backup.archive import Archive, ArchiveError, unpack
from towpath.backup.bringing import Outcome, bring_back, planned, same_cluster
from towpath.backup.objects import name_of
from towpath.backup.restoring import Step, chosen
from towpath.backup.sections import BY_DEFAULT, NEVER_BACK, SECTIONS
from towpath.cli.backup import summary
from towpath.cli.cluster import ClusterOptions, cluster_options
from towpath.cli.exit import FINDING, USAGE, CliError
from towpath.cli.output import mark, progress, progress_done
from towpath.kube.client import Client


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--only",
    multiple=True,
    metavar="WHAT",
    help="A section, kind (plural) or object (Kind/namespace/name); may be repeated. "
    f"Default: {', '.join(BY_DEFAULT)}.",
)
@click.option("-n", "--namespace", default="", help="Only objects of this namespace.")
@click.option("--dry-run", is_flag=True, help="Show what would be written, and write nothing.")
@click.option("--list", "listing", is_flag=True, help="Show what is in the archive; no cluster is asked.")
@click.option("--other-cluster", is_flag=True, help="Write into another cluster than the archive is of.")
@cluster_options
@click.pass_context
def command(
    ctx: click.Context,
    file: Path,
    only: tuple[str, ...],
    namespace: str,
    dry_run: bool,
    listing: bool,
    other_cluster: bool,
    kubeconfig: str,
    context: str,
) -> None:
    """Bring back what the archive FILE holds: what is missing is created, what differs is put back.

    Nothing is deleted. Every object is a write of its own; one that fails does not stop the others, and is
    named. Exit code 3 when one failed, or with --dry-run when anything would be written.
    """
    archive = _read(file)
    try:
        wanted = chosen(
            archive.objects, only or tuple(_there(archive, SECTIONS if listing else BY_DEFAULT)), namespace
        )
    except ValueError as e:
        raise CliError(f"{file}: {e}", USAGE) from e
    if listing:
        click.echo(f"{summary(archive)}\n\ntaken {archive.manifest.taken} from {archive.manifest.server}\n")
        click.echo("\n".join(sorted(name_of(one.object) for one in wanted)))
        return

    async def work(client: Client) -> tuple[list[Step], list[Outcome]]:
        if not dry_run and not other_cluster and not await same_cluster(client, archive):
            raise CliError(f"TP7202 {file} is not of this cluster; see --dry-run and --other-cluster")
        todo = await planned(client, wanted, progress)
        return todo, [] if dry_run else await bring_back(client, todo, progress)

    todo, outcomes = ClusterOptions(kubeconfig, context).run(work)
    progress_done()
    click.echo(preview(todo) if dry_run else result(todo, outcomes))
    if any(o.error for o in outcomes) or (dry_run and any(step.verb != "same" for step in todo)):
        ctx.exit(FINDING)


def _read(file: Path) -> Archive:
    try:
        return unpack(file.read_bytes())
    except OSError as e:
        raise CliError(f"{file} cannot be read: {e.strerror}", USAGE) from e
    except ArchiveError as e:
        raise CliError(f"TP7201 {file}: {e}", USAGE) from e


def _there(archive: Archive, sections: Iterable[str]) -> list[str]:
    """Of some sections those that the archive has anything of."""
    found = {one.entry.section for one in archive.objects} - NEVER_BACK
    return [name for name in sections if name in found]


def preview(todo: list[Step]) -> str:
    """What would be written, with differences."""
    lines = []
    for step in todo:
        if step.verb != "same":
            lines.append(step.describe())
            lines += [f"    {line}" for line in step.difference.splitlines()]
    same = sum(step.verb == "same" for step in todo)
    return "\n".join([*lines, f"{len(todo) - same} to write, {same} already as in the archive"])


def result(todo: list[Step], outcomes: list[Outcome]) -> str:
    """What was written."""
    lines = [
        f"{mark('✗', 'error')} {o.step.describe()}: {o.error}"
        if o.error
        else f"{mark('✓', 'ok')} {o.step.describe()}"
        for o in outcomes
    ]
    failed = sum(bool(o.error) for o in outcomes)
    same = sum(step.verb == "same" for step in todo)
    lines.append(f"{len(outcomes) - failed} written, {failed} failed, {same} already as in the archive")
    return "\n".join(lines)
