"""Brings a twin up: the lab, what is restored into it, its pods; and says what of it is not as it was.

Objects and pods are written before the network is installed: agents then read them once, when they start,
instead of following every write (that cost 244 s of processor time with 50 nodes and 500 pods, two thirds of
it after the agents were ready).
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from towpath.backup.archive import Archive, Saved
from towpath.backup.bringing import bring_back, planned
from towpath.backup.objects import name_of
from towpath.backup.saving import save
from towpath.kube import config
from towpath.kube.client import Client
from towpath.kube.errors import AlreadyExists, ServerError, Unreachable
from towpath.kube.kinds import NAMESPACES, NODES, PODS, Kind, Raw
from towpath.lab.client import LabClient
from towpath.lab.kubelet_cni import FIXED
from towpath.lab.launch import launch
from towpath.lab.rundir import KUBECONFIG, LabError
from towpath.lab.twin import Twin

_PODS = PODS.raw()
_ASK_EVERY, _AT_ONCE = 0.5, 10
_COMPARED = ("definitions", "policies", "networks")
Progress = Callable[[str], None]


class Running(NamedTuple):
    """``wrong``: what did not come about, one line each."""

    kubeconfig: Path
    wrong: list[str]


@contextmanager
def running(
    twin: Twin, progress: Progress, *, keep: bool = False, within: float = 300.0
) -> Iterator[Running]:
    """The twin with its objects and pods, as long as it is wanted; ``keep``: it goes on afterwards.

    Pods may take ``within`` seconds until they are Ready. Raises LabError, KubeError. Not within an event
    loop: a lab is forked.
    """
    wrong: list[str] = []

    def furnish(kubeconfig: Path) -> None:
        wrong.extend(
            asyncio.run(_asked(kubeconfig, lambda client: _furnished(client, twin, progress, within)))
        )

    folder = launch(twin.spec, progress, furnish)
    try:
        made = Running(folder / KUBECONFIG, wrong)
        wrong.extend(
            asyncio.run(_asked(made.kubeconfig, lambda client: _started(client, twin, progress, within)))
        )
        yield made
    finally:
        if not keep:
            with suppress(LabError):
                LabClient(twin.spec.name).call("down")


async def _asked(kubeconfig: Path, ask: Callable[[Client], Awaitable[list[str]]]) -> list[str]:
    async with Client(config.from_files([kubeconfig]), user_agent="towpath-twin") as client:
        return await ask(client)


async def _furnished(client: Client, twin: Twin, progress: Progress, within: float) -> list[str]:
    """Restore objects, write pods, which wait for their network. Returns what did not come about."""
    steps = await planned(client, list(twin.objects), progress)
    wrong = [f"{o.step.describe()}: {o.error}" for o in await bring_back(client, steps, progress) if o.error]
    deadline = asyncio.get_running_loop().time() + within
    for kind, name in ((NAMESPACES.raw(), "Namespace"), (_PODS, "Pod")):
        made = [one for one in twin.pods if one["kind"] == name]
        if kind is _PODS:  # a pod of a node that is not there would be collected
            await _until_nodes(client, len(twin.nodes), deadline, progress)
            progress(f"writing {len(made)} pods")
        gate = asyncio.Semaphore(_AT_ONCE)
        await asyncio.gather(*(_create(client, gate, kind, one, deadline) for one in made))
    return wrong


async def _until_nodes(client: Client, wanted: int, deadline: float, progress: Progress) -> None:
    while (there := len((await client.list(NODES)).items)) < wanted:
        if asyncio.get_running_loop().time() > deadline:
            raise LabError(f"only {there} of {wanted} nodes of the twin have registered")
        progress(f"{there}/{wanted} nodes registered")
        await asyncio.sleep(_ASK_EVERY)


async def _create(
    client: Client, gate: asyncio.Semaphore, kind: Kind[Raw], wanted: Raw, deadline: float
) -> None:
    """Until ``deadline``: on a busy machine the twin's server may be slow to answer. Raises KubeError."""
    async with gate:
        while True:
            try:
                await client.create(kind, wanted, wanted["metadata"].get("namespace", ""))
            except AlreadyExists:
                return
            except (Unreachable, ServerError):
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(_ASK_EVERY)
            else:
                return


async def _started(client: Client, twin: Twin, progress: Progress, within: float) -> list[str]:
    """Wait until the pods are Ready. Returns those that are not."""
    waiting = {(p["metadata"]["namespace"], p["metadata"]["name"]) for p in twin.pods if p["kind"] == "Pod"}
    wanted, deadline = len(waiting), asyncio.get_running_loop().time() + within
    while waiting and asyncio.get_running_loop().time() < deadline:
        with suppress(Unreachable, ServerError):
            found = (await client.list(_PODS)).items
            waiting -= {(p["metadata"]["namespace"], p["metadata"]["name"]) for p in found if _ready(p)}
        progress(f"{wanted - len(waiting)}/{wanted} pods Ready")
        await asyncio.sleep(_ASK_EVERY if waiting else 0)
    return [f"Pod/{space}/{name} is not Ready" for space, name in sorted(waiting)]


def _ready(raw: Raw) -> bool:
    conditions = (raw.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


async def differences(client: Client, archive: Archive, twin: Twin, progress: Progress) -> list[str]:
    """What of the archive is not in the twin, or is different there: the archive's proof. Raises ApiError."""
    there = await save(client, progress)
    before = {one.entry.path: one for one in archive.objects if one.entry.section in _COMPARED}
    after = {one.entry.path: one for one in there.objects if one.entry.section in _COMPARED}
    found = [f"{name_of(one.object)} {_how(one, after.get(path))}" for path, one in sorted(before.items())]
    differ = [line for line in found if not line.endswith(" same")]
    wanted = {(p["metadata"]["namespace"], p["metadata"]["name"]): p for p in twin.pods if p["kind"] == "Pod"}
    for one in there.objects:
        meta = one.object["metadata"]
        pod = wanted.get((meta.get("namespace", ""), meta["name"])) if one.entry.section == "pods" else None
        if pod is not None and (why := _pod_differs(pod, one.object)):
            differ.append(f"{name_of(one.object)} {why}")
    return differ


def _how(one: Saved, other: Saved | None) -> str:
    if other is None:
        return "is missing"
    return "same" if one.object == other.object else "differs"


def _pod_differs(wanted: Raw, has: Raw) -> str:
    if wanted["metadata"]["labels"] != has["metadata"].get("labels", {}):
        return "has other labels"
    if wanted["spec"]["nodeName"] != has["spec"]["nodeName"]:
        return "is on another node"
    fixed = wanted["metadata"]["annotations"].get(FIXED, "")
    addresses = ",".join(one["ip"] for one in (has.get("status") or {}).get("podIPs") or ())
    return (
        f"has {addresses or 'no address'}, not {fixed}"
        if fixed and set(fixed.split(",")) - set(addresses.split(","))
        else ""
    )
