"""Addresses of two pods, as the API's events tell of them."""

import asyncio
from ipaddress import ip_address
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.agent.twins import Twins
from towpath.api.core import Pod, PodIP, PodSpec, PodStatus
from towpath.api.meta import ObjectMeta

Key = tuple[str, str]


def pod(name: str, node: str, *texts: str, created: str = "1", phase: str = "Running", **meta: Any) -> Pod:
    return Pod(
        metadata=ObjectMeta(namespace="d", name=name, uid=f"u-{name}", creation_timestamp=created, **meta),
        spec=PodSpec(node_name=node),
        status=PodStatus(phase=phase, pod_ip=texts[0] if texts else "", pod_ips=[PodIP(t) for t in texts]),
    )


class World:
    def __init__(self) -> None:
        self.pods: dict[Key, Pod] = {}
        self.changes = 0
        self.twins = Twins("n1", lambda: self.pods, self._changed)

    def _changed(self) -> None:
        self.changes += 1

    def put(self, one: Pod) -> None:
        key = (one.metadata.namespace, one.metadata.name)
        self.pods[key] = one
        self.twins.pod_changed(key)

    def drop(self, name: str) -> None:
        del self.pods["d", name]
        self.twins.pod_changed(("d", name))

    def look(self) -> set[tuple[str, str]]:
        self.twins.look()
        return {(c.newer, str(c.address)) for c in self.twins.standing}


def test_the_newer_pod_here_loses_what_is_seen_twice() -> None:
    world = World()
    world.put(pod("a", "n1", "10.0.0.1", "fd00::1", created="2"))
    world.put(pod("b", "n2", "10.0.0.1", created="1"))
    assert world.look() == set()
    assert world.look() == {("d/a", "10.0.0.1")} == world.look() and world.changes == 1
    (finding,) = world.twins.findings()
    assert (finding.code, finding.object) == ("TP4015", "Pod/d/a") and "Pod/d/b on n2" in finding.message
    world.drop("b")
    assert world.look() == set() and world.changes == 2 and world.twins.findings() == []


def test_what_is_no_contest_here() -> None:
    world = World()
    world.put(pod("a", "n1", "10.0.0.1", created="1"))
    world.put(pod("newer", "n2", "10.0.0.1", created="2"))  # n2's to act
    world.put(pod("late", "n1", "10.0.0.1", created="3"))  # of two here, one is a status that is late
    world.put(pod("b", "n1", "10.0.0.2", created="2"))
    world.put(pod("over", "n2", "10.0.0.2", created="1", phase="Failed"))
    world.put(pod("leaving", "n2", "10.0.0.2", created="1", deletion_timestamp="3"))
    world.put(pod("c", "n1", "no address", created="2"))
    world.put(pod("d", "n2", "no address", created="1"))
    host = pod("host", "n2", "10.0.0.2", created="1")
    world.put(msgspec.structs.replace(host, spec=PodSpec(node_name="n2", host_network=True)))
    assert world.look() == world.look() == set() and world.changes == 0
    assert world.twins.elsewhere(ip_address("10.0.0.1")) == "Pod/d/newer on n2"
    assert world.twins.elsewhere(ip_address("10.0.0.2")) == ""


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcd"),
            st.sampled_from(["n1", "n2"]),
            st.lists(st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1"]), max_size=3),
            st.sampled_from(["1", "2"]),
            st.booleans(),
        ),
        max_size=20,
    )
)
def test_events_in_any_order_come_to_what_a_look_at_all_pods_says(
    events: list[tuple[str, str, list[str], str, bool]],
) -> None:
    world = World()
    for name, node, texts, created, gone in events:
        if not gone:
            world.put(pod(name, node, *texts, created=created))
        elif ("d", name) in world.pods:
            world.drop(name)
        world.twins.pod_changed(("d", name))  # told again
    expected = set()
    for text in ("10.0.0.1", "10.0.0.2", "fd00::1"):
        having = [p for p in world.pods.values() if text in {i.ip for i in p.status.pod_ips or ()}]
        having.sort(key=lambda p: (p.metadata.creation_timestamp, p.metadata.name))
        if having and having[0].spec.node_name != "n1":
            expected |= {(f"d/{p.metadata.name}", text) for p in having if p.spec.node_name == "n1"}
    world.look()
    assert world.look() == expected


@pytest.mark.looptime
async def test_a_contest_is_seen_by_the_running_part_whenever_it_begins_and_it_rests_in_between() -> None:
    world = World()
    task = asyncio.create_task(world.twins.run())
    try:
        for day in (1, 2):
            await asyncio.sleep(86400.0 * day)
            world.put(pod("a", "n1", "10.0.0.1", created="2"))
            world.put(pod("b", "n2", "10.0.0.1", created="1"))
            await asyncio.sleep(1.5)
            assert {c.newer for c in world.twins.standing} == {"d/a"}
            world.drop("b")
            await asyncio.sleep(2.5)
            assert world.twins.standing == frozenset()
    finally:
        task.cancel()
