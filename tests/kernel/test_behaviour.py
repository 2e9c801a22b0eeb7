"""What ``port.Kernel`` promises, asked of the fake and of the running kernel alike."""

from collections.abc import Iterator
from errno import EEXIST, EHOSTUNREACH, EINVAL, ENETDOWN, ENETUNREACH, ENODEV
from ipaddress import ip_address

import pytest
from kernel_objects import (
    BRIDGE,
    HOST_MAC,
    POD_MAC,
    UPLINK,
    VETH,
    VXLAN,
    Item,
    add,
    addr,
    neighbour,
    refused,
    route,
)
from kernels import BOTH, Pair
from msgspec.structs import replace

from towpath.model.net import Fdb, Ifb, Link, Redirect, Shaper, Veth, Vxlan
from towpath.model.op import Add, AddLink, Delete, DelLink, FlushConntrack, Op, SetLink

pytestmark = pytest.mark.kernel


@pytest.fixture(params=BOTH)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    with request.param() as made:
        yield made


def test_a_pod_is_wired_and_told_again(pair: Pair) -> None:
    pair.node.apply([AddLink(VETH)], pair.netns)
    host_side = frozenset({route("10.42.0.5/32", "cali1", scope="link"), route("fd00::5/128", "cali1")})
    neighbours = frozenset({neighbour("cali1", "10.42.0.5"), neighbour("cali1", "fd00::5")})
    pair.node.apply(
        [
            Add(addr("cali1", "fe80::ecee:eeff:feee:eeee/64", "link")),
            *add(host_side),
            *add(neighbours),
        ]
    )
    state = pair.node.observe()
    assert state.links["cali1"] == VETH
    assert state.addresses == {addr("cali1", "fe80::ecee:eeff:feee:eeee/64", "link")}
    assert state.routes == host_side
    assert state.neighbours == neighbours

    pod_end = pair.pod.observe().links["eth0"]
    assert (pod_end.mac, pod_end.mtu, pod_end.up) == (POD_MAC, 1400, False)
    inside: list[Op] = [
        SetLink("lo", up=True),
        SetLink("eth0", up=True),
        Add(addr("eth0", "10.42.0.5/32")),
        Add(addr("eth0", "fd00::5/128")),
        Add(route("169.254.1.1/32", "eth0", scope="link")),
        Add(route("0.0.0.0/0", "eth0", "169.254.1.1")),
        Add(route("::/0", "eth0", "fe80::ecee:eeff:feee:eeee")),
        Add(neighbour("eth0", "169.254.1.1", HOST_MAC)),
        Add(neighbour("eth0", "fe80::ecee:eeff:feee:eeee", HOST_MAC)),
    ]
    pair.pod.apply(inside)
    pod = pair.pod.observe()
    assert {op.item for op in inside if isinstance(op, Add)} == {
        *(a for a in pod.addresses if a.dev == "eth0" and a.scope == "global"),
        *pod.routes,
        *pod.neighbours,
    }
    assert addr("lo", "127.0.0.1/8", "host") in pod.addresses
    pair.pod.apply(inside)
    assert pair.pod.observe() == pod, "once more changes nothing"


def test_removing_a_veth_removes_all_of_it(pair: Pair) -> None:
    pair.node.apply(
        [
            AddLink(VETH),
            Add(route("10.42.0.5/32", "cali1", scope="link")),
            Add(neighbour("cali1", "10.42.0.5")),
        ],
        pair.netns,
    )
    pair.node.apply([DelLink("cali1"), DelLink("cali1")])
    state = pair.node.observe()
    assert set(state.links) == {"lo"}
    assert not state.routes
    assert not state.neighbours
    assert set(pair.pod.observe().links) == {"lo"}


def test_deleting_what_is_gone_succeeds(pair: Pair) -> None:
    pair.node.apply([AddLink(UPLINK), AddLink(VXLAN)])
    items: list[Item] = [
        addr("up0", "192.0.2.1/24"),
        addr("up0", "fd00::1/64"),
        route("10.0.0.0/8", "up0", scope="link"),
        neighbour("up0", "192.0.2.2"),
        Fdb(dev="flannel.1", mac=POD_MAC, dst=ip_address("192.0.2.2")),
        Shaper(dev="up0", rate=8_000_000, burst=80_000),
        Redirect(dev="up0", ifb="up1"),
    ]
    pair.node.apply([Delete(item) for item in items])
    pair.node.apply([Delete(route("10.0.0.0/8", "absent")), Delete(addr("absent", "192.0.2.1/24"))])
    pair.node.apply([FlushConntrack(ip_address("192.0.2.1"))])


