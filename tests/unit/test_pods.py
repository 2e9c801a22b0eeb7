from ipaddress import ip_address, ip_interface, ip_network

from attachments import attachment
from towpath.desired.names import HOST_LL, HOST_MAC, ifb_name
from towpath.desired.pods import born, pod_wiring, standing
from towpath.model.attachment import Bandwidth
from towpath.model.net import Address, Ifb, Link, Neighbour, Redirect, Route, Shaper, Veth
from towpath.model.op import AddLink, SetLink
from towpath.model.state import NetState, Scope
from towpath.reconcile.diff import diff

DUAL = attachment("a", "10.42.0.5", "fd00:10:42::5")
DEV = DUAL.host_ifname


def test_host_side() -> None:
    host = pod_wiring(DUAL).host
    veth = Veth(peer="eth0", peer_mac=DUAL.mac, peer_mtu=1430)
    assert host.links == {DEV: Link(name=DEV, kind=veth, mtu=1430, mac=HOST_MAC)}
    assert host.routes == {
        Route(dst=ip_network("10.42.0.5/32"), dev=DEV, scope="link"),
        Route(dst=ip_network("fd00:10:42::5/128"), dev=DEV),
    }
    assert host.addresses == {Address(dev=DEV, interface=ip_interface(f"{HOST_LL}/64"), scope="link")}
    assert host.neighbours == {Neighbour(dev=DEV, addr=a, mac=DUAL.mac) for a in DUAL.addresses}
    assert host.sysctls == {
        f"net/ipv4/conf/{DEV}/route_localnet": "1",
        f"net/ipv4/conf/{DEV}/proxy_arp": "1",
        f"net/ipv4/conf/{DEV}/forwarding": "1",
        f"net/ipv4/neigh/{DEV}/proxy_delay": "0",
        f"net/ipv6/conf/{DEV}/accept_ra": "0",
        f"net/ipv6/conf/{DEV}/disable_ipv6": "0",
        f"net/ipv6/conf/{DEV}/proxy_ndp": "1",
        f"net/ipv6/conf/{DEV}/forwarding": "1",
    }


def test_pod_side() -> None:
    inside = pod_wiring(DUAL).inside
    gateway = ip_address("169.254.1.1")
    assert inside.addresses == {
        Address(dev="eth0", interface=ip_interface("10.42.0.5/32")),
        Address(dev="eth0", interface=ip_interface("fd00:10:42::5/128")),
    }
    assert inside.routes == {
        Route(dst=ip_network("169.254.1.1/32"), dev="eth0", scope="link"),
        Route(dst=ip_network("0.0.0.0/0"), dev="eth0", via=gateway),
        Route(dst=ip_network("::/0"), dev="eth0", via=HOST_LL),
    }
    assert inside.neighbours == {Neighbour(dev="eth0", addr=a, mac=HOST_MAC) for a in (gateway, HOST_LL)}
    assert inside.links["lo"].up
    assert inside.links["eth0"] == Link(name="eth0", mtu=1430, mac=DUAL.mac)
    assert inside.sysctls["net/ipv6/conf/eth0/accept_ra"] == "0"
    assert inside.sysctls["net/ipv6/conf/all/disable_ipv6"] == "0"


def test_a_single_family_leaves_the_other_alone_but_for_router_advertisements() -> None:
    four = pod_wiring(attachment("a", "10.42.0.5"))
    assert not four.host.addresses
    assert [p for p in four.host.sysctls if "ipv6" in p] == [f"net/ipv6/conf/{DEV}/accept_ra"]
    assert not four.inside.sysctls
    six = pod_wiring(attachment("a", "fd00::5"))
    assert not [p for p in six.host.sysctls if "ipv4" in p]
    assert {r.dst.version for r in six.inside.routes | six.host.routes} == {6}


def test_further_routes_lead_through_the_gateway_of_their_family() -> None:
    att = attachment("a", "10.42.0.5", routes=(ip_network("10.99.0.0/16"), ip_network("fd99::/64")))
    via = {r.dst: r.via for r in pod_wiring(att).inside.routes}
    assert via[ip_network("10.99.0.0/16")] == ip_address("169.254.1.1")
    assert ip_network("fd99::/64") not in via


def test_birth_in_one_batch_from_nothing() -> None:
    ops = diff(NetState(), pod_wiring(DUAL).host, Scope())
    assert isinstance(ops[0], AddLink)
    assert len(ops) == 1 + 8 + 1 + 2 + 2
    inside = diff(born(DUAL), pod_wiring(DUAL).inside, Scope())
    assert [op for op in inside if isinstance(op, SetLink)] == [
        SetLink("eth0", up=True),
        SetLink("lo", up=True),
    ]


def test_reconciliation_mends_a_pods_link_but_cannot_make_one() -> None:
    wanted = standing(DUAL)
    assert diff(NetState(), wanted, Scope()) == ()
    seen = NetState(links={DEV: Link(name=DEV, kind=Veth(peer="", peer_mac="", peer_mtu=0), mtu=1500)})
    assert len(diff(seen, wanted, Scope())) == 8 + 1 + 1 + 2 + 2


def test_bandwidth() -> None:
    att = attachment("a", "10.42.0.5", bandwidth=Bandwidth(ingress_rate=10_000_000, egress_rate=20_000_000))
    host = pod_wiring(att).host
    ifb = ifb_name(DEV)
    assert host.links[ifb] == Link(name=ifb, kind=Ifb(), mtu=1430)
    assert host.redirects == {Redirect(dev=DEV, ifb=ifb)}
    assert {s.dev: s.rate for s in host.shapers} == {DEV: 10_000_000, ifb: 20_000_000}
    assert all(isinstance(s, Shaper) and s.burst == 65_536 * 8 for s in host.shapers)
    assert ifb not in pod_wiring(DUAL).host.links
