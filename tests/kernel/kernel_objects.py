"""Devices and other objects the behaviour suite is about, and short words for them."""

from collections.abc import Iterable
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from kernels import Pair

from towpath.kernel.port import KernelRefused
from towpath.model.net import (
    Address,
    Bridge,
    Fdb,
    Link,
    Neighbour,
    Redirect,
    Route,
    Shaper,
    Veth,
    Vxlan,
)
from towpath.model.op import Add, Op

Item = Address | Route | Neighbour | Fdb | Shaper | Redirect
POD_MAC, HOST_MAC = "02:00:00:00:00:09", "ee:ee:ee:ee:ee:ee"
VETH = Link(name="cali1", kind=Veth(peer="eth0", peer_mac=POD_MAC, peer_mtu=1400), mtu=1450, mac=HOST_MAC)
UPLINK = Link(
    name="up0", kind=Veth(peer="up1", peer_mac="02:00:00:00:01:02", peer_mtu=1500), mac="02:00:00:00:01:01"
)
VXLAN = Link(
    name="flannel.1",
    kind=Vxlan(vni=1, port=8472, local=ip_address("192.0.2.1"), underlay="up0"),
    mtu=1450,
    mac="02:00:00:00:02:01",
)
BRIDGE = Link(name="br0", kind=Bridge(), mtu=1500, mac="02:00:00:00:03:01")


def add(items: Iterable[Item]) -> list[Op]:
    return [Add(item) for item in items]


def addr(dev: str, text: str, scope: str = "global") -> Address:
    return Address(dev=dev, interface=ip_interface(text), scope=scope)  # type: ignore[arg-type]


def route(dst: str, dev: str, via: str | None = None, **more: object) -> Route:
    return Route(dst=ip_network(dst), dev=dev, via=ip_address(via) if via else None, **more)  # type: ignore[arg-type]


def neighbour(dev: str, text: str, mac: str = POD_MAC) -> Neighbour:
    return Neighbour(dev=dev, addr=ip_address(text), mac=mac)


def refused(pair: Pair, *ops: Op, pod: bool = False) -> KernelRefused:
    with pytest.raises(KernelRefused) as caught:
        pair.node.apply(ops, pair.netns if pod else None)
    return caught.value