@pytest.mark.parametrize(
    "op",
    [
        Add(addr("absent", "192.0.2.1/24")),
        Add(route("10.0.0.0/8", "absent")),
        Add(neighbour("absent", "192.0.2.1")),
        Add(Fdb(dev="absent", mac=POD_MAC, dst=ip_address("192.0.2.2"))),
        Add(Shaper(dev="absent", rate=8_000_000, burst=80_000)),
        Add(Redirect(dev="lo", ifb="absent")),
        SetLink("absent", up=True),
        AddLink(VXLAN),
        AddLink(Link(name="v0", kind=UPLINK.kind, master="absent")),
    ],
    ids=lambda op: op.describe(),
)
def test_an_absent_device_is_enodev(pair: Pair, op: Op) -> None:
    error = refused(pair, op)
    assert error.errno == ENODEV
    assert error.op == op.describe()
    assert "not there" in error.hint


def test_names_are_taken_once(pair: Pair) -> None:
    pair.node.apply([AddLink(VETH)], pair.netns)
    assert refused(pair, AddLink(VETH), pod=True).errno == EEXIST
    other = Link(name="cali2", kind=Veth(peer="eth0", peer_mac=POD_MAC, peer_mtu=1450))
    assert refused(pair, AddLink(other), pod=True).errno == EEXIST, "the pod has an eth0 already"
    assert "cali2" not in pair.node.observe().links
    pair.node.apply([AddLink(BRIDGE), AddLink(BRIDGE)])
    assert refused(pair, AddLink(Link(name="br0", kind=Ifb()))).errno == EEXIST


def test_an_equal_device_is_adopted_and_set_up(pair: Pair) -> None:
    pair.node.apply([AddLink(UPLINK), AddLink(VXLAN), SetLink("flannel.1", up=False), AddLink(VXLAN)])
    assert pair.node.observe().links["flannel.1"] == VXLAN


def test_what_came_before_a_failure_stays(pair: Pair) -> None:
    pair.node.apply([AddLink(UPLINK)])
    good = Add(addr("up0", "192.0.2.1/24"))
    error = refused(pair, good, Add(addr("absent", "192.0.2.2/24")))
    assert error.op == "add address 192.0.2.2/24 dev absent"
    assert good.item in pair.node.observe().addresses


@pytest.mark.parametrize("local", ["192.0.2.1", "2001:db8::1"])
def test_an_overlay_is_told_again(pair: Pair, local: str) -> None:
    v6 = ":" in local
    peer, via = ("2001:db8::2", "fd00:1::") if v6 else ("192.0.2.2", "10.42.1.0")
    cidr = "fd00:1::/64" if v6 else "10.42.1.0/24"
    kind = Vxlan(vni=1, port=8472, local=ip_address(local), underlay="up0", learning=True, gbp=True)
    link = Link(name="flannel.1", kind=kind, mtu=1400, mac="02:00:00:00:02:01")
    items: list[Item] = [
        addr("flannel.1", "fd00::/128" if v6 else "10.42.0.0/32"),
        neighbour("flannel.1", via, "02:00:00:00:02:02"),
        Fdb(dev="flannel.1", mac="02:00:00:00:02:02", dst=ip_address(peer)),
        route(cidr, "flannel.1", via, onlink=True),
    ]
    pair.node.apply([AddLink(UPLINK), AddLink(link), *add(items)])
    state = pair.node.observe()
    assert state.links["flannel.1"] == link
    assert {*state.addresses, *state.neighbours, *state.fdb, *state.routes} == set(items)
    moved = Fdb(
        dev="flannel.1", mac="02:00:00:00:02:02", dst=ip_address("2001:db8::3" if v6 else "192.0.2.3")
    )
    pair.node.apply([Add(moved)])
    assert pair.node.observe().fdb == {moved}, "the same MAC with another endpoint takes its place"
    pair.node.apply([Delete(item) for item in (*items[:2], moved, items[3])])
    state = pair.node.observe()
    assert not (state.addresses or state.neighbours or state.fdb or state.routes)


