"""A twin is what the cluster was, or says in what it is not."""

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from towpath.api.core import Node, NodeSpec
from towpath.api.flannel import parse_net_conf, parse_peer
from towpath.api.meta import ObjectMeta
from towpath.api.report import PODS_BY_WIRE
from towpath.backup.archive import Archive, Manifest, entry
from towpath.backup.objects import clean
from towpath.backup.restoring import chosen
from towpath.cli.upgrade_rehearse import screen
from towpath.desired.protection import by_wire
from towpath.inventory.pods import PodState, pod_state
from towpath.lab.kubelet_cni import FIXED
from towpath.lab.rundir import LabError
from towpath.lab.topology import internal_ips, net_conf
from towpath.lab.twin import Source, Twin, from_archive, twin
from towpath.lab.twin_plan import twin_measure
from towpath.upgrade.plan import Measure, Plan, Rehearsal

SERVER = {"node-role.kubernetes.io/control-plane": "true"}


def source(pods: list[PodState], cidr: str = "10.42.{}.0/24") -> Source:
    nodes: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
        name: (SERVER if name.startswith("s") else {"zone": name}, (cidr.format(number),))
        for number, name in enumerate(("s.example", "a", "b", "c"))
    }
    return Source(nodes, tuple(pods))


def pod(name: str, node: str, labels: dict[str, str] | None = None, **more: Any) -> PodState:
    return PodState(namespace="shop", name=name, node=node, labels=labels or {}, **more)


def pods_of(made: Twin) -> list[Any]:
    return [one for one in made.pods if one["kind"] == "Pod"]


def test_the_same_nodes_pods_and_addresses() -> None:
    front = pod("p", "a", {"app": "x"}, addresses=("10.42.1.7",), ports=((80, "TCP", "http"),))
    made = twin("t", source([front]))
    assert [n.name for n in made.spec.nodes] == ["a", "b", "c", "s-example"]
    assert made.spec.node("a").labels == {"zone": "a"} and made.spec.node("a").pod_cidrs == ("10.42.1.0/24",)
    assert made.spec.families == ("ipv4",) and made.nodes["s.example"] == "s-example"
    (space, one) = made.pods
    assert space["metadata"]["name"] == "shop"
    assert one["metadata"]["annotations"][FIXED] == "10.42.1.7" and one["spec"]["nodeName"] == "a"
    assert one["spec"]["containers"][0]["ports"] == [{"containerPort": 80, "protocol": "TCP", "name": "http"}]
    assert made.notes == ("no policies: an inventory counts them, an archive (towpath backup) holds them",)


def test_another_pod_network_is_said() -> None:
    made = twin("t", source([pod("p", "a", addresses=("10.7.1.7",))], "10.7.{}.0/24"))
    assert made.spec.node("a").pod_cidrs == () and any("pod CIDRs are the lab's" in n for n in made.notes)
    assert FIXED not in pods_of(made)[0]["metadata"]["annotations"]


def test_nodes_of_the_same_network_are_peers_before_their_agents_start() -> None:
    made = twin("t", source([]))
    network, macs = parse_net_conf(net_conf(made.spec)), set()
    for one in made.spec.nodes:
        meta = ObjectMeta(name=one.name, annotations=dict(one.annotations))
        peer, findings = parse_peer(
            Node(metadata=meta, spec=NodeSpec(pod_cidrs=list(one.pod_cidrs))), network
        )
        assert peer is not None and findings == ()
        link = peer.links[4]
        assert (str(link.subnet), str(link.public)) == (one.pod_cidrs[0], internal_ips(made.spec, one)[0])
        assert link.vtep is not None
        assert one.annotations[PODS_BY_WIRE] == by_wire(network)  # else all look again once it does
        macs.add(link.vtep.mac)
    assert len(macs) == 4
    assert not any(one.annotations for one in twin("t", source([], "10.7.{}.0/24")).spec.nodes)
    assert not any(one.annotations for one in twin("t", source([]), cni="canal").spec.nodes)


