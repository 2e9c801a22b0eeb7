"""One node writes each finding's Event, the next ones only if it does not; what is refused is tried again."""

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from towpath.agent.policy_events import PolicyEvents, event_name, event_of
from towpath.agent.writers import rank_of
from towpath.api.core import Condition, Node, NodeStatus
from towpath.api.meta import ObjectMeta
from towpath.api.report import STATUS
from towpath.kube.client import Client
from towpath.kube.fake import FakeApiServer
from towpath.kube.kinds import EVENTS
from towpath.model.finding import Finding
from towpath.policy.reported import Read, Reported
from towpath.policy.sources import source_of

FINDING = Finding(
    code="TP5001",
    object="NetworkPolicy/shop/db",
    message="spec.ingress[0].from[0].ipBlock.cidr: '10.0.0.0/40' is no CIDR; the rule is left out",
    fix="write a CIDR",
)
RAW = {"metadata": {"name": "db", "namespace": "shop", "uid": "u1", "resourceVersion": "7"}}
SOURCE = source_of("networking.k8s.io", "networkpolicies")
ONE = Reported(Read(SOURCE, RAW, (FINDING,)), FINDING)


def node(name: str, *, ready: bool = True) -> Node:
    status = NodeStatus(conditions=[Condition(type="Ready", status=str(ready))])
    return Node(ObjectMeta(name=name, annotations={STATUS: "{}"}), status=status)


class World:
    """Agents of three nodes, what they find, and their clock."""

    def __init__(self, client: Client) -> None:
        self.findings: list[Read] = [ONE.about]
        self.nodes: Mapping[str, Node] = {name: node(name) for name in ("n1", "n2", "n3")}
        self.seconds = 1000.0
        by_rank = sorted(self.nodes, key=lambda name: rank_of(name, event_name(ONE), self.nodes))
        self.agents = [self.agent(client, name) for name in by_rank]

    def agent(self, client: Client, name: str) -> PolicyEvents:
        return PolicyEvents(
            client,
            name,
            lambda: self.findings,
            lambda: self.nodes,
            lambda: self.seconds,
            lambda: datetime.fromtimestamp(self.seconds, UTC),
        )

    async def after(self, seconds: float, agents: list[PolicyEvents] | None = None) -> None:
        self.seconds += seconds
        for agent in self.agents if agents is None else agents:
            await agent.write()


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    server = await FakeApiServer.start()
    yield server
    await server.down()


@pytest.fixture
async def world(server: FakeApiServer) -> AsyncIterator[World]:
    async with Client(server.config()) as client:
        yield World(client)


def written(server: FakeApiServer) -> list[dict[str, Any]]:
    return list(server.objects.get("core/v1/events", {}).values())


def asked(server: FakeApiServer) -> list[str]:
    return [method for method, target in server.requests if "/events" in target]


async def test_one_writes_and_renews(server: FakeApiServer, world: World) -> None:
    await world.after(0)
    (event,) = written(server)
    assert event["reason"] == "TP5001"
    assert event["type"] == "Warning"
    assert "spec.ingress[0].from[0].ipBlock.cidr: '10.0.0.0/40'" in event["message"]
    assert event["involvedObject"] == {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "namespace": "shop",
        "name": "db",
        "uid": "u1",
        "resourceVersion": "7",
    }
    for _ in range(20):
        await world.after(2)
    assert asked(server) == ["POST", "POST", "POST"]  # the other two look once whether it is there
    assert [one["count"] for one in written(server)] == [1]
    await world.after(1800)
    (event,) = written(server)
    assert (event["count"], event["lastTimestamp"]) == (2, "1970-01-01T00:47:20Z")


async def test_what_only_one_node_finds_that_node_writes(server: FakeApiServer, world: World) -> None:
    last = world.agents[2]
    here = Finding(code="TP5045", object="HostEndpoint/h", message="of node n1", fix="correct it")
    world.findings = [Read(SOURCE, RAW, (), (here,))]
    await world.after(0, [last])
    assert written(server) == [], "it may not have seen all addresses yet"
    await world.after(15, [last])
    assert [event["reason"] for event in written(server)] == ["TP5045"]


async def test_the_next_writes_if_the_first_does_not(server: FakeApiServer, world: World) -> None:
    others = world.agents[1:]
    await world.after(0, others)
    await world.after(14, others)
    assert not written(server)
    await world.after(1, others)
    assert len(written(server)) == 1


async def test_a_restarted_agent_finds_its_event(server: FakeApiServer, world: World) -> None:
    await world.after(0)
    async with Client(server.config()) as client:
        again = World(client)
        await again.after(0, again.agents[:1])
    assert [one["count"] for one in written(server)] == [1]


async def test_a_mended_policy_has_none(server: FakeApiServer, world: World) -> None:
    await world.after(0)
    world.findings = []
    await world.after(4000)
    assert len(asked(server)) == 1
    world.findings = [ONE.about]
    await world.after(0, world.agents[:1])
    assert len(written(server)) == 1


async def test_forgotten_by_the_api_server(server: FakeApiServer, world: World) -> None:
    await world.after(0)
    server.remove(EVENTS, event_name(ONE), "shop")
    await world.after(1800, world.agents[:1])
    await world.after(60, world.agents[:1])
    assert [one["count"] for one in written(server)] == [1]


async def test_a_refusal_is_logged_and_tried_again(
    server: FakeApiServer, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    server.fail(403)
    await world.after(0, world.agents[:1])
    assert "event_not_written" in caplog.text
    assert not written(server)
    await world.after(59, world.agents[:1])
    assert not written(server)
    await world.after(1, world.agents[:1])
    assert len(written(server)) == 1


def test_names_and_ranks() -> None:
    other = Reported(ONE.about, Finding(code="TP5001", object="o", message="m", fix="f"))
    assert event_name(ONE) == event_name(Reported(Read(SOURCE, dict(RAW), ()), FINDING)) != event_name(other)
    long = {"metadata": {"name": "a" * 250, "uid": "u"}}
    assert len(event_name(Reported(Read(SOURCE, long, ()), FINDING))) < 253
    names = [f"n{n}" for n in range(50)]
    assert sorted(rank_of(name, "x", names) for name in names) == list(range(50))
    firsts = {min(names, key=lambda name: rank_of(name, f"e{n}", names)) for n in range(200)}
    assert len(firsts) > 40  # the work is everybody's


def test_cluster_wide_and_odd_objects_go_to_default() -> None:
    source = source_of("crd.projectcalico.org", "globalnetworkpolicies")
    for raw in ({"metadata": {"name": "g"}}, {"metadata": None}, {"metadata": {"name": 7, "uid": []}}):
        event = event_of("e", Reported(Read(source, raw, ()), FINDING), "n1", datetime.now(UTC))
        assert event["metadata"]["namespace"] == "default"
        assert event["involvedObject"]["kind"] == "GlobalNetworkPolicy"
    huge = Finding(code="TP5001", object="o", message="m" * 5000, fix="f")
    assert (
        len(event_of("e", Reported(Read(source, {}, ()), huge), "n1", datetime.now(UTC))["message"]) == 1024
    )
