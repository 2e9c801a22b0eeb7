from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network

from msgspec.structs import replace

from nodes import DUAL, UNDERLAY, V4_ONLY, V6_ONLY, mac, node, snapshot
from towpath.desired.node import node_state
from towpath.model.net import Address, Fdb, Link, Neighbour, Route, Vxlan
from towpath.model.network import ClusterNetwork
from towpath.model.op import Add, Delete, DelLink, NftUpdate
from towpath.model.state import NetState, Scope
from towpath.reconcile.diff import diff


def test_two_nodes_dual_stack() -> None:
    desired = node_state(snapshot(node(1), node(2)))
    state = desired.state
    assert not desired.findings
    four = Vxlan(vni=1, port=8472, local=ip_address("172.30.0.11"), underlay="eth0")
    six = Vxlan(vni=1, port=8472, local=ip_address("fd00:172:30::11"), underlay="eth0")
    assert state.links == {
        "flannel.1": Link(name="flannel.1", kind=four, mtu=1450, mac=mac(1)),
        "flannel-v6.1": Link(name="flannel-v6.1", kind=six, mtu=1430, mac=mac(1, 6)),
    }
    assert state.addresses == {
        Address(dev="flannel.1", interface=ip_interface("10.42.1.0/32")),
        Address(dev="flannel-v6.1", interface=ip_interface("fd00:10:42:1::/128")),
    }
    gateway4, gateway6 = ip_address("10.42.2.0"), ip_address("fd00:10:42:2::")
    assert state.neighbours == {
        Neighbour(dev="flannel.1", addr=gateway4, mac=mac(2)),
        Neighbour(dev="flannel-v6.1", addr=gateway6, mac=mac(2, 6)),
    }
    assert state.fdb == {
        Fdb(dev="flannel.1", mac=mac(2), dst=ip_address("172.30.0.12")),
        Fdb(dev="flannel-v6.1", mac=mac(2, 6), dst=ip_address("fd00:172:30::12")),
    }
    assert state.routes == {
        Route(dst=ip_network("10.42.2.0/24"), dev="flannel.1", via=gateway4, onlink=True),
        Route(dst=ip_network("fd00:10:42:2::/64"), dev="flannel-v6.1", via=gateway6, onlink=True),
    }
    assert state.sysctls == {
        "net/ipv4/ip_forward": "1",
        "net/ipv6/conf/all/forwarding": "1",
        "net/ipv6/conf/flannel.1/accept_ra": "0",
        "net/ipv6/conf/flannel-v6.1/accept_ra": "0",
    }
    assert desired.scope == Scope(
        devices=frozenset({"flannel.1", "flannel-v6.1"}), networks=frozenset(DUAL.networks)
    )


def test_direct_routing_needs_a_route_only_and_only_on_the_link() -> None:
    network = replace(DUAL, direct_routing=True)
    underlay = replace(UNDERLAY, on_link=frozenset({ip_address("172.30.0.12")}))
    state = node_state(snapshot(node(1), node(2), node(3), network=network, underlay=underlay)).state
    direct = Route(dst=ip_network("10.42.2.0/24"), dev="eth0", via=ip_address("172.30.0.12"))
    assert direct in state.routes
    assert {f.mac for f in state.fdb} == {mac(3), mac(2, 6), mac(3, 6)}
    assert {r.dev for r in state.routes if r.dst == ip_network("fd00:10:42:2::/64")} == {"flannel-v6.1"}


def test_host_gw_is_routes_alone_and_its_mtu_the_underlays() -> None:
    network = replace(DUAL, backend="host-gw")
    underlay = replace(
        UNDERLAY, on_link=frozenset({ip_address("172.30.0.12"), ip_address("fd00:172:30::12")})
    )
    peers = (node(1, backend="host-gw"), node(2, backend="host-gw"), node(3, backend="host-gw"))
    desired = node_state(snapshot(*peers, network=network, underlay=underlay))
    assert desired.state.links == {}
    assert desired.state.routes == {
        Route(dst=ip_network("10.42.2.0/24"), dev="eth0", via=ip_address("172.30.0.12")),
        Route(dst=ip_network("fd00:10:42:2::/64"), dev="eth0", via=ip_address("fd00:172:30::12")),
    }
    assert [(f.code, f.object) for f in desired.findings] == [("TP3008", "Node/n3")] * 2
    assert {"flannel.1", "flannel-v6.1"} == desired.scope.devices


