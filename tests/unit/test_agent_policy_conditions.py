"""A policy's condition follows its findings, is written by one node, and leaves other people's alone."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from towpath.agent.policy_conditions import CONDITION, PolicyConditions, changed
from towpath.api.core import Condition, Node, NodeStatus
from towpath.api.meta import ObjectMeta
from towpath.api.report import STATUS
from towpath.kube.client import Client
from towpath.kube.fake import FakeApiServer
from towpath.kube.kinds import Kind, Raw
from towpath.model.finding import Finding
from towpath.policy.reported import Read
from towpath.policy.sources import source_of

SOURCE = source_of("policy.networking.k8s.io", "clusternetworkpolicies")
POLICIES: Kind[Raw] = Kind(
    plural="clusternetworkpolicies",
    type=dict,
    group="policy.networking.k8s.io",
    version="v1alpha2",
    namespaced=False,
)
FINDING = Finding(code="TP5001", object="o", message="spec.ingress[0]: 'x' is none; it denies", fix="mend it")
OTHERS = {"type": "Seen", "status": "True", "reason": "r", "message": "m"}
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def raw(*conditions: dict[str, Any], generation: int = 3) -> Raw:
    metadata = {"name": "p", "uid": "u", "generation": generation}
    api = "policy.networking.k8s.io/v1alpha2"
    return {"apiVersion": api, "metadata": metadata, "status": {"conditions": list(conditions)}}


def written(one: Read, now: datetime) -> list[Any]:
    return list(changed(one, now) or ())


def test_it_follows_the_findings() -> None:
    assert changed(Read(SOURCE, raw(), ()), NOW) is None
    other, mine = written(Read(SOURCE, raw(OTHERS), (FINDING,)), NOW)
    assert other == OTHERS
    assert mine == {
        "type": CONDITION,
        "status": "False",
        "reason": "TP5001",
        "message": "TP5001 spec.ingress[0]: 'x' is none; it denies (mend it)",
        "observedGeneration": 3,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    assert changed(Read(SOURCE, raw(OTHERS, dict(mine)), (FINDING,)), NOW) is None
    later = datetime(2026, 1, 2, tzinfo=UTC)
    (edited,) = written(Read(SOURCE, raw(dict(mine), generation=4), (FINDING,)), later)
    assert (edited["observedGeneration"], edited["lastTransitionTime"]) == (4, "2026-01-01T00:00:00Z")
    (mended,) = written(Read(SOURCE, raw(dict(mine), generation=4), ()), later)
    assert (mended["status"], mended["lastTransitionTime"]) == ("True", "2026-01-02T00:00:00Z")


@pytest.mark.parametrize("status", [None, 3, {"conditions": None}, {"conditions": ["x", 4]}])
def test_a_strange_status(status: Any) -> None:
    assert len(written(Read(SOURCE, {"status": status, "metadata": None}, (FINDING,)), NOW)) == 1


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    server = await FakeApiServer.start()
    yield server
    await server.down()


def writer(client: Client, server: FakeApiServer, seconds: Callable[[], float]) -> PolicyConditions:
    status = NodeStatus(conditions=[Condition(type="Ready", status="True")])
    nodes = {"n1": Node(ObjectMeta(name="n1", annotations={STATUS: "{}"}), status=status)}

    def read() -> list[Read]:
        return [Read(SOURCE, server.get(POLICIES, "p"), (FINDING,))]

    return PolicyConditions(client, "n1", read, lambda: nodes, seconds, lambda: NOW)


async def test_it_is_written_once(server: FakeApiServer) -> None:
    server.put(POLICIES, raw(OTHERS))
    async with Client(server.config()) as client:
        one = writer(client, server, lambda: 0.0)
        for _ in range(3):
            await one.write()
    conditions = server.get(POLICIES, "p")["status"]["conditions"]
    assert [(c["type"], c["status"]) for c in conditions] == [("Seen", "True"), (CONDITION, "False")]
    assert [method for method, target in server.requests if target.endswith("/p/status")] == ["PATCH"]


async def test_a_refusal_is_tried_again_later(
    server: FakeApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.put(POLICIES, raw())
    seconds = [0.0]
    async with Client(server.config()) as client:
        one = writer(client, server, lambda: seconds[0])
        server.fail(403)
        await one.write()
        await one.write()
        assert "condition_not_written" in caplog.text
        assert not server.get(POLICIES, "p")["status"]["conditions"]
        seconds[0] = 60.0
        await one.write()
    assert server.get(POLICIES, "p")["status"]["conditions"]
