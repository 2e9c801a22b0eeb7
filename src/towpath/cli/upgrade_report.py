"""``towpath upgrade report``."""

import time
from pathlib import Path

import click
import msgspec

from towpath.cli.cluster import ClusterOptions, cluster_options
from towpath.cli.exit import USAGE, CliError
from towpath.cli.output import formats_option
from towpath.kube.client import Client
from towpath.kube.errors import KubeError
from towpath.upgrade.conductor import look
from towpath.upgrade.logbook import Logbook, Unreadable
from towpath.upgrade.report import SCHEMA, Report
from towpath.upgrade.report import report as made_of
from towpath.upgrade.report_junit import junit
from towpath.upgrade.report_page import page


async def gather(client: Client) -> Report:
    """From the journal, and from how the cluster is now if it says. Raises ApiError, Unreadable."""
    known = await Logbook(client).read()
    if known is None:
        raise CliError("no upgrade was ever begun here")
    plan, journal = known
    try:
        seen = await look(client, plan)
    except KubeError:
        seen = None  # the DaemonSet is gone, or may not be read: the journal still tells
    return made_of(plan, journal, seen, time.time())


def again(file: Path) -> Report:
    """One that was kept as JSON. Raises CliError."""
    try:
        found = msgspec.json.decode(file.read_bytes(), type=Report)
    except OSError as e:
        raise CliError(f"{file} cannot be read: {e.strerror}", USAGE) from e
    except msgspec.DecodeError as e:
        raise CliError(f"{file} is no report (towpath upgrade report -o json): {e}", USAGE) from e
    if found.schema != SCHEMA:
        raise CliError(f"{file} is of schema {found.schema}; this towpath shows {SCHEMA}", USAGE)
    return found


@click.command()
@click.option(
    "-f", "--file", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write it to FILE."
)
@click.option(
    "--from",
    "kept",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="JSON",
    help="One that was written with -o json, of any upgrade; no cluster is asked.",
)
@cluster_options
@formats_option("html", "json", "junit")
def report(file: Path | None, kept: Path | None, kubeconfig: str, context: str, output: str) -> None:
    """What the last upgrade was and what it cost: who had its turn when, what gates saw, what was lost.

    Also while it runs. The HTML is one file that needs nothing else.
    """
    try:
        found = again(kept) if kept else ClusterOptions(kubeconfig, context).run(gather)
    except Unreadable as e:
        raise CliError(f"TP7403 {e}") from e
    text = rendered(found, output)
    if file is None:
        click.echo(text, nl=False)
        return
    write(file, text)
    click.echo(f"{found.verdict} Report: {file.absolute()}", err=True)


def rendered(found: Report, output: str) -> str:
    """As HTML, JSON or JUnit, with a newline at its end."""
    match output:
        case "json":
            return msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n"
        case "junit":
            return junit(found) + "\n"
    return page(found)


def write(file: Path, text: str) -> None:
    """Raises CliError."""
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as e:
        raise CliError(f"{file} cannot be written: {e.strerror}") from e
