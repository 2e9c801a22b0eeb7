"""Carries out an upgrade: looks, asks what comes next, writes it down, does it."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec

from towpath.install.migration import LABEL
from towpath.inventory.components import component_pod
from towpath.kube.client import Client
from towpath.kube.errors import Conflict, Forbidden, Malformed, NotFound, Unreachable
from towpath.kube.kinds import DAEMONSETS, NODES, PODS, Raw
from towpath.upgrade import conduct
from towpath.upgrade.actions import (
    Cordon,
    Deed,
    DeletePod,
    Drain,
    EndMove,
    Gate,
    Label,
    Note,
    SetFrozen,
    SetImages,
    SetStrategy,
    StartMove,
    Wait,
)
from towpath.upgrade.charts import chart_of, set_frozen
from towpath.upgrade.edited import CODE
from towpath.upgrade.evict import cordon, drain
from towpath.upgrade.evidence import GateSeen
from towpath.upgrade.gates import Verdict
from towpath.upgrade.journal import Event, Journal, Mode, Record
from towpath.upgrade.logbook import Logbook
from towpath.upgrade.moving import end_move, label_node, moves_of, start_move
from towpath.upgrade.plan import Plan
from towpath.upgrade.seen import Seen, SeenNetworks, SeenPod

_LOOK_EVERY = 1.0
_AGAIN_AFTER = 2.0

Judge = Callable[[Plan, str, float], Awaitable[Verdict]]
Tell = Callable[[str], None]


class Ended(NamedTuple):
    """How it ended, and the last thing that was written down about it."""

    mode: Mode
    text: str


class Conductor:
    """One run. ``judge`` answers for the gates of a node; ``tell`` is given each step in words."""

    def __init__(self, client: Client, logbook: Logbook, judge: Judge, tell: Tell) -> None:
        self._client, self._logbook, self._judge, self._tell = client, logbook, judge, tell
        self._lost = 0.0
        self._said = ""

    async def run(self) -> Ended:
        """Until it is done, rolled back, or stands still.

        Raises ApiRefused for what the server refuses for another reason than a right, and Unreadable.
        """
        while True:
            began = time.time()
            try:
                ended = await self._step()
            except (Unreachable, Malformed) as away:
                self._once(f"the API server does not answer, nothing is decided meanwhile: {away}")
                await asyncio.sleep(_AGAIN_AFTER)
                self._lost += time.time() - began
                continue
            except Conflict:
                continue
            except Forbidden as refused:
                return await self._stand_still(f"TP7413 {refused}")
            except NotFound as gone:
                if f"{DAEMONSETS.plural}/" not in gone.object:
                    raise
                return await self._stand_still(f"{CODE} {gone}")
            if ended is not None:
                return ended

    async def _stand_still(self, text: str) -> Ended:
        """For what is somebody else's to grant, or to put back. Raises ApiError."""
        await self._logbook.say(Record("pause", round(time.time(), 3), text=text), lambda _: "")
        self._once(text)
        return Ended("paused", text)

    async def _step(self) -> Ended | None:
        known = await self._logbook.read()
        if known is None:
            return Ended("rolled-back", "there is nothing to conduct")
        plan, journal = known
        action = conduct.next_action(plan, journal, await look(self._client, plan), time.time() - self._lost)
        match action:
            case None:
                return Ended(journal.mode, journal.records[-1].text)
            case Wait(why, None):
                return Ended("paused", why)
            case Wait(why):
                self._once(f"waiting for {why}")
                await asyncio.sleep(_LOOK_EVERY)
            case Note(event, node, text, template):
                self._once(" ".join(filter(None, (event, node, text and f"({text})"))))
                await self._note(journal, event, node, text, template=template)
            case Gate(node, soak):
                self._once(action.describe())
                await self._gate(plan, journal, node, soak)
            case _:
                self._once(action.describe())
                await self._act(plan, journal, action)
        return None

    async def _gate(self, plan: Plan, journal: Journal, node: str, soak: float) -> None:
        verdict = await self._judge(plan, node, soak)
        match verdict.state:
            case "pass":
                await self._note(journal, "passed", node, gates=verdict.gates)
            case "fail":
                await self._note(journal, "failed", node, verdict.why, verdict.gates)
            case "untold":
                why = f"{node} cannot be judged: {verdict.why}"
                await self._note(journal, "pause", node, why, verdict.gates)
        self._once(f"{node}: {verdict.state} {verdict.why}".rstrip())

    async def _act(self, plan: Plan, journal: Journal, action: Deed) -> None:
        match action:
            case SetStrategy(strategy, event):
                await self._note(journal, event)
                await self._patch(plan, strategy_patch(strategy))
            case SetImages(images, text):
                await self._note(journal, "template", "", text)
                raw = await self._client.get(DAEMONSETS, plan.daemonset, plan.namespace)
                await self._patch(plan, images_patch(raw, images))
            case SetFrozen(name, frozen):
                await self._freeze(plan, journal, name, frozen=frozen)
            case Cordon(node, on):
                await self._cordon(journal, node, on=on)
            case Drain(node):
                await self._drain(plan, journal, node)
            case Label(node, value):
                await label_node(self._client, node, value)
            case StartMove(node, direction):
                await self._note(journal, "move", node, direction)
                if plan.migration is not None:
                    await start_move(self._client, plan.migration, plan.namespace, node, direction)
            case EndMove(_, name):
                await end_move(self._client, plan, name)
            case DeletePod(node, name, uid):
                await self._note(journal, "touch", node)
                try:
                    await self._client.delete(PODS, name, plan.namespace, uid=uid)
                except (NotFound, Conflict):
                    return  # it has gone already, or another has its name
                await self._vanished(plan, name, uid)

    async def _freeze(self, plan: Plan, journal: Journal, name: str, *, frozen: bool) -> None:
        """What is frozen is written down before, what is unfrozen after: neither can be forgotten."""
        if frozen:
            await self._note(journal, "chart", text=f"HelmChart {name} is frozen")
        await set_frozen(self._client, name, plan.namespace, frozen=frozen)
        if not frozen:
            await self._note(journal, "chart", text=f"HelmChart {name} is not frozen any more")

    async def _cordon(self, journal: Journal, node: str, *, on: bool) -> None:
        if on:
            await self._note(journal, "cordon", node)
        await cordon(self._client, node, on=on)
        if not on:
            await self._note(journal, "uncordon", node)

    async def _drain(self, plan: Plan, journal: Journal, node: str) -> None:
        why = await drain(self._client, node, plan.gates.drain_within)
        if why:
            await self._note(journal, "pause", node, f"{node} cannot be drained: {why}")
        else:
            await self._note(journal, "drained", node)

    async def _patch(self, plan: Plan, body: dict[str, Any]) -> None:
        await self._client.patch(DAEMONSETS, plan.daemonset, body, plan.namespace, type="strategic")

    async def _vanished(self, plan: Plan, name: str, uid: str) -> None:
        """Wait for the old pod's end, so that it is not taken for the new one."""
        deadline = time.monotonic() + plan.gates.ready_within
        while time.monotonic() < deadline:
            try:
                raw = await self._client.get(PODS.raw(), name, plan.namespace)
            except NotFound:
                return
            if raw["metadata"].get("uid") != uid:
                return
            await asyncio.sleep(_LOOK_EVERY / 4)

    async def _note(
        self,
        journal: Journal,
        event: Event,
        node: str = "",
        text: str = "",
        gates: tuple[GateSeen, ...] = (),
        template: str = "",
    ) -> None:
        at = round(time.time(), 3)
        await self._logbook.note(Record(event, at, node, text, gates, template), journal)

    def _once(self, line: str) -> None:
        if line != self._said:
            self._said = line
            self._tell(line)


