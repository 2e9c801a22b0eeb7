"""``towpath lab …``: a cluster on this machine, from namespaces."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from towpath.cli.exit import PRECONDITION, USAGE, CliError
from towpath.cli.output import emit, output_option, progress, progress_done, table
from towpath.lab.client import LabClient
from towpath.lab.rundir import LabError

_DEFINITION = "CustomResourceDefinition"
NAME = click.option("--name", metavar="NAME", help="The lab meant, where several run.")


@click.group()
def command() -> None:
    """A Kubernetes cluster on this machine, built from namespaces: no root, no Docker."""


def _fail(error: LabError) -> NoReturn:
    raise CliError(str(error), PRECONDITION) from error


def verb(function: Callable[..., Any]) -> Callable[..., Any]:
    """Register a subcommand: ``--name``, and LabError as one sentence."""
    import functools

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except LabError as error:
            progress_done()
            _fail(error)

    wrapped.__name__ = function.__name__
    return command.command(name=function.__name__.strip("_").replace("_", "-"))(NAME(wrapped))


@verb
@click.option("--nodes", type=click.IntRange(1, 200), help="How many nodes (3 without a topology).")
@click.option("--topology", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="YAML file.")
@click.option("--ipv4", "families", flag_value="ipv4", help="IPv4 only.")
@click.option("--ipv6", "families", flag_value="ipv6", help="IPv6 only.")
@click.option("--dual", "families", flag_value="dual", help="Both families (the default).")
@click.option(
    "--control-plane",
    type=click.Choice(["embedded", "real"]),
    help="The lab's own API server (the default), or upstream's etcd, API server and controllers.",
)
@click.option(
    "--cni",
    type=click.Choice(["towpath", "canal"]),
    help="Whose the pods' network is: Towpath's (the default), or Canal's, to migrate it.",
)
@click.option(
    "--crds",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CustomResourceDefinitions (YAML) that are there before the agents.",
)
def up(
    name: str | None,
    nodes: int | None,
    topology: Path | None,
    crds: Path | None,
    families: str | None,
    control_plane: str | None,
    cni: str | None,
) -> None:
    """Bring a cluster up; returns when it is Ready, and leaves it running in the background."""
    from towpath.lab.launch import launch
    from towpath.lab.topology import lab_spec

    raw = _documents(topology)[0] if topology else {}
    definitions = tuple(one for one in _documents(crds) if one is not None) if crds else ()
    strange = [one for one in definitions if not isinstance(one, dict) or one.get("kind") != _DEFINITION]
    if strange:
        raise LabError(f"{crds}: there is something else than a {_DEFINITION}", code="TP9004")
    chosen = {"ipv4": ("ipv4",), "ipv6": ("ipv6",), "dual": ("ipv4", "ipv6"), None: None}[families]
    overrides = {"families": chosen, "name": name, "control_plane": control_plane}
    spec = lab_spec(raw, nodes=nodes, **overrides, cni=cni, crds=definitions)
    if spec.cni == "canal":
        from towpath.lab.canal import programs

        programs.require()
    if spec.control_plane == "real":
        from towpath.lab.real.binaries import use_binaries

        use_binaries(progress)
    folder = launch(spec, progress)
    progress_done()
    click.echo(f"lab {spec.name}: {len(spec.nodes)} nodes Ready; kubeconfig {folder / 'kubeconfig'}")


def _documents(file: Path) -> list[Any]:
    """The YAML documents of a file, at least one."""
    import yaml

    try:
        return list(yaml.safe_load_all(file.read_text())) or [None]
    except (yaml.YAMLError, UnicodeDecodeError) as bad:
        raise LabError(f"{file}: {bad}", code="TP9004") from bad


@verb
def down(name: str | None) -> None:
    """End the lab; nothing of it stays."""
    client = LabClient(name)
    client.call("down")
    _wait_until_gone(client.folder)


def _wait_until_gone(folder: Path) -> None:
    import time

    deadline = time.monotonic() + 10
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    if folder.exists():
        raise LabError(f"{folder} is still there", "look for processes that hold it: fuser -v " + str(folder))


@verb
@output_option
def ps(name: str | None, output: str) -> None:
    """Nodes and what runs on them."""
    data = LabClient(name).call("ps")

    def as_table() -> str:
        rows = []
        for node in data["nodes"]:
            rows.append([node["node"], "-", "runtime", str(node["pid"]), "Running", str(node["boots"] - 1)])
            rows += [
                [node["node"], c["pod"], c["container"], str(c["pid"] or "-"), c["state"], str(c["restarts"])]
                for c in sorted(node["containers"], key=lambda c: (c["pod"], c["container"]))
            ]
        return table(["NODE", "POD", "CONTAINER", "PID", "STATE", "RESTARTS"], rows)

    emit(data, output, as_table)


@verb
@output_option
def inspect(name: str | None, output: str) -> None:
    """How the lab is built: addresses, networks, namespaces."""
    data = LabClient(name).call("inspect")

    def as_table() -> str:
        rows = [
            [n["name"], ",".join(n["addresses"]), str(n["segment"]), n["port"], str(n["boots"]), n["bootID"]]
            for n in data["nodes"]
        ]
        rows.append(["outside", ",".join(data["outside"]), "-", "outside", "-", "-"])
        return table(["NODE", "ADDRESSES", "SEGMENT", "PORT", "BOOTS", "BOOT-ID"], rows)

    emit(data, output, as_table)


@verb
def kubeconfig(name: str | None) -> None:
    """Print the path of a kubeconfig that works on this machine."""
    click.echo(LabClient(name).kubeconfig)


@command.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@NAME
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def kubectl(name: str | None, arguments: tuple[str, ...]) -> None:
    """Run kubectl against the lab."""
    try:
        client = LabClient(name)
    except LabError as error:
        _fail(error)
    environment = {**os.environ, "KUBECONFIG": client.kubeconfig}
    try:
        os.execvpe("kubectl", ["kubectl", *arguments], environment)  # noqa: S606
    except FileNotFoundError:
        raise CliError("kubectl is not installed: install kubernetes-client (Debian) or kubectl") from None


@verb
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option("-c", "--container", default="", help="Container of the pod (the first that runs).")
@click.option("-t", "--tty/--no-tty", default=None, help="Force or forbid a terminal.")
@click.option("-i", "--stdin", is_flag=True, help="Taken for kubectl's sake; stdin is always passed.")
@click.argument("target")
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(
    name: str | None,
    namespace: str,
    container: str,
    tty: bool | None,
    stdin: bool,
    target: str,
    argv: tuple[str, ...],
) -> None:
    """Run a command in a pod, on a node, or on the host ``outside``: towpath lab exec n1 -- ip route."""
    from towpath.cli.lab_terminal import run_in_lab

    client = LabClient(name)
    if "/" not in target and namespace != "default":
        target = f"{namespace}/{target}"
    wanted = sys.stdin.isatty() and sys.stdout.isatty() if tty is None else tty
    sys.exit(run_in_lab(client, target, argv, container=container, tty=wanted))


@verb
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option("-c", "--container", default="")
@click.option("-f", "--follow", is_flag=True)
@click.option("-p", "--previous", is_flag=True)
@click.option("--tail", type=int, default=-1)
@click.argument("pod")
def logs(
    name: str | None, namespace: str, container: str, follow: bool, previous: bool, tail: int, pod: str
) -> None:
    """Print a pod's log; ``apiserver`` and ``kubelet/NODE`` print the lab's own."""
    from towpath.cli.lab_terminal import pod_logs

    client = LabClient(name)
    kind, _, node = pod.partition("/")
    if pod == "apiserver" or (kind == "kubelet" and node):
        click.echo(client.call("component-logs", component=kind, node=node), nl=False)
        return
    options = {"container": container, "follow": follow, "previous": previous}
    if tail >= 0:
        options["tailLines"] = tail
    pod_logs(client, namespace, pod, options)


@verb
@click.option("--dev", default="eth0", show_default=True, help='Device on the node, "any" for all.')
@click.option(
    "-w", "--write", "file", type=click.File("wb", lazy=False), help="Write a pcap file; - is stdout."
)
@click.option("--count", default=0, help="Stop after so many packets.")
@click.argument("node")
@click.argument("filter_words", metavar="[FILTER]...", nargs=-1)
def pcap(name: str | None, dev: str, file: Any, count: int, node: str, filter_words: tuple[str, ...]) -> None:
    """Capture on NODE (or ``outside``): one line a packet, or pcap. FILTER: udp port 8472 and host ADDR…"""
    from towpath.cli.lab_terminal import capture

    client = LabClient(name)
    out = file.fileno() if file else sys.stdout.fileno()
    seen = capture(client, node, out, dev=dev, text=file is None, count=count, filter=list(filter_words))
    click.echo(f"{seen} packets", err=True)


def _fault(name: str, help_text: str) -> None:
    """A verb whose one argument is a node."""

    def run(node: str, **options: Any) -> None:
        result = LabClient(options["name"]).call(name, node=node)
        click.echo(f"{node}: {name}" + (f" ({_words(result)})" if result else ""))

    run.__name__, run.__doc__ = name.replace("-", "_"), help_text
    verb(click.argument("node")(run))


def _words(result: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in result.items() if key != "node")


_fault("cut", "Pull NODE's cable: no other node, no API server.")
_fault("heal", "Put NODE's cable back.")
_fault("kill-agent", "Kill the agent on NODE with SIGKILL; the kubelet starts it again.")
_fault("reboot", "Pull NODE's plug and switch it on again: its disk stays, nothing else.")


@verb
@click.argument("node")
def flush_rules(name: str | None, node: str) -> None:
    """Run ``nft flush ruleset`` on NODE; prints the tables that are gone."""
    gone = LabClient(name).call("flush-rules", node=node)["tables"]
    for table_ in gone or ["no table (those with an owner stay while it lives)"]:
        click.echo(f"{node}: deleted {'table ' if gone else ''}{table_}")


@verb
@click.argument("node")
@click.argument("network", required=False)
def drop_route(name: str | None, node: str, network: str | None) -> None:
    """Delete NODE's route to NETWORK, or all its routes to other nodes' pods."""
    result = LabClient(name).call("drop-route", node=node, dst=network)
    for route in result["dropped"]:
        click.echo(f"{node}: deleted {route}")


@verb
def api_down(name: str | None) -> None:
    """Kill the API server; connections are refused until ``api-up``."""
    LabClient(name).call("api-down")


@verb
def api_up(name: str | None) -> None:
    """Start the API server again, with all it knew."""
    LabClient(name).call("api-up")


__all__ = ["USAGE", "command"]
