"""``towpath node``: take the node this runs on over from Canal, or hand it back. As root, in its network."""

import asyncio
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, NoReturn

import click
import yaml

from towpath.agent.config import ConfigError, Settings, load
from towpath.cli.cluster import cluster_options
from towpath.cli.exit import FINDING, PRECONDITION, USAGE, CliError
from towpath.cli.output import emit, formats_option, mark, progress, progress_done
from towpath.install import migration
from towpath.install.render import to_yaml
from towpath.install.values import ValuesError, values
from towpath.kernel.port import KernelRefused
from towpath.kube import config as kube_config
from towpath.kube.client import Client
from towpath.migrate.cluster import ApiCluster
from towpath.migrate.journal import FILE, Journal
from towpath.migrate.node import Node, Stopped
from towpath.migrate.place import Place
from towpath.migrate.plan import Direction
from towpath.migrate.run import Migration, Options, Prepared
from towpath.model.finding import Finding

_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def command() -> None:
    """Take the node this runs on over from Canal, with its pods running, or hand it back.

    Both run on the node as root, in its network and process namespaces (`towpath node job` prints a Job that
    does). Killed at any moment, they go on when they are given again; a takeover can be handed back from any
    step. docs/guides/migrate-from-canal.md tells all of it.
    """


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What both verbs take."""
    for option in (
        click.option("--config", default="", help="The agent's configuration file."),
        click.option("--state-dir", type=_FOLDER, help="The agent's state folder (default: its setting)."),
        click.option("--cni-conf", type=_FOLDER, default="/etc/cni/net.d", show_default=True),
        click.option("--cni-bin", type=_FOLDER, default="/opt/cni/bin", show_default=True),
        click.option("--cni-state", type=_FOLDER, default="/var/lib/cni", show_default=True),
        click.option("--patience", default=600.0, show_default=True, help="Seconds to wait for others."),
        click.option("--label/--no-label", default=True, help="Move the DaemonSets by the Node's label."),
        click.option("--dry-run", is_flag=True, help="Print what was found and what would be done."),
        formats_option("table", "json", "yaml"),
        cluster_options,
    ):
        function = option(function)
    return function


@command.command()
@_options
@click.option("--allow", multiple=True, metavar="CODE", help="Go on in spite of findings with this code.")
def takeover(allow: tuple[str, ...], **options: Any) -> None:
    """Make Canal's pods on this node Towpath's, and remove what Canal has in the kernel.

    Pods keep their addresses and connections. Towpath's rules are in force before Canal's go.
    """
    _run("takeover", Options(allow=frozenset(allow), **_chosen(options)), **options)


@command.command()
@_options
@click.option("--canal-conflist", type=_FILE, help="Canal's conflist, where this node never had it.")
def handback(canal_conflist: Path | None, **options: Any) -> None:
    """Make Towpath's pods on this node Canal's, and remove what Towpath has in the kernel.

    Canal's rules are in force before Towpath's go: with --no-label, see that its pod gets to the node.
    """
    _run("handback", Options(canal_conflist=canal_conflist, **_chosen(options)), **options)


@command.command()
@click.argument("direction", type=click.Choice(["takeover", "handback"]))
@click.argument("node")
@click.option(
    "--values", "file", type=_FILE, help="The installation's values, as for `towpath install render`."
)
def job(direction: Literal["takeover", "handback"], node: str, file: Path | None) -> None:
    """Print a Job that runs one of the two on NODE, ready for `kubectl apply -f -`."""
    try:
        chosen = values(yaml.safe_load(file.read_bytes()) if file else None)
    except (yaml.YAMLError, ValuesError, OSError) as wrong:
        raise CliError(f"{file}: {' '.join(str(wrong).split())}", USAGE) from wrong
    click.echo(to_yaml(migration.job(chosen, direction, node)), nl=False)


def _chosen(options: dict[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in ("label", "patience")}


def _run(direction: Direction, options: Options, **given: Any) -> None:
    if os.geteuid() != 0:
        raise CliError(f"towpath node {direction} needs root on the node: it changes other programs' rules")
    settings = _settings(given)
    place = Place(
        cni_conf=given["cni_conf"],
        cni_bin=given["cni_bin"],
        cni_state=given["cni_state"],
        state_dir=given["state_dir"] or settings.state_dir,
        owner=(settings.run_as_uid, settings.run_as_gid),
    )

    def connect() -> Client:
        access = kube_config.load(given["kubeconfig"] or settings.kubeconfig, given["context"])
        return Client(access, user_agent="towpath-node")

    try:
        node = Node(
            place,
            ApiCluster(connect, settings.node_name),
            settings.boot_id_file.read_text().strip(),
            masquerade=settings.masquerade,
            tell=progress,
        )
    except (KernelRefused, OSError) as error:
        raise CliError(str(error)) from error
    runner = Migration(node, options, _tell)
    try:
        with Journal(place.state_dir / FILE).locked():
            _migrate(runner, direction, given)
    except BlockingIOError:
        raise CliError("another towpath node takeover or handback runs on this node: wait for it") from None
    finally:
        progress_done()
        node.close()


def _migrate(runner: Migration, direction: Direction, given: dict[str, Any]) -> None:
    try:
        prepared = asyncio.run(runner.prepare(direction))
    except Stopped as stopped:
        _refuse(stopped.findings, "nothing was changed")
    if given["dry_run"]:
        emit(_as_data(prepared), given["output"], lambda: _as_text(prepared))
        if prepared.refused:
            raise click.exceptions.Exit(FINDING)
        return
    for warning in prepared.warnings:
        click.echo(f"{mark('warning', 'warning')} {warning}", err=True)
    if prepared.refused:
        _refuse(prepared.refused, "nothing was changed")
    try:
        asyncio.run(runner.carry_out(prepared))
    except Stopped as stopped:
        progress_done()
        _refuse(stopped.findings, "what is done stays done: give the command again, or the other one")
    progress_done()
    emit(_as_data(prepared), given["output"], lambda: _outcome(prepared))


def _settings(given: dict[str, Any]) -> Settings:
    """The agent's own settings, so that both mean the same node, state and cluster."""
    try:
        return load({"config": given["config"]} if given["config"] else {})
    except ConfigError as error:
        raise CliError("the agent's settings: " + "; ".join(error.problems), USAGE) from error


