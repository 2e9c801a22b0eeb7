"""ADD, DEL, CHECK on the real kernel: what is promised, what is refused, what is left."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from attach_node import CIDRS, AttachNode, reaches, run

from towpath.api.core import Pod
from towpath.api.meta import ObjectMeta
from towpath.cni.errors import CniError, ErrorCode
from towpath.desired.names import GATEWAY4, HOST_LL, HOST_MAC, ifb_name
from towpath.kernel.netns import current_netns, run_in
from towpath.model.net import Route

PORTS = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
BANDWIDTH = {"bandwidth": {"ingressRate": 10**7, "egressRate": 10**7}}


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[AttachNode]:
    node = AttachNode(tmp_path)
    yield node
    node.close()


@pytest.fixture
async def node(fresh: AttachNode) -> AsyncIterator[AttachNode]:
    run("ip address replace 172.30.0.11/32 dev lo")
    run("ip address replace fd00:172:30::11/128 dev lo nodad")
    async with fresh.agent():
        yield fresh


def runtime(**capabilities: Any) -> dict[str, Any]:
    return {"config": {"runtimeConfig": capabilities}}


async def refused(call: Any) -> tuple[ErrorCode, str]:
    with pytest.raises(CniError) as caught:
        await call
    return caught.value.code, str(caught.value)


async def test_add_wires_both_families_and_del_leaves_nothing(node: AttachNode) -> None:
    result = await node.add("c1", pod="a", **runtime(**PORTS, **BANDWIDTH))
    host, eth0 = result.interfaces
    assert (host.name, host.mac, host.sandbox) == (node.host("a"), HOST_MAC, "")
    assert (eth0.name, eth0.sandbox, eth0.mtu) == ("eth0", "/run/netns/c1", 1450)
    assert [(str(ip.address), ip.gateway, ip.interface) for ip in result.ips] == [
        ("10.42.1.2/32", GATEWAY4, 1),
        ("fd00:10:42:1::2/128", HOST_LL, 1),
    ]
    assert [(str(r.dst), r.gw) for r in result.routes] == [("0.0.0.0/0", GATEWAY4), ("::/0", HOST_LL)]
    await node.check("c1")
    seen = node.kernel.observe((), "towpath")
    assert Route(dst=ip_network("10.42.1.2/32"), dev=host.name, scope="link") in seen.routes
    assert ifb_name(host.name) in seen.links
    assert node.inside("c1").links["eth0"].mac == eth0.mac
    await node.delete("c1", pod="a")
    assert node.leftovers() == []
    await node.delete("c1", pod="a")
    await node.delete("c1", pod="a", with_netns=False)
    await node.delete("never", pod=None, with_netns=False)
    assert node.leftovers() == []


async def test_packets_pass_between_pod_and_node(node: AttachNode) -> None:
    await node.add("c1")
    for target in ("10.42.1.2", "fd00:10:42:1::2"):
        assert reaches(node.netns("c1"), target)
    await node.delete("c1")


async def test_the_very_first_packet_arrives(node: AttachNode) -> None:
    """Not every first packet was lost before ADD waited for the link's queue; of twenty some were."""
    for n in range(20):
        result = await node.add(f"c{n}")
        assert reaches(node.netns(f"c{n}"), str(result.ips[n % 2].address.ip)), n


async def test_a_node_of_one_family(node: AttachNode) -> None:
    node.settings.pod_cidrs = CIDRS[1:]
    result = await node.add("c1")
    assert [str(ip.address) for ip in result.ips] == ["fd00:10:42:1::2/128"]
    assert [str(r.dst) for r in result.routes] == ["::/0"]
    await node.check("c1")
    await node.delete("c1")
    assert node.leftovers() == []


async def test_the_same_add_twice_is_refused_and_the_first_stays(node: AttachNode) -> None:
    await node.add("c1")
    code, text = await refused(node.add("c1"))
    assert code == ErrorCode.BAD_ENVIRONMENT and "CNI_IFNAME eth0 is taken" in text and "TP2003" in text
    await node.check("c1")


