"""Brings a twin up: the lab, what is restored into it, its pods; and says what of it is not as it was."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from towpath.backup.archive import Archive, Saved
from towpath.backup.bringing import bring_back, planned
from towpath.backup.objects import name_of
from towpath.backup.saving import save
from towpath.kube.client import Client
from towpath.kube.errors import AlreadyExists
from towpath.kube.kinds import NAMESPACES, PODS, Raw
from towpath.lab.client import LabClient
from towpath.lab.kubelet_cni import FIXED
from towpath.lab.launch import launch
from towpath.lab.rundir import KUBECONFIG, LabError
from towpath.lab.twin import Twin

_PODS = PODS.raw()
_ASK_EVERY, _MANY, _AT_ONCE = 0.2, 100, 20  # seconds for so many pods, and longer for more
_COMPARED = ("definitions", "policies", "networks")
Progress = Callable[[str], None]


@contextmanager
def running(twin: Twin, progress: Progress, *, keep: bool = False) -> Iterator[Path]:
    """The twin's kubeconfig, as long as it is wanted; ``keep``: it goes on afterwards. Raises LabError.

    Not within an event loop: a lab is forked.
    """
    folder = launch(twin.spec, progress)
    try:
        yield folder / KUBECONFIG
    finally:
        if not keep:
            with suppress(LabError):
                LabClient(twin.spec.name).call("down")


async def fill(client: Client, twin: Twin, progress: Progress, within: float = 120.0) -> list[str]:
    """Restore the objects, start the pods, wait until they are Ready. Returns what did not come about."""
    steps = await planned(client, list(twin.objects), progress)
    wrong = [f"{o.step.describe()}: {o.error}" for o in await bring_back(client, steps, progress) if o.error]
    progress(f"starting {len(twin.pods)} pods")
    for raw in (one for one in twin.pods if one["kind"] == "Namespace"):
        with suppress(AlreadyExists):
            await client.create(NAMESPACES.raw(), raw)
    pods = [one for one in twin.pods if one["kind"] == "Pod"]
    gate = asyncio.Semaphore(_AT_ONCE)
    await asyncio.gather(*(_start(client, gate, pod) for pod in pods))
    waiting = {(pod["metadata"]["namespace"], pod["metadata"]["name"]) for pod in pods}
    deadline = asyncio.get_running_loop().time() + within
    while waiting:
        for raw in (await client.list(_PODS)).items:
            if _ready(raw):
                waiting.discard((raw["metadata"]["namespace"], raw["metadata"]["name"]))
        progress(f"{len(pods) - len(waiting)}/{len(pods)} pods Ready")
        if waiting and asyncio.get_running_loop().time() > deadline:
            return [*wrong, *(f"Pod/{space}/{name} is not Ready" for space, name in sorted(waiting))]
        await asyncio.sleep(_ASK_EVERY * max(1.0, len(pods) / _MANY) if waiting else 0)
    return wrong


async def _start(client: Client, gate: asyncio.Semaphore, pod: Raw) -> None:
    async with gate:
        await client.create(_PODS, pod, pod["metadata"]["namespace"])


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
    addresses = ",".join(one["ip"] for one in has["status"]["podIPs"])
    return (
        f"has {addresses}, not {fixed}" if fixed and set(fixed.split(",")) - set(addresses.split(",")) else ""
    )