def test_link_down_keeps_only_what_the_kernel_keeps(pair: Pair) -> None:
    fdb = Fdb(dev="flannel.1", mac=POD_MAC, dst=ip_address("192.0.2.2"))
    v4, v6 = addr("flannel.1", "10.42.0.0/32"), addr("flannel.1", "fd00::/128")
    pair.node.apply([AddLink(UPLINK), AddLink(VXLAN), Add(v4), Add(v6), Add(fdb)])
    pair.node.apply(
        [
            Add(neighbour("flannel.1", "10.42.1.0")),
            Add(neighbour("flannel.1", "fd00:1::")),
            Add(route("10.42.1.0/24", "flannel.1", "10.42.1.0", onlink=True)),
            Add(route("fd00:1::/64", "flannel.1", "fd00:1::", onlink=True)),
        ]
    )
    pair.node.apply([SetLink("flannel.1", up=False)])
    state = pair.node.observe()
    assert state.addresses == {v4}
    assert state.fdb == {fdb}
    assert not (state.routes or state.neighbours)
    pair.node.apply([SetLink("flannel.1", up=True)])
    again = pair.node.observe()
    assert again.links["flannel.1"] == VXLAN
    assert again == replace(state, links=again.links), "up restores nothing"


def test_a_tunnel_depends_on_its_underlay(pair: Pair) -> None:
    wide = Link(
        name="flannel-v6.1", kind=Vxlan(vni=1, port=8472, local=ip_address("2001:db8::1"), underlay="up0")
    )
    pair.node.apply([AddLink(UPLINK), AddLink(VXLAN), AddLink(wide)])
    assert pair.node.observe().links["flannel-v6.1"].mtu == 1430
    error = refused(pair, SetLink("flannel-v6.1", mtu=1450))
    assert error.errno == EINVAL
    assert "70 for IPv6" in error.hint
    twin = Link(name="flannel.2", kind=VXLAN.kind)
    assert refused(pair, AddLink(twin)).errno == EEXIST
    pair.node.apply([DelLink("up0")])
    assert set(pair.node.observe().links) == {"lo"}


def test_routes_are_checked_as_the_kernel_checks_them(pair: Pair) -> None:
    pair.node.apply([AddLink(UPLINK)])
    assert refused(pair, Add(route("10.9.0.0/16", "up0", "198.51.100.1"))).errno == ENETUNREACH
    assert "onlink" in refused(pair, Add(route("10.9.0.0/16", "up0", "198.51.100.1"))).hint
    assert refused(pair, Add(route("fd09::/64", "up0", "2001:db8::9"))).errno == EHOSTUNREACH
    assert refused(pair, Add(route("10.9.0.0/16", "up0", src=ip_address("192.0.2.1")))).errno == EINVAL
    pair.node.apply([SetLink("up0", up=False)])
    assert refused(pair, Add(route("10.9.0.0/16", "up0"))).errno == ENETDOWN
    assert refused(pair, Add(route("fd09::/64", "up0"))).errno == ENETDOWN
    assert not pair.node.observe().routes


def test_every_property_of_a_route_is_told_again(pair: Pair) -> None:
    pair.node.apply([AddLink(UPLINK), Add(addr("up0", "192.0.2.1/24")), Add(addr("up0", "2001:db8::1/64"))])
    routes = {
        route("10.1.0.0/16", "up0", "192.0.2.7"),
        route("10.2.0.0/16", "up0", "198.51.100.7", onlink=True, mtu=1400),
        route("10.3.0.0/16", "up0", scope="link", src=ip_address("192.0.2.1")),
        route("10.4.0.0/16", "up0", table=1000),
        route("10.5.0.0/16", "up0", table=100),
        route("0.0.0.0/0", "up0", "192.0.2.254"),
        route("fd01::/64", "up0", "2001:db8::7", mtu=1300),
        route("fd02::/64", "up0", "2001:db9::7", onlink=True),
        route("fd03::/64", "up0", src=ip_address("2001:db8::1")),
        route("fd04::/64", "up0", table=1000),
        route("::/0", "up0", "2001:db8::fe"),
    }
    pair.node.apply(add(routes))
    assert pair.node.observe().routes == routes
    moved = route("10.1.0.0/16", "up0", "192.0.2.8")
    pair.node.apply([Add(moved)])
    assert moved in pair.node.observe().routes
    assert route("10.1.0.0/16", "up0", "192.0.2.7") not in pair.node.observe().routes
    pair.node.apply([Delete(r) for r in (*routes, moved)])
    assert not pair.node.observe().routes


