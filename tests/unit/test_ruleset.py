from ipaddress import ip_address, ip_network
from itertools import pairwise
from typing import Any

import pytest
from msgspec.structs import replace

from attachments import attachment
from nodes import DUAL, UNDERLAY, V4_ONLY, node, snapshot, telling
from towpath.api.core import Node, NodeAddress, NodeStatus
from towpath.api.report import ACCEPTED, REFUSED
from towpath.desired.identity import own_identity
from towpath.desired.node import node_state
from towpath.desired.peers import accepted_peers
from towpath.desired.policy_chains import POLICY_SETS
from towpath.desired.protection import Peering, by_wire, peering
from towpath.desired.ruleset import SETS, TABLE, bind, chains, pod_elements, ruleset, unbind
from towpath.model.attachment import PortMapping
from towpath.model.network import ClusterNetwork
from towpath.model.op import NftUpdate
from towpath.model.policy import Program
from towpath.reconcile.tables import diff_table

A = attachment("a", "10.42.1.2", "fd00:10:42:1::2", ports=(PortMapping(host_port=8080, container_port=80),))
B = attachment("b", "10.42.1.3")
LOCAL = (ip_network("10.42.1.0/24"), ip_network("fd00:10:42:1::/64"))


def test_a_pod_is_elements_and_no_rule() -> None:
    dev = A.host_ifname
    assert pod_elements(A) == {
        "pod_src4": {(dev, ip_address("10.42.1.2")): ()},
        "pod_src6": {(dev, ip_address("fd00:10:42:1::2")): ()},
        "pod_from": {(dev,): ("return",)},
        "pod_to": {(dev,): ("return",)},
        "hostport4": {("tcp", 8080): (ip_address("10.42.1.2"), 80)},
        "hostport6": {("tcp", 8080): (ip_address("fd00:10:42:1::2"), 80)},
    }
    assert ruleset(DUAL, LOCAL, (A, B)).chains == ruleset(DUAL, (), ()).chains


def test_bind_and_unbind_are_the_difference() -> None:
    without, with_a = ruleset(DUAL, LOCAL, (B,)), ruleset(DUAL, LOCAL, (B, A))
    added, removed = diff_table(without, with_a), diff_table(with_a, without)
    assert added is not None and removed is not None
    assert set(names(added)) == set(names(bind(A))) == set(pod_elements(A))
    assert {d.name: e for d, e in added.add_elements} == {d.name: e for d, e in bind(A).add_elements}
    assert {d.name: e for d, e in removed.del_elements} == {d.name: e for d, e in unbind(A).del_elements}
    assert bind(A).table == unbind(A).table == TABLE


def names(update: NftUpdate) -> list[str]:
    return [decl.name for decl, _ in update.add_elements]


@pytest.mark.parametrize("network", [DUAL, replace(DUAL, masquerade=False), replace(DUAL, backend="host-gw")])
def test_every_set_a_rule_speaks_of_is_declared_and_every_chain_is_there(network: ClusterNetwork) -> None:
    static = chains(network, clustered=True, policy=Program())
    for chain in static.values():
        for rule in chain.rules:
            words = rule.split()
            assert {w[1:] for w in words if w.startswith("@")} <= SETS.keys() | POLICY_SETS.keys()
            called = {after for verb, after in pairwise(words) if verb in {"jump", "goto"}}
            assert called <= static.keys()


def test_priorities_are_tied_with_nobodys() -> None:
    hooks = [chain.hook for chain in chains(DUAL).values() if chain.hook is not None]
    assert not {h.priority for h in hooks if h.type == "nat"} & {-100, 100, 0}


def test_masquerade_can_be_left_to_others_and_ports_still_work() -> None:
    static = chains(replace(V4_ONLY, masquerade=False))
    assert static["masq"].rules == ()
    assert any("ct status dnat masquerade" in rule for rule in static["nat_postrouting"].rules)


def test_a_pod_the_policy_does_not_know_is_in_no_map_and_a_container_without_identity_is_allowed() -> None:
    stranger = attachment("c", "10.42.1.4", pod=None)
    policy = Program(from_pod={A.host_ifname: ("goto pe-1",)}, to_pod={A.host_ifname: ("return",)})
    table = ruleset(DUAL, LOCAL, (A, B, stranger), policy)
    assert table.sets["pod_from"].elements == {
        (A.host_ifname,): ("goto pe-1",),
        (stranger.host_ifname,): ("return",),
    }
    assert table.sets["pod_to"].elements == {
        (A.host_ifname,): ("return",),
        (stranger.host_ifname,): ("return",),
    }
    assert table.sets.keys() >= POLICY_SETS.keys()
    # Its address is bound to its interface all the same.
    assert (B.host_ifname, ip_address("10.42.1.3")) in table.sets["pod_src4"].elements


