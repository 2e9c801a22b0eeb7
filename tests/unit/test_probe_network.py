"""A probe run with a network beside the pod network: its path, its pods, the addresses there."""

from typing import Any

import msgspec
import pytest

from probe_objects import plan, probe
from towpath.api.core import Pod
from towpath.api.meta import ObjectMeta
from towpath.probe import objects
from towpath.probe.cluster import in_network
from towpath.probe.paths import CROSS_NODE, SECONDARY, Found, Wanted, plans
from towpath.probe.plan import Kind

RUN = objects.Run(name="0a1b", expires="2026-01-01T00:00:00Z", image="i", network="default/storage")
ASKED = {"k8s.v1.cni.cncf.io/networks": "default/storage"}
FOUND = Found(
    targets={"a": ("10.0.0.1",), "b": ("10.0.1.1",)},
    nodes={"a": ("192.0.2.1",), "b": ("192.0.2.2",)},
    secondary={"a": ("192.168.77.1",), "b": ("192.168.77.2", "fd77::2")},
)


def secondary(found: Found, kinds: tuple[Kind, ...] = tuple(Kind)) -> set[tuple[str, Kind]]:
    made = plans(found, Wanted(origins=("a",), seconds=5, kinds=kinds))
    return {(p.address, p.kind) for one in made.values() for p in one.probes if p.path == SECONDARY}


def test_another_nodes_target_is_asked_there_and_nothing_is_denied() -> None:
    asked = secondary(FOUND)
    assert {address for address, _ in asked} == {"192.168.77.2", "fd77::2"}
    assert {kind for _, kind in asked} == {kind for kind in Kind if not kind.denied}


def test_new_flows_of_udp_between_nodes_fill_the_mtu() -> None:
    made = plans(FOUND, Wanted(origins=("a",), seconds=5))
    filling = {(p.path, p.kind) for one in made.values() for p in one.probes if p.fills_mtu}
    assert filling == {(CROSS_NODE, Kind.UDP_FRESH)}


def test_without_one_there_is_no_such_path() -> None:
    assert not secondary(msgspec.structs.replace(FOUND, secondary={}))


def test_targets_and_probers_on_the_pod_network_ask_for_it_and_nobody_else() -> None:
    one = plan((probe(Kind.UDP, 0),), 5)
    asked: list[dict[str, Any]] = [
        objects.targets(RUN)["spec"]["template"]["metadata"],
        objects.prober(RUN, "n1", one, host_network=False)["metadata"],
    ]
    assert [metadata["annotations"] for metadata in asked] == [ASKED, ASKED]
    others = [
        objects.host_targets(RUN)["spec"]["template"]["metadata"],
        objects.prober(RUN, "n1", one, host_network=True)["metadata"],
        objects.targets(msgspec.structs.replace(RUN, network=""))["spec"]["template"]["metadata"],
    ]
    assert not any("annotations" in metadata for metadata in others)


@pytest.mark.parametrize(
    ("status", "addresses"),
    [
        (
            '[{"name": "towpath", "ips": ["10.42.0.5"], "default": true},'
            ' {"name": "default/storage", "ips": ["192.168.77.2", "fd77::2"], "dns": {}}]',
            ("192.168.77.2", "fd77::2"),
        ),
        ('[{"name": "default/other", "ips": ["192.168.77.2"]}]', ()),
        ('[{"name": "default/storage"}]', ()),
        ('{"name": 7', ()),
        ("[7]", ()),
    ],
)
def test_addresses_are_those_of_the_annotation(status: str, addresses: tuple[str, ...]) -> None:
    pod = Pod(metadata=ObjectMeta(name="p", annotations={"k8s.v1.cni.cncf.io/network-status": status}))
    assert in_network(pod, "default/storage") == addresses


def test_a_pod_without_the_annotation_has_none() -> None:
    assert in_network(Pod(metadata=ObjectMeta(name="p")), "default/storage") == ()
