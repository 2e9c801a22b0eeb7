"""What others do to a cluster in the middle of an upgrade: a sentence that names it, and a safe state.

(Plans and releases that are none, edited plans and other clusters': test_lab_upgrade.py.)
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conducted_cluster import SYSTEM, Cluster, cluster

from towpath.catalogue import load
from towpath.kube.client import Client
from towpath.kube.config import ClientConfig
from towpath.kube.errors import Forbidden, Unreachable
from towpath.kube.kinds import DAEMONSETS, NODES, Raw
from towpath.lab import canal
from towpath.upgrade import clock, conductor, rights
from towpath.upgrade import plan as plans
from towpath.upgrade.conductor import Conductor, Ended, look
from towpath.upgrade.gates import Verdict
from towpath.upgrade.journal import Journal, Record
from towpath.upgrade.logbook import Logbook
from towpath.upgrade.plan import Gates, Plan
from towpath.upgrade.report import stands
from towpath.upgrade.survey import survey

pytestmark = pytest.mark.lab

KNOWN = load.builtin()
BEGINS, ENDS = KNOWN.release("v1.32.1+rke2r1"), KNOWN.release("v1.32.4+rke2r1")
NAMES = ("n1", "n2", "n3")
HALF = {"n1": "new", "n2": "old", "n3": "old"}
Done = Callable[[Cluster], Awaitable[object]]


async def nothing(_: Cluster) -> None:
    pass


class Upgrade:
    """Of ``rke2-canal`` on three nodes; ``after_first`` is done when the first node is judged."""

    def __init__(self, there: Cluster, plan: Plan) -> None:
        self.there, self.plan = there, plan
        self.told: list[str] = []

    async def conduct(self, after_first: Done = nothing, client: Client | None = None) -> Ended:
        async def judge(plan: Plan, node: str, soak: float) -> Verdict:
            if node == "n1":
                await after_first(self.there)
            return Verdict("pass")

        async with client or Client(self.there.config) as used:
            logbook = Logbook(self.there.client)
            known = await logbook.read()
            if known is None:
                await logbook.begin(self.plan)
            elif known[1].mode == "paused":
                await logbook.say(Record("resume", time.time()), lambda _: "")
            return await Conductor(used, Logbook(used), judge, self.told.append).run()

    async def journal(self) -> Journal:
        known = await Logbook(self.there.client).read()
        return known[1] if known else Journal()

    async def stand(self) -> dict[str, str]:
        seen = await look(self.there.client, self.plan)
        return {node: stands(self.plan, seen, node) for node in NAMES}


@asynccontextmanager
async def begun(folder: Path) -> AsyncIterator[Upgrade]:
    async with cluster(folder, *NAMES) as there:
        await there.client.create(DAEMONSETS, canal.daemonset(BEGINS), SYSTEM)
        raw = await there.ready(canal.NAME, len(NAMES))
        found = await survey(there.client, datetime.now(UTC), lambda _: None)
        gates = Gates(ready_within=60.0, soak=0.0, canary_soak=0.0)
        strategy = raw["spec"]["updateStrategy"]
        made = plans.make(found, found.components[0], strategy, ENDS.release, ENDS.images, gates)
        yield Upgrade(there, plans.sign(made))


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conductor, "_LOOK_EVERY", 0.01)
    monkeypatch.setattr(conductor, "_AGAIN_AFTER", 0.1)


async def change(there: Cluster, spec: Raw) -> None:
    """As ``kubectl edit`` would."""
    await there.client.patch(DAEMONSETS, canal.NAME, {"spec": spec}, SYSTEM, type="strategic")


def container(**fields: Any) -> Raw:
    return {"template": {"spec": {"containers": [{"name": "kube-flannel", **fields}]}}}


EDITS: dict[str, tuple[Raw, str]] = {
    "an argument": (container(args=["--iface=eth1"]), "was edited by somebody else: resume goes on"),
    "another image": (container(image="rancher/hardened-flannel:mine"), "kube-flannel has rancher/hardened-"),
    "the old image": (
        container(image=f"rancher/hardened-flannel:{BEGINS.images['hardened-flannel']}"),
        "kube-flannel has rancher/hardened-flannel:v0.26.3",
    ),
}


@pytest.mark.parametrize("what", EDITS)
async def test_a_daemonset_that_somebody_edits(what: str, tmp_path: Path) -> None:
    spec, said = EDITS[what]
    async with begun(tmp_path) as upgrade:
        ended = await upgrade.conduct(lambda there: change(there, spec))
        assert (ended.mode, ended.text[:7]) == ("paused", "TP7412 "), ended
        assert said in ended.text
        assert await upgrade.stand() == HALF
        assert (await upgrade.conduct()).mode == "done"
        assert await upgrade.stand() == dict.fromkeys(NAMES, "new")


async def test_a_daemonset_that_is_let_roll_by_itself(tmp_path: Path) -> None:
    """It is stopped again at once, and said: what rolled meanwhile has passed no gate."""
    rolling = {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}}
    async with begun(tmp_path) as upgrade:
        ended = await upgrade.conduct(lambda there: change(there, rolling))
        assert ended.mode == "paused" and "TP7412" in ended.text and "update strategy" in ended.text
        raw = await upgrade.there.client.get(DAEMONSETS, canal.NAME, SYSTEM)
        assert raw["spec"]["updateStrategy"]["type"] == "OnDelete"
        assert (await upgrade.conduct()).mode == "done"
        passed = {record.node for record in (await upgrade.journal()).records if record.event == "passed"}
        assert passed == set(NAMES)


async def test_a_daemonset_that_is_gone(tmp_path: Path) -> None:
    async with begun(tmp_path) as upgrade:
        ended = await upgrade.conduct(lambda there: there.client.delete(DAEMONSETS, canal.NAME, SYSTEM))
        assert ended.mode == "paused" and "TP7412" in ended.text and canal.NAME in ended.text
        assert (await upgrade.journal()).mode == "paused"


async def test_a_node_that_vanishes_is_passed_over(tmp_path: Path) -> None:
    async with begun(tmp_path) as upgrade:
        ended = await upgrade.conduct(lambda there: there.client.delete(NODES, "n2"))
        assert ended.mode == "done"
        assert [one.node for one in (await upgrade.journal()).records if one.event == "gone"] == ["n2"]


async def test_a_node_that_vanishes_in_the_middle_of_its_turn(tmp_path: Path) -> None:
    async with begun(tmp_path) as upgrade:

        async def silence(there: Cluster) -> None:
            there.kubelets.mute.add("n2")

        running = asyncio.create_task(upgrade.conduct(silence))
        deadline = time.monotonic() + 240
        while (await upgrade.journal()).last(("touch",), "n2") is None:
            assert time.monotonic() < deadline and not running.done()
            await asyncio.sleep(0.01)
        await upgrade.there.client.delete(NODES, "n2")
        assert (await running).mode == "done"
        last = (await upgrade.journal()).last(("touch", "passed", "gone", "failed"), "n2")
        assert last is not None and last.event == "gone"


class Refused(Client):
    """May not do this."""

    def __init__(self, config: ClientConfig, method: str, part: str) -> None:
        super().__init__(config)
        self._method, self._part = method, part

    async def request(self, method: str, path: str, **given: Any) -> bytes:
        if method == self._method and self._part in path:
            reason = f'User "u" cannot {method.lower()} resource "{self._part}" in namespace "{SYSTEM}"'
            raise Forbidden(method.lower(), path, reason)
        return await super().request(method, path, **given)


@pytest.mark.parametrize(("method", "part"), [("PATCH", "daemonsets"), ("DELETE", "pods"), ("GET", "nodes")])
async def test_a_right_that_is_missing_is_named(method: str, part: str, tmp_path: Path) -> None:
    async with begun(tmp_path) as upgrade:
        ended = await upgrade.conduct(client=Refused(upgrade.there.config, method, part))
        assert ended.mode == "paused" and ended.text.startswith("TP7413")
        assert f'cannot {method.lower()} resource "{part}"' in ended.text
        assert (await upgrade.journal()).mode == "paused"
        assert await upgrade.stand() == dict.fromkeys(NAMES, "old")
        assert (await upgrade.conduct()).mode == "done"


class Away(Client):
    """The server does not answer for a while."""

    until = 0.0

    async def request(self, method: str, path: str, **given: Any) -> bytes:
        if time.monotonic() < self.until:
            raise Unreachable(method, path, "connection refused")
        return await super().request(method, path, **given)


async def test_a_server_that_is_away_fails_nobody(tmp_path: Path) -> None:
    async with begun(tmp_path) as upgrade:
        client = Away(upgrade.there.config)

        async def leave(_: Cluster) -> None:
            client.until = client.until or time.monotonic() + 0.5

        assert (await upgrade.conduct(leave, client)).mode == "done"
        assert any("nothing is decided meanwhile" in line for line in upgrade.told)
        assert (await upgrade.journal()).last(("failed", "pause")) is None


async def test_a_clock_that_is_wrong_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = SimpleNamespace(time=lambda: time.time() + 90, strptime=time.strptime)
    async with begun(tmp_path) as upgrade:
        assert abs(await clock.skew(upgrade.there.client)) < clock.LIMIT
        monkeypatch.setattr(clock, "time", ahead)
        assert 80 < await clock.skew(upgrade.there.client) < 100


async def test_rights_are_asked_for_before_anything_is_begun(tmp_path: Path) -> None:
    async with begun(tmp_path) as upgrade:
        assert await rights.missing(upgrade.there.client, upgrade.plan) == []
        asked = {str(right) for right in rights.needed(upgrade.plan)}
        assert {"patch daemonsets.apps in kube-system", "delete pods in kube-system"} <= asked
        assert not any("eviction" in right or "helmcharts" in right for right in asked)
