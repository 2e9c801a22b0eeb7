"""What ``towpath policy …`` is asked about: objects of files, of the cluster, or of files on top of it."""

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any
from zlib import crc32

import click
import msgspec
import yaml

from towpath.cli.cluster import ClusterOptions, cluster_options
from towpath.cli.exit import USAGE, CliError
from towpath.cli.policy_settings import SETTINGS, are_settings, era_in, failsafes_in, routing_in
from towpath.multinet.annotation import NETWORKS, selections
from towpath.multinet.refusal import NetworkRefused
from towpath.policy.calico_order import ERAS, CalicoEra
from towpath.policy.ir import KIND
from towpath.policy.secondary import NETWORK_STATUS
from towpath.policy.world import Assembled, ObjectKey, assemble, is_namespaced, key_of, unpacked

SUFFIXES = (".yaml", ".yml", ".json")
LIVE = "live"
_STAND_INS = (1 << 17) - 2
_STEP = re.compile(r"\[(\d+)\]")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Times stay texts, as they are in JSON."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class Origin(msgspec.Struct, frozen=True):
    """Where an object stands: at ``path`` of a document of ``file``. Live ones have no file."""

    file: str = ""
    path: str = ""
    document: yaml.Node | None = None

    def where(self, path: str) -> str:
        """``FILE:LINE`` of a field of the object, or of what is nearest above it; live, nothing."""
        if self.document is None:
            return ""
        return f"{self.file}:{_line(self.document, '.'.join(filter(None, (self.path, path))))}"


class Sourced(msgspec.Struct, frozen=True):
    """An object and where it came from."""

    raw: Mapping[str, Any]
    origin: Origin


Objects = dict[ObjectKey, Sourced]


class Asked(msgspec.Struct, frozen=True):
    """What there is to judge. ``notes`` are for stderr."""

    assembled: Assembled
    objects: Objects

    @property
    def has_pods(self) -> bool:
        """Without any, policies select nobody, and all of it is a guess."""
        return any(endpoint.labels[KIND] == "pod" for endpoint in self.assembled.world.endpoints)

    def where(self, name: str, path: str) -> str:
        """Of a field of an object that a finding or a policy names."""
        key = self.assembled.keys.get(name)
        return self.objects[key].origin.where(path) if key in self.objects else ""


class Input(msgspec.Struct, frozen=True):
    """The options that all verbs share. ``era`` None: as the agents' settings say. ``network``,
    NAMESPACE/NAME: what is asked about instead of the pod network.
    """

    files: tuple[str, ...]
    live: bool
    cluster: ClusterOptions
    namespace: str
    era: CalicoEra | None
    network: str = ""

    def objects(self, *, or_live: bool = True) -> Objects:
        """Those of the files, on top of the cluster's where it is asked for; ``or_live``: or nothing else."""
        found: Objects = {}
        if self.live or (or_live and not self.files):
            found = self.live_objects()
        return found | self.read(self.files)

    def live_objects(self) -> Objects:
        """The cluster's."""
        from towpath.cli.policy_live import gather

        raws, notes = self.cluster.run(gather)
        for note in notes:
            click.echo(f"towpath: {note}", err=True)
        keyed = ((SETTINGS if are_settings(raw) else key_of(raw), raw) for raw in raws)
        return {key: Sourced(raw, Origin()) for key, raw in keyed if key is not None}

    def read(self, names: Iterable[str]) -> Objects:
        """Files, folders with all that is below them, and ``-`` for standard input."""
        found: Objects = {}
        for name in names:
            for file, text in _texts(name):
                for sourced in _sourced(file, text):
                    self._add(found, sourced)
        return found

    def _add(self, found: Objects, sourced: Sourced) -> None:
        """As the API server would complete it: a namespace, a service account."""
        if are_settings(sourced.raw):
            found[SETTINGS] = sourced
            return
        key = key_of(sourced.raw)
        if key is None:
            return
        if is_namespaced(key) and not key.namespace:
            metadata = sourced.raw.get("metadata")
            placed = {**(metadata if isinstance(metadata, dict) else {}), "namespace": self.namespace}
            sourced = Sourced({**sourced.raw, "metadata": placed}, sourced.origin)
            key = key._replace(namespace=self.namespace)
        if key in found:
            here, there = sourced.origin.where(""), found[key].origin.where("")
            click.echo(f"towpath: {key} of {here} replaces that of {there}", err=True)
        found[key] = sourced

    def asked(self, objects: Objects, *, staged: bool = False) -> Asked:
        """The objects as a world. Pods of files that never ran get addresses to be judged by."""
        objects = _with_addresses(objects, self.network)
        raws = (sourced.raw for sourced in objects.values())
        settings = objects[SETTINGS].raw if SETTINGS in objects else None
        assembled = assemble(
            raws,
            staged=staged,
            era=self.era or era_in(settings),
            failsafes=failsafes_in(settings),
            routing=routing_in(settings),
            network=self.network,
        )
        return Asked(assembled, objects)


