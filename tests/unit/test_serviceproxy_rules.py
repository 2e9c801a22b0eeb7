from ipaddress import ip_address, ip_network
from typing import Any

import msgspec
from controller_objects import service

from towpath.lab.controllers.objects_core import EndpointSlice
from towpath.lab.serviceproxy_rules import fragment, proxy_table

NETS = (ip_network("10.42.0.0/16"),)


def endpoints(*ips: str, node: str = "n1", name: str = "") -> EndpointSlice:
    members = [{"addresses": [i], "nodeName": node} for i in ips]
    body: dict[str, Any] = {
        "addressType": "IPv4",
        "endpoints": members,
        "ports": [{"name": name, "port": 8080}],
    }
    return msgspec.convert(body, EndpointSlice)


def rules(chain: str, item: Any, *slices: EndpointSlice, node: str = "n1") -> tuple[str, ...]:
    made = fragment(item, slices, node, NETS)
    return next(c.rules for c in made.chains if c.name.startswith(chain))


def test_one_endpoint_is_an_address_and_more_are_a_map() -> None:
    guard = "ip saddr != @pod_net4 jump mark_masq"
    assert rules("svc-", service(), endpoints("10.42.0.2")) == (
        guard,
        "meta l4proto tcp dnat ip to 10.42.0.2:8080",
    )
    assert rules("svc-", service(), endpoints("10.42.0.9", "10.42.0.2"))[1] == (
        "meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.42.0.2 . 8080, 1 : 10.42.0.9 . 8080 }"
    )
    sticky = service(sessionAffinity="ClientIP")
    assert "jhash ip saddr mod 2 seed" in rules("svc-", sticky, endpoints("10.42.0.9", "10.42.0.2"))[1]


def test_headless_and_foreign_families_add_nothing() -> None:
    assert fragment(service(clusterIP="None"), [endpoints("10.42.0.2")], "n1", NETS).elements == {}
    only6 = service(clusterIPs=["fd00:10:43::5"])
    made = fragment(only6, [endpoints("10.42.0.2")], "n1", NETS)
    assert set(made.elements) == {"cluster_ip6"}
    assert made.chains == ()


def test_ports_are_matched_by_name() -> None:
    named = service(ports=[{"name": "web", "port": 80, "protocol": "TCP"}])
    assert fragment(named, [endpoints("10.42.0.2")], "n1", NETS).chains == ()
    assert fragment(named, [endpoints("10.42.0.2", name="web")], "n1", NETS).chains != ()


def test_a_key_claimed_twice_is_the_first_ones() -> None:
    slices = [endpoints("10.42.0.2")]
    first = fragment(service(), slices, "n1", NETS)
    other = msgspec.structs.replace(
        service(), metadata=msgspec.structs.replace(service().metadata, name="zz")
    )
    second = fragment(other, slices, "n1", NETS)
    table = proxy_table({"default/zz": second, "default/web": first}, NETS)
    key = (ip_address("10.43.0.10"), "tcp", 80)
    assert table.sets["service4"].elements[key] == first.elements["service4"][key]
    assert table.sets["pod_net4"].elements == {(NETS[0],): ()}


def test_without_pod_networks_cluster_addresses_are_never_masqueraded() -> None:
    made = fragment(service(), [endpoints("10.42.0.2")], "n1", ())
    assert [c.rules for c in made.chains] == [("meta l4proto tcp dnat ip to 10.42.0.2:8080",)]
