"""Writes the steps of a restore, one object after the other, and tells of each what became of it."""

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from towpath.backup.archive import Archive, Saved
from towpath.backup.objects import name_of
from towpath.backup.restoring import Key, Step, key_of, steps, turns
from towpath.kube.client import Client
from towpath.kube.errors import ApiError, Forbidden, KubeError, NotFound
from towpath.kube.kinds import NAMESPACES, Kind, Raw

Progress = Callable[[str], None]
_ESTABLISHED_WITHIN = 30.0
_ASK_EVERY = 0.2
_AT_ONCE = 10  # writes under way; the server's own limits are far above


class Outcome(NamedTuple):
    """``error`` empty when it was done."""

    step: Step
    error: str


def kind_of(saved: Saved) -> Kind[Raw]:
    """Where the object's kind lives."""
    e = saved.entry
    return Kind(plural=e.plural, type=dict, group=e.group, version=e.version, namespaced=e.namespaced)


async def planned(client: Client, wanted: list[Saved], progress: Progress) -> list[Step]:
    """What would have to be done, compared with what is live. Raises ApiError."""
    live: dict[Key, Raw] = {}
    kinds = {kind_of(one) for one in wanted}
    for number, kind in enumerate(sorted(kinds, key=lambda kind: kind.plural), 1):
        progress(f"comparing {kind.plural} ({number}/{len(kinds)})")
        try:
            found = (await client.list(kind)).items
        except NotFound:
            continue  # its definition comes first, or is missing: then the writing says so
        for raw in found:
            live[key_of(kind.group, kind.plural, raw)] = raw
    spaces = {one.metadata.name for one in (await client.list(NAMESPACES)).items}
    return steps(wanted, live, frozenset(spaces))


async def bring_back(client: Client, planned_steps: list[Step], progress: Progress) -> list[Outcome]:
    """Do the steps that change something, in order; one that fails does not stop the others.

    An object that changed since it was compared is left as it is (its version is given with the write).
    """
    todo = turns(planned_steps)
    count, number = sum(map(len, todo)), 0
    gate = asyncio.Semaphore(_AT_ONCE)

    async def write(step: Step) -> Outcome:
        nonlocal number
        async with gate:
            number += 1
            progress(f"{step.describe()} ({number}/{count})")
            try:
                await _write(client, step)
            except KubeError as e:
                return Outcome(step, str(e))
            return Outcome(step, "")

    return [outcome for turn in todo for outcome in await asyncio.gather(*map(write, turn))]


async def _write(client: Client, step: Step) -> None:
    kind, wanted = kind_of(step.saved), step.saved.object
    if step.verb == "missing":
        space = wanted["metadata"]["namespace"]
        raise NotFound(
            "create", name_of(wanted), f"there is no namespace {space}", "restore namespaces as well"
        )
    if kind.plural in ("nodes", "namespaces") and step.verb == "replace":
        await client.patch(kind, wanted["metadata"]["name"], _kept(wanted))
    elif step.verb == "create":
        await client.create(kind, wanted)
    else:
        meta = {**wanted["metadata"], "resourceVersion": step.version}
        await client.update(kind, {**wanted, "metadata": meta})
    if kind.plural == "customresourcedefinitions":
        await _established(client, kind, wanted["metadata"]["name"])


def _kept(wanted: Raw) -> dict[str, Any]:
    """Of nodes and namespaces only labels and annotations come back: the rest is the cluster's own."""
    meta = wanted["metadata"]
    return {"metadata": {key: meta[key] for key in ("labels", "annotations") if key in meta}}


async def _established(client: Client, kind: Kind[Raw], name: str) -> None:
    """Wait until the server serves a new definition."""
    deadline = asyncio.get_running_loop().time() + _ESTABLISHED_WITHIN
    while asyncio.get_running_loop().time() < deadline:
        status = (await client.get(kind, name)).get("status") or {}
        if any((c["type"], c["status"]) == ("Established", "True") for c in status.get("conditions") or ()):
            return
        await asyncio.sleep(_ASK_EVERY)
    raise ApiError("create", f"customresourcedefinitions/{name}", "the server does not serve it yet")


async def same_cluster(client: Client, archive: Archive) -> bool:
    """Whether the archive is of this cluster. Raises ApiError."""
    try:
        system = await client.get(NAMESPACES.raw(), "kube-system")
    except Forbidden:
        return False
    return bool(system["metadata"].get("uid") == archive.manifest.cluster)
