"""Whatever is conducted, wherever the conductor is killed: upgraded, rolled back, or it says what is mixed.

It dies after each of its writes in turn, so after every record of the journal, before and after every deed.
(SIGKILL of the program itself, in a lab: test_lab_upgrade.py.)
"""

import itertools
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest
from conducted_cluster import SYSTEM, Cluster, cluster
from msgspec.structs import replace

from towpath.catalogue import load
from towpath.install.daemonset import daemonset as agents
from towpath.install.migration import LABEL, TAKEN, identity, pod_spec, without_taken
from towpath.install.values import Values
from towpath.kube.client import Client
from towpath.kube.config import ClientConfig
from towpath.kube.kinds import DAEMONSETS, DEFINITIONS, NODES, Raw
from towpath.lab import canal, helm
from towpath.lab.canal import multus
from towpath.upgrade import conductor, evict
from towpath.upgrade import plan as plans
from towpath.upgrade.conductor import Conductor, Ended, look
from towpath.upgrade.gates import Verdict
from towpath.upgrade.journal import Event, Journal, Mode, Record
from towpath.upgrade.logbook import Logbook
from towpath.upgrade.moving import DIRECTION
from towpath.upgrade.plan import ChartPlan, Gates, Migration, Plan
from towpath.upgrade.report import stands
from towpath.upgrade.seen import Direction
from towpath.upgrade.survey import survey

pytestmark = pytest.mark.lab

NAMES = ("n1", "n2")
KNOWN = load.builtin()
BEGINS, ENDS = KNOWN.release("v1.32.1+rke2r1"), KNOWN.release("v1.32.4+rke2r1")
GATES = Gates(ready_within=60.0, soak=0.0, canary_soak=0.0, move_within=60.0, drain_within=60.0)


THERE_AND_BACK: tuple[tuple[Event | None, Mode, str], ...] = (
    (None, "done", "new"),
    ("rollback", "rolled-back", "old"),
)


class Killed(Exception):
    """What SIGKILL is to a process: nothing after this is done."""


class Mortal(Client):
    """Dies after so many writes, whatever they are: the answer never comes. 0: never."""

    def __init__(self, config: ClientConfig, dies_after: int) -> None:
        super().__init__(config)
        self._left = dies_after

    async def request(self, method: str, path: str, **given: Any) -> bytes:
        answer = await super().request(method, path, **given)
        if method != "GET":
            self._left -= 1
            if self._left == 0:
                raise Killed
        return answer


class Run:
    """Conductors of one plan, one after the other."""

    def __init__(self, there: Cluster, plan: Plan) -> None:
        self._there, self.plan, self.bad, self.kills = there, plan, "", 0

    async def to_its_end(self, word: Event | None, dying: Iterable[int]) -> Ended:
        """The first carries out the plan, or does what is said; each dies after so many writes (0: never)."""
        async with Client(self._there.config) as somebody:
            if word is None:
                await Logbook(somebody).begin(self.plan)
            else:
                said = Record(word, time.time(), text="by hand")
                await Logbook(somebody).say(said, lambda _: "")
        for dies_after in dying:
            async with Mortal(self._there.config, dies_after) as client:
                try:
                    return await Conductor(client, Logbook(client), self._judge, lambda _: None).run()
                except Killed:
                    self.kills += 1
        raise AssertionError(f"no end: {(await self.journal()).records[-5:]}")

    async def _judge(self, plan: Plan, node: str, soak: float) -> Verdict:
        return Verdict("fail", f"{node} is bad") if node == self.bad else Verdict("pass")

    async def journal(self) -> Journal:
        known = await Logbook(self._there.client).read()
        assert known is not None
        return known[1]

    async def stand(self) -> dict[str, str]:
        """Node to new, old or other."""
        seen = await look(self._there.client, self.plan)
        return {step.node: stands(self.plan, seen, step.node) for step in self.plan.nodes}


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to wait for a second until pods are looked at again."""
    monkeypatch.setattr(conductor, "_LOOK_EVERY", 0.01)
    monkeypatch.setattr(evict, "_ASK_EVERY", 0.01)


def flannel(tag: str) -> Raw:
    """Some other network's DaemonSet, in a namespace of its own: as flannel's own manifest has it."""
    labels = {"app": "flannel"}
    image = f"ghcr.io/flannel-io/flannel:{tag}"
    spec = {"hostNetwork": True, "containers": [{"name": "kube-flannel", "image": image}]}
    spec["tolerations"] = [{"operator": "Exists"}]
    template = {"metadata": {"labels": labels}, "spec": spec}
    return {
        "metadata": {"name": "kube-flannel-ds", "namespace": SYSTEM},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }


TARGETS: dict[str, tuple[Raw, dict[str, str]]] = {
    "rke2-canal": (canal.daemonset(BEGINS), ENDS.images),
    "rke2-multus": (multus.daemonset(BEGINS), ENDS.images),
    "towpath": (agents(Values(), ""), {"towpath-agent": "v99.0.0"}),
    "kube-flannel-ds": (flannel("v0.26.4"), {"flannel": "v0.26.7"}),
}


async def rolled(there: Cluster, name: str, evict: Literal["", "drain"] = "drain") -> Plan:
    """With what is done around the turns: nodes are drained, and Canal's chart is frozen."""
    made, tags = TARGETS[name]
    await there.client.create(DAEMONSETS, made, SYSTEM)
    raw = await there.ready(name, len(NAMES))
    chart = None
    if name == canal.NAME:
        await there.client.create(DEFINITIONS, helm.definition())
        await there.client.create(helm.HELM_CHARTS, helm.chart(KNOWN, BEGINS.release), SYSTEM)
        before = BEGINS.charts[name]
        chart = ChartPlan(name=name, before=before, after=before)
    found = await survey(there.client, datetime.now(UTC), lambda _: None)
    (part,) = (part for part in found.components if part.name == name)
    plan = plans.make(found, part, raw["spec"]["updateStrategy"], "next", tags, GATES)
    return plans.sign(replace(plan, chart=chart, evict=evict))