def strategy_patch(strategy: dict[str, Any]) -> dict[str, Any]:
    """Strategic merge: this update strategy, and nothing of the one before."""
    return {"spec": {"updateStrategy": {"$retainKeys": list(strategy), **strategy}}}


def images_patch(daemonset: Raw, images: dict[str, str]) -> dict[str, Any]:
    """Strategic merge: these images of the template's containers, by container; all else as it is."""
    spec = daemonset["spec"]["template"]["spec"]
    body = {
        key: [
            {"name": one["name"], "image": images[one["name"]]} for one in spec[key] if one["name"] in images
        ]
        for key in ("initContainers", "containers")
        if spec.get(key)
    }
    return {"spec": {"template": {"spec": body}}}


async def look(client: Client, plan: Plan) -> Seen:
    """What there is now. Raises ApiError."""
    raw, pods, nodes, chart = await asyncio.gather(
        client.get(DAEMONSETS, plan.daemonset, plan.namespace),
        client.list(PODS.raw(), plan.namespace),
        client.list(NODES.raw()),
        chart_of(client, plan),
    )
    found = _pods_of(plan.daemonset, pods.items)
    networks = None
    if (going := plan.migration) is not None:
        networks = SeenNetworks(
            {
                node["metadata"]["name"]: value
                for node in nodes.items
                if (value := (node["metadata"].get("labels") or {}).get(LABEL))
            },
            _pods_of(going.canal, pods.items),
            _pods_of(going.towpath, pods.items),
            await moves_of(client, plan, pods.items),
        )
    template = raw["spec"]["template"]["spec"]
    strategy = raw["spec"].get("updateStrategy") or {"type": "RollingUpdate"}
    return Seen(
        strategy,
        _images(template),
        found,
        frozenset(node["metadata"]["name"] for node in nodes.items),
        frozenset(n["metadata"]["name"] for n in nodes.items if (n.get("spec") or {}).get("unschedulable")),
        chart,
        time.time(),
        networks,
        _fingerprint(raw["spec"]["template"], frozenset(plan.images)),
    )


def _fingerprint(template: Raw, ours: frozenset[str]) -> str:
    """Of all but the images of ``ours``, containers that the plan changes."""
    spec = {
        key: [{**one, "image": ""} if one["name"] in ours else one for one in value]
        if key in ("containers", "initContainers") and value
        else value
        for key, value in template["spec"].items()
    }
    plain = msgspec.json.encode({**template, "spec": spec}, order="deterministic")
    return hashlib.sha256(plain).hexdigest()[:16]


def _pods_of(daemonset: str, pods: list[Raw]) -> dict[str, SeenPod]:
    """By node, the newest of each."""
    found = {}
    for one in sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", ""))):
        owners = one["metadata"].get("ownerReferences") or ()
        if any((owner.get("kind"), owner.get("name")) == ("DaemonSet", daemonset) for owner in owners):
            pod = component_pod(one)
            why = "; ".join(
                f"{c.name} {c.why or c.state}" for c in pod.containers if not c.ready and not c.init
            )
            going = "deletionTimestamp" in one["metadata"]
            found[pod.node] = SeenPod(
                pod.name, one["metadata"].get("uid", ""), _images(one["spec"]), pod.ready and not going, why
            )
    return found


def _images(spec: Raw) -> dict[str, str]:
    containers = [*(spec.get("initContainers") or ()), *spec["containers"]]
    return {one["name"]: one.get("image", "") for one in containers}
