"""A cluster half flanneld's, half Towpath's, for as long as wanted: either side's nodes come, move and go.

flanneld is the stand-in of ``towpath.lab.canal.flanneld``, which has its faults too: it drops a peer
that lacks a family, and ignores an update in which either family is unchanged.
"""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path as File

import pytest
from agent_node import FLANNEL, node
from canal_world import NODES, CanalNode, PodOnNode, World, agent_running, canal_world, finished, settled
from test_takeover import in_felix, taken_over
from wired_node import reach

from patience import PATIENT

pytestmark = pytest.mark.kernel


@pytest.fixture
async def mixed(tmp_path: File) -> AsyncIterator[World]:
    """``n1`` taken over, ``n2`` Canal's; a pod on each."""
    async with canal_world(tmp_path) as world:
        await world.n1.add(world.api, "near")
        await world.n2.add(world.api, "far")
        await settled(lambda: in_felix(world.n1, "near") and in_felix(world.n2, "far"), world.n1)
        async with agent_running(world.n1):
            status, _, said = await taken_over(world)
            assert status == 0, said
            yield world


async def both_ways(world: World) -> None:
    """Pods of both nodes reach each other, in both families, each seen by its own address."""
    near, far = world.n1.pods["near"], world.n2.pods["far"]
    for number in (0, 1):
        for source, sink in ((near, far), (far, near)):
            await settled(partial(_answered, source, sink, number), world.n1, world.n2)


def _answered(source: PodOnNode, sink: PodOnNode, number: int) -> bool:
    seen = reach(source.netns, sink.netns, sink.addresses[number], 7100, patience=0.5)
    return seen == source.addresses[number]


async def test_pods_of_both_kinds_of_nodes_reach_each_other(mixed: World) -> None:
    await both_ways(mixed)
    late = await mixed.n1.add(mixed.api, "late")
    far = mixed.n2.pods["far"]
    await settled(lambda: reach(far.netns, late.netns, late.addresses[0], 7101, patience=0.5), mixed.n2)


async def test_a_third_node_comes_moves_and_goes_on_both_sides(mixed: World) -> None:
    def third(one: CanalNode) -> tuple[bool, bool, bool]:
        entries = one.sh("bridge fdb show dev flannel.1; bridge fdb show dev flannel-v6.1")
        routes = one.sh("ip route; ip -6 route")
        return ("172.30.0.13" in entries, "fd00:172:30::13" in entries, "10.42.3.0/24" in routes)

    mixed.api.put(NODES, node(3, peer=True))
    for one in (mixed.n1, mixed.n2):
        await settled(lambda one=one: third(one) == (True, True, True), one)  # type: ignore[misc]
    moved = node(3, peer=True)
    moved["metadata"]["annotations"][FLANNEL + "backend-data"] = '{"VNI":1,"VtepMAC":"02:00:00:00:04:99"}'
    moved["metadata"]["annotations"][FLANNEL + "backend-v6-data"] = '{"VNI":1,"VtepMAC":"02:00:00:00:06:99"}'
    mixed.api.put(NODES, moved)
    for one in (mixed.n1, mixed.n2):
        await settled(
            lambda one=one: "02:00:00:00:04:99" in one.sh("ip neigh; bridge fdb show dev flannel.1"),  # type: ignore[misc]
            one,
        )
    mixed.api.remove(NODES, "n3")
    for one in (mixed.n1, mixed.n2):
        await settled(lambda one=one: "10.42.3.0/24" not in one.sh("ip route"), one)  # type: ignore[misc]
    await both_ways(mixed)


async def test_either_side_restarts_and_keeps_what_peers_know(mixed: World) -> None:
    notes = mixed.notes("n1"), mixed.notes("n2")
    links = mixed.n1.links()["flannel.1"], mixed.n2.links()["flannel.1"]
    agent = mixed.n1.process
    assert agent is not None
    agent.terminate()  # whoever keeps it running begins it anew
    await asyncio.to_thread(agent.wait, PATIENT)
    mixed.n2.stop_canal()
    await asyncio.sleep(0.5)
    mixed.n2.start_canal()
    await settled(lambda: "FLANNEL-POSTRTG" in mixed.n2.saved(), mixed.n2)
    await both_ways(mixed)
    assert (mixed.notes("n1"), mixed.notes("n2")) == notes
    assert (mixed.n1.links()["flannel.1"], mixed.n2.links()["flannel.1"]) == links


async def test_the_second_node_follows(mixed: World) -> None:
    """The whole cluster is Towpath's in the end, and nothing of it lost its place."""
    n2 = mixed.n2
    async with agent_running(n2):
        done = asyncio.create_task(finished(n2.migrate("takeover", "--patience=300")))
        while not done.done():
            labels = mixed.api.get(NODES, "n2")["metadata"].get("labels") or {}
            if labels.get("towpath.dev/network") == "towpath" and n2.daemons:
                await asyncio.to_thread(n2.stop_canal)
            await asyncio.sleep(0.05)
        status, _, said = await done
        assert status == 0, said
        await both_ways(mixed)
        assert "FLANNEL" not in n2.saved()