def test_from_vxlan_to_host_gw_the_routes_move_before_the_device_goes() -> None:
    before = node_state(snapshot(node(1), node(2))).state
    underlay = replace(
        UNDERLAY, on_link=frozenset({ip_address("172.30.0.12"), ip_address("fd00:172:30::12")})
    )
    after = node_state(
        snapshot(
            node(1, backend="host-gw"),
            node(2, backend="host-gw"),
            network=replace(DUAL, backend="host-gw"),
            underlay=underlay,
        )
    )
    seen = replace(before, links=before.links | {"eth0": Link(name="eth0", mtu=1500)})
    ops = [op for op in diff(seen, after.state, after.scope) if not isinstance(op, NftUpdate)]
    assert [type(op) for op in ops] == [Add, Add, DelLink, DelLink]


def test_a_single_family() -> None:
    for network, name, count in ((V4_ONLY, "flannel.1", 4), (V6_ONLY, "flannel-v6.1", 6)):
        desired = node_state(snapshot(node(1), node(2), network=network))
        assert set(desired.state.links) == {name}
        assert {r.dst.version for r in desired.state.routes} == {count}
        assert desired.scope.devices == {"flannel.1", "flannel-v6.1"}
        assert not desired.findings


def test_switching_a_family_off_removes_its_device() -> None:
    before = node_state(snapshot(node(1), node(2))).state
    after = node_state(snapshot(node(1), node(2), network=V4_ONLY))
    assert diff(before, after.state, after.scope)[-1] == DelLink("flannel-v6.1")


def test_a_peer_that_moves_is_reachable_by_the_new_way_before_the_old_one_goes() -> None:
    before = node_state(snapshot(node(1), node(2))).state
    data = f'{{"VNI":1,"VtepMAC":"{mac(9)}"}}'
    after = node_state(snapshot(node(1), node(2, backend_data=data, public_ip="172.30.0.99")))
    firewall, *ops = diff(before, after.state, after.scope)
    assert firewall.describe() == "nft inet towpath: -1 of peer4, +1 in peer4"
    assert ops == [
        Add(Neighbour(dev="flannel.1", addr=ip_address("10.42.2.0"), mac=mac(9))),
        Add(Fdb(dev="flannel.1", mac=mac(9), dst=ip_address("172.30.0.99"))),
        Delete(Fdb(dev="flannel.1", mac=mac(2), dst=ip_address("172.30.0.12"))),
    ]


def test_a_peer_that_leaves_is_removed_from_the_top_down() -> None:
    before = node_state(snapshot(node(1), node(2), network=V4_ONLY)).state
    after = node_state(snapshot(node(1), network=V4_ONLY))
    kinds = [type(op.item) for op in diff(before, after.state, after.scope) if isinstance(op, Delete)]
    assert kinds == [Route, Fdb, Neighbour]


def test_stale_peers_found_at_start_are_removed_and_foreign_routes_are_not() -> None:
    wanted = node_state(snapshot(node(1), node(2), network=V4_ONLY))
    stale = {
        Route(dst=ip_network("10.42.7.0/24"), dev="flannel.1", via=ip_address("10.42.7.0"), onlink=True),
        Route(dst=ip_network("10.42.8.0/24"), dev="eth0", via=ip_address("172.30.0.18")),
    }
    foreign = {
        Route(dst=ip_network("0.0.0.0/0"), dev="eth0", via=ip_address("172.30.0.1")),
        Route(dst=ip_network("10.42.9.0/24"), dev="br0"),
        Route(dst=ip_network("10.42.9.5/32"), dev="caliother", scope="link"),
        Route(dst=ip_network("10.42.8.0/24"), dev="eth0", via=ip_address("172.30.0.18"), table=100),
        Route(dst=ip_network("fe80::/64"), dev="flannel.1"),
    }
    others = {name: Link(name=name, mtu=1500) for name in ("eth0", "br0", "caliother")}
    seen = replace(
        wanted.state, links=wanted.state.links | others, routes=wanted.state.routes | stale | foreign
    )
    assert {op.item for op in diff(seen, wanted.state, wanted.scope) if isinstance(op, Delete)} == stale