async def test_the_shims_second_attempt_gets_the_same(node: AttachNode) -> None:
    first = await node.add("c1", request_id="r")
    again = await node.add("c1", request_id="r")
    assert again.ips == first.ips and again.interfaces == first.interfaces
    await node.check("c1")
    await node.delete("c1")
    assert node.leftovers() == []


async def test_a_second_interface_would_take_the_firsts_routes(node: AttachNode) -> None:
    await node.add("c1", pod="a")
    code, text = await refused(node.add("c1", pod="a", ifname="net1"))
    assert code == ErrorCode.BAD_ENVIRONMENT and "has eth0 already" in text
    await node.check("c1", pod="a")
    await node.delete("c1", pod="a", ifname="net1")
    await node.check("c1", pod="a")
    await node.delete("c1", pod="a")
    named = await node.add("c1", pod="a", ifname="net1")
    assert named.interfaces[0].name == node.host("a", "net1") != node.host("a")
    await node.check("c1", pod="a", ifname="net1")


async def test_an_interface_of_the_containers_own_is_in_the_way(node: AttachNode) -> None:
    run_in(node.netns("c1"), lambda: run("ip link add eth0 type bridge"))
    code, text = await refused(node.add("c1"))
    assert code == ErrorCode.BAD_ENVIRONMENT and "has an interface eth0 that is not ours" in text
    assert node.leftovers() == ["c1: eth0"]


async def test_the_nodes_own_namespace_is_no_pod(node: AttachNode) -> None:
    node.namespaces["c1"] = current_netns()
    code, _ = await refused(node.add("c1"))
    os.close(node.namespaces.pop("c1"))
    assert code == ErrorCode.BAD_NETNS and node.leftovers() == []


async def test_a_leftover_link_of_a_lost_lease_makes_way(node: AttachNode) -> None:
    run(f"ip link add {node.host('a')} type bridge")
    await node.add("c1", pod="a")
    await node.check("c1", pod="a")
    await node.delete("c1", pod="a")
    assert node.leftovers() == []
    run(f"ip link add {node.host('a')} type bridge")
    await node.delete("c1", pod="a")
    assert node.leftovers() == []


async def test_a_pods_new_container_takes_over(node: AttachNode) -> None:
    await node.add("old", pod="a")
    result = await node.add("new", pod="a")
    assert str(result.ips[0].address.ip) == "10.42.1.3"
    await node.check("new", pod="a")
    assert list(node.inside("old").links) == ["lo"]
    await node.delete("old", pod="a")
    await node.check("new", pod="a")
    await node.delete("new", pod="a")
    assert node.leftovers() == []


async def test_requests_for_addresses_and_mac(node: AttachNode) -> None:
    result = await node.add("c1", args="IP=10.42.1.77;MAC=02-AA-bb-00-00-01")
    assert str(result.ips[0].address) == "10.42.1.77/32" and result.interfaces[1].mac == "02:aa:bb:00:00:01"
    await node.check("c1")
    result = await node.add("c2", **runtime(ips=["10.42.1.78/24", "fd00:10:42:1::78"]))
    assert [str(ip.address) for ip in result.ips] == ["10.42.1.78/32", "fd00:10:42:1::78/128"]
    code, text = await refused(node.add("c3", args="IP=10.42.1.77"))
    assert code == ErrorCode.TRY_LATER and "10.42.1.77 is not available: container c1 (eth0) has it" in text
    code, text = await refused(node.add("c3", args="IP=192.0.2.1"))
    assert code == ErrorCode.BAD_CONFIG and "outside the configured ranges (10.42.1.0/24" in text
    for reserved in ("10.42.1.0", "10.42.1.1", "10.42.1.255"):
        code, _ = await refused(node.add("c3", args=f"IP={reserved}"))
        assert code == ErrorCode.BAD_CONFIG
    assert node.store.get("c3", "eth0") is None


