"""Cluster addresses and node ports of Services."""

from typing import Any

import pytest

from towpath.lab.apiserver import service_addresses
from towpath.lab.apiserver.services import AddressRefused, Allocator

Obj = dict[str, Any]


@pytest.fixture
def dual() -> Allocator:
    return Allocator.of("10.43.0.0/16,fd00:10:43::/112")


def allocate(services: Allocator, spec: Obj, was: Obj | None = None) -> Obj:
    """The addresses a spec ends up with, by the steps of admission."""
    spec = {"type": "ClusterIP", **spec}
    service_addresses._carry_over(spec, was or {})
    service_addresses._addresses(services, spec, was or {})
    return spec


@pytest.mark.parametrize(
    ("spec", "families", "policy"),
    [
        ({}, ["IPv4"], "SingleStack"),
        ({"ipFamilies": ["IPv6"]}, ["IPv6"], "SingleStack"),
        ({"ipFamilyPolicy": "PreferDualStack"}, ["IPv4", "IPv6"], "PreferDualStack"),
        (
            {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]},
            ["IPv6", "IPv4"],
            "RequireDualStack",
        ),
        (
            {"clusterIP": "fd00:10:43::7", "clusterIPs": ["fd00:10:43::7", "10.43.0.7"]},
            ["IPv6", "IPv4"],
            "RequireDualStack",
        ),
        ({"clusterIP": "10.43.0.8"}, ["IPv4"], "SingleStack"),
    ],
)
def test_families(dual: Allocator, spec: Obj, families: list[str], policy: str) -> None:
    got = allocate(dual, spec)
    assert (got["ipFamilies"], got["ipFamilyPolicy"]) == (families, policy)
    assert ["IPv6" if ":" in a else "IPv4" for a in got["clusterIPs"]] == families
    assert got["clusterIP"] == got["clusterIPs"][0]


def test_headless_services_have_families_but_no_address(dual: Allocator) -> None:
    got = allocate(dual, {"clusterIP": "None", "ipFamilyPolicy": "PreferDualStack"})
    assert (got["clusterIPs"], got["ipFamilies"]) == (["None"], ["IPv4", "IPv6"])


def test_a_service_becomes_dual_stack_and_single_again(dual: Allocator) -> None:
    one = allocate(dual, {})
    two = allocate(dual, {"ipFamilyPolicy": "PreferDualStack"}, one)
    assert two["clusterIPs"][0] == one["clusterIP"]
    assert len(two["clusterIPs"]) == 2
    again = allocate(dual, {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"]}, two)
    assert again["clusterIPs"] == one["clusterIPs"]


@pytest.mark.parametrize(
    "spec",
    [
        {"clusterIP": "x"},
        {"clusterIP": "10.44.0.1"},
        {"clusterIP": "10.43.0.0"},
        {"clusterIP": "10.43.0.5"},
        {"ipFamilies": ["IPv7"]},
    ],
)
def test_refused_addresses(dual: Allocator, spec: Obj) -> None:
    dual.used.add("10.43.0.5")
    with pytest.raises(service_addresses._Refused):
        allocate(dual, spec)


def test_single_stack_clusters_refuse_dual_stack() -> None:
    with pytest.raises(service_addresses._Refused, match="dual-stack"):
        allocate(Allocator.of("10.43.0.0/16"), {"ipFamilyPolicy": "RequireDualStack"})


def test_a_range_runs_full() -> None:
    services = Allocator.of("10.43.0.0/28")
    for _ in range(14):
        services.used.add(services.address("IPv4"))
    assert len(services.used) == 14
    with pytest.raises(AddressRefused, match="full"):
        services.address("IPv4")


def test_node_ports_are_kept_given_and_given_back(dual: Allocator) -> None:
    spec: Obj = {"type": "NodePort", "ports": [{"port": 53, "protocol": p} for p in ("UDP", "TCP")]}
    service_addresses._ports(dual, spec, {})
    assert all(30000 <= p["nodePort"] <= 32767 for p in spec["ports"])
    dual.ports |= {(p["protocol"], p["nodePort"]) for p in spec["ports"]}
    other: Obj = {"type": "NodePort", "ports": [{**spec["ports"][0]}]}
    with pytest.raises(service_addresses._Refused, match="already allocated"):
        service_addresses._ports(dual, other, {})
    service_addresses._ports(dual, spec, spec)
    with pytest.raises(service_addresses._Refused, match="30000-32767"):
        service_addresses._ports(
            dual, {"type": "NodePort", "ports": [{"protocol": "TCP", "nodePort": 80}]}, {}
        )