def test_addresses_take_their_dependents_with_them(pair: Pair) -> None:
    first, second = addr("up0", "192.0.2.1/24"), addr("up0", "192.0.2.2/24")
    other, v6 = addr("up0", "198.51.100.1/24"), addr("up0", "2001:db8::1/64")
    pair.node.apply([AddLink(UPLINK), Add(first), Add(second), Add(other), Add(v6)])
    pair.node.apply(
        [
            Add(route("10.1.0.0/16", "up0", src=ip_address("192.0.2.1"))),
            Add(route("fd01::/64", "up0", src=ip_address("2001:db8::1"))),
            Add(route("10.2.0.0/16", "up0", "198.51.100.2")),
            Add(neighbour("up0", "198.51.100.2")),
        ]
    )
    assert refused(pair, Add(addr("up0", "192.0.2.3/24", "link"))).errno == EINVAL
    pair.node.apply([Delete(first), Delete(v6)])
    state = pair.node.observe()
    assert state.addresses == {other}, "with a primary go its secondaries"
    assert state.routes == {route("10.2.0.0/16", "up0", "198.51.100.2"), route("fd01::/64", "up0")}
    pair.node.apply([Delete(other)])
    state = pair.node.observe()
    assert state.routes == {route("fd01::/64", "up0")}, "without any address IPv4 is off"
    assert not state.neighbours


def test_a_bridge_and_its_ports(pair: Pair) -> None:
    port = Link(
        name="n1",
        kind=Veth(peer="eth0", peer_mac=POD_MAC, peer_mtu=1500),
        mac=HOST_MAC,
        mtu=1500,
        master="br0",
    )
    pair.node.apply([AddLink(BRIDGE), AddLink(port)], pair.netns)
    links = pair.node.observe().links
    assert links["br0"] == BRIDGE
    assert links["n1"] == port
    pair.node.apply([DelLink("br0")])
    assert pair.node.observe().links["n1"].master is None


def test_a_link_is_changed_in_place(pair: Pair) -> None:
    pair.node.apply([AddLink(UPLINK), SetLink("up0", mtu=1400, mac="02:00:00:00:09:09", up=False)])
    link = pair.node.observe().links["up0"]
    assert (link.mtu, link.mac, link.up) == (1400, "02:00:00:00:09:09", False)
    assert refused(pair, SetLink("up0", mtu=10)).errno == EINVAL
    down = Link(name="ifb7", kind=Ifb(), up=False)
    pair.node.apply([AddLink(down)])
    assert not pair.node.observe().links["ifb7"].up


def test_a_new_mac_costs_the_neighbours(pair: Pair) -> None:
    kept = neighbour("up1", "192.0.2.1")
    pair.node.apply([AddLink(UPLINK), Add(neighbour("up0", "192.0.2.2")), Add(kept)])
    pair.node.apply([SetLink("up0", mac="02:00:00:00:09:09")])
    assert pair.node.observe().neighbours == {kept}


@pytest.mark.parametrize(
    "item",
    [
        route("fd09::/64", "up0", scope="link"),
        route("10.9.0.0/16", "up0", "fd00::1"),
        route("10.9.0.0/16", "up0", onlink=True),
        addr("up0", "2001:db8::1/64", "link"),
        addr("up0", "fe80::1/64"),
        neighbour("up0", "192.0.2.2", "02:00:00:00:00:0A"),
        Fdb(dev="up0", mac="02:00:00", dst=ip_address("192.0.2.2")),
        Shaper(dev="up0", rate=1_000_001, burst=80_000),
        Shaper(dev="up0", rate=8_000_000, burst=0),
        Shaper(dev="up0", rate=10**15, burst=80_000),
    ],
    ids=str,
)
def test_what_would_not_be_told_again_is_refused(pair: Pair, item: Item) -> None:
    pair.node.apply([AddLink(UPLINK)])
    assert refused(pair, Add(item)).errno == EINVAL


def test_foreign_kinds_are_not_ours_to_make(pair: Pair) -> None:
    assert refused(pair, AddLink(Link(name="dummy0"))).errno == EINVAL