async def test_ranges_of_the_runtime_and_of_the_configuration(node: AttachNode) -> None:
    ranges = [[{"subnet": "10.9.0.0/24", "rangeStart": "10.9.0.50", "rangeEnd": "10.9.0.51"}]]
    ipam = {"type": "towpath", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24"}]}
    node.settings.pod_cidrs = ()
    result = await node.add("c1", pod=None, config={"ipam": ipam, "mtu": 1400})
    assert [str(ip.address) for ip in result.ips] == ["10.9.0.50/32"] and result.interfaces[1].mtu == 1400
    assert [str(r.dst) for r in result.routes] == ["0.0.0.0/0", "192.0.2.0/24"]
    await node.check("c1", pod=None)
    asked = {"ipRanges": [[{"subnet": "10.8.0.0/24"}], [{"subnet": "fd00:8::/64"}]]}
    result = await node.add("c2", pod=None, config={"ipam": ipam, "runtimeConfig": asked})
    assert [str(ip.address) for ip in result.ips] == ["10.8.0.2/32", "fd00:8::2/128"]
    for container in ("c1", "c2"):
        await node.delete(container, pod=None)
    assert node.leftovers() == []


@pytest.mark.parametrize(
    ("config", "code", "words"),
    [
        ({"ipam": {"type": "host-local"}}, ErrorCode.UNSUPPORTED_FIELD, 'ipam.type "host-local"'),
        ({"ipam": {"ranges": [[{"subnet": "10.0.0.0/31"}]]}}, ErrorCode.BAD_CONFIG, "too small"),
        (
            {"ipam": {"ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "10.1.0.0/24"}]]}},
            ErrorCode.BAD_CONFIG,
            "one address a family",
        ),
        (
            {"ipam": {"routes": [{"dst": "10.0.0.0/8", "gw": "10.0.0.1"}]}},
            ErrorCode.UNSUPPORTED_FIELD,
            'gw "10.0.0.1"',
        ),
    ],
)
async def test_configurations_that_cannot_be_met(
    node: AttachNode, config: dict[str, Any], code: ErrorCode, words: str
) -> None:
    got, text = await refused(node.add("c1", config=config))
    assert got == code and words in text
    assert node.leftovers() == []


async def test_an_exhausted_range_says_so(node: AttachNode) -> None:
    ipam = {"ipam": {"ranges": [[{"subnet": "10.7.0.0/29"}]]}}
    for n in range(5):
        await node.add(f"c{n}", config=ipam)
    code, text = await refused(node.add("more", config=ipam))
    assert code == ErrorCode.TRY_LATER
    assert "no free address in 10.7.0.0/29: 5 of 5 are leased" in text and "TP4001" in text
    await node.delete("c2")
    result = await node.add("more", config=ipam)
    assert str(result.ips[0].address.ip) == "10.7.0.4"


async def test_an_address_in_use_without_a_lease_is_passed_over(node: AttachNode) -> None:
    run("ip route add 10.42.1.2/32 dev lo")
    run("ip address add fd00:10:42:1::2/128 dev lo nodad")
    try:
        result = await node.add("c1")
        assert [str(ip.address.ip) for ip in result.ips] == ["10.42.1.3", "fd00:10:42:1::3"]
        found = {(f.code, f.object) for f in node.handler.findings()}
        assert found == {("TP4002", "address 10.42.1.2"), ("TP4002", "address fd00:10:42:1::2")}
        code, text = await refused(node.add("c2", args="IP=10.42.1.2"))
        assert code == ErrorCode.TRY_LATER and "a route of this node leads to it" in text
    finally:
        run("ip route delete 10.42.1.2/32 dev lo")
        run("ip address delete fd00:10:42:1::2/128 dev lo")
    await node.add("c2", args="IP=10.42.1.2")
    assert {f.object for f in node.handler.findings()} == {"address fd00:10:42:1::2"}


async def test_a_host_port_has_one_owner(node: AttachNode) -> None:
    await node.add("c1", pod="web", **runtime(**PORTS))
    code, text = await refused(node.add("c2", pod="other", **runtime(**PORTS)))
    assert code == ErrorCode.TRY_LATER and "host port tcp 8080 is taken" in text and "default/web" in text
    await node.check("c1", pod="web")
    await node.delete("c1", pod="web")
    await node.add("c2", pod="other", **runtime(**PORTS))
    await node.check("c2", pod="other")


async def test_who_the_pod_is(node: AttachNode) -> None:
    node.pods.known["default", "gone"] = None
    code, text = await refused(node.add("c1", pod="gone"))
    assert code == ErrorCode.TRY_LATER and "default/gone is unknown" in text
    node.pods.known["default", "a"] = Pod(metadata=ObjectMeta(uid="u2"))
    code, text = await refused(node.add("c1", pod="a", args="K8S_POD_UID=u1"))
    assert code == ErrorCode.TRY_LATER and "the runtime says UID u1, the API server u2" in text
    mirror = {"kubernetes.io/config.hash": "u1"}
    node.pods.known["default", "a"] = Pod(metadata=ObjectMeta(uid="u2", annotations=mirror))
    await node.add("c1", pod="a", args="K8S_POD_UID=u1")
    known = node.store.get("c1", "eth0")
    assert known is not None and known.pod is not None and known.pod.uid == "u2"
    node.pods.down = "connection refused"
    code, text = await refused(node.add("c2", pod="b"))
    assert code == ErrorCode.TRY_LATER and "does not answer: connection refused" in text
    code, _ = await refused(node.add("c2", pod=None, args="K8S_POD_NAMESPACE=default"))
    assert code == ErrorCode.BAD_ENVIRONMENT
    await node.add("c3", pod=None)  # podman: no namespace, nobody to ask
    await node.delete("c1", pod="a")
    await node.delete("c3", pod=None)
    assert node.leftovers() == []


async def test_a_link_in_a_chain_passes_on_and_adds(node: AttachNode) -> None:
    before = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": "/run/netns/c1"}],
        "ips": [{"address": "127.0.0.1/8", "interface": 0}],
        "dns": {"nameservers": ["10.43.0.10"]},
    }
    result = await node.add("c1", config={"cniVersion": "1.0.0", "prevResult": before})
    assert [i.name for i in result.interfaces] == ["lo", node.host("c1"), "eth0"]
    assert [(str(ip.address), ip.interface) for ip in result.ips][:2] == [
        ("127.0.0.1/8", 0),
        ("10.42.1.2/32", 2),
    ]
    assert result.dns.nameservers == ("10.43.0.10",)
    after = {**before, "interfaces": [{"name": "eth0", "sandbox": "/run/netns/c2"}]}
    code, text = await refused(node.add("c2", config={"prevResult": after}))
    assert code == ErrorCode.BAD_CONFIG and "has made eth0 already" in text
    own_dns = {"prevResult": before, "runtimeConfig": {"dns": {"servers": ["192.0.2.53"]}}}
    assert (await node.add("c3", config=own_dns)).dns.nameservers == ("192.0.2.53",)


async def test_connections_of_the_address_are_forgotten(node: AttachNode) -> None:
    await node.add("c1")
    assert reaches(node.netns("c1"), "10.42.1.2")
    assert "dst=10.42.1.2 " in run("conntrack -L")
    await node.delete("c1")
    assert "=10.42.1.2 " not in run("conntrack -L")


async def test_a_hundred_at_once(node: AttachNode) -> None:
    names = [f"c{n}" for n in range(100)]
    for name in names:
        node.netns(name)
    results = await asyncio.gather(*(node.add(name) for name in names))
    assert len({str(ip.address) for r in results for ip in r.ips}) == 200
    await node.check("c50")
    await asyncio.gather(*(node.delete(name) for name in names))
    assert node.leftovers() == []


async def test_check_names_every_difference(node: AttachNode) -> None:
    await node.add("c1", pod="a", **runtime(**PORTS, **BANDWIDTH))
    host = node.host("a")
    commands = [
        f"ip route delete 10.42.1.2/32 dev {host}",
        f"ip neighbour delete 10.42.1.2 dev {host}",
        f"tc qdisc delete dev {host} root",
        f"sysctl -q -w net.ipv4.conf.{host}.proxy_arp=0",
        f"nft delete element inet towpath pod_src4 {{ {host} . 10.42.1.2 }}",
        "nft delete element inet towpath hostport4 { tcp . 8080 }",
    ]
    for command in commands:
        run(command)
    run_in(node.netns("c1"), lambda: run("ip -6 route delete default"))
    code, text = await refused(node.check("c1", pod="a"))
    assert code == ErrorCode.CHECK_FAILED
    for words in (
        f"route 10.42.1.2/32 dev {host} is missing",
        "neighbour 10.42.1.2 lladdr",
        f"tbf dev {host}",
        "proxy_arp is 0, promised 1",
        f"element {host} . 10.42.1.2 of set pod_src4 is missing",
        "element tcp . 8080 of map hostport4 is missing",
        "in the pod: route ::/0 via fe80::ecee:eeff:feee:eeee dev eth0",
    ):
        assert words in text
    assert text.count(";") == 6
    code, _ = await refused(node.check("unknown"))
    assert code == ErrorCode.UNKNOWN_CONTAINER


async def test_check_compares_what_the_runtime_remembers(node: AttachNode) -> None:
    result = await node.add("c1")
    remembered = {"cniVersion": "1.1.0", "interfaces": [], "ips": [{"address": str(result.ips[1].address)}]}
    code, text = await refused(node.check("c1", config={"prevResult": remembered}))
    assert code == ErrorCode.CHECK_FAILED
    assert "prevResult has no interface eth0" in text and "lacks the leased address 10.42.1.2" in text
    await node.check("c1", config={"prevResult": remembered, "disableCheck": True})


async def test_del_of_a_pod_whose_parts_somebody_else_removed(node: AttachNode) -> None:
    await node.add("c1", pod="a", **runtime(**PORTS, **BANDWIDTH))
    await node.add("c2", pod="b")
    run(f"ip link delete {node.host('a')}")
    run("nft delete table inet towpath")
    await node.delete("c1", pod="a", with_netns=False)
    await node.delete("c2", pod="b")
    assert node.leftovers() == []
    code, _ = await refused(node.add("c3"))  # no firewall, no pod: it would be without policy
    assert code == ErrorCode.INTERNAL and node.leftovers() == []
    node.setup_table()
    await node.add("c3")


async def test_addresses_rest_before_they_are_given_out_again(node: AttachNode) -> None:
    ipam = {"ipam": {"ranges": [[{"subnet": "10.7.0.0/29"}]]}}
    for n in range(4):
        await node.add(f"c{n}", config=ipam)
    await node.delete("c0")
    assert str((await node.add("d", config=ipam)).ips[0].address.ip) == "10.7.0.6"
    assert str((await node.add("e", config=ipam)).ips[0].address.ip) == "10.7.0.2"
    assert ip_address("10.7.0.2") in node.store.leased()


async def test_a_client_that_kept_sending_reaches_the_pod_that_came(node: AttachNode) -> None:
    """Its conntrack entry is as old as its first datagram, and nothing translated that one."""
    mapping = {"hostPort": 5300, "containerPort": 53, "protocol": "udp"}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"early", ("127.0.0.1", 5300))
        assert "dport=5300 " in run("conntrack -L -p udp")
        await node.add("c1", **runtime(portMappings=[mapping]))
        assert "dport=5300 " not in run("conntrack -L -p udp")