def test_fewer_nodes_keep_a_server_and_those_with_most_pods() -> None:
    made = twin("t", source([pod("1", "b"), pod("2", "b"), pod("3", "c")]), nodes=2)
    assert set(made.nodes) == {"s.example", "b"} and len(pods_of(made)) == 2
    assert {"2 of 4 nodes", "2 of 3 pods"} <= set(made.notes)


@given(st.lists(st.sampled_from("xyz"), min_size=1, max_size=30), st.integers(1, 30))
def test_fewer_pods_keep_every_set_of_labels_as_long_as_there_is_room(labels: list[str], most: int) -> None:
    pods = [pod(f"p{n}", "a", {"app": label, "pod-template-hash": str(n)}) for n, label in enumerate(labels)]
    kept = pods_of(twin("t", source(pods), pods=most))
    assert len(kept) == min(most, len(labels))
    assert len({one["metadata"]["labels"]["app"] for one in kept}) == min(most, len(set(labels)))


def test_no_nodes_no_twin() -> None:
    with pytest.raises(LabError, match="no node"):
        twin("t", Source({}, ()))


def test_an_archive_holds_of_a_pod_what_a_twin_needs_and_gives_none_back() -> None:
    raw = {
        "kind": "Pod",
        "metadata": {
            "name": "p",
            "namespace": "shop",
            "uid": "1",
            "labels": {"app": "x"},
            "annotations": {"a": "b"},
        },
        "spec": {"nodeName": "n", "containers": [{"name": "c", "env": [{"name": "K", "value": "secret"}]}]},
        "status": {"podIPs": [{"ip": "10.42.0.9"}], "phase": "Running"},
    }
    saved = entry("pods", "", "v1", "pods", clean(raw), namespaced=True)
    assert "secret" not in str(saved.object)
    manifest = Manifest(schema=1, towpath="", taken="", server="", cluster="", entries=(saved.entry,))
    archive = Archive(manifest, (saved,))
    assert from_archive(archive).pods == (pod_state(raw),)
    with pytest.raises(ValueError, match="nothing in the archive"):
        chosen(archive.objects, ("pods",), "")


def measured(probes: bool | None) -> Plan:
    """A plan that measures, with or without probes; or not at all."""
    images = {"c": ("x/y:1", "x/y:2")}
    measure = None if probes is None else Measure(image="r/towpath:v1", python=("python3",), probes=probes)
    return Plan(
        created="now",
        cluster="uid",
        namespace="kube-system",
        daemonset="d",
        source="1",
        target="2",
        images=images,
        strategy={"type": "OnDelete"},
        nodes=(),
        measure=measure,
    )


@pytest.mark.parametrize("probes", [None, False])
def test_what_the_plan_does_not_probe_is_not_probed_in_its_twin(probes: bool | None) -> None:
    assert twin_measure(measured(probes), ["n1"]) == (None, ())


def test_a_twin_is_probed_as_the_plan_says_by_this_machines_program() -> None:
    found, why = twin_measure(measured(True), [f"n{number}" for number in range(20)])
    assert found is not None and (found.level, found.slower, why) == ("H1", 5.0, ())
    assert (found.python, found.read) == ((sys.executable,), False)


def test_a_twin_of_many_nodes_is_not_probed_and_says_so() -> None:
    found, why = twin_measure(measured(True), [f"n{number}" for number in range(21)])
    assert found is None and "21 nodes" in why[0]


def test_what_a_rehearsal_lost_is_told() -> None:
    seen = Rehearsal(plan="h", taken="now", source="s", nodes=2, pods=3, mode="done", seconds=1.0)
    assert "probes" not in screen(seen)
    probed = replace(seen, level="H1", asked=1200, lost=3)
    assert "probes in the twin: H1, 3 of 1200 lost" in screen(probed)