def test_without_policy_and_peers_nothing_is_different() -> None:
    assert ruleset(DUAL, LOCAL, (A, B)).chains == chains(DUAL)
    assert not any("priority set" in rule for c in chains(DUAL).values() for rule in c.rules)
    assert not any("dport 8472" in rule for c in chains(DUAL).values() for rule in c.rules)


def seen_by_n1(*nodes: Node, **fields: Any) -> Peering:
    seen = snapshot(*nodes, **fields)
    me = own_identity(seen)
    return peering(seen, me, accepted_peers(seen, me.links))


def test_tunnels_are_open_to_accepted_peers() -> None:
    found = seen_by_n1(node(1), node(2), node(3, backend_type="host-gw"), node(4, public_ip="172.30.0.11"))
    assert found.tunnels == {ip_address(a) for a in ("172.30.0.12", "fd00:172:30::12", "fd00:172:30::14")}
    assert found.vteps == {
        ip_address(a)
        for a in ("10.42.1.0", "10.42.2.0", "fd00:10:42:1::", "fd00:10:42:2::", "fd00:10:42:4::")
    }


def test_a_peer_that_tells_another_address_than_its_own_may_come_from_either() -> None:
    behind = node(2, public_ip="203.0.113.2", public_ip_overwrite="203.0.113.2")
    addresses = [
        NodeAddress(type="InternalIP", address="172.30.0.12"),
        NodeAddress(type="InternalIP", address="fd00::99"),
        NodeAddress(type="Hostname", address="172.30.0.99"),
    ]
    behind = replace(behind, status=NodeStatus(addresses=addresses))
    assert seen_by_n1(node(1), behind).tunnels == {
        ip_address(a) for a in ("203.0.113.2", "172.30.0.12", "fd00:172:30::12")
    }
    plain = replace(node(2), status=NodeStatus(addresses=addresses[1:2]))
    assert seen_by_n1(node(1), plain).tunnels == {ip_address("172.30.0.12"), ip_address("fd00:172:30::12")}


ON_LINK = replace(UNDERLAY, on_link=frozenset({ip_address("172.30.0.12"), ip_address("172.30.0.13")}))
DIRECT = replace(DUAL, direct_routing=True)


def test_pods_come_by_the_wire_only_from_peers_that_may_send_them_there() -> None:
    me, two, three = telling(node(1), REFUSED), telling(node(2), REFUSED), telling(node(3), ACCEPTED)
    four = node(4)  # whoever runs there does not know what we refuse
    assert seen_by_n1(me, two, three).direct == frozenset()
    assert seen_by_n1(me, four).direct == {ip_network("10.42.4.0/24"), ip_network("fd00:10:42:4::/64")}
    assert seen_by_n1(me, two, four, underlay=ON_LINK, network=DIRECT).direct == {
        ip_network("10.42.2.0/24"),
        ip_network("10.42.4.0/24"),
        ip_network("fd00:10:42:4::/64"),
    }
    for said in (node(1), telling(node(1), ACCEPTED)):  # peers do not know yet that we refuse
        assert seen_by_n1(said, two).direct == {ip_network("10.42.2.0/24"), ip_network("fd00:10:42:2::/64")}


def test_a_peer_that_refuses_is_sent_to_through_the_tunnel() -> None:
    nodes = node(1), telling(node(2), REFUSED), telling(node(3), ACCEPTED)
    routes = node_state(snapshot(*nodes, underlay=ON_LINK, network=DIRECT)).state.routes
    devices = {str(route.dst): route.dev for route in routes}
    assert (devices["10.42.2.0/24"], devices["10.42.3.0/24"]) == ("flannel.1", "eth0")


def test_what_a_node_says_is_what_it_does() -> None:
    assert by_wire(DUAL) == REFUSED
    for network in (DIRECT, replace(DUAL, backend="host-gw"), replace(DUAL, masquerade=False)):
        assert by_wire(network) == ACCEPTED