def test_nothing_is_taken_down_while_the_own_node_is_unknown() -> None:
    before = node_state(snapshot(node(1), node(2))).state
    for broken in (
        snapshot(),
        snapshot(replace(node(1), spec=replace(node(1).spec, pod_cidr="", pod_cidrs=[]))),
    ):
        after = node_state(broken)
        assert [f.code for f in after.findings] == ["TP3010"] * len(after.findings) != []
        assert diff(before, after.state, after.scope) == ()


def test_one_lost_family_of_the_underlay_leaves_that_family_as_it_is() -> None:
    before = node_state(snapshot(node(1), node(2))).state
    after = node_state(snapshot(node(1), node(2), underlay=replace(UNDERLAY, ipv6=None)))
    assert [f.code for f in after.findings] == ["TP3012"]
    assert "flannel-v6.1" not in after.scope.devices
    ops = diff(before, after.state, after.scope)
    assert all(isinstance(op, NftUpdate) for op in ops)


def test_an_existing_devices_mac_is_kept_unless_the_annotation_knows_another() -> None:
    fresh = node(1, backend_data=None, backend_v6_data=None)
    macs = {"flannel.1": "0e:aa:00:00:00:01"}
    links = node_state(snapshot(fresh, vtep_macs=macs)).state.links
    assert links["flannel.1"].mac == "0e:aa:00:00:00:01"
    assert links["flannel-v6.1"].mac is None
    assert node_state(snapshot(node(1), vtep_macs=macs)).state.links["flannel.1"].mac == mac(1)


def test_an_incompatible_device_is_recreated_with_all_its_entries() -> None:
    wanted = node_state(snapshot(node(1), node(2), network=V4_ONLY))
    link = wanted.state.links["flannel.1"]
    assert isinstance(link.kind, Vxlan)
    foreign = replace(link, kind=replace(link.kind, vni=2))
    ops = diff(replace(wanted.state, links={"flannel.1": foreign}), wanted.state, wanted.scope)
    assert DelLink("flannel.1") not in ops, "another VNI's device only has our name"
    for change in ({"port": 4789}, {"underlay": "eth1"}, {"gbp": True}):
        other = replace(link, kind=replace(link.kind, **change))
        ops = diff(replace(wanted.state, links={"flannel.1": other}), wanted.state, wanted.scope)
        assert ops[0] == DelLink("flannel.1")
        assert {type(op.item) for op in ops if isinstance(op, Add)} == {Address, Neighbour, Fdb, Route}
    adopted = replace(link, mtu=1400, kind=replace(link.kind, learning=True))
    ops = diff(replace(wanted.state, links={"flannel.1": adopted}), wanted.state, wanted.scope)
    assert [op.describe() for op in ops] == ["set link flannel.1 mtu 1450"]


def test_a_new_mac_flushes_neighbours_and_they_come_back() -> None:
    wanted = node_state(snapshot(node(1), node(2), network=V4_ONLY))
    link = wanted.state.links["flannel.1"]
    ops = diff(
        replace(wanted.state, links={"flannel.1": replace(link, mac=mac(7))}), wanted.state, wanted.scope
    )
    assert [op.describe().split()[0:2] for op in ops] == [["set", "link"], ["add", "neighbour"]]


def test_empty_observation_of_ipv6_networks() -> None:
    network = ClusterNetwork(ipv4=IPv4Network("10.42.0.0/16"), ipv6=IPv6Network("fd00:10:42::/56"), vni=7)
    state = node_state(snapshot(node(1), network=network)).state
    assert set(state.links) == {"flannel.7", "flannel-v6.7"}
    assert diff(NetState(), state, Scope())[0].describe().startswith("nft inet towpath")
