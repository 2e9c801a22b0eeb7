"""``towpath install``: the manifests, and whether a cluster has them."""

import asyncio
from pathlib import Path
from typing import Any

import click
import yaml

from towpath.cli.cluster import ClusterOptions, cluster_options
from towpath.cli.exit import FINDING, USAGE, CliError
from towpath.cli.output import emit, mark, output_option, table
from towpath.install.compare import differences
from towpath.install.render import Object, render, to_yaml
from towpath.install.rke2 import helm_chart
from towpath.install.values import Values, ValuesError, values
from towpath.kube.client import Client
from towpath.kube.errors import NotFound
from towpath.kube.kinds import Kind, Raw

_PLURALS = {
    "ServiceAccount": "serviceaccounts",
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
    "ConfigMap": "configmaps",
    "DaemonSet": "daemonsets",
    "Service": "services",
    "ServiceMonitor": "servicemonitors",
    "PrometheusRule": "prometheusrules",
}

_values_option = click.option(
    "--values",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML with what to choose (networks, backend, image…); without it, the defaults.",
)


@click.group()
def command() -> None:
    """Towpath's manifests: print them, or compare a cluster with them."""


@command.command("render")
@_values_option
def render_command(file: Path | None) -> None:
    """Print all objects as YAML, ready for `kubectl apply -f -`."""
    click.echo(to_yaml(render(_read(file))), nl=False)


@command.command("rke2")
@_values_option
@click.option("--registry", default="", help="Where images come from instead: system-default-registry.")
def rke2_command(file: Path | None, registry: str) -> None:
    """Print a HelmChart for RKE2's and K3s' manifests folder, the chart in it (`cni: none`)."""
    click.echo(to_yaml((helm_chart(_read(file), registry),)), nl=False)


@command.command("check")
@_values_option
@cluster_options
@output_option
@click.pass_context
def check_command(ctx: click.Context, file: Path | None, kubeconfig: str, context: str, output: str) -> None:
    """Compare the cluster with what `render` prints, and say whether the DaemonSet is rolled out.

    Exit code 3 when something differs or is not ready.
    """
    objects = render(_read(file))
    rows = ClusterOptions(kubeconfig, context).run(lambda client: _compare(client, objects))
    emit(output=output, data=rows, as_table=lambda: _as_table(rows))
    if any(row["differences"] for row in rows):
        ctx.exit(FINDING)


def _as_table(rows: list[dict[str, Any]]) -> str:
    def state(row: dict[str, Any]) -> str:
        found = row["differences"]
        return mark("; ".join(found), "error") if found else mark("as rendered", "ok")

    return table(["KIND", "NAME", "STATE"], [[row["kind"], row["name"], state(row)] for row in rows])


async def _compare(client: Client, objects: tuple[Object, ...]) -> list[dict[str, Any]]:
    return list(await asyncio.gather(*(_compare_one(client, wanted) for wanted in objects)))


async def _compare_one(client: Client, wanted: Object) -> dict[str, Any]:
    metadata = wanted["metadata"]
    found: list[str]
    try:
        there = await client.get(_kind(wanted), metadata["name"], metadata.get("namespace", ""))
    except NotFound:
        found = ["missing"]
    else:
        found = [*differences(wanted, there), *_not_rolled_out(there)]
    return {"kind": wanted["kind"], "name": metadata["name"], "differences": found}


def _kind(wanted: Object) -> Kind[Raw]:
    group, _, version = wanted["apiVersion"].rpartition("/")
    plural = _PLURALS[wanted["kind"]]
    return Kind(
        plural=plural, type=dict, group=group, version=version, namespaced="namespace" in wanted["metadata"]
    )


def _not_rolled_out(there: Raw) -> list[str]:
    if there.get("kind") != "DaemonSet":
        return []
    status = there.get("status", {})
    wanted = status.get("desiredNumberScheduled", 0)
    counts = {"ready": status.get("numberReady", 0), "up to date": status.get("updatedNumberScheduled", 0)}
    return [f"{number} of {wanted} {what}" for what, number in counts.items() if number != wanted]


def _read(file: Path | None) -> Values:
    try:
        return values(yaml.safe_load(file.read_bytes()) if file else None)
    except (yaml.YAMLError, ValuesError) as wrong:
        raise CliError(f"{file}: {' '.join(str(wrong).split())}", USAGE) from wrong
    except OSError as refused:
        raise CliError(f"{file}: {refused.strerror}", USAGE) from refused
