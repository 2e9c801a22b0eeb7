"""``towpath ipam reserve``: addresses that pods get only if they ask for them by name."""

import json
from ipaddress import ip_network
from typing import Any

import click

from towpath.cli.cluster import ClusterOptions, cluster_options
from towpath.cli.exit import CliError
from towpath.cli.output import emit, output_option, table
from towpath.kube.client import Client
from towpath.kube.errors import AlreadyExists, NotFound
from towpath.kube.kinds import IP_RESERVATIONS, Raw
from towpath.model.net import Net

_NO_KIND = (
    "the cluster has no IPReservation (crd.projectcalico.org): Canal and Calico bring it; without them,"
    " kubectl apply -f manifests/ipreservations.yaml"
)


class Cidr(click.ParamType[Net]):
    """An address or a CIDR on the command line."""

    name = "cidr"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Net:
        """Or a usage error that names it."""
        try:
            return ip_network(str(value))
        except ValueError as error:
            self.fail(f"{value!r} is no address and no CIDR: {error}", param, ctx)


@click.command()
@click.argument("cidrs", nargs=-1, type=Cidr())
@click.option("--name", help="Of the IPReservation, which is made or extended.")
@click.option("--remove", is_flag=True, help="Delete the IPReservation --name, or take CIDRS out of it.")
@cluster_options
@output_option
def reserve(
    cidrs: tuple[Net, ...], name: str | None, remove: bool, kubeconfig: str, context: str, output: str
) -> None:
    """Keep CIDRS (or single addresses) from pods that do not ask for them by name; without any, list them.

    They are written to an IPReservation, Calico's kind, which every agent follows. An address that a pod has
    already stays that pod's.
    """
    if (cidrs or remove) and not name:
        raise click.UsageError("--name says which IPReservation is meant")
    if remove or cidrs:
        cluster = ClusterOptions(kubeconfig, context)
        done = cluster.run(lambda client: _write(client, name or "", cidrs, remove))
        click.echo(done, err=True)
    rows = ClusterOptions(kubeconfig, context).run(_listed)
    emit(rows, output, lambda: _screen(rows))


async def _listed(client: Client) -> list[dict[str, Any]]:
    try:
        found = (await client.list(IP_RESERVATIONS)).items
    except NotFound as absent:
        raise CliError(_NO_KIND) from absent
    return [{"name": raw["metadata"]["name"], "reservedCIDRs": _of(raw)} for raw in found]


def _screen(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "nothing is reserved"
    return table(["NAME", "RESERVED"], [[row["name"], ", ".join(row["reservedCIDRs"])] for row in rows])


async def _write(client: Client, name: str, cidrs: tuple[Net, ...], remove: bool) -> str:
    """Make, extend, shorten or delete it. A change by somebody else meanwhile is a conflict, and told."""
    await _listed(client)  # is there the kind?
    texts = [str(net) for net in cidrs]
    try:
        raw = await client.get(IP_RESERVATIONS, name)
    except NotFound as absent:
        if remove:
            raise CliError(f"there is no IPReservation {name}") from absent
        try:
            await client.create(IP_RESERVATIONS, _object(name, texts))
        except AlreadyExists as raced:
            raise CliError(f"somebody made IPReservation {name} at the same time: try again") from raced
        return f"IPReservation {name} reserves {', '.join(texts)}"
    known = _of(raw)
    if remove:
        if missing := [text for text in texts if text not in known]:
            raise CliError(f"IPReservation {name} does not have {', '.join(missing)}: {json.dumps(known)}")
        left = [text for text in known if text not in texts] if texts else []
        if not left:
            await client.delete(IP_RESERVATIONS, name)
            return f"IPReservation {name} is deleted"
    else:
        left = list(dict.fromkeys([*known, *texts]))
    change = {
        "metadata": {"resourceVersion": raw["metadata"]["resourceVersion"]},
        "spec": {"reservedCIDRs": left},
    }
    await client.patch(IP_RESERVATIONS, name, change)
    return f"IPReservation {name} reserves {', '.join(left)}"


def _of(raw: Raw) -> list[str]:
    spec = raw.get("spec")
    cidrs = spec.get("reservedCIDRs") if isinstance(spec, dict) else None
    return [str(text) for text in cidrs] if isinstance(cidrs, list) else []


def _object(name: str, texts: list[str]) -> Raw:
    return {
        "apiVersion": f"{IP_RESERVATIONS.group}/{IP_RESERVATIONS.version}",
        "kind": "IPReservation",
        "metadata": {"name": name},
        "spec": {"reservedCIDRs": texts},
    }
