"""Whether a node is well after its turn: pass, fail, or cannot be told."""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

from towpath.catalogue.model import LogPattern
from towpath.inventory.components import Container, component_pod
from towpath.inventory.images import Image
from towpath.kube.client import Client
from towpath.kube.errors import ApiError, Forbidden, KubeError, NotFound
from towpath.kube.kinds import PODS, Kind, Raw
from towpath.upgrade.evidence import GateSeen, PathSeen, State
from towpath.upgrade.plan import Plan

_PODS: Kind[Raw] = PODS.raw()
_LEFTOVER_WITHIN = 60.0
_ASK_EVERY = 0.5
_LOG_LINES = 2000


class Verdict(NamedTuple):
    """``why``: what a gate saw; of all gates together, what did not pass. ``gates``: each one asked."""

    state: State
    why: str = ""
    paths: tuple[PathSeen, ...] = ()
    gates: tuple[GateSeen, ...] = ()


async def judge(
    client: Client,
    plan: Plan,
    node: str,
    soak: float,
    patterns: tuple[LogPattern, ...],
    more: Sequence[tuple[str, Callable[[], Awaitable[Verdict]]]] = (),
) -> Verdict:
    """All gates of a node, one after the other. A server without an answer makes it untold, not failed.

    ``more``: gates that need more than the API.
    """
    asked: list[tuple[str, Callable[[], Awaitable[Verdict]]]] = [
        ("stays well", partial(_stays, client, plan, node, soak))
    ]
    if plan.gates.sandbox:
        asked.append(("a new pod gets an address", partial(_sandbox, client, plan, node)))
    asked += [("nothing bad in the log", partial(_logs, client, plan, node, patterns)), *more]
    seen: list[GateSeen] = []
    for name, ask in asked:
        began = asyncio.get_running_loop().time()
        try:
            one = await ask()
        except KubeError as e:
            one = Verdict("untold", str(e))
        took = round(asyncio.get_running_loop().time() - began, 1)
        seen.append(GateSeen(gate=name, state=one.state, saw=one.why, seconds=took, paths=one.paths))
        if one.state != "pass":
            return Verdict(one.state, one.why, gates=tuple(seen))
    return Verdict("pass", gates=tuple(seen))


async def pod_on(client: Client, plan: Plan, node: str) -> Raw | None:
    """The DaemonSet's newest pod on a node."""
    found = await client.list(_PODS, plan.namespace, field_selector=f"spec.nodeName={node}")
    own = [
        pod
        for pod in found.items
        if any(
            owner.get("kind") == "DaemonSet" and owner.get("name") == plan.daemonset
            for owner in pod["metadata"].get("ownerReferences") or ()
        )
    ]
    return max(own, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), default=None)


async def _stays(client: Client, plan: Plan, node: str, soak: float) -> Verdict:
    """The pod runs the new images, and stays ready without a restart for a while."""
    loop = asyncio.get_running_loop()
    until, first = loop.time() + soak, None
    while True:
        raw = await pod_on(client, plan, node)
        if raw is None:
            return Verdict("fail", "its pod has gone")
        pod = component_pod(raw)
        if not pod.ready:
            return Verdict("fail", "its pod is no longer ready")
        spec = raw["spec"]
        asked = {
            one["name"]: one["image"] for one in (*(spec.get("initContainers") or ()), *spec["containers"])
        }
        for one in pod.containers:
            if told := _other_image(plan, one, asked.get(one.name, "")):
                return Verdict("fail", told)
        restarts = sum(one.restarts for one in pod.containers)
        first = restarts if first is None else first
        if restarts > first:
            return Verdict("fail", "a container of its pod was started again")
        if loop.time() >= until:
            return Verdict("pass", f"new images, ready, not started again in {soak:.0f} s")
        await asyncio.sleep(min(1.0, max(0.05, until - loop.time())))


