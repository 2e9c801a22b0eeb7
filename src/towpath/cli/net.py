"""``towpath net …``: networks that pods can ask for, what a pod has of them, and what is wrong."""

from collections.abc import Callable
from typing import Any

import click
import msgspec

from towpath.agent.network_definitions import DEFINITIONS
from towpath.agent.setting import Rejected, words
from towpath.api.core import Pod
from towpath.api.networks import NetworkAttachmentDefinition
from towpath.cli.cluster import ClusterOptions, cluster_options
from towpath.cli.exit import FINDING, CliError
from towpath.cli.output import emit, formats_option, mark, output_option, table
from towpath.kube.client import Client
from towpath.kube.errors import Forbidden, NotFound
from towpath.kube.kinds import CONFIG_MAPS, PODS
from towpath.model.finding import Finding
from towpath.multinet.choose import NetworkSettings
from towpath.multinet.confine import PATHS, TYPES, Confinement
from towpath.multinet.overview import Described, Networks, attached

_SETTINGS = ("kube-system", "towpath-config", "agent.yaml")
_STATES = {"info": "ok", "warning": "warning", "error": "error"}


@click.group()
def command() -> None:
    """Networks beside the pod network: NetworkAttachmentDefinitions, and the pods that ask for them."""


def namespace_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """``-n NAMESPACE``; without it all namespaces."""
    return click.option("-n", "--namespace", default="", help="Only of this namespace (default: all).")(
        function
    )


@command.command("ls")
@namespace_option
@cluster_options
@output_option
def list_networks(namespace: str, kubeconfig: str, context: str, output: str) -> None:
    """The networks there are: plugins, where addresses come from, how many pods ask for each."""
    networks, pods = ClusterOptions(kubeconfig, context).run(_read)
    found = [
        one for one in networks.described(pods) if not namespace or one.network.startswith(f"{namespace}/")
    ]
    emit([msgspec.to_builtins(one) for one in found], output, lambda: _networks(found))


def _networks(found: list[Described]) -> str:
    rows = []
    for one in found:
        state = mark(f"{one.code}: {one.problem}", "error") if one.code else mark("ok", "ok")
        plugins = "(on the nodes)" if one.on_nodes else ",".join(one.plugins)
        rows.append(
            [one.network, plugins or "-", one.addresses or "-", one.version or "-", str(one.pods), state]
        )
    return table(["NETWORK", "PLUGINS", "ADDRESSES", "CNI", "PODS", "STATE"], rows) if rows else "no networks"


@command.command()
@click.argument("pod")
@click.option("-n", "--namespace", default="default", show_default=True, help="The pod's namespace.")
@cluster_options
@output_option
def show(pod: str, namespace: str, kubeconfig: str, context: str, output: str) -> None:
    """The interfaces of POD: networks, addresses, MAC, MTU, gateways, as its network-status has them."""
    space, _, name = pod.rpartition("/")

    async def read(client: Client) -> Pod:
        try:
            return await client.get(PODS, name, space or namespace)
        except NotFound as error:
            raise CliError(f"there is no pod {space or namespace}/{name}") from error

    found = ClusterOptions(kubeconfig, context).run(read)
    entries = attached(found)
    emit(entries, output, lambda: _interfaces(found, entries))


def _interfaces(pod: Pod, entries: list[dict[str, Any]]) -> str:
    if not entries:
        ips = ", ".join(one.ip for one in pod.status.pod_ips or []) or "no address yet"
        return f"pod {pod.metadata.namespace}/{pod.metadata.name} has the pod network alone: {ips}"
    rows = [
        [
            f"{entry.get('interface', '-')}{' *' if entry.get('default') else ''}",
            str(entry.get("name", "-")),
            ",".join(entry.get("ips") or []) or "-",
            str(entry.get("mac") or "-"),
            str(entry.get("mtu") or "-"),
            ",".join(entry.get("gateway") or []) or "-",
        ]
        for entry in entries
    ]
    return (
        table(["INTERFACE", "NETWORK", "ADDRESSES", "MAC", "MTU", "GATEWAY"], rows)
        + "\n* the default network"
    )


@command.command()
@namespace_option
@cluster_options
@formats_option("table", "json", "yaml")
@click.pass_context
def check(ctx: click.Context, namespace: str, kubeconfig: str, context: str, output: str) -> None:
    """What is wrong with networks, with what pods ask for, and with what they have got.

    Read with the agents' settings, where their ConfigMap can be read. Exit code 3 when there is a finding.
    """
    networks, pods = ClusterOptions(kubeconfig, context).run(_read)
    found = networks.findings([pod for pod in pods if namespace in ("", pod.metadata.namespace)])
    emit([msgspec.to_builtins(one) for one in found], output, lambda: _findings(found, len(pods)))
    if found:
        ctx.exit(FINDING)


def _findings(found: list[Any], pods: int) -> str:
    lines = []
    for one in found:
        lines += [
            f"{mark(one.severity, _STATES[one.severity])} {one.code} {one.object}",
            f"    {one.message}",
            f"    fix: {one.fix}",
        ]
    looked = "1 pod" if pods == 1 else f"{pods} pods"
    counted = "1 finding" if len(found) == 1 else f"{len(found) or 'no'} findings"
    return "\n".join([*lines, f"{looked}: {counted}"])


async def findings(client: Client) -> list[Finding]:
    """What ``check`` finds in a whole cluster; nothing where it has no such networks. Raises ApiError."""
    nads = await _definitions(client)
    if not nads:
        return []
    return Networks(nads, await _settings(client)).findings((await client.list(PODS)).items)


async def _read(client: Client) -> tuple[Networks, list[Pod]]:
    nads = await _definitions(client)
    if nads is None:
        click.echo(
            "towpath: the cluster has no NetworkAttachmentDefinitions: the kind is not installed", err=True
        )
    return Networks(nads or [], await _settings(client)), (await client.list(PODS)).items


async def _definitions(client: Client) -> list[NetworkAttachmentDefinition] | None:
    """None where the kind is not installed."""
    try:
        return (await client.list(DEFINITIONS)).items
    except NotFound:
        return None


async def _settings(client: Client) -> NetworkSettings:
    """The agents', as their ConfigMap has them; the defaults where there is none, or it may not be read."""
    namespace, name, key = _SETTINGS
    try:
        data = (await client.get(CONFIG_MAPS, name, namespace)).get("data") or {}
    except (NotFound, Forbidden):
        return NetworkSettings()
    import yaml

    try:
        document = yaml.safe_load(data.get(key, "")) or {}
        given = {k.removeprefix("network_"): v for k, v in document.items() if k.startswith("network_")}
        lists = {
            k: words(given[k]) for k in ("defaults", "global_namespaces", "system_namespaces") if k in given
        }
        confinement = Confinement(
            types=(*TYPES, *words(given.get("types", ()))), paths=(*PATHS, *words(given.get("paths", ())))
        )
        return NetworkSettings(
            namespace=str(given.get("namespace", "kube-system")),
            isolation=bool(given.get("isolation", False)),
            confinement=confinement,
            **lists,
        )
    except (yaml.YAMLError, Rejected, AttributeError) as error:
        raise CliError(f"ConfigMap {namespace}/{name}: {key} cannot be read: {error}") from error
