"""``towpath upgrade freeze|unfreeze|node-plans``: RKE2's own node upgrades, with the network held back."""

import click

from towpath.catalogue.model import CHARTS, Catalogue
from towpath.cli.cluster import ClusterOptions, cluster_options
from towpath.cli.exit import USAGE, CliError
from towpath.cli.releases import catalogue_of, release_of
from towpath.inventory.cluster import helm_chart
from towpath.inventory.components import components, is_network
from towpath.kube.client import Client
from towpath.kube.errors import NotFound
from towpath.kube.kinds import DAEMONSETS, Raw
from towpath.upgrade.charts import HELM_CHARTS, set_frozen
from towpath.upgrade.node_plans import may_look, node_plans
from towpath.upgrade.survey import SYSTEM
from towpath.upgrade.window import WindowError


async def _charts(client: Client) -> list[Raw]:
    try:
        found = (await client.list(HELM_CHARTS, SYSTEM)).items
    except NotFound:
        found = []
    own = [raw for raw in found if raw["metadata"]["name"] in CHARTS]
    if not own:
        raise CliError("this cluster has no HelmChart of a pod network: there is nothing to hold back")
    return own


@click.command()
@cluster_options
def freeze(kubeconfig: str, context: str) -> None:
    """Hold the pod network back while RKE2's nodes are upgraded: helm-controller leaves its charts alone."""

    async def work(client: Client) -> list[str]:
        names = [raw["metadata"]["name"] for raw in await _charts(client)]
        for name in names:
            await set_frozen(client, name, SYSTEM, frozen=True)
        return names

    names = ClusterOptions(kubeconfig, context).run(work)
    click.echo(f"frozen: {', '.join(names)}; `towpath upgrade unfreeze` when the network has been upgraded")


@click.command()
@click.option("--force", is_flag=True, help="Also where helm will roll the network at once.")
@cluster_options
def unfreeze(force: bool, kubeconfig: str, context: str) -> None:
    """Give the charts back to helm-controller, if that rolls nothing: what runs is what they hold."""
    known = catalogue_of(None)

    async def work(client: Client) -> list[str]:
        charts = await _charts(client)
        daemonsets = (await client.list(DAEMONSETS, SYSTEM)).items
        for raw in charts:
            if not force and (why := _would_roll(known, raw, daemonsets)):
                raise CliError(f"TP7405 {why}: upgrade the network first, or say --force")
        for raw in charts:
            await set_frozen(client, raw["metadata"]["name"], SYSTEM, frozen=False)
        return [raw["metadata"]["name"] for raw in charts]

    click.echo(f"not frozen any more: {', '.join(ClusterOptions(kubeconfig, context).run(work))}")


def _would_roll(known: Catalogue, raw: Raw, daemonsets: list[Raw]) -> str:
    """In what the chart is not what runs; empty if it is."""
    chart = helm_chart(raw)
    of = next((one for one in reversed(known.ordered) if one.charts.get(chart.name) == chart.version), None)
    if of is None:
        return (
            f"HelmChart {chart.name} is of {chart.version or 'no version that it tells'}, which is not known"
        )
    for part in components(daemonsets, ()):
        if part.name != chart.name:
            continue
        for image in part.wanted.values():
            if is_network(image) and image.name in of.images and image.tag != of.images[image.name]:
                return f"{part.object} has {image}, the chart {chart.version} has {of.images[image.name]}"
    return ""


@click.command("node-plans")
@click.option("--to", "target", required=True, metavar="RELEASE", help="The RKE2 release of the nodes.")
@click.option("--drain", is_flag=True, help="Drain each node before.")
@click.option("--window", default="", metavar="TEXT", help="Only then: 'Sat 22:00-04:00 UTC'.")
@click.option(
    "--chart", "charts", multiple=True, default=("rke2-canal",), show_default=True, help="Held back ones."
)
def plans(target: str, drain: bool, window: str, charts: tuple[str, ...]) -> None:
    """Plans for system-upgrade-controller that upgrade RKE2's nodes while the pod network is held back.

    With them, the right of its Jobs to look whether it is held back.

    Give `towpath upgrade freeze` first, then apply these, then conduct the network's own upgrade, then
    `towpath upgrade unfreeze`. A server is not upgraded while a chart is not frozen.
    """
    import yaml

    release = release_of(catalogue_of(None), target)
    try:
        made = [*may_look(charts), *node_plans(release.release, charts, drain=drain, window=window)]
    except WindowError as e:
        raise CliError(f"TP7407 --window: {e}", USAGE) from e
    click.echo(yaml.safe_dump_all(made, sort_keys=False), nl=False)