def _other_image(plan: Plan, one: Container, asked: str) -> str:
    """In what a container does not run what the plan wants; empty if it does. ``asked``: its pod's word.

    A runtime that knows an image by several tags tells any of them as what runs.
    """
    after = plan.after.get(one.name, "")
    wanted, pulled, runs = Image.parse(after), plan.digests.get(after, ""), Image.parse(one.image_id).digest
    if pulled and runs:
        told = f"{one.name} runs {wanted} as {runs[:19]}, and {pulled[:19]} was pulled for the plan"
        return told if runs != pulled else ""
    if not wanted.name or (one.image.name, one.image.tag) == (wanted.name, wanted.tag) or asked == after:
        return ""
    return f"{one.name} runs {one.image}, not {wanted}"


async def _sandbox(client: Client, plan: Plan, node: str) -> Verdict:
    """A new pod on the node gets an address, and goes away again: Ready does not show that.

    An address shows that ADD has succeeded; whether its container can be started is no matter.
    """
    name = f"towpath-gate-{re.sub('[^a-z0-9-]', '-', node.lower())}"[:63].rstrip("-")
    image = next(iter(plan.after.values()))
    container = {
        "name": "gate",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "60"],
    }
    spec = {
        "nodeName": node,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
        "tolerations": [{"operator": "Exists"}],
        "containers": [container],
    }
    meta = {"name": name, "namespace": plan.namespace, "labels": {"app.kubernetes.io/name": "towpath-gate"}}
    await _gone(client, plan, name)
    try:
        await client.create(_PODS, {"metadata": meta, "spec": spec}, plan.namespace)
        return await _addressed(client, plan, name)
    finally:
        with contextlib.suppress(KubeError):
            await client.delete(_PODS, name, plan.namespace, grace_seconds=0)


async def _addressed(client: Client, plan: Plan, name: str) -> Verdict:
    deadline = asyncio.get_running_loop().time() + plan.gates.sandbox_within
    while asyncio.get_running_loop().time() < deadline:
        raw = await client.get(_PODS, name, plan.namespace)
        if address := (raw.get("status") or {}).get("podIP"):
            return Verdict("pass", f"{address}, and it went away again")
        await asyncio.sleep(_ASK_EVERY)
    return Verdict("fail", f"a new pod ({name}) has no address after {plan.gates.sandbox_within:g} s")


async def _gone(client: Client, plan: Plan, name: str) -> None:
    """One that a killed conductor left behind."""
    deadline = asyncio.get_running_loop().time() + _LEFTOVER_WITHIN
    while asyncio.get_running_loop().time() < deadline:
        try:
            await client.delete(_PODS, name, plan.namespace, grace_seconds=0)
        except NotFound:
            return
        await asyncio.sleep(_ASK_EVERY)
    raise ApiError("delete", f"pods/{name}", "an earlier gate's pod does not go away", "look at its node")


async def _logs(client: Client, plan: Plan, node: str, patterns: tuple[LogPattern, ...]) -> Verdict:
    """Nothing that means trouble stands in the log of the new pod's containers."""
    raw = await pod_on(client, plan, node)
    if raw is None:
        return Verdict("fail", "its pod has gone")
    name, read = raw["metadata"]["name"], 0
    for container in (one["name"] for one in raw["spec"]["containers"]):
        path = _PODS.path(plan.namespace, name, "log")
        query = {"container": container, "tailLines": str(_LOG_LINES)}
        try:
            text = await client.request("GET", path, query=query, operation="read the log of")
        except (Forbidden, NotFound) as refused:
            return Verdict("untold", str(refused))
        lines = text.decode(errors="replace").splitlines()
        read += len(lines)
        if told := trouble(lines, patterns):
            return Verdict("fail", f"{container} says {told}")
    return Verdict("pass", f"{read} lines of {name}, {len(patterns)} patterns")


def trouble(lines: Iterable[str], patterns: Sequence[LogPattern]) -> str:
    """The first line that means trouble, and what it means; empty if there is none. Pure."""
    for line in lines:
        for pattern in patterns:
            if re.search(pattern.pattern, line):
                return f"{line.strip()[:200]!r}: {pattern.means}"
    return ""
