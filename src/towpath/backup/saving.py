"""Reads from the API server what an archive holds, and says what moved meanwhile."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from towpath import __version__
from towpath.backup.archive import SCHEMA, Archive, Entry, Manifest, Saved, entry
from towpath.backup.objects import clean, name_of
from towpath.backup.sections import FOR_TWINS, GROUPS, NODE_STATE, belongs, section
from towpath.inventory.node_report import NodeReport
from towpath.kube.client import Client
from towpath.kube.discovery import listable
from towpath.kube.errors import Forbidden, NotFound
from towpath.kube.kinds import CONFIG_MAPS, DEFINITIONS, NAMESPACES, NODES, PODS, Kind, Raw

_STORED, _SHOWN = "crd.projectcalico.org", "projectcalico.org"
_CORE = (
    (NAMESPACES.raw(), "Namespace"),
    (NODES.raw(), "Node"),
    (DEFINITIONS, "CustomResourceDefinition"),
    (PODS.raw(), "Pod"),
)
Progress = Callable[[str], None]


class ServerVersion(msgspec.Struct, frozen=True, rename="camel"):
    """``/version``."""

    git_version: str = ""


class Read(NamedTuple):
    """All objects of the kinds that are saved: by kind, whole, as the server gave them."""

    lists: dict[Kind[Raw], list[Raw]]
    left_out: tuple[str, ...]


async def identity(client: Client) -> tuple[str, str]:
    """The cluster's own UID (that of kube-system) and the server's version. Raises ApiError."""
    system = await client.get(NAMESPACES.raw(), "kube-system")
    version = msgspec.json.decode(await client.request("GET", "/version"), type=ServerVersion)
    return system["metadata"].get("uid", ""), version.git_version


async def read(client: Client, progress: Progress) -> Read:
    """Every kind that is saved and may be read. Raises ApiError when the server cannot be asked at all."""
    kinds = await listable(client, GROUPS)
    stored = {kind.plural for kind, _ in kinds if kind.group == _STORED}
    wanted = [
        (kind, name)
        for kind, name in [*_CORE, *kinds]
        if section(kind.group, kind.plural) and not (kind.group == _SHOWN and kind.plural in stored)
    ]
    lists: dict[Kind[Raw], list[Raw]] = {}
    left_out = []
    for number, (kind, name) in enumerate([*wanted, (CONFIG_MAPS, "ConfigMap")], 1):
        progress(f"reading {kind.plural} ({number}/{len(wanted) + 1})")
        try:
            space = "kube-system" if kind is CONFIG_MAPS else ""
            found = (await client.list(kind, space)).items
        except (Forbidden, NotFound) as refused:
            left_out.append(str(refused))
            continue
        api = f"{kind.group}/{kind.version}".lstrip("/")
        lists[kind] = [
            {**raw, "apiVersion": api, "kind": name} for raw in found if belongs(kind.group, kind.plural, raw)
        ]
    return Read(lists, tuple(left_out))


async def save(
    client: Client,
    progress: Progress,
    nodes: Mapping[str, NodeReport] | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Archive:
    """The archive of a cluster, with what its ``nodes`` hold if they were looked at.

    The API has no transaction over several kinds: each list is of one moment, the lists are not. So all is
    read twice, and what differs between the two is named in ``moved``; what counts is the second.
    """
    (cluster, server), first = await asyncio.gather(identity(client), read(client, progress))
    second = await read(client, progress)
    objects = [
        entry(
            section(kind.group, kind.plural),
            kind.group,
            kind.version,
            kind.plural,
            clean(raw),
            namespaced=kind.namespaced,
        )
        for kind, raws in second.lists.items()
        for raw in raws
    ]
    objects += [node_state(node, report) for node, report in (nodes or {}).items()]
    manifest = Manifest(
        schema=SCHEMA,
        towpath=__version__,
        taken=now().strftime("%Y-%m-%dT%H:%M:%SZ"),
        server=server,
        cluster=cluster,
        entries=_entries(objects),
        moved=_moved(first, second),
        left_out=second.left_out,
    )
    return Archive(manifest, tuple(sorted(objects, key=lambda one: one.entry.path)))


def node_state(node: str, report: NodeReport) -> Saved:
    """What a node held, as a document of the archive."""
    raw: Raw = {"kind": "NodeReport", "metadata": {"name": node}, "report": msgspec.to_builtins(report)}
    return entry(NODE_STATE, "", "", "nodereports", raw, namespaced=False)


def _entries(objects: list[Saved]) -> tuple[Entry, ...]:
    return tuple(sorted((one.entry for one in objects), key=lambda one: one.path))


def _moved(first: Read, second: Read) -> tuple[str, ...]:
    """Objects that came, went or changed between two readings, apart from what the server writes itself."""

    def known(of: Read) -> dict[str, Raw]:
        told = {kind: raws for kind, raws in of.lists.items() if kind.plural != FOR_TWINS}
        return {f"{kind.group} {name_of(raw)}": clean(raw) for kind, raws in told.items() for raw in raws}

    before, after = known(first), known(second)
    differ = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    return tuple(sorted(name.partition(" ")[2] for name in differ))
