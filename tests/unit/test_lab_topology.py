"""Topologies as values."""

import json
from pathlib import Path

import pytest
import yaml

from towpath.lab import topology
from towpath.lab.canal import programs
from towpath.lab.rundir import LabError
from towpath.lab.topology import lab_spec
from towpath.model.op import Add, AddLink, describe


def test_three_dual_stack_nodes_by_default() -> None:
    spec = lab_spec({})
    assert [n.name for n in spec.nodes] == ["n1", "n2", "n3"]
    assert topology.internal_ips(spec, spec.nodes[1]) == ["172.30.0.12", "fd00:172:30::12"]
    assert topology.api_url(spec) == "https://172.30.0.1:6443"


def test_one_family() -> None:
    spec = lab_spec({}, families=("ipv6",), nodes=1)
    assert topology.internal_ips(spec, spec.nodes[0]) == ["fd00:172:30::11"]
    assert topology.api_url(spec) == "https://[fd00:172:30::1]:6443"
    assert topology.networks(spec, topology.POD_NETWORK4, topology.POD_NETWORK6) == ["fd00:10:42::/56"]
    conf = json.loads(topology.net_conf(spec))
    assert (conf["EnableIPv4"], conf["EnableIPv6"]) == (False, True)
    assert "Network" not in conf


def test_command_line_adds_nodes_to_the_file() -> None:
    spec = lab_spec(
        {"nodes": [{"name": "n2", "labels": {"a": "b"}}, {"name": "edge", "segment": 3}]}, nodes=4
    )
    assert [n.name for n in spec.nodes] == ["n2", "edge", "n1", "n3"]
    assert len({(n.segment, n.host) for n in spec.nodes}) == 4
    assert spec.segments == [0, 3]


def test_hosts_asked_for_are_kept_and_others_step_aside() -> None:
    spec = lab_spec({"nodes": [{"name": "a"}, {"name": "b", "host": 11}]})
    assert {n.name: n.host for n in spec.nodes} == {"a": 12, "b": 11}


@pytest.mark.parametrize(
    "raw",
    [
        {"nodes": [{"name": "a"}, {"name": "a"}]},
        {"nodes": [{"name": "A_b"}]},
        {"nodes": [{"name": "a", "segment": 100}]},
        {"nodes": "three"},
        {"node": []},
        {"families": ["ipv5"]},
        {"backend": "wireguard"},
        [],
        {"nodes": [{"name": f"x{i}"} for i in range(201)]},
    ],
)
def test_bad_topologies_are_named(raw: object) -> None:
    with pytest.raises(LabError) as refused:
        lab_spec(raw)
    assert refused.value.code == "TP9004"


def test_unknown_node_lists_the_known() -> None:
    with pytest.raises(LabError, match="n1, n2"):
        lab_spec({}, nodes=2).node("n9")


def test_direct_routing_only_where_there_is_a_tunnel() -> None:
    assert (
        json.loads(topology.net_conf(lab_spec({"direct_routing": True})))["Backend"]["DirectRouting"] is True
    )
    assert json.loads(topology.net_conf(lab_spec({"backend": "host-gw"})))["Backend"] == {"Type": "host-gw"}


def test_every_segment_has_its_switch_and_gateway() -> None:
    spec = lab_spec({"nodes": [{"name": "a", "segment": 7}]})
    ops = topology.root_ops(spec)
    assert {op.link.name for op in ops if isinstance(op, AddLink)} == {"br0", "br7"}
    added = [describe(op.item) for op in ops if isinstance(op, Add)]
    assert "address 172.30.7.1/24 dev br7" in added
    (cable,) = topology.cable_ops(spec, spec.nodes[0])
    assert isinstance(cable, AddLink)
    assert cable.link.master == "br7"
    assert "route 0.0.0.0/0 via 172.30.7.1 dev eth0" in [
        describe(op.item) for op in topology.node_ops(spec, spec.nodes[0]) if isinstance(op, Add)
    ]


def test_outside_knows_no_way_to_pods() -> None:
    _, host = topology.outside_ops(lab_spec({}))
    routes = [describe(op.item) for op in host if isinstance(op, Add) and "route" in describe(op.item)]
    assert routes == ["route 0.0.0.0/0 via 198.51.100.1 dev eth0", "route ::/0 via 2001:db8:51::1 dev eth0"]
    assert not any(
        "10.42" in describe(op.item) for op in topology.root_ops(lab_spec({})) if isinstance(op, Add)
    )


def test_the_documented_topology_is_valid() -> None:
    text = Path(__file__).parents[2].joinpath("docs", "lab.md").read_text()
    spec = lab_spec(yaml.safe_load(text.split("```yaml\n")[1].split("```")[0]))
    assert [(n.name, str(n.ipv4)) for n in spec.nodes] == [
        ("a1", "172.30.0.11/24"),
        ("a2", "172.30.0.12/24"),
        ("b1", "172.30.1.50/24"),
    ]


def test_canal_is_had_as_the_chart_has_it_only() -> None:
    assert lab_spec({}, cni="canal").cni == "canal"
    for other in ({"backend": "host-gw"}, {"control_plane": "real"}):
        with pytest.raises(LabError, match="Canal is had with the embedded control plane and vxlan only"):
            lab_spec(other, cni="canal")


def test_canals_programs_are_asked_for_by_their_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "_PATH", str(tmp_path))
    monkeypatch.setattr(programs, "DEBIAN_PLUGINS", tmp_path)
    with pytest.raises(LabError, match=r"Canal needs .*ipset.*portmap") as lacking:
        programs.require()
    assert "apt install containernetworking-plugins ipset iptables" in lacking.value.hint
