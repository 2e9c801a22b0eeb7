"""All that policy depends on, from the cluster: those kinds that the server has and lets us read."""

import asyncio

from towpath.agent.policy_kinds import shown
from towpath.cli.policy_settings import SETTINGS
from towpath.kube.client import Client
from towpath.kube.errors import Forbidden, NotFound
from towpath.kube.kinds import CONFIG_MAPS, Kind, Raw

_CORE = {"pods": "Pod", "namespaces": "Namespace", "nodes": "Node", "serviceaccounts": "ServiceAccount"}


async def gather(client: Client) -> tuple[list[Raw], list[str]]:
    """Objects, with apiVersion and kind, and notes on what may not be read. Raises ApiError."""
    kinds: list[tuple[Kind[Raw], str]] = [(Kind(plural=p, type=dict), name) for p, name in _CORE.items()]
    kinds += [(kind, resource.kind) for resource, kind in (await shown(client)).items()]
    notes: list[str] = []
    lists = await asyncio.gather(*(_list(client, kind, name, notes) for kind, name in kinds))
    settings = await _settings(client, notes)
    return [raw for each in (*lists, settings) for raw in each], notes


async def _settings(client: Client, notes: list[str]) -> list[Raw]:
    """The agents', for their failsafe ports, and for how nodes reach each other."""
    try:
        found = await client.get(CONFIG_MAPS, SETTINGS.name, SETTINGS.namespace)
    except NotFound:
        return []
    except Forbidden as refused:
        notes.append(f"failsafe ports are taken to be the default ones, and nodes to use a tunnel: {refused}")
        return []
    return [{**found, "apiVersion": "v1", "kind": SETTINGS.kind}]


async def _list(client: Client, kind: Kind[Raw], name: str, notes: list[str]) -> list[Raw]:
    try:
        listing = await client.list(kind)
    except (Forbidden, NotFound) as refused:
        notes.append(f"{kind.plural} are left out: {refused}")
        return []
    version = f"{kind.group}/{kind.version}".lstrip("/")
    return [{**raw, "apiVersion": version, "kind": name} for raw in listing.items]