def input_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``-f``, ``--live`` and what a cluster is reached by; the command gets them as ``given``, an Input."""

    @wraps(command)
    def wrapped(
        *args: Any,
        files: tuple[str, ...],
        live: bool,
        namespace: str,
        calico: str | None,
        network: str,
        kubeconfig: str,
        context: str,
        **others: Any,
    ) -> Any:
        cluster = ClusterOptions(kubeconfig, context)
        if network and "/" not in network:
            network = f"{namespace}/{network}"
        era = ERAS[calico] if calico else None
        return command(*args, given=Input(files, live, cluster, namespace, era, network), **others)

    for option in (
        click.option(
            "--calico",
            type=click.Choice(list(ERAS)),
            help="Order and tier of Calico's policies as up to 3.31, or from 3.32 (default: as the agents).",
        ),
        click.option(
            "--network",
            default="",
            metavar="NAME",
            help="Of another network of pods than the pod network: [NAMESPACE/]NAME of its definition.",
        ),
        click.option(
            "-n", "--namespace", default="default", show_default=True, help="Of what is named without one."
        ),
        click.option("--live", is_flag=True, help="The cluster's objects below those of -f."),
        click.option(
            "-f",
            "--filename",
            "files",
            multiple=True,
            metavar="FILE|DIR|-",
            help="Objects as YAML or JSON instead of the cluster's; folders with all that is below.",
        ),
    ):
        wrapped = option(wrapped)
    return cluster_options(wrapped)


def _texts(name: str) -> Iterator[tuple[str, str]]:
    if name == "-":
        yield "-", sys.stdin.read()
        return
    root = Path(name)
    files = sorted(p for p in root.rglob("*") if p.suffix in SUFFIXES and p.is_file())
    for file in files if root.is_dir() else [root]:
        try:
            yield str(file), file.read_text()
        except OSError as refused:
            raise CliError(f"{file}: {refused.strerror}", USAGE) from refused
        except UnicodeDecodeError as odd:
            raise CliError(f"{file}: not UTF-8 text ({odd.reason} at byte {odd.start})", USAGE) from odd
    if root.is_dir() and not files:
        raise CliError(f"{name}: no {', '.join(SUFFIXES)} file is in this folder", USAGE)


def _sourced(file: str, text: str) -> Iterator[Sourced]:
    """The objects of a file. What is no object is passed over, and said so."""
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            document = loader.construct_document(node)
            if isinstance(document, dict) and isinstance(document.get("kind"), str):
                for path, raw in unpacked(document):
                    yield Sourced(raw, Origin(file, path, node))
            elif document is not None:
                line = node.start_mark.line + 1
                click.echo(f"towpath: {file}:{line} is no Kubernetes object; it is passed over", err=True)
    except (yaml.YAMLError, ValueError, RecursionError) as wrong:
        raise CliError(f"{file}: no YAML: {' '.join(str(wrong).split())}", USAGE) from wrong
    finally:
        loader.dispose()


def _line(node: yaml.Node, path: str) -> int:
    """Of what stands at the path, or the nearest above it that is there. Keys may have dots in them."""
    line = node.start_mark.line + 1
    while path:
        step = _STEP.match(path)
        if isinstance(node, yaml.SequenceNode) and step and int(step[1]) < len(node.value):
            node, path = node.value[int(step[1])], path[step.end() :]
            line = node.start_mark.line + 1
        elif isinstance(node, yaml.MappingNode):
            near = [
                (key, value)
                for key, value in node.value
                if path.startswith(key.value) and path[len(key.value) :][:1] in ("", ".", "[")
            ]
            if not near:
                break
            key, node = max(near, key=lambda pair: len(pair[0].value))
            line, path = key.start_mark.line + 1, path[len(key.value) :]
        else:
            break
        path = path.removeprefix(".")
    return line


def _with_addresses(objects: Objects, network: str = "") -> Objects:
    """Pods of files that have no status get one of the networks for documentation and tests (RFC 2544, 3849).

    So they do in ``network``, if they ask for it. Always the same one for a name, so that two worlds can be
    compared. Rules that ask for networks do not see their real addresses, which nobody knows yet.
    """
    found: Objects = {}
    taken: set[int] = set()
    for key, sourced in objects.items():
        if key.kind != "Pod" or not sourced.origin.file or sourced.raw.get("status"):
            found[key] = sourced
            continue
        number = crc32(str(key).encode()) % _STAND_INS
        while number in taken:
            number = (number + 1) % _STAND_INS
        taken.add(number)
        ips = IPv4Address("198.18.0.1") + number, IPv6Address("2001:db8::1") + number
        status = {"podIP": str(ips[0]), "podIPs": [{"ip": str(ip)} for ip in ips]}
        raw = {**sourced.raw, "status": status}
        found[key] = Sourced(_attached(raw, network, ips) if network else raw, sourced.origin)
    if taken:
        click.echo(
            f"towpath: {len(taken)} pods have no address yet; 198.18.0.0/15 and 2001:db8::/32 stand for them",
            err=True,
        )
    return found


def _attached(raw: dict[str, Any], network: str, ips: tuple[IPv4Address, IPv6Address]) -> dict[str, Any]:
    """The pod, and what its network-status would say of a network that it asks for."""
    metadata = raw.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    annotations = metadata.get("annotations")
    annotations = annotations if isinstance(annotations, dict) else {}
    asked = annotations.get(NETWORKS)
    try:
        wanted = selections(asked) if isinstance(asked, str) else ()
    except NetworkRefused as refused:
        raise CliError(
            f"Pod/{metadata.get('namespace')}/{metadata.get('name')}: {refused}", USAGE
        ) from refused
    namespace = metadata.get("namespace")
    if not any(f"{one.namespace or namespace}/{one.name}" == network for one in wanted):
        return raw
    status = msgspec.json.encode([{"name": network, "ips": [str(ip) for ip in ips]}]).decode()
    return {**raw, "metadata": {**metadata, "annotations": {**annotations, NETWORK_STATUS: status}}}