async def moved(there: Cluster, direction: Direction) -> Plan:
    """Both networks are there, as docs/guides/migrate-from-canal.md has them."""
    theirs, ours = canal.daemonset(BEGINS), agents(Values(migrating=True), "")
    theirs["spec"]["template"]["spec"]["affinity"] = without_taken()
    name = ours["metadata"]["name"] if direction == "takeover" else canal.NAME
    for node in NAMES if direction == "handback" else ():
        await there.client.patch(NODES.raw(), node, {"metadata": {"labels": {LABEL: TAKEN}}})
    for one in (theirs, ours):
        await there.client.create(DAEMONSETS, one, SYSTEM)
    await there.ready(canal.NAME if direction == "takeover" else ours["metadata"]["name"], len(NAMES))
    found = await survey(there.client, datetime.now(UTC), lambda _: None)
    (part,) = (part for part in found.components if part.name == name)
    images = {container: plans.full_name(image) for container, image in part.wanted.items()}
    pod = pod_spec(Values(), DIRECTION)
    plan = Plan(
        created=found.taken,
        cluster=found.cluster,
        namespace=SYSTEM,
        daemonset=name,
        source="",
        target="towpath" if direction == "takeover" else "canal",
        images={container: (image, image) for container, image in images.items()},
        strategy={"type": "RollingUpdate"},
        nodes=plans.order(list(found.nodes)),
        gates=GATES,
        migration=Migration(
            direction=direction,
            canal=canal.NAME,
            towpath=ours["metadata"]["name"],
            objects=identity(Values()),
            pod=pod,
        ),
    )
    return plans.sign(plan)


@pytest.mark.parametrize("name", TARGETS)
async def test_a_daemonset(name: str, tmp_path: Path) -> None:
    async with cluster(tmp_path, *NAMES) as there:
        await everywhere(Run(there, await rolled(there, name)))


@pytest.mark.parametrize("direction", ["takeover", "handback"])
async def test_nodes_that_go_to_the_other_network(direction: Direction, tmp_path: Path) -> None:
    async with cluster(tmp_path, *NAMES) as there:
        await everywhere(Run(there, await moved(there, direction)))


async def test_killed_once_after_each_write_in_turn(tmp_path: Path) -> None:
    """Until there and back were so short that nobody was killed."""
    async with cluster(tmp_path, *NAMES) as there:
        run = Run(there, await rolled(there, "towpath", ""))
        for dies_after in itertools.count(1):
            before = run.kills
            for word, mode, has in THERE_AND_BACK:
                assert (await run.to_its_end(word, (dies_after, 0))).mode == mode
                assert set((await run.stand()).values()) == {has}
            if run.kills == before:
                break
        assert dies_after > 12


async def everywhere(run: Run) -> None:
    """There and back; then to a node that does not pass its gates, and back again.

    Conductors die after their first write and after their second by turns: what is written down is not done
    yet, and what is done is not looked at yet.
    """
    first, second = (step.node for step in run.plan.nodes)
    for bad in ("", second):
        run.bad = bad
        ended = await run.to_its_end(None, by_turns())
        if bad:
            assert ended.mode == "paused" and bad in ended.text
            failed = (await run.journal()).last(("failed",))
            assert failed is not None and failed.node == bad
        else:
            assert ended.mode == "done"
        assert await run.stand() == {first: "new", second: "old" if bad else "new"}
        assert (await run.to_its_end("rollback", by_turns())).mode == "rolled-back"
        assert await run.stand() == {first: "old", second: "old"}
    assert run.kills > len((await run.journal()).records)


def by_turns() -> Iterable[int]:
    return itertools.islice(itertools.cycle((1, 2)), 500)
