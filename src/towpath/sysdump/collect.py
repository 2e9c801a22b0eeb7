"""Reads what a bug report needs through the API; one thing that cannot be read does not stop the others."""

from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from towpath.backup.archive import Archive
from towpath.inventory.cluster import Inventory
from towpath.kube.client import Client
from towpath.kube.errors import ApiError
from towpath.kube.kinds import EVENTS, PODS, Raw
from towpath.sysdump.redact import redacted

LOG_LINES = 5000
_LOG_BYTES = 4 << 20  # a container's; the API server cuts at the first of the two
Progress = Callable[[str], None]


class Dump(NamedTuple):
    """Texts by their path in the archive, secrets removed; ``left_out``: what could not be read, and why."""

    files: dict[str, str]
    left_out: tuple[str, ...]


async def collect(client: Client, inventory: Inventory, saved: Archive, progress: Progress) -> Dump:
    """The inventory, the objects of a backup, and logs and Events of the network's own pods."""
    files = {"inventory.json": _json(msgspec.to_builtins(inventory))}
    files |= {f"objects/{one.entry.path}": _json(one.object) for one in saved.objects}
    left_out = [*inventory.left_out, *saved.manifest.left_out]
    spaces = sorted({part.namespace for part in inventory.components})
    for part in inventory.components:
        for pod in part.pods:
            progress(f"reading the logs of {part.namespace}/{pod.name}")
            try:
                raw = await client.get(PODS.raw(), pod.name, part.namespace)
            except ApiError as refused:
                left_out.append(str(refused))
                continue
            files[f"pods/{part.namespace}/{pod.name}/pod.json"] = _json(_told(raw))
            logs, missing = await _logs(client, raw)
            files |= logs
            left_out += missing
    for space in spaces:
        try:
            events = (await client.list(EVENTS, space)).items
        except ApiError as refused:
            left_out.append(str(refused))
            continue
        files[f"events/{space}.json"] = _json(events)
    return Dump({path: redacted(text) for path, text in files.items()}, tuple(dict.fromkeys(left_out)))


async def _logs(client: Client, raw: Raw) -> tuple[dict[str, str], list[str]]:
    """Of every container, and of the one before it if it was started again."""
    meta, found, left_out = raw["metadata"], dict[str, str](), list[str]()
    for status in (raw.get("status") or {}).get("containerStatuses") or ():
        rounds = {"current": "false"} | ({"previous": "true"} if status.get("restartCount") else {})
        for name, previous in rounds.items():
            query: Mapping[str, str] = {
                "container": status["name"],
                "tailLines": str(LOG_LINES),
                "limitBytes": str(_LOG_BYTES),
                "timestamps": "true",
                "previous": previous,
            }
            path = PODS.path(meta["namespace"], meta["name"], "log")
            try:
                text = await client.request("GET", path, query=query, operation="read the log of")
            except ApiError as refused:
                left_out.append(f"{name} log of {meta['name']}/{status['name']}: {refused}")
                continue
            file = f"pods/{meta['namespace']}/{meta['name']}/{quote(status['name'], safe='')}.{name}.log"
            found[file] = text.decode(errors="replace")
    return found, left_out


def _told(raw: Raw) -> Raw:
    """A pod without the values of its environment, in which people keep passwords under any name."""
    spec = dict(raw.get("spec") or {})
    for kind in ("containers", "initContainers"):
        if kind in spec:
            spec[kind] = [
                {**one, "env": [{"name": var["name"]} for var in one.get("env") or ()]} for one in spec[kind]
            ]
    meta = {key: value for key, value in raw["metadata"].items() if key != "managedFields"}
    return {**raw, "metadata": meta, "spec": spec}


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=1).decode()