def _tell(number: int, count: int, text: str) -> None:
    progress_done()
    click.echo(f"{number:2}/{count} {text}", err=True)


def _refuse(findings: Iterable[Finding], consequence: str) -> NoReturn:
    lines = [str(finding) for finding in findings]
    raise CliError("\n  ".join([f"stopped ({consequence}):", *lines]), PRECONDITION)


def _outcome(prepared: Prepared) -> str:
    if not prepared.plan:
        return "nothing to do: it is done already"
    whose = "Towpath's" if prepared.direction == "takeover" else "Canal's"
    return f"this node and its pods are {whose} ({len(prepared.plan)} steps)"


def _as_data(prepared: Prepared) -> dict[str, Any]:
    return {
        "direction": prepared.direction,
        "resumed": prepared.resumed,
        "found": list(prepared.found),
        "steps": [
            {
                "number": number,
                "step": type(step).__name__,
                "what": step.describe(),
                "done": number - 1 in prepared.done,
            }
            for number, step in enumerate(prepared.plan, 1)
        ],
        "warnings": [str(finding) for finding in prepared.warnings],
        "refused": [str(finding) for finding in prepared.refused],
    }


def _as_text(prepared: Prepared) -> str:
    lines = [f"found: {line}" for line in prepared.found]
    lines += [
        f"{number:2} {step.describe()}" + (" (done)" if number - 1 in prepared.done else "")
        for number, step in enumerate(prepared.plan, 1)
    ]
    lines += [f"{mark('warning', 'warning')} {finding}" for finding in prepared.warnings]
    lines += [f"{mark('refused', 'error')} {finding}" for finding in prepared.refused]
    return "\n".join(lines)
